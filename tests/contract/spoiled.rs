//! Requests that are spoiled in one place, each with the field that its refusal must name, and the same unspoiled.

use crate::raw;
use crate::servers::{OPTED_OUT, context};
use consent::pb::{
    Artifact, BatchCanTrainRequest, CanTrainRequest, Choice, GetAccountRequest, GetConfirmationRequest,
    IdColumn, ListEventsRequest, Party, Position, PublishPolicyRequest, PutAccountRequest,
    PutOrganizationRequest, SetConsentRequest, SetPlanRequest, StreamCanTrainRequest, WriteContext, party,
};
use prost::Message;
use prost_types::Timestamp;

const MARK: &str = "spoil-me";

pub(super) fn person(id: &str) -> Option<Party> {
    Some(Party { party: Some(party::Party::Account(id.to_owned())) })
}

fn company(id: &str) -> Option<Party> {
    Some(Party { party: Some(party::Party::Organization(id.to_owned())) })
}

pub(super) fn opt_out() -> SetConsentRequest {
    SetConsentRequest {
        context: context(),
        party: person("ada"),
        product: "le_chat".to_owned(),
        choice: Choice::Out.into(),
        expected_revision: None,
    }
}

pub(super) fn plan() -> SetPlanRequest {
    SetPlanRequest {
        context: context(),
        party: person("bob"),
        product: "le_chat".to_owned(),
        plan: "free".to_owned(),
        expected_revision: None,
    }
}

fn account(account: &str, organization: &str) -> PutAccountRequest {
    PutAccountRequest {
        context: context(),
        account: account.to_owned(),
        organization: organization.to_owned(),
        expected_revision: None,
    }
}

fn organization(organization: &str) -> PutOrganizationRequest {
    PutOrganizationRequest { context: context(), organization: organization.to_owned() }
}

pub(super) fn policy(toml: &str) -> PublishPolicyRequest {
    PublishPolicyRequest { context: context(), toml: toml.to_owned() }
}

pub(super) fn question() -> CanTrainRequest {
    let artifact = Artifact {
        id: "chat-1".to_owned(),
        product: "le_chat".to_owned(),
        kind: "input".to_owned(),
        collected_at: Some(Timestamp { seconds: 1_700_000_000, nanos: 0 }),
        incognito: false,
    };
    CanTrainRequest { account: "ada".to_owned(), artifact: Some(artifact), min_position: None }
}

pub(super) fn batch(questions: usize) -> BatchCanTrainRequest {
    BatchCanTrainRequest { requests: vec![question(); questions], min_position: None }
}

/// A message of a corpus.
pub(super) fn corpus(artifacts: usize) -> StreamCanTrainRequest {
    StreamCanTrainRequest {
        product: "le_chat".to_owned(),
        accounts: Some(IdColumn::of_texts(vec![OPTED_OUT; artifacts])),
        artifacts: Some(IdColumn::of_uuids((0..artifacts).map(|n| (n as u128).to_be_bytes()))),
        kinds: vec!["input".to_owned(), "output".to_owned()],
        kind_indexes: vec![1; artifacts].into(),
        collected_at_millis: vec![1_700_000_000_000; artifacts],
        incognito: vec![false; artifacts],
        min_position: None,
    }
}

/// The message with one place changed.
pub(super) fn with<M>(mut message: M, spoil: impl FnOnce(&mut M)) -> M {
    spoil(&mut message);
    message
}

fn in_context(spoil: impl FnOnce(&mut WriteContext)) -> SetConsentRequest {
    with(opt_out(), |request| spoil(request.context.as_mut().expect("a context")))
}

pub(super) fn in_artifact(spoil: impl FnOnce(&mut Artifact)) -> CanTrainRequest {
    with(question(), |request| spoil(request.artifact.as_mut().expect("an artifact")))
}

/// Method, message, and the field that the refusal must name.
pub(super) type Case = (&'static str, Vec<u8>, &'static str);

fn case(method: &'static str, message: impl Message, field: &'static str) -> Case {
    (method, message.encode_to_vec(), field)
}

