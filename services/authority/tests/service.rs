//! The services over the wire: an authority on SQLite, called as its callers call it. RECORDED and EFFECTIVE (R8),
//! and the authority's own answers (R10).

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test may fail")]

use consent::pb::consent_service_client::ConsentServiceClient;
use consent::pb::decision_service_client::DecisionServiceClient;
use consent::pb::policy_service_client::PolicyServiceClient;
use consent::pb::{self, party};
use consent_authority::{Authority, Config, StoreConfig};
use consent_core::confirm::{Terms, Values};
use consent_core::words::Span;
use std::time::Duration;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use uuid::Uuid;

const POLICY: &str = r#"
schema = 1
name = "test"
version = 1
guard = "0s"
[product.chat]
incognito = "deny"
plan.free = { mode = "default_in" }
kind.input = "trainable"
"#;

struct Running {
    authority: Authority,
    consent: ConsentServiceClient<Channel>,
    decision: DecisionServiceClient<Channel>,
    policy: PolicyServiceClient<Channel>,
    _directory: tempfile::TempDir,
}

impl Running {
    /// An authority whose own answers hold for so long: no write is effective before.
    async fn new(hold: Span) -> Running {
        let directory = tempfile::tempdir().unwrap();
        let store = StoreConfig::Sqlite { directory: directory.path().to_owned() };
        consent_authority::migrate(&store).await.unwrap();
        let slack = Span::from_millis(60);
        let terms = Terms::new(Values { hold, slack, ..Terms::default().values() }).unwrap();
        let listen = ([127, 0, 0, 1], 0).into();
        let config = Config { listen, replica: "test".to_owned(), store, terms, metrics: None };
        let authority = consent_authority::start(config).await.unwrap();
        let address = format!("http://{}", authority.address());
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        let mut running = Running {
            authority,
            consent: ConsentServiceClient::new(channel.clone()),
            decision: DecisionServiceClient::new(channel.clone()),
            policy: PolicyServiceClient::new(channel),
            _directory: directory,
        };
        running.publish(POLICY).await.unwrap();
        running
    }

    /// Callers hang up first: a connection that is open would be waited for.
    async fn stop(self) {
        let Running { authority, consent, decision, policy, _directory } = self;
        drop((consent, decision, policy));
        authority.stop().await;
    }

    async fn publish(&mut self, toml: &str) -> Result<pb::PublishPolicyResponse, Status> {
        let request = pb::PublishPolicyRequest { context: Some(context()), toml: toml.to_owned() };
        self.policy.publish_policy(request).await.map(tonic::Response::into_inner)
    }

    async fn choose(&mut self, account: &str, choice: pb::Choice) -> Result<pb::Receipt, Status> {
        let response = self.consent.set_consent(choice_of(account, choice)).await?;
        Ok(response.into_inner().receipt.unwrap())
    }

    async fn plan(&mut self, account: &str, plan: &str) -> pb::Receipt {
        let request = pb::SetPlanRequest {
            context: Some(context()),
            party: the_account(account),
            product: "chat".to_owned(),
            plan: plan.to_owned(),
            expected_revision: None,
        };
        self.consent.set_plan(request).await.unwrap().into_inner().receipt.unwrap()
    }

    async fn ask(&mut self, request: pb::CanTrainRequest) -> pb::CanTrainResponse {
        self.decision.can_train(request).await.unwrap().into_inner()
    }

    /// Asks until the reason is another one than these: what time alone brings.
    async fn ask_past(&mut self, account: &str, passing: &[pb::Reason]) -> pb::CanTrainResponse {
        loop {
            let answer = self.ask(question(account)).await;
            if !passing.contains(&answer.reason()) {
                return answer;
            }
        }
    }
}

fn context() -> pb::WriteContext {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap();
    pb::WriteContext {
        request_id: Uuid::from_bytes(bytes).to_string(),
        actor: "tester".to_owned(),
        channel: pb::Channel::Ios.into(),
        notice: "notice-1".to_owned(),
        wait_effective: false,
    }
}

