//! The sidecar under test, and its callers.

use crate::script::{Authority, until};
use consent::clock;
use consent::convert::to_timestamp;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{
    Artifact, CanTrainRequest, CanTrainResponse, Decision, GetStatusRequest, GetStatusResponse, Reason,
    SidecarState,
};
use consent_core::words::Timestamp;
use consent_sidecar::{Config, Sidecar};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(crate) struct Node {
    pub(crate) sidecar: Sidecar,
    pub(crate) channel: Channel,
    pub(crate) decisions: DecisionServiceClient<Channel>,
}

pub(crate) fn config(authorities: &[&Authority]) -> Config {
    let authorities = authorities.iter().map(|authority| authority.url.clone()).collect();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    Config { metrics: Some(anywhere), ..Config::new(authorities, anywhere) }
}

impl Node {
    pub(crate) async fn start(authorities: &[&Authority]) -> Node {
        Node::start_with(config(authorities)).await
    }

    pub(crate) async fn start_with(config: Config) -> Node {
        let sidecar = consent_sidecar::start(config).await.expect("it starts");
        let url = format!("http://{}", sidecar.address());
        let channel = Channel::from_shared(url).expect("an address").connect().await.expect("it listens");
        Node { sidecar, decisions: DecisionServiceClient::new(channel.clone()), channel }
    }

    /// May a prompt of `ada` from a minute ago be trained on?
    pub(crate) async fn ask(&self) -> CanTrainResponse {
        self.decisions.clone().can_train(question("ada")).await.expect("an answer").into_inner()
    }

    /// Asks until the reason is this one.
    pub(crate) async fn answers(&self, reason: Reason) -> CanTrainResponse {
        until(reason.as_str_name(), || self.ask(), |answer| answer.reason() == reason).await
    }

    /// Asks once: DENY, and for want of a lease or a table.
    pub(crate) async fn denies(&self) {
        let answer = self.ask().await;
        assert_eq!(answer.decision(), Decision::Deny);
        assert!(matches!(answer.reason(), Reason::Stale | Reason::NotReady), "{answer:?}");
        assert!(answer.valid_for.is_none());
    }

    pub(crate) async fn status(&self) -> GetStatusResponse {
        let mut client = SidecarServiceClient::new(self.channel.clone());
        client.get_status(GetStatusRequest {}).await.expect("a status").into_inner()
    }

    pub(crate) async fn is(&self, state: SidecarState) -> GetStatusResponse {
        until(state.as_str_name(), || self.status(), |status| status.state() == state).await
    }

    /// The number of one row of its metrics; none if there is no such row.
    pub(crate) async fn metric(&self, row: &str) -> Option<f64> {
        let address = self.sidecar.metrics().expect("a port");
        let mut stream = TcpStream::connect(address).await.expect("it listens");
        stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\n\r\n").await.expect("it reads");
        let mut page = String::new();
        stream.read_to_string(&mut page).await.expect("it answers");
        let number = page.lines().find_map(|line| line.strip_prefix(row)?.strip_prefix(' '))?;
        Some(number.parse().expect("a number"))
    }

    pub(crate) async fn health(&self, service: &str) -> ServingStatus {
        let request = HealthCheckRequest { service: service.to_owned() };
        let response = HealthClient::new(self.channel.clone()).check(request).await.expect("a status");
        response.into_inner().status()
    }
}

pub(crate) fn question(account: &str) -> CanTrainRequest {
    let collected_at = Timestamp::from_millis(clock::wall().millis() - 60_000);
    CanTrainRequest {
        account: account.to_owned(),
        artifact: Some(Artifact {
            id: "chat-1".to_owned(),
            product: "le_chat".to_owned(),
            kind: "input".to_owned(),
            collected_at: Some(to_timestamp(collected_at)),
            incognito: false,
        }),
        min_position: None,
    }
}
