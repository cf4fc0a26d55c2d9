//! What a newcomer reads first: every address, what is in the ledger, and commands that work when pasted.

use super::seed::ACCOUNTS;
use crate::connect;
use consent::pb::GetPolicyResponse;
use consent_core::words::Timestamp;
use std::fmt;
use std::path::Path;

/// All of it is true when it is printed.
pub(super) struct Banner<'a> {
    pub(super) authority: String,
    pub(super) sidecar: String,
    /// The authority's and the sidecar's.
    pub(super) metrics: [Option<String>; 2],
    pub(super) data: &'a Path,
    pub(super) kept: bool,
    pub(super) policy: GetPolicyResponse,
    pub(super) ready_at: Timestamp,
}

impl fmt::Display for Banner<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Banner { authority, sidecar, metrics, data, kept, policy, ready_at } = self;
        let fate = if *kept { "kept" } else { "lost on exit; --data-dir DIRECTORY keeps it" };
        writeln!(
            f,
            "consent {} dev: an authority on SQLite and a sidecar, in one process\n",
            consent::VERSION
        )?;
        writeln!(f, "  authority  {authority}  takes writes; health and reflection")?;
        writeln!(f, "  sidecar    {sidecar}  answers; health and reflection")?;
        for (i, metrics) in metrics.iter().flatten().enumerate() {
            let label = if i == 0 { "metrics" } else { "" };
            writeln!(f, "  {label:<9}  {metrics}{}", consent::metrics::PATH)?;
        }
        writeln!(f, "  data       {}  ({fate})", data.display())?;
        writeln!(f, "  policy     {} version {}", policy.name, policy.version)?;
        if policy.toml.contains("guard = \"0s\"") {
            writeln!(f, "             guard 0s: here one clock stamps all; where there are many it is 5s")?;
        }
        for (i, (account, what)) in ACCOUNTS.iter().enumerate() {
            writeln!(f, "  {:<9}  {account}  {what}", if i == 0 { "accounts" } else { "" })?;
        }
        let program = program();
        let ask = option(sidecar, connect::SIDECAR);
        let write = option(authority, connect::AUTHORITY);
        let target = sidecar.trim_start_matches("http://");
        writeln!(f, "\nIn another terminal:\n")?;
        writeln!(f, "  {program} check ada{ask}")?;
        writeln!(f, "  {program} set consent ada le_chat out --wait{write}")?;
        writeln!(f, "  {program} check ada{ask}\n")?;
        writeln!(f, "or with any gRPC client:\n")?;
        writeln!(
            f,
            "  grpcurl -plaintext -d '{}' {target} consent.v1.DecisionService/CanTrain",
            question(*ready_at)
        )?;
        write!(f, "\nCtrl-C stops it.")
    }
}

// As the person called it, so that it works in the same directory when it is pasted.
fn program() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "consent".to_owned())
}

fn option(endpoint: &str, default: &str) -> String {
    if endpoint == default { String::new() } else { format!(" --endpoint {endpoint}") }
}

fn question(collected_at: Timestamp) -> String {
    let collected_at = jiff::Timestamp::from_millisecond(collected_at.millis())
        .map_or_else(|_| String::new(), |at| at.to_string());
    let artifact = serde_json::json!({
        "id": "artifact-1", "product": "le_chat", "kind": "input", "collectedAt": collected_at
    });
    serde_json::json!({ "account": "ada", "artifact": artifact }).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn banner(authority: &str, sidecar: &str, kept: bool) -> String {
        Banner {
            authority: authority.to_owned(),
            sidecar: sidecar.to_owned(),
            metrics: ["http://127.0.0.1:7403", "http://127.0.0.1:7404"].map(|url| Some(url.to_owned())),
            data: Path::new("/data"),
            kept,
            policy: GetPolicyResponse {
                toml: "guard = \"0s\"\n".to_owned(),
                version: 1,
                name: "mistral".to_owned(),
                ..GetPolicyResponse::default()
            },
            ready_at: Timestamp::from_millis(1_764_056_000_123),
        }
        .to_string()
    }

    #[test]
    fn the_defaults_need_no_endpoint_and_other_ports_name_it() {
        let default = banner(connect::AUTHORITY, connect::SIDECAR, false);
        assert!(default.contains(" check ada\n") && !default.contains("--endpoint"));
        assert!(default.contains("lost on exit"));
        assert!(default.contains("http://127.0.0.1:7404/metrics\n"));
        let other = banner("http://127.0.0.1:9001", "http://127.0.0.1:9002", true);
        assert!(other.contains(" check ada --endpoint http://127.0.0.1:9002\n"));
        assert!(other.contains(" out --wait --endpoint http://127.0.0.1:9001\n"));
        assert!(other.contains("/data  (kept)"));
    }

    #[test]
    fn the_question_carries_an_instant_that_counts() {
        let text = question(Timestamp::from_millis(1_764_056_000_123));
        assert!(text.contains(r#""collectedAt":"2025-11-25T07:33:20.123Z""#), "{text}");
    }
}