fn the_account(account: &str) -> Option<pb::Party> {
    Some(pb::Party { party: Some(party::Party::Account(account.to_owned())) })
}

fn choice_of(account: &str, choice: pb::Choice) -> pb::SetConsentRequest {
    pb::SetConsentRequest {
        context: Some(context()),
        party: the_account(account),
        product: "chat".to_owned(),
        choice: choice.into(),
        expected_revision: None,
    }
}

fn waiting(account: &str, choice: pb::Choice) -> pb::SetConsentRequest {
    let context = pb::WriteContext { wait_effective: true, ..context() };
    pb::SetConsentRequest { context: Some(context), ..choice_of(account, choice) }
}

/// About something that is collected as it is asked about.
fn question(account: &str) -> pb::CanTrainRequest {
    let now = consent::convert::to_timestamp(consent::clock::wall());
    let artifact = pb::Artifact {
        id: "artifact".to_owned(),
        product: "chat".to_owned(),
        kind: "input".to_owned(),
        collected_at: Some(now),
        incognito: false,
    };
    pb::CanTrainRequest { account: account.to_owned(), artifact: Some(artifact), min_position: None }
}

fn error<T>(result: Result<T, Status>) -> (Code, String, String) {
    let status = result.err().expect("a refusal");
    let info = status.get_details_error_info().expect("an ErrorInfo");
    assert_eq!(info.domain, "consent.v1");
    let field = info.metadata.get("field").cloned().unwrap_or_default();
    (status.code(), info.reason, field)
}

fn refused(code: Code, reason: &str, field: &str) -> (Code, String, String) {
    (code, reason.to_owned(), field.to_owned())
}

#[tokio::test]
async fn a_deadline_that_passes_gives_recorded_and_the_wait_goes_on_elsewhere() {
    let mut running = Running::new(Span::from_millis(2_900)).await;
    let mut request = Request::new(waiting("ada", pb::Choice::Out));
    request.set_timeout(Duration::from_millis(2_400));
    let receipt = running.consent.set_consent(request).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(receipt.confirmation(), pb::Confirmation::Recorded);

    let ask = pb::GetConfirmationRequest {
        position: receipt.position.clone(),
        chain: receipt.chain.clone(),
        wait_effective: false,
    };
    let found = running.consent.get_confirmation(ask.clone()).await.unwrap().into_inner();
    assert_eq!(found.confirmation(), pb::Confirmation::Recorded);
    let wait = pb::GetConfirmationRequest { wait_effective: true, ..ask.clone() };
    let found = running.consent.get_confirmation(wait).await.unwrap().into_inner();
    assert_eq!(found.confirmation(), pb::Confirmation::Effective);
    let (effective, written) = (found.effective.unwrap(), receipt.position.as_ref().unwrap());
    assert_eq!(effective.epoch, written.epoch);
    assert!(effective.revision >= written.revision);

    // A write of that number that is not this one was lost.
    let lost = pb::GetConfirmationRequest { chain: vec![9; 32].into(), ..ask };
    let outcome = error(running.consent.get_confirmation(lost).await);
    assert_eq!(outcome, refused(Code::Aborted, "LOST", ""));
    running.stop().await;
}

