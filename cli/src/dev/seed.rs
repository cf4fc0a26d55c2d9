//! What `consent dev` puts into its ledger: the seed policy, and three accounts that show what it says.
//!
//! The accounts' writes carry request_ids that are fixed for good. So every start may send them, a start that was
//! cut short is completed by the next, and none can undo what somebody changed since.

use crate::failure::Failure;
use crate::values::timestamp;
use consent::clock;
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{self, party};
use consent_core::words::Timestamp;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

const POLICY: &str = include_str!("../../../policies/mistral.toml");
const GUARD: &str = "guard = \"5s\"";
/// One clock stamps the data and the ledger here, so none can be ahead of the other, and nobody has to wait.
const NO_GUARD: &str = "guard = \"0s\"";
/// A start that takes longer than this is broken, and says so instead of hanging.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two questions to a sidecar that cannot tell yet.
const PAUSE: Duration = Duration::from_millis(50);

/// What is said of an account: who, what it is, and what CanTrain says of its data.
pub(super) const ACCOUNTS: [(&str, &str); 3] = [
    ("ada", "le_chat free: ALLOW until she opts out"),
    ("tom", "le_chat teams, through the organization acme: DENY until acme opts in"),
    ("ida", "ai_studio scale: DENY until she opts in"),
];

/// Publishes the seed policy where there is none, and says which one is in force.
pub(super) async fn policy(authority: Channel) -> Result<pb::GetPolicyResponse, Failure> {
    let mut client = PolicyServiceClient::new(authority);
    match client.get_policy(request(pb::GetPolicyRequest {})).await {
        Err(status) if status.code() == Code::NotFound => {}
        other => return Ok(other.map_err(refused)?.into_inner()),
    }
    let context = Some(context("7f1c52d0-6b0e-4c6e-9f5e-000000000000"));
    let toml = POLICY.replacen(GUARD, NO_GUARD, 1);
    client.publish_policy(request(pb::PublishPolicyRequest { context, toml })).await.map_err(refused)?;
    Ok(client.get_policy(request(pb::GetPolicyRequest {})).await.map_err(refused)?.into_inner())
}

/// Makes the accounts, and says where the last of them was recorded.
pub(super) async fn accounts(authority: Channel) -> Result<pb::Receipt, Failure> {
    let mut client = ConsentServiceClient::new(authority);
    let account = |id: &str| party::Party::Account(id.to_owned());
    let organization = |id: &str| party::Party::Organization(id.to_owned());
    let plan = |id, party, product: &str, plan: &str| {
        request(pb::SetPlanRequest {
            context: Some(context(id)),
            party: Some(pb::Party { party: Some(party) }),
            product: product.to_owned(),
            plan: plan.to_owned(),
            expected_revision: None,
        })
    };
    let member = pb::PutAccountRequest {
        context: Some(context("7f1c52d0-6b0e-4c6e-9f5e-000000000001")),
        account: "tom".to_owned(),
        organization: "acme".to_owned(),
        expected_revision: None,
    };
    client.put_account(request(member)).await.map_err(refused)?;
    let acme = plan("7f1c52d0-6b0e-4c6e-9f5e-000000000002", organization("acme"), "le_chat", "teams");
    client.set_plan(acme).await.map_err(refused)?;
    let ida = plan("7f1c52d0-6b0e-4c6e-9f5e-000000000003", account("ida"), "ai_studio", "scale");
    client.set_plan(ida).await.map_err(refused)?;
    let ada = plan("7f1c52d0-6b0e-4c6e-9f5e-000000000004", account("ada"), "le_chat", "free");
    let last = client.set_plan(ada).await.map_err(refused)?.into_inner();
    last.receipt.ok_or_else(|| Failure::internal("the authority sent no receipt"))
}

/// Waits until data collected now is answered from the accounts' state, and says what time that was.
pub(super) async fn until_answered(sidecar: Channel, newest: pb::Receipt) -> Result<Timestamp, Failure> {
    until_serving(sidecar.clone()).await?;
    // An account's data counts from the first whole second after its last edge (rule.md section 5).
    let recorded = newest.recorded_at.as_ref().map_or(0, |at| at.seconds);
    let from = Timestamp::from_millis(recorded.saturating_add(1).saturating_mul(1000));
    let now = loop {
        let now = clock::wall();
        match u64::try_from(from.millis().saturating_sub(now.millis())) {
            Ok(left) if left > 0 => tokio::time::sleep(Duration::from_millis(left)).await,
            Ok(_) | Err(_) => break now,
        }
    };
    let artifact = pb::Artifact {
        id: "artifact-1".to_owned(),
        product: "le_chat".to_owned(),
        kind: "input".to_owned(),
        collected_at: Some(timestamp(now)),
        incognito: false,
    };
    let question = pb::CanTrainRequest {
        account: "ada".to_owned(),
        artifact: Some(artifact),
        min_position: newest.position,
    };
    match tokio::time::timeout(PATIENCE, decided(sidecar, question)).await {
        Ok(outcome) => outcome.map(|()| now),
        Err(_) => Err(Failure::not_serving("the sidecar did not follow the authority in time")),
    }
}

// NOT_READY and STALE pass: on a busy machine the first lease may be over again before it is used.
async fn decided(sidecar: Channel, question: pb::CanTrainRequest) -> Result<(), Failure> {
    let mut sidecar = DecisionServiceClient::new(sidecar);
    loop {
        let answer = sidecar.can_train(request(question.clone())).await.map_err(refused)?.into_inner();
        match pb::Reason::try_from(answer.reason) {
            Ok(pb::Reason::NotReady | pb::Reason::Stale) | Err(_) => tokio::time::sleep(PAUSE).await,
            // Whatever else it says is a decision: in a kept ledger ada may have opted out long ago.
            Ok(_) => return Ok(()),
        }
    }
}

/// Waits until a server, of either kind, is ready.
pub(super) async fn until_serving(server: Channel) -> Result<(), Failure> {
    let watched = HealthCheckRequest { service: "consent.v1.DecisionService".to_owned() };
    let mut states = HealthClient::new(server).watch(request(watched)).await.map_err(refused)?.into_inner();
    while let Some(state) = states.message().await.map_err(refused)? {
        if state.status() == ServingStatus::Serving {
            return Ok(());
        }
    }
    Err(Failure::not_serving("a server ended before it was ready"))
}

fn context(request_id: &str) -> pb::WriteContext {
    pb::WriteContext {
        request_id: request_id.to_owned(),
        actor: "dev".to_owned(),
        channel: pb::Channel::Operator.into(),
        notice: String::new(),
        wait_effective: false,
    }
}

fn request<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(PATIENCE);
    request
}

fn refused(status: Status) -> Failure {
    Failure::refused(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_policy_has_the_one_guard_that_dev_takes_away() {
        assert_eq!(POLICY.matches(GUARD).count(), 1);
    }
}
