//! Callers: what an application, a settings page or a billing service would send, in the fewest words.

use anyhow::{Context, bail};
use consent::clock;
use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::sidecar_service_client::SidecarServiceClient;
use consent::pb::{
    Artifact, CanTrainRequest, CanTrainResponse, Channel as Via, Choice, Decision, GetStatusRequest,
    GetStatusResponse, Party, Position, PublishPolicyRequest, PutAccountRequest, Reason, Receipt,
    SetConsentRequest, SetPlanRequest, SidecarState, WriteContext, party,
};
use prost_types::Timestamp;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use uuid::Uuid;

/// The policy that every trial publishes: the seed's, as it is.
pub(crate) const POLICY: &str = include_str!("../../policies/mistral.toml");

/// Every id of a trial begins so: a log that has it has an id.
pub(crate) const ID_MARK: &str = "q7x-";

/// The deadline of a call that should be quick, and of one that waits for a confirmation.
const QUICK: Duration = Duration::from_secs(20);
const WAITING: Duration = Duration::from_secs(40);

/// The policy's guard in milliseconds, read from its file.
pub(crate) fn guard_ms() -> anyhow::Result<i64> {
    let file: toml::Table = toml::from_str(POLICY)?;
    let guard = file.get("guard").and_then(toml::Value::as_str).context("the policy has no guard")?;
    let seconds: i64 = guard.strip_suffix('s').context("the guard is not in seconds")?.parse()?;
    Ok(seconds * 1000)
}

/// Opens a connection to `host:port`, or to a Unix socket (`unix:/path`).
pub(crate) async fn connect(address: &str) -> anyhow::Result<Channel> {
    let uri = if address.starts_with("unix:") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri)?.connect_timeout(QUICK);
    endpoint.connect().await.with_context(|| format!("nobody answers at {address}"))
}

/// A request with a deadline.
pub(crate) fn within<T>(deadline: Duration, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// An account as a party.
pub(crate) fn account(id: &str) -> Party {
    Party { party: Some(party::Party::Account(id.to_owned())) }
}

/// An organization as a party.
pub(crate) fn organization(id: &str) -> Party {
    Party { party: Some(party::Party::Organization(id.to_owned())) }
}

/// A new write, through `via`.
pub(crate) fn write_context(via: Via) -> WriteContext {
    WriteContext {
        request_id: Uuid::new_v4().to_string(),
        actor: format!("{ID_MARK}actor"),
        channel: via.into(),
        notice: String::new(),
        wait_effective: false,
    }
}

/// The wire's timestamp of Unix milliseconds.
pub(crate) fn timestamp(millis: i64) -> Timestamp {
    let nanos = millis.rem_euclid(1000) * 1_000_000;
    Timestamp { seconds: millis.div_euclid(1000), nanos: i32::try_from(nanos).unwrap_or(0) }
}

/// Unix milliseconds of the wire's timestamp, rounded down.
pub(crate) fn millis(timestamp: &Timestamp) -> i64 {
    timestamp.seconds * 1000 + i64::from(timestamp.nanos) / 1_000_000
}

/// An artifact collected at Unix milliseconds.
pub(crate) fn artifact(product: &str, kind: &str, collected_at: i64) -> Artifact {
    Artifact {
        id: format!("{ID_MARK}artifact"),
        product: product.to_owned(),
        kind: kind.to_owned(),
        collected_at: Some(timestamp(collected_at)),
        incognito: false,
    }
}

/// The first instant, in Unix milliseconds, that counts as after a denial which this write ended: the next whole
/// second plus the guard (rule.md section 5).
pub(crate) fn first_allowed(receipt: &Receipt, guard_ms: i64) -> anyhow::Result<i64> {
    let recorded = receipt.recorded_at.as_ref().context("a receipt without recorded_at")?;
    Ok(1000 * (millis(recorded).div_euclid(1000) + 1) + guard_ms)
}

/// Waits until the wall clock has come to an instant in Unix milliseconds.
pub(crate) async fn wall_clock_at(instant: i64) {
    loop {
        let left = instant - clock::wall().millis();
        if left <= 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(left.unsigned_abs())).await;
    }
}

