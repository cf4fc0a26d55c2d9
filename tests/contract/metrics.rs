//! What both servers show, held to `METRICS.md` in both directions: names, types, labels, their values, meanings.
//!
//! The pages are those of real servers, fetched over their ports as Prometheus does it.

use crate::servers::{OPTED_OUT, Servers, context};
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::{
    Artifact, BatchCanTrainRequest, CanTrainRequest, Choice, Party, SetConsentRequest, WriteContext, party,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A metric, as the page of one server has it or as the table describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Metric {
    kind: String,
    meaning: String,
    /// The values of each label. None: the table does not list them.
    labels: BTreeMap<String, Option<BTreeSet<String>>>,
}

type Metrics = BTreeMap<String, Metric>;

/// A page: what is on it, and the number of each row.
struct Page {
    text: String,
    metrics: Metrics,
    rows: BTreeMap<String, f64>,
}

impl Page {
    async fn of(address: SocketAddr) -> Page {
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET /metrics HTTP/1.1\r\nhost: {address}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("it answers");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("application/openmetrics-text"), "{head}");
        Page::read(body)
    }

    fn read(text: &str) -> Page {
        assert!(text.ends_with("# EOF\n"), "{text}");
        let (mut metrics, mut rows) = (Metrics::new(), BTreeMap::new());
        let (mut help, mut current) = (String::new(), String::new());
        for line in text.lines() {
            if let Some(described) = line.strip_prefix("# HELP ") {
                help = described.split_once(' ').expect("a meaning").1.to_owned();
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a type");
                // In the table a metric has the name that a query has.
                let suffix = BTreeMap::from([("counter", "_total"), ("info", "_info")]);
                current = format!("{name}{}", suffix.get(kind).unwrap_or(&""));
                let metric = Metric { kind: kind.to_owned(), meaning: help.clone(), labels: BTreeMap::new() };
                assert!(metrics.insert(current.clone(), metric).is_none(), "{current} twice");
            } else if line != "# EOF" {
                let (row, number) = line.rsplit_once(' ').expect("a number");
                assert!(row.starts_with(&current), "{row} is not of {current}");
                rows.insert(row.to_owned(), number.parse().expect("a number"));
                let labels = row.split_once('{').map_or("", |(_, labels)| labels.trim_end_matches('}'));
                for label in labels.split(',').filter(|label| !label.is_empty()) {
                    let (label, value) = label.split_once('=').expect("a value");
                    if label != "le" {
                        let metric = metrics.get_mut(&current).expect("it was typed");
                        let values = metric.labels.entry(label.to_owned()).or_default();
                        values.get_or_insert_default().insert(value.trim_matches('"').to_owned());
                    }
                }
            }
        }
        Page { text: text.to_owned(), metrics, rows }
    }

    fn number(&self, row: &str) -> f64 {
        *self.rows.get(row).unwrap_or_else(|| panic!("no {row} in {}", self.text))
    }
}

/// The table, for one server.
fn table(server: &str) -> Metrics {
    let text = include_str!("../../METRICS.md");
    let mut metrics = Metrics::new();
    for line in text.lines().filter(|line| line.starts_with("| `consent_")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [name, kind, labels, servers, meaning] = cells[..] else { panic!("five cells: {line}") };
        assert!(["authority", "sidecar", "both"].contains(&servers), "{line}");
        if servers != server && servers != "both" {
            continue;
        }
        let label = |label: &str| {
            let (name, values) = match label.split_once(" (") {
                None => (label, None),
                Some((name, values)) => {
                    let values = values.trim_end_matches(')').split(' ');
                    (name, Some(values.map(str::to_owned).collect()))
                }
            };
            (name.trim_matches('`').to_owned(), values)
        };
        let labels = labels.split(", ").filter(|label| !label.is_empty()).map(label).collect();
        let metric = Metric { kind: kind.to_owned(), meaning: meaning.to_owned(), labels };
        let name = name.trim_matches('`').to_owned();
        assert!(metrics.insert(name.clone(), metric).is_none(), "{name} twice");
    }
    metrics
}

/// The page's metrics with the values of labels only where the table lists them.
fn as_listed(shown: &Metrics, listed: &Metrics) -> Metrics {
    let mut shown = shown.clone();
    for (name, metric) in &mut shown {
        for (label, values) in &mut metric.labels {
            if listed.get(name).is_some_and(|metric| metric.labels.get(label) == Some(&None)) {
                *values = None;
            }
        }
    }
    shown
}

#[tokio::test]
async fn what_is_shown_is_what_is_documented() {
    let servers = Servers::start().await;
    for (server, address) in [("authority", servers.metrics.0), ("sidecar", servers.metrics.1)] {
        let (page, listed) = (Page::of(address).await, table(server));
        let shown = as_listed(&page.metrics, &listed);
        let names = |metrics: &Metrics| metrics.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&shown), names(&listed), "the {server} shows the left, METRICS.md lists the right");
        for (name, metric) in &listed {
            assert_eq!(&shown[name], metric, "{name} of the {server}: shown left, listed right");
        }
        for (name, metric) in &page.metrics {
            let rows = page.rows.keys().filter(|row| row.starts_with(name.as_str())).count();
            assert!(rows <= 100, "{name} has {rows} rows");
            for (label, values) in metric.labels.iter().filter(|(label, _)| *label != "version") {
                let is_a_word = |value: &String| value.chars().all(|c| c.is_ascii_alphabetic() || c == '_');
                assert!(values.iter().flatten().all(is_a_word), "{name} has {values:?} for a {label}");
            }
        }
    }
}