#[tokio::test]
async fn an_opt_out_is_effective_and_the_authority_denies_at_once() {
    let mut running = Running::new(Span::from_millis(1_000)).await;
    // No read of the store takes as long as an answer may be relied upon here: STALE is only before the first renewal.
    let answer = running.ask_past("ada", &[pb::Reason::Stale]).await;
    assert_eq!((answer.decision(), answer.reason()), (pb::Decision::Deny, pb::Reason::UnknownAccount));
    running.plan("ada", "free").await;
    let answer = running.ask_past("ada", &[pb::Reason::CollectedBeforeAllowed]).await;
    assert_eq!((answer.decision(), answer.reason()), (pb::Decision::Allow, pb::Reason::PlanDefaultIn));
    let valid_for = answer.valid_for.expect("an ALLOW says for how long");
    assert_eq!((valid_for.seconds, valid_for.nanos), (1, 0), "the hold, where the lease lasts longer");

    let request = waiting("ada", pb::Choice::Out);
    let receipt = running.consent.set_consent(request).await.unwrap().into_inner().receipt.unwrap();
    assert_eq!(receipt.confirmation(), pb::Confirmation::Effective);
    let answer = running.ask(question("ada")).await;
    assert_eq!((answer.decision(), answer.reason()), (pb::Decision::Deny, pb::Reason::AccountOptedOut));
    assert_eq!(answer.valid_for, None);
    assert!(answer.position.unwrap().revision >= receipt.position.as_ref().unwrap().revision);

    // A position of another ledger is never reached.
    let elsewhere = pb::Position { epoch: vec![9; 16].into(), revision: 1 };
    let min_position = Some(elsewhere.clone());
    let answer = running.ask(pb::CanTrainRequest { min_position, ..question("ada") }).await;
    assert_eq!(answer.reason(), pb::Reason::Stale);
    let batch = pb::BatchCanTrainRequest {
        requests: vec![question("ada"), question("bob")],
        min_position: receipt.position,
    };
    let answers = running.decision.batch_can_train(batch).await.unwrap().into_inner().answers;
    let reasons: Vec<_> = answers.iter().map(pb::CanTrainAnswer::reason).collect();
    assert_eq!(reasons, [pb::Reason::AccountOptedOut, pb::Reason::UnknownAccount]);
    running.stop().await;
}