fn bad_ids() -> [(&'static str, String); 4] {
    [
        ("empty", String::new()),
        ("overlong", "x".repeat(129)),
        ("with a line break", "a\nb".to_owned()),
        ("with a control character of two bytes", "a\u{9b}b".to_owned()),
    ]
}

pub(super) const SET_CONSENT: &str = "ConsentService/SetConsent";
pub(super) const SET_PLAN: &str = "ConsentService/SetPlan";
pub(super) const PUT_ACCOUNT: &str = "ConsentService/PutAccount";
pub(super) const PUT_ORGANIZATION: &str = "ConsentService/PutOrganization";
pub(super) const GET_ACCOUNT: &str = "ConsentService/GetAccount";
pub(super) const GET_CONFIRMATION: &str = "ConsentService/GetConfirmation";
pub(super) const LIST_EVENTS: &str = "ConsentService/ListEvents";
pub(super) const PUBLISH: &str = "PolicyService/PublishPolicy";
pub(super) const CAN_TRAIN: &str = "DecisionService/CanTrain";
pub(super) const BATCH: &str = "DecisionService/BatchCanTrain";
pub(super) const STREAM: &str = "DecisionService/StreamCanTrain";

pub(super) fn writes() -> Vec<Case> {
    let mut cases = vec![
        case(SET_CONSENT, with(opt_out(), |r| r.context = None), "context"),
        case(SET_CONSENT, in_context(|c| c.request_id.clear()), "context.request_id"),
        case(SET_CONSENT, in_context(|c| c.request_id = "7".to_owned()), "context.request_id"),
        case(SET_CONSENT, in_context(|c| c.channel = 0), "context.channel"),
        case(SET_CONSENT, in_context(|c| c.channel = 99), "context.channel"),
        case(SET_CONSENT, in_context(|c| c.channel = i32::MIN), "context.channel"),
        case(SET_CONSENT, in_context(|c| c.notice = "x".repeat(129)), "context.notice"),
        case(SET_CONSENT, with(opt_out(), |r| r.party = None), "party"),
        case(SET_CONSENT, with(opt_out(), |r| r.party = Some(Party::default())), "party"),
        case(SET_CONSENT, with(opt_out(), |r| r.product.clear()), "product"),
        case(SET_CONSENT, with(opt_out(), |r| r.product = "no_such_product".to_owned()), "product"),
        case(SET_CONSENT, with(opt_out(), |r| r.choice = 0), "choice"),
        case(SET_CONSENT, with(opt_out(), |r| r.choice = Choice::Unset.into()), "choice"),
        case(SET_CONSENT, with(opt_out(), |r| r.choice = 99), "choice"),
        case(
            SET_CONSENT,
            with(opt_out(), |r| {
                r.choice = Choice::In.into();
                r.expected_revision = Some(u64::MAX);
            }),
            "expected_revision",
        ),
        case(SET_PLAN, with(plan(), |r| r.plan = "No Plan".to_owned()), "plan"),
        case(SET_PLAN, with(plan(), |r| r.product = "no_such_product".to_owned()), "product"),
        case(SET_PLAN, with(plan(), |r| r.expected_revision = Some(1 << 40)), "expected_revision"),
        case(PUBLISH, policy(&"#".repeat(256 * 1024 + 1)), "toml"),
        case(GET_CONFIRMATION, GetConfirmationRequest::default(), "position"),
        case(LIST_EVENTS, ListEventsRequest { after_revision: u64::MAX, page_size: 0 }, "after_revision"),
    ];
    for (_, id) in bad_ids() {
        cases.push(case(SET_CONSENT, with(opt_out(), |r| r.party = person(&id)), "party.account"));
        cases.push(case(SET_CONSENT, with(opt_out(), |r| r.party = company(&id)), "party.organization"));
        cases.push(case(SET_CONSENT, in_context(|c| c.actor = id.clone()), "context.actor"));
        cases.push(case(SET_PLAN, with(plan(), |r| r.party = person(&id)), "party.account"));
        cases.push(case(PUT_ACCOUNT, account(&id, ""), "account"));
        if !id.is_empty() {
            cases.push(case(PUT_ACCOUNT, account("ada", &id), "organization"));
        }
        cases.push(case(PUT_ORGANIZATION, organization(&id), "organization"));
        cases.push(case(GET_ACCOUNT, GetAccountRequest { account: id }, "account"));
    }
    cases
}

pub(super) fn not_utf8_writes() -> Vec<Case> {
    let spoiled = |message: SetConsentRequest| raw::not_utf8(&message, MARK);
    vec![
        // The field of a `oneof` is known by the name of the `oneof` where its text cannot be read.
        (SET_CONSENT, spoiled(with(opt_out(), |r| r.party = person(MARK))), "party.party"),
        (SET_CONSENT, spoiled(in_context(|c| c.actor = MARK.to_owned())), "context.actor"),
        (SET_CONSENT, spoiled(in_context(|c| c.notice = MARK.to_owned())), "context.notice"),
        (SET_CONSENT, spoiled(with(opt_out(), |r| r.product = MARK.to_owned())), "product"),
        (SET_PLAN, raw::not_utf8(&with(plan(), |r| r.plan = MARK.to_owned()), MARK), "plan"),
        (PUT_ACCOUNT, raw::not_utf8(&account("ada", MARK), MARK), "organization"),
        (PUT_ORGANIZATION, raw::not_utf8(&organization(MARK), MARK), "organization"),
        (PUBLISH, raw::not_utf8(&policy(MARK), MARK), "toml"),
        (GET_ACCOUNT, raw::not_utf8(&GetAccountRequest { account: MARK.to_owned() }, MARK), "account"),
    ]
}

pub(super) fn questions() -> Vec<Case> {
    let position = |epoch: usize, revision: u64| Position { epoch: vec![7; epoch].into(), revision };
    let at = |seconds, nanos| in_artifact(|a| a.collected_at = Some(Timestamp { seconds, nanos }));
    let mut cases = vec![
        case(CAN_TRAIN, with(question(), |q| q.artifact = None), "artifact"),
        case(CAN_TRAIN, at(i64::MAX, 0), "artifact.collected_at.seconds"),
        case(CAN_TRAIN, at(i64::MIN, 0), "artifact.collected_at.seconds"),
        case(CAN_TRAIN, at(253_402_300_800, 0), "artifact.collected_at.seconds"),
        case(CAN_TRAIN, at(1_700_000_000, -1), "artifact.collected_at.nanos"),
        case(CAN_TRAIN, at(1_700_000_000, i32::MAX), "artifact.collected_at.nanos"),
        case(CAN_TRAIN, with(question(), |q| q.min_position = Some(position(15, 1))), "min_position.epoch"),
        case(
            CAN_TRAIN,
            with(question(), |q| q.min_position = Some(position(16, u64::MAX))),
            "min_position.revision",
        ),
        case(BATCH, batch(0), "requests"),
        case(BATCH, with(batch(3), |b| b.requests[1].account.clear()), "requests[1].account"),
        case(
            BATCH,
            with(batch(2), |b| b.requests[1].min_position = Some(position(16, 1))),
            "requests[1].min_position",
        ),
        (CAN_TRAIN, raw::not_utf8(&with(question(), |q| q.account = MARK.to_owned()), MARK), "account"),
        (CAN_TRAIN, raw::not_utf8(&in_artifact(|a| a.id = MARK.to_owned()), MARK), "artifact.id"),
        (CAN_TRAIN, raw::not_utf8(&in_artifact(|a| a.kind = MARK.to_owned()), MARK), "artifact.kind"),
    ];
    for (_, id) in bad_ids() {
        cases.push(case(CAN_TRAIN, with(question(), |q| q.account = id.clone()), "account"));
        cases.push(case(CAN_TRAIN, in_artifact(|a| a.id = id), "artifact.id"));
    }
    cases
}

/// Each the first message of a stream, which it ends.
pub(super) fn messages() -> Vec<Case> {
    let wrong = |spoil: fn(&mut StreamCanTrainRequest)| with(corpus(3), spoil);
    let texts = |id: String| Some(IdColumn::of_texts(["a".to_owned(), "b".to_owned(), id]));
    let torn = || Some(IdColumn { uuids: vec![7; 47].into(), ..IdColumn::default() });
    let both = || Some(IdColumn { uuids: vec![7; 48].into(), ..IdColumn::of_texts(["a", "b", "c"]) });
    let mut cases = vec![
        case(STREAM, wrong(|m| m.accounts = None), "accounts"),
        case(STREAM, wrong(|m| m.accounts = Some(IdColumn::default())), "accounts"),
        case(STREAM, with(corpus(3), |m| m.accounts = both()), "accounts"),
        case(STREAM, with(corpus(3), |m| m.accounts = torn()), "accounts.uuids"),
        case(STREAM, wrong(|m| m.artifacts = None), "artifacts"),
        case(STREAM, with(corpus(3), |m| m.artifacts = corpus(2).artifacts), "artifacts"),
        case(STREAM, with(corpus(3), |m| m.artifacts = torn()), "artifacts.uuids"),
        case(STREAM, wrong(|m| m.kinds.clear()), "kinds"),
        case(STREAM, wrong(|m| m.kind_indexes.clear()), "kind_indexes"),
        case(STREAM, wrong(|m| m.kind_indexes = vec![0, 1, 2].into()), "kind_indexes[2]"),
        case(STREAM, wrong(|m| m.kind_indexes = vec![0; 4].into()), "kind_indexes"),
        case(STREAM, wrong(|m| m.collected_at_millis.clear()), "collected_at_millis"),
        case(STREAM, wrong(|m| m.collected_at_millis.push(1)), "collected_at_millis"),
        case(STREAM, wrong(|m| m.incognito.push(true)), "incognito"),
        case(STREAM, wrong(|m| m.min_position = Some(Position::default())), "min_position.epoch"),
        (STREAM, raw::not_utf8(&with(corpus(3), |m| m.product = MARK.to_owned()), MARK), "product"),
        (STREAM, raw::not_utf8(&with(corpus(3), |m| m.kinds.push(MARK.to_owned())), MARK), "kinds"),
        (
            STREAM,
            raw::not_utf8(&with(corpus(3), |m| m.accounts = texts(MARK.to_owned())), MARK),
            "accounts.texts",
        ),
    ];
    for (_, id) in bad_ids() {
        let (account, artifact) = (texts(id.clone()), texts(id));
        cases.push(case(STREAM, with(corpus(3), |m| m.accounts = account), "accounts.texts[2]"));
        cases.push(case(STREAM, with(corpus(3), |m| m.artifacts = artifact), "artifacts.texts[2]"));
    }
    cases
}
