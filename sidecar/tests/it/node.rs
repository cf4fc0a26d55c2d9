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
    Config::new(authorities, SocketAddr::from(([127, 0, 0, 1], 0)))
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
