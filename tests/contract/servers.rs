//! An authority on the embedded store and a sidecar that follows it, in this process, on ports of the kernel's choice.

use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{
    Choice, GetStatusRequest, Party, PublishPolicyRequest, SetConsentRequest, SidecarState, WriteContext,
    party,
};
use consent_authority::{Authority, StoreConfig};
use consent_core::confirm::Terms;
use consent_sidecar::Sidecar;
use std::net::SocketAddr;
use std::time::Duration;
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

/// Longer than any start takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Both servers, and a connection to each.
pub(crate) struct Servers {
    /// To the authority.
    pub(crate) authority: Channel,
    /// To the sidecar, which is LIVE.
    pub(crate) sidecar: Channel,
    /// Where the authority and the sidecar show their metrics.
    pub(crate) metrics: (SocketAddr, SocketAddr),
    _servers: (Authority, Sidecar),
    _home: TempDir,
}

/// An account that has opted out of `le_chat` before the sidecar began: both servers know it.
pub(crate) const OPTED_OUT: &str = "dora";

/// A write's context with a fresh request_id.
pub(crate) fn context() -> Option<WriteContext> {
    Some(WriteContext {
        request_id: uuid::Uuid::new_v4().to_string(),
        actor: "operator".to_owned(),
        channel: consent::pb::Channel::Operator.into(),
        notice: String::new(),
        wait_effective: false,
    })
}

impl Servers {
    /// Starts both with the seed's policy in force, and one opt-out.
    pub(crate) async fn start() -> Servers {
        let home = tempfile::tempdir().expect("a directory");
        let store = StoreConfig::Sqlite { directory: home.path().join("store") };
        consent_authority::migrate(&store).await.expect("a store");
        let anywhere = "127.0.0.1:0".parse().expect("an address");
        let config = consent_authority::Config {
            listen: anywhere,
            replica: "contract".to_owned(),
            store,
            terms: Terms::default(),
            metrics: Some(anywhere),
        };
        let authority = consent_authority::start(config).await.expect("an authority");
        let to_authority = connect(&authority.address().to_string()).await;
        let toml = include_str!("../../policies/mistral.toml").to_owned();
        consent::pb::policy_service_client::PolicyServiceClient::new(to_authority.clone())
            .publish_policy(PublishPolicyRequest { context: context(), toml })
            .await
            .expect("a policy");
        let opt_out = SetConsentRequest {
            context: context(),
            party: Some(Party { party: Some(party::Party::Account(OPTED_OUT.to_owned())) }),
            product: "le_chat".to_owned(),
            choice: Choice::Out.into(),
            expected_revision: None,
        };
        ConsentServiceClient::new(to_authority.clone()).set_consent(opt_out).await.expect("an opt-out");
        let upstream = format!("http://{}", authority.address());
        let config = consent_sidecar::Config {
            metrics: Some(anywhere),
            ..consent_sidecar::Config::new(vec![upstream], anywhere)
        };
        let sidecar = consent_sidecar::start(config).await.expect("a sidecar");
        let to_sidecar = connect(&sidecar.address().to_string()).await;
        let mut status = SidecarServiceClient::new(to_sidecar.clone());
        let live = async {
            while status.get_status(GetStatusRequest {}).await.expect("a status").into_inner().state()
                != SidecarState::Live
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, live).await.expect("a sidecar that becomes LIVE");
        let metrics = (authority.metrics().expect("a port"), sidecar.metrics().expect("a port"));
        Servers {
            authority: to_authority,
            sidecar: to_sidecar,
            metrics,
            _servers: (authority, sidecar),
            _home: home,
        }
    }
}

async fn connect(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("a uri").connect().await.expect("a server")
}