fn question(account: &str) -> CanTrainRequest {
    let artifact = Artifact { id: "chat-1".to_owned(), product: "le_chat".to_owned(), ..Artifact::default() };
    CanTrainRequest { account: account.to_owned(), artifact: Some(artifact), min_position: None }
}

#[tokio::test]
async fn what_happens_is_counted_and_nobody_is_named() {
    let servers = Servers::start().await;
    let mut decisions = DecisionServiceClient::new(servers.sidecar.clone());
    let before = Page::of(servers.metrics.1).await;
    let unstamped = r#"consent_decisions_total{decision="DENY",reason="MISSING_COLLECTED_AT"}"#;
    decisions.can_train(question(OPTED_OUT)).await.expect("an answer");
    let requests = vec![question(OPTED_OUT); 41];
    let batch = BatchCanTrainRequest { requests, min_position: None };
    decisions.batch_can_train(batch).await.expect("answers");
    let opt_out = SetConsentRequest {
        context: context().map(|context| WriteContext { wait_effective: true, ..context }),
        party: Some(Party { party: Some(party::Party::Account("eve".to_owned())) }),
        product: "le_chat".to_owned(),
        choice: Choice::Out.into(),
        expected_revision: None,
    };
    let receipt = ConsentServiceClient::new(servers.authority.clone())
        .set_consent(opt_out.clone())
        .await
        .expect("a receipt")
        .into_inner()
        .receipt
        .expect("a receipt");
    // Effective: the sidecar has applied it.
    let (authority, sidecar) = (Page::of(servers.metrics.0).await, Page::of(servers.metrics.1).await);

    assert_eq!(sidecar.number(unstamped) - before.number(unstamped), 42.0);
    let revision = receipt.position.expect("a position").revision as f64;
    assert_eq!(sidecar.number("consent_watch_applied_revision"), revision);
    assert_eq!(sidecar.number(r#"consent_watch_events_applied_total{kind="account"}"#), 1.0);
    assert_eq!(sidecar.number("consent_propagation_delay_seconds_count"), 1.0);
    assert_eq!(sidecar.number("consent_watch_snapshots_total"), 1.0);
    assert_eq!(sidecar.number("consent_watch_connected"), 1.0);
    assert_eq!(sidecar.number("consent_table_accounts"), 2.0);
    assert!(sidecar.number("consent_table_bytes") > 0.0);
    let states = sidecar.rows.iter().filter(|(row, _)| row.starts_with("consent_sidecar_state{"));
    assert_eq!(states.map(|(_, is_it)| is_it).sum::<f64>(), 1.0);
    assert_eq!(sidecar.number(r#"consent_sidecar_state{state="live"}"#), 1.0);
    assert!(sidecar.number("consent_lease_left_seconds") > 0.0);
    assert_eq!(sidecar.number(r#"consent_connections{listener="tcp"}"#), 1.0);
    assert_eq!(sidecar.number(r#"consent_connections{listener="unix"}"#), 0.0);

    assert_eq!(authority.number("consent_head_revision"), revision);
    assert_eq!(authority.number("consent_effective_revision"), revision);
    let recorded = r#"consent_changes_total{method="SetConsent",outcome="recorded"}"#;
    assert_eq!(authority.number(recorded), 2.0);
    assert_eq!(authority.number(r#"consent_confirmation_waits_total{outcome="effective"}"#), 1.0);
    assert_eq!(authority.number("consent_confirmation_seconds_count"), 1.0);
    assert_eq!(authority.number("consent_lane_batch_writes_count"), 3.0);
    assert_eq!(authority.number(r#"consent_store_duration_seconds_count{operation="commit"}"#), 3.0);
    assert_eq!(authority.number("consent_idempotent_replays_total"), 0.0);
    assert_eq!(authority.number("consent_watch_streams"), 1.0);
    assert_eq!(authority.number("consent_sidecars"), 1.0);
    assert_eq!(authority.number("consent_replicas"), 1.0);
    assert_eq!(authority.number("consent_hold"), 0.0);
    assert_eq!(authority.number(r#"consent_connections{listener="tcp"}"#), 2.0);
    for kind in ["snapshot", "frames"] {
        assert!(authority.number(&format!(r#"consent_watch_sent_bytes_total{{kind="{kind}"}}"#)) > 0.0);
    }

    let mut consent = ConsentServiceClient::new(servers.authority.clone());
    consent.set_consent(opt_out.clone()).await.expect("the same receipt");
    consent.set_consent(SetConsentRequest { product: String::new(), ..opt_out }).await.expect_err("refused");
    let later = Page::of(servers.metrics.0).await;
    assert_eq!(later.number("consent_idempotent_replays_total"), 1.0);
    let refused = r#"consent_changes_total{method="SetConsent",outcome="refused"}"#;
    assert_eq!(later.number(refused), 1.0);

    for page in [&authority, &sidecar, &later] {
        for id in [OPTED_OUT, "eve", "chat-1", "contract", "operator"] {
            assert!(!page.text.contains(&format!("\"{id}\"")), "{id} is on a page:\n{}", page.text);
        }
    }
}