/// A caller of the authority.
#[derive(Debug, Clone)]
pub(crate) struct Authority {
    /// Writes and reads.
    pub(crate) consent: ConsentServiceClient<Channel>,
    /// The rule book.
    pub(crate) policy: PolicyServiceClient<Channel>,
}

impl Authority {
    /// Connects to `host:port`.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Authority> {
        let channel = connect(address).await?;
        Ok(Authority {
            consent: ConsentServiceClient::new(channel.clone()),
            policy: PolicyServiceClient::new(channel),
        })
    }

    /// Publishes the seed's policy.
    pub(crate) async fn publish_policy(&mut self) -> Result<Receipt, Status> {
        let request =
            PublishPolicyRequest { context: Some(write_context(Via::Operator)), toml: POLICY.to_owned() };
        receipt(self.policy.publish_policy(within(QUICK, request)).await?.into_inner().receipt)
    }

    /// Announces an account, in an organization or, with an empty id, in none.
    pub(crate) async fn put_account(&mut self, id: &str, organization: &str) -> Result<Receipt, Status> {
        let request = PutAccountRequest {
            context: Some(write_context(Via::Service)),
            account: id.to_owned(),
            organization: organization.to_owned(),
            expected_revision: None,
        };
        receipt(self.consent.put_account(within(QUICK, request)).await?.into_inner().receipt)
    }

    /// Sets a party's plan; empty for none.
    pub(crate) async fn set_plan(
        &mut self,
        party: Party,
        product: &str,
        plan: &str,
    ) -> Result<Receipt, Status> {
        let request = SetPlanRequest {
            context: Some(write_context(Via::Service)),
            party: Some(party),
            product: product.to_owned(),
            plan: plan.to_owned(),
            expected_revision: None,
        };
        receipt(self.consent.set_plan(within(QUICK, request)).await?.into_inner().receipt)
    }

    /// Records a choice, without waiting for its confirmation.
    pub(crate) async fn choose(&mut self, choice: SetConsentRequest) -> Result<Receipt, Status> {
        receipt(self.consent.set_consent(within(QUICK, choice)).await?.into_inner().receipt)
    }

    /// Opts out and waits for EFFECTIVE.
    pub(crate) async fn opt_out_confirmed(&mut self, party: Party, product: &str) -> Result<Receipt, Status> {
        let mut request = choice(party, product, Choice::Out, Via::AdminConsole);
        if let Some(context) = request.context.as_mut() {
            context.wait_effective = true;
        }
        receipt(self.consent.set_consent(within(WAITING, request)).await?.into_inner().receipt)
    }

    /// Opts in over the party's revision as last seen.
    pub(crate) async fn opt_in(&mut self, party: Party, product: &str, seen: u64) -> Result<Receipt, Status> {
        let request = SetConsentRequest {
            expected_revision: Some(seen),
            ..choice(party, product, Choice::In, Via::AdminConsole)
        };
        self.choose(request).await
    }
}

/// A choice, as a settings page would send it.
pub(crate) fn choice(party: Party, product: &str, choice: Choice, via: Via) -> SetConsentRequest {
    SetConsentRequest {
        context: Some(write_context(via)),
        party: Some(party),
        product: product.to_owned(),
        choice: choice.into(),
        expected_revision: None,
    }
}

/// The receipt that every write returns.
pub(crate) fn receipt(receipt: Option<Receipt>) -> Result<Receipt, Status> {
    receipt.ok_or_else(|| Status::internal("a write without a receipt"))
}

/// The revision that a receipt names.
pub(crate) fn revision(receipt: &Receipt) -> u64 {
    receipt.position.as_ref().map_or(0, |position| position.revision)
}

/// Who asks questions: of a sidecar, or of an authority.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    client: DecisionServiceClient<Channel>,
}