#[tokio::test]
async fn what_was_written_is_read_back() {
    let mut running = Running::new(Span::from_millis(50)).await;
    let put = pb::PutAccountRequest {
        context: Some(context()),
        account: "ada".to_owned(),
        organization: "acme".to_owned(),
        expected_revision: None,
    };
    running.consent.put_account(put).await.unwrap();
    running.plan("ada", "gold").await;
    let receipt = running.choose("ada", pb::Choice::Out).await.unwrap();
    assert_eq!(receipt.confirmation(), pb::Confirmation::Recorded, "nobody asked how far it has come");
    assert!(receipt.changed);

    let ask = |account: &str| pb::GetAccountRequest { account: account.to_owned() };
    let ada = running.consent.get_account(ask("ada")).await.unwrap().into_inner();
    assert_eq!((ada.account.as_str(), ada.organization.as_str(), ada.erased), ("ada", "acme", false));
    assert_eq!(ada.revision, receipt.position.as_ref().unwrap().revision);
    let [chat] = &ada.products[..] else { panic!("{:?}", ada.products) };
    assert_eq!((chat.product.as_str(), chat.plan.as_str(), chat.choice()), ("chat", "gold", pb::Choice::Out));
    assert!(chat.allow_since.is_some());
    let nobody = error(running.consent.get_account(ask("nobody")).await);
    assert_eq!(nobody, refused(Code::NotFound, "NOT_FOUND", ""));

    let page = |after_revision, page_size| pb::ListEventsRequest { after_revision, page_size };
    let all = running.consent.list_events(page(0, 0)).await.unwrap().into_inner();
    let types: Vec<&str> = all.events.iter().map(|event| event.r#type.as_str()).collect();
    let expected =
        ["policy_published", "organization_put", "account_put", "plan_named", "plan_set", "consent_set"];
    assert_eq!(types, expected);
    let last = all.events.last().unwrap();
    assert_eq!((last.party.clone(), last.choice()), (the_account("ada"), pb::Choice::Out));
    assert_eq!((last.actor.as_str(), last.notice.as_str()), ("tester", "notice-1"));
    assert_eq!((last.channel(), &last.chain), (pb::Channel::Ios, &receipt.chain));
    assert_eq!(all.events[4].plan, "gold");
    assert_eq!(all.next_after_revision, 6);
    let second = running.consent.list_events(page(2, 2)).await.unwrap().into_inner();
    assert_eq!(second.events, all.events[2..4]);
    let end = running.consent.list_events(page(6, 2)).await.unwrap().into_inner();
    assert_eq!((end.events.len(), end.next_after_revision), (0, 6));

    let policy = running.policy.get_policy(pb::GetPolicyRequest {}).await.unwrap().into_inner();
    assert_eq!((policy.toml.as_str(), policy.name.as_str(), policy.version), (POLICY, "test", 1));
    assert_eq!(policy.position.unwrap().revision, 1);
    running.stop().await;
}

#[tokio::test]
async fn every_refusal_has_its_code_its_reason_and_its_field() {
    let mut running = Running::new(Span::from_millis(50)).await;
    let invalid = |reason: &str, field: &str| refused(Code::InvalidArgument, reason, field);

    let first = choice_of("ada", pb::Choice::Out);
    let receipt = running.consent.set_consent(first.clone()).await.unwrap().into_inner().receipt;
    let again = running.consent.set_consent(first.clone()).await.unwrap().into_inner().receipt;
    assert_eq!(again, receipt, "a retry gives the first answer");
    let other = pb::SetConsentRequest { choice: pb::Choice::In.into(), ..first };
    let outcome = error(running.consent.set_consent(other).await);
    assert_eq!(outcome, invalid("REQUEST_ID_REUSED", "context.request_id"));
    let outcome = error(running.choose("ada", pb::Choice::In).await);
    assert_eq!(outcome, invalid("EXPECTED_REVISION_MISSING", "expected_revision"));
    let stale = pb::SetConsentRequest { expected_revision: Some(1), ..choice_of("ada", pb::Choice::In) };
    let outcome = error(running.consent.set_consent(stale).await);
    assert_eq!(outcome, refused(Code::Aborted, "REVISION_CONFLICT", ""));
    // An opt-out ignores it.
    let stale = pb::SetConsentRequest { expected_revision: Some(77), ..choice_of("bob", pb::Choice::Out) };
    assert!(running.consent.set_consent(stale).await.is_ok());

    let outcome = error(running.choose("", pb::Choice::Out).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "party.account"));
    let outcome = error(running.choose("ada", pb::Choice::Unset).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "choice"));
    let unnamed = pb::SetConsentRequest { product: "maps".to_owned(), ..choice_of("ada", pb::Choice::Out) };
    let outcome = error(running.consent.set_consent(unnamed).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "product"));
    let page = pb::ListEventsRequest { after_revision: u64::MAX, page_size: 0 };
    let outcome = error(running.consent.list_events(page).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "after_revision"));
    let nothing = error(running.consent.get_confirmation(pb::GetConfirmationRequest::default()).await);
    assert_eq!(nothing, invalid("INVALID_FIELD", "position"));
    let receipt = receipt.unwrap();
    let (position, chain) = (receipt.position.unwrap(), receipt.chain);
    for (position, chain, field) in [
        (pb::Position { epoch: vec![1; 3].into(), ..position.clone() }, chain.clone(), "position.epoch"),
        (pb::Position { revision: u64::MAX, ..position.clone() }, chain.clone(), "position.revision"),
        (position.clone(), chain.slice(1..), "chain"),
    ] {
        let ask = pb::GetConfirmationRequest { position: Some(position), chain, wait_effective: false };
        assert_eq!(error(running.consent.get_confirmation(ask).await), invalid("INVALID_FIELD", field));
    }

    let outcome = error(running.publish(POLICY).await);
    assert_eq!(outcome, invalid("BAD_POLICY", ""));
    let outcome = error(running.publish(&"#".repeat(300_000)).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "toml"));
    let outcome = error(running.decision.batch_can_train(pb::BatchCanTrainRequest::default()).await);
    assert_eq!(outcome, invalid("INVALID_FIELD", "requests"));
    let many = pb::BatchCanTrainRequest { requests: vec![question("ada"); 1001], min_position: None };
    let outcome = error(running.decision.batch_can_train(many).await);
    assert_eq!(outcome, invalid("BATCH_TOO_LARGE", "requests"));
    running.stop().await;
}
