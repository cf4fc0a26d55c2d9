//! An authority over a ledger of its own, and a caller that writes to it.

use crate::bare::TOO_LONG;
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{
    Channel as Through, Choice, Confirmation, GetConfirmationRequest, Party, PublishPolicyRequest,
    PutAccountRequest, Receipt, SetConsentRequest, WriteContext, party,
};
use consent_authority::{Authority, Config, Limits, StoreConfig, migrate, start_within};
use consent_core::confirm::{Terms, Values};
use consent_core::words::Span;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

/// One product whose free plan lets train.
pub(crate) const POLICY: &str = r#"
schema = 1
name = "test"
version = 1
guard = "0s"
loosens = []

[product.chat]
incognito = "deny"
plan.free = { mode = "default_in" }
kind.input = "trainable"
"#;

/// Leases that no test outlives: what becomes effective under them became so by a word, not by time.
pub(crate) fn long() -> Terms {
    terms(Span::from_millis(30_000), Span::from_millis(45_000))
}

/// Leases that a test can wait for. Between two renewals there is room for a machine that stalls.
pub(crate) fn short() -> Terms {
    terms(Span::from_millis(300), Span::from_millis(1_500))
}

fn terms(sidecar_lease: Span, replica_lease: Span) -> Terms {
    Terms::new(Values { sidecar_lease, replica_lease, ..Terms::default().values() }).expect("safe terms")
}

/// Where a ledger is.
pub(crate) struct Ledger {
    store: StoreConfig,
    directory: TempDir,
}

impl Ledger {
    /// A new one on the embedded store.
    pub(crate) async fn new() -> Ledger {
        let directory = tempfile::tempdir().expect("a directory");
        let store = StoreConfig::Sqlite { directory: directory.path().to_owned() };
        migrate(&store).await.expect("a schema");
        Ledger { store, directory }
    }

    /// A new one in an empty database of Postgres.
    pub(crate) async fn in_postgres(url: String) -> Ledger {
        let store = StoreConfig::Postgres { url };
        migrate(&store).await.expect("a schema");
        Ledger { store, directory: tempfile::tempdir().expect("a directory") }
    }

    /// The directory of the embedded store.
    pub(crate) fn path(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub(crate) fn config(&self, terms: Terms) -> Config {
        let listen = "127.0.0.1:0".parse().expect("an address");
        Config { listen, replica: "test".to_owned(), store: self.store.clone(), terms, metrics: Some(listen) }
    }

    /// An authority over it that is ready, and a caller of it.
    pub(crate) async fn serve(&self, terms: Terms) -> (Authority, Caller) {
        self.serve_within(terms, Limits::default()).await
    }

    pub(crate) async fn serve_within(&self, terms: Terms, limits: Limits) -> (Authority, Caller) {
        let authority = start_within(self.config(terms), limits).await.expect("an authority");
        let caller = Caller::of(&authority).await;
        ready(caller.channel.clone()).await;
        (authority, caller)
    }
}

/// The number of one row of an authority's metrics.
pub(crate) async fn metric(authority: &Authority, row: &str) -> f64 {
    let address = authority.metrics().expect("a port");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: authority\r\n\r\n").await.expect("it reads");
    let mut page = String::new();
    stream.read_to_string(&mut page).await.expect("it answers");
    let number = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '));
    number.unwrap_or_else(|| panic!("no {row} in {page}")).parse().expect("a number")
}

// Told by health's own stream.
async fn ready(channel: Channel) {
    let request = HealthCheckRequest { service: String::new() };
    let mut watch = HealthClient::new(channel).watch(request).await.expect("health").into_inner();
    let serving = async {
        while let Some(health) = watch.message().await.expect("health") {
            if health.status() == ServingStatus::Serving {
                return;
            }
        }
        panic!("never ready");
    };
    tokio::time::timeout(TOO_LONG, serving).await.expect("ready in time");
}

/// Somebody who writes. Clones share one connection.
#[derive(Clone)]
pub(crate) struct Caller {
    channel: Channel,
}

impl Caller {
    pub(crate) async fn of(authority: &Authority) -> Caller {
        let endpoint = Channel::from_shared(format!("http://{}", authority.address())).expect("an address");
        Caller { channel: endpoint.connect().await.expect("a connection") }
    }

    pub(crate) async fn publish_policy(&self) -> Receipt {
        let request = PublishPolicyRequest { context: context(false), toml: POLICY.to_owned() };
        let response = PolicyServiceClient::new(self.channel.clone()).publish_policy(request).await;
        response.expect("a policy").into_inner().receipt.expect("a receipt")
    }

    pub(crate) async fn put_account(&self, account: &str) -> Receipt {
        let request =
            PutAccountRequest { context: context(false), account: account.to_owned(), ..Default::default() };
        let response = self.consent().put_account(request).await;
        response.expect("an account").into_inner().receipt.expect("a receipt")
    }

    pub(crate) async fn opt_out(&self, account: &str, wait_effective: bool) -> Receipt {
        let party = Some(Party { party: Some(party::Party::Account(account.to_owned())) });
        let request = SetConsentRequest {
            context: context(wait_effective),
            party,
            product: "chat".to_owned(),
            choice: Choice::Out.into(),
            expected_revision: None,
        };
        // Enough for every machine, and less than the long leases: what takes it has failed.
        let mut request = tonic::Request::new(request);
        request.set_timeout(std::time::Duration::from_secs(20));
        let response = self.consent().set_consent(request).await;
        response.expect("an opt-out").into_inner().receipt.expect("a receipt")
    }

    /// How far a write has come now.
    pub(crate) async fn confirmation(&self, receipt: &Receipt) -> Confirmation {
        let request = GetConfirmationRequest {
            position: receipt.position.clone(),
            chain: receipt.chain.clone(),
            wait_effective: false,
        };
        self.consent().get_confirmation(request).await.expect("a confirmation").into_inner().confirmation()
    }

    fn consent(&self) -> ConsentServiceClient<Channel> {
        ConsentServiceClient::new(self.channel.clone())
    }
}

fn context(wait_effective: bool) -> Option<WriteContext> {
    Some(WriteContext {
        request_id: Uuid::new_v4().to_string(),
        actor: "somebody".to_owned(),
        channel: Through::Api.into(),
        notice: String::new(),
        wait_effective,
    })
}