/// An answer, stamped on one clock: CLOCK_BOOTTIME in nanoseconds.
#[derive(Debug, Clone)]
pub(crate) struct Answered {
    /// Before the question was sent.
    pub(crate) asked: u64,
    /// After the answer was there.
    pub(crate) answered: u64,
    /// The answer.
    pub(crate) response: CanTrainResponse,
}

impl Answered {
    /// Whether it is an ALLOW; anything else is a DENY.
    pub(crate) fn allows(&self) -> bool {
        self.response.decision() == Decision::Allow
    }

    /// Until when it may be used: counted from before the question was sent.
    pub(crate) fn valid_until(&self) -> u64 {
        let valid_for = self.response.valid_for.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
        self.asked + u64::try_from(valid_for.as_nanos()).unwrap_or(u64::MAX)
    }

    /// The revision that it was decided from.
    pub(crate) fn revision(&self) -> u64 {
        self.response.position.as_ref().map_or(0, |position| position.revision)
    }

    /// Decision and reason.
    pub(crate) fn verdict(&self) -> (Decision, Reason) {
        (self.response.decision(), self.response.reason())
    }
}

impl Answers {
    /// Asks over a connection.
    pub(crate) fn over(channel: Channel) -> Answers {
        Answers { client: DecisionServiceClient::new(channel) }
    }

    /// Asks, with both instants of the call.
    pub(crate) async fn ask(
        &mut self,
        account: &str,
        artifact: Artifact,
        min_position: Option<Position>,
    ) -> Result<Answered, Status> {
        let question =
            CanTrainRequest { account: account.to_owned(), artifact: Some(artifact), min_position };
        let asked = clock::now().boot;
        let response = self.client.can_train(within(QUICK, question)).await?.into_inner();
        Ok(Answered { asked, answered: clock::now().boot, response })
    }
}

/// A caller on a node.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// Asks the sidecar.
    pub(crate) answers: Answers,
    status: SidecarServiceClient<Channel>,
    health: HealthClient<Channel>,
}

impl Node {
    /// Connects to `host:port` or `unix:/path`.
    pub(crate) async fn connect(address: &str) -> anyhow::Result<Node> {
        let channel = connect(address).await?;
        Ok(Node {
            answers: Answers::over(channel.clone()),
            status: SidecarServiceClient::new(channel.clone()),
            health: HealthClient::new(channel),
        })
    }

    /// What the sidecar says of itself.
    pub(crate) async fn status(&mut self) -> Result<GetStatusResponse, Status> {
        Ok(self.status.get_status(within(QUICK, GetStatusRequest {})).await?.into_inner())
    }

    /// Waits until the sidecar says that it is in this state.
    pub(crate) async fn until(&mut self, state: SidecarState) -> anyhow::Result<GetStatusResponse> {
        self.until_status(state.as_str_name(), |status| status.state() == state).await
    }

    /// Waits until the sidecar has applied this revision.
    pub(crate) async fn until_applied(&mut self, revision: u64) -> anyhow::Result<GetStatusResponse> {
        let applied = |status: &GetStatusResponse| {
            status.position.as_ref().is_some_and(|position| position.revision >= revision)
        };
        self.until_status(&format!("revision {revision}"), applied).await
    }

    /// Whether readiness says SERVING for the DecisionService.
    pub(crate) async fn says_serving(&mut self) -> Result<bool, Status> {
        let request = HealthCheckRequest { service: "consent.v1.DecisionService".to_owned() };
        let response = self.health.check(within(QUICK, request)).await?.into_inner();
        Ok(response.status() == ServingStatus::Serving)
    }

    async fn until_status(
        &mut self,
        what: &str,
        wanted: impl Fn(&GetStatusResponse) -> bool,
    ) -> anyhow::Result<GetStatusResponse> {
        let deadline = clock::now().after(consent_core::words::Span::from_millis(60_000));
        loop {
            let status = self.status().await?;
            if wanted(&status) {
                return Ok(status);
            }
            if deadline.boot < clock::now().boot {
                bail!("the sidecar never came to {what}: {status:?}");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}
