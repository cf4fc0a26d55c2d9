//! Questions and answers: from the messages of DecisionService to the core's words and back.
//!
//! Sidecar and authority share it, so that both refuse the same requests in the same words. Nothing is copied: a
//! [`Asked`] borrows from its request, and is turned into keys only once the secret is at hand. A node that has no
//! secret yet still tells a wrong request from one that it cannot decide.

use super::{instant, invalid, position, present, timestamp, to_duration};
use crate::pb;
use consent_core::decision::{Decision, Question, Reason};
use consent_core::refusal::Refusal;
use consent_core::words::ids::{BadId, check_id};
use consent_core::words::{AccountKey, ArtifactKey, IdKey, Position, Span, Timestamp};
use thiserror::Error;

/// The most questions of one batch.
pub const BATCH_MAX: usize = 1000;

/// Checked questions, in order.
pub trait Questions {
    /// How many there are.
    fn count(&self) -> usize;

    /// One of them; past the end one that is denied.
    fn at(&self, place: usize) -> Asked<'_>;

    /// They, as a table can look them up whose ids are hashed under this secret.
    fn under(&self, key: &IdKey) -> impl Iterator<Item = Question<'_>> {
        (0..self.count()).map(|place| self.at(place).question(key))
    }
}

/// The checked questions of a batch. Each is read from its message again whenever it is asked for, which takes less than
/// to write down all that was read and to fetch it again.
pub struct Batch<'a>(&'a [pb::CanTrainRequest]);

impl Questions for Batch<'_> {
    fn count(&self) -> usize {
        self.0.len()
    }

    #[inline]
    fn at(&self, place: usize) -> Asked<'_> {
        self.0.get(place).map_or(Asked::NOTHING, checked)
    }
}

impl Questions for [Asked<'_>] {
    fn count(&self) -> usize {
        self.len()
    }

    fn at(&self, place: usize) -> Asked<'_> {
        self.get(place).copied().unwrap_or(Asked::NOTHING)
    }
}

/// A checked question, its ids as they came.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    pub(super) account: Id<'a>,
    pub(super) artifact: Id<'a>,
    pub(super) product: &'a str,
    pub(super) kind: &'a str,
    pub(super) collected_at: Option<Timestamp>,
    pub(super) is_incognito: bool,
}

/// A checked id.
#[derive(Clone, Copy)]
pub(super) enum Id<'a> {
    Text(&'a str),
    /// It stands for its text.
    Uuid(&'a [u8; 16]),
}

impl<'a> Asked<'a> {
    /// Nobody's data. The empty text is no id.
    const NOTHING: Asked<'static> = Asked {
        account: Id::Text(""),
        artifact: Id::Text(""),
        product: "",
        kind: "",
        collected_at: None,
        is_incognito: false,
    };

    /// Checks a question that came in no message, but from this process.
    pub fn new(
        account: &'a str,
        artifact: &'a str,
        product: &'a str,
        kind: &'a str,
        collected_at: Option<Timestamp>,
        is_incognito: bool,
    ) -> Result<Asked<'a>, BadQuestion> {
        check_ids(account, artifact)?;
        let (account, artifact) = (Id::Text(account), Id::Text(artifact));
        Ok(Asked { account, artifact, product, kind, collected_at, is_incognito })
    }

    /// Whose data it is, under this secret.
    #[inline]
    pub fn account(&self, key: &IdKey) -> AccountKey {
        match self.account {
            Id::Text(id) => key.account(id),
            Id::Uuid(uuid) => key.account_of(uuid),
        }
    }

    /// The artifact, under this secret.
    #[inline]
    pub fn artifact(&self, key: &IdKey) -> ArtifactKey {
        match self.artifact {
            Id::Text(id) => key.artifact(id),
            Id::Uuid(uuid) => key.artifact_of(uuid),
        }
    }

    /// The question as a table can look it up.
    pub fn question(&self, key: &IdKey) -> Question<'a> {
        self.with_keys(self.account(key), self.artifact(key))
    }

    /// The same, where the keys, or what makes the artifact's, are at hand.
    #[inline]
    pub fn with_keys<A>(&self, account: AccountKey, artifact: A) -> Question<'a, A> {
        let Asked { product, kind, collected_at, is_incognito, .. } = *self;
        Question { account, artifact, product, kind, collected_at, is_incognito }
    }
}

/// Why what came in no message is no question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum BadQuestion {
    /// The account's id is none.
    #[error("the account's id {0}")]
    Account(BadId),
    /// The artifact's id is none.
    #[error("the artifact's id {0}")]
    Artifact(BadId),
}

impl From<BadQuestion> for Refusal {
    fn from(bad: BadQuestion) -> Refusal {
        match bad {
            BadQuestion::Account(problem) => invalid("account", problem),
            BadQuestion::Artifact(problem) => invalid("artifact.id", problem),
        }
    }
}

/// Checks a single question.
pub fn asked(request: &pb::CanTrainRequest) -> Result<Asked<'_>, Refusal> {
    check(request).map(|()| checked(request))
}

/// Checks a batch: 1 to [`BATCH_MAX`] questions, none with a position of its own.
pub fn asked_all(request: &pb::BatchCanTrainRequest) -> Result<Batch<'_>, Refusal> {
    let count = request.requests.len();
    if count == 0 {
        return Err(invalid("requests", "is empty, it must have 1 to 1000 items"));
    }
    if count > BATCH_MAX {
        return Err(Refusal::TooMany { field: "requests", count, maximum: BATCH_MAX });
    }
    let check = |(index, request)| match check_one_of_many(request) {
        Err(Refusal::Invalid { field, problem }) => {
            Err(Refusal::Invalid { field: format!("requests[{index}].{field}"), problem })
        }
        checked => checked,
    };
    request.requests.iter().enumerate().try_for_each(check)?;
    Ok(Batch(&request.requests))
}

fn check_one_of_many(request: &pb::CanTrainRequest) -> Result<(), Refusal> {
    match request.min_position {
        Some(_) => Err(invalid("min_position", "is refused in an item of a batch: the batch has its own")),
        None => check(request),
    }
}

// Inlined, as `check_ids` is: for a question that is right no result is written to memory and read from there.
#[inline(always)]
fn check(request: &pb::CanTrainRequest) -> Result<(), Refusal> {
    let artifact = present("artifact", request.artifact.as_ref())?;
    if let Some(at) = &artifact.collected_at {
        timestamp("artifact.collected_at", at)?;
    }
    Ok(check_ids(&request.account, &artifact.id)?)
}

#[inline(always)]
fn check_ids(account: &str, artifact: &str) -> Result<(), BadQuestion> {
    check_id(account).map_err(BadQuestion::Account)?;
    check_id(artifact).map_err(BadQuestion::Artifact)
}

/// The question in a message that was checked. What a wrong one lacks could only ever deny.
#[inline]
fn checked(request: &pb::CanTrainRequest) -> Asked<'_> {
    let Some(pb::Artifact { id, product, kind, collected_at, incognito }) = &request.artifact else {
        return Asked::NOTHING;
    };
    Asked {
        account: Id::Text(&request.account),
        artifact: Id::Text(id),
        product,
        kind,
        collected_at: collected_at.as_ref().and_then(instant),
        is_incognito: *incognito,
    }
}

/// The position that an answer must have reached, if one was named.
pub fn min_position(named: Option<&pb::Position>) -> Result<Option<Position>, Refusal> {
    named.map(|named| position("min_position", named)).transpose()
}

/// The answer to a single question. `position` is none where there is no table; `valid_for` counts for an ALLOW.
pub fn response(decision: Decision, position: Option<Position>, valid_for: Span) -> pb::CanTrainResponse {
    pb::CanTrainResponse {
        decision: verdict(decision).into(),
        reason: reason(decision.reason).into(),
        r#final: decision.is_final,
        position: position.map(Into::into),
        valid_for: decision.is_allow().then(|| to_duration(valid_for)),
    }
}

/// The answers to a batch, in order.
pub fn responses(
    decisions: &[Decision],
    position: Option<Position>,
    valid_for: Span,
) -> pb::BatchCanTrainResponse {
    let answer = |decision: &Decision| pb::CanTrainAnswer {
        decision: verdict(*decision).into(),
        reason: reason(decision.reason).into(),
        r#final: decision.is_final,
    };
    pb::BatchCanTrainResponse {
        answers: decisions.iter().map(answer).collect(),
        position: position.map(Into::into),
        valid_for: allows_any(decisions).then(|| to_duration(valid_for)),
    }
}

/// Is any of them an ALLOW?
pub(super) fn allows_any(decisions: &[Decision]) -> bool {
    decisions.iter().any(|decision| decision.is_allow())
}

/// The wire's name of a decision.
pub(super) const fn verdict(decision: Decision) -> pb::Decision {
    if decision.is_allow() { pb::Decision::Allow } else { pb::Decision::Deny }
}

/// The wire's name of a reason.
pub const fn reason(reason: Reason) -> pb::Reason {
    match reason {
        Reason::NotReady => pb::Reason::NotReady,
        Reason::Stale => pb::Reason::Stale,
        Reason::MissingCollectedAt => pb::Reason::MissingCollectedAt,
        Reason::CollectedInFuture => pb::Reason::CollectedInFuture,
        Reason::UnknownAccount => pb::Reason::UnknownAccount,
        Reason::UnknownProduct => pb::Reason::UnknownProduct,
        Reason::UnknownKind => pb::Reason::UnknownKind,
        Reason::Erased => pb::Reason::Erased,
        Reason::Minor => pb::Reason::Minor,
        Reason::Region => pb::Reason::Region,
        Reason::ArtifactExcluded => pb::Reason::ArtifactExcluded,
        Reason::Incognito => pb::Reason::Incognito,
        Reason::KindNotTrainable => pb::Reason::KindNotTrainable,
        Reason::PlanLockedOut => pb::Reason::PlanLockedOut,
        Reason::OrganizationOptedOut => pb::Reason::OrganizationOptedOut,
        Reason::AccountOptedOut => pb::Reason::AccountOptedOut,
        Reason::UnknownPlan => pb::Reason::UnknownPlan,
        Reason::PlanDefaultOut => pb::Reason::PlanDefaultOut,
        Reason::CollectedBeforeAllowed => pb::Reason::CollectedBeforeAllowed,
        Reason::LegalHold => pb::Reason::LegalHold,
        Reason::Suspended => pb::Reason::Suspended,
        Reason::AccountOptedIn => pb::Reason::AccountOptedIn,
        Reason::OrganizationOptedIn => pb::Reason::OrganizationOptedIn,
        Reason::PlanDefaultIn => pb::Reason::PlanDefaultIn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> pb::CanTrainRequest {
        let artifact = pb::Artifact { id: "chat-1".to_owned(), ..pb::Artifact::default() };
        pb::CanTrainRequest { account: "ada".to_owned(), artifact: Some(artifact), min_position: None }
    }

    fn field(result: Result<Asked<'_>, Refusal>) -> String {
        match result {
            Err(Refusal::Invalid { field, .. }) => field,
            Err(other) => panic!("{other:?}"),
            Ok(_) => "none".to_owned(),
        }
    }

    fn changed(change: impl FnOnce(&mut pb::CanTrainRequest)) -> String {
        let mut request = request();
        change(&mut request);
        field(asked(&request))
    }

    #[test]
    fn a_wrong_field_is_named() {
        assert_eq!(changed(|_| ()), "none");
        assert_eq!(changed(|r| r.account.clear()), "account");
        assert_eq!(changed(|r| r.account = "x".repeat(129)), "account");
        assert_eq!(changed(|r| r.artifact = None), "artifact");
        assert_eq!(changed(|r| r.artifact.as_mut().unwrap().id.push('\n')), "artifact.id");
        let absurd = prost_types::Timestamp { seconds: 0, nanos: -1 };
        let field = changed(|r| r.artifact.as_mut().unwrap().collected_at = Some(absurd));
        assert_eq!(field, "artifact.collected_at.nanos");
    }

    #[test]
    fn an_item_of_a_batch_is_named_by_its_place() {
        let mut wrong = request();
        wrong.artifact.as_mut().unwrap().id.clear();
        let batch = |requests| pb::BatchCanTrainRequest { requests, min_position: None };
        let field = |requests| match asked_all(&batch(requests)) {
            Err(Refusal::Invalid { field, .. }) => field,
            Err(other) => panic!("{other:?}"),
            Ok(asked) => asked.count().to_string(),
        };
        assert_eq!(field(vec![]), "requests");
        assert_eq!(field(vec![request(); BATCH_MAX]), "1000");
        assert_eq!(field(vec![request(), wrong]), "requests[1].artifact.id");
        let own = pb::CanTrainRequest { min_position: Some(pb::Position::default()), ..request() };
        assert_eq!(field(vec![own]), "requests[0].min_position");
        assert!(matches!(
            asked_all(&batch(vec![request(); BATCH_MAX + 1])),
            Err(Refusal::TooMany { field: "requests", count: 1001, maximum: 1000 })
        ));
    }

    #[test]
    fn a_batch_asks_what_stands_in_its_messages() {
        let key = IdKey::new([7; 16]);
        let mut requests = vec![request(); 2];
        requests[1].account = "ben".to_owned();
        requests[1].artifact = Some(pb::Artifact {
            id: "chat-2".to_owned(),
            product: "le_chat".to_owned(),
            kind: "input".to_owned(),
            collected_at: Some(prost_types::Timestamp { seconds: 1, nanos: 999_999_999 }),
            incognito: true,
        });
        let question = |account, artifact, product, kind, collected_at, is_incognito| {
            let (account, artifact) = (key.account(account), key.artifact(artifact));
            Question { account, artifact, product, kind, collected_at, is_incognito }
        };
        let at = Some(Timestamp::from_millis(1_999));
        let expected = [
            question("ada", "chat-1", "", "", None, false),
            question("ben", "chat-2", "le_chat", "input", at, true),
        ];
        let batch = pb::BatchCanTrainRequest { requests, min_position: None };
        let batch = asked_all(&batch).unwrap();
        assert_eq!(batch.under(&key).collect::<Vec<_>>(), expected);
        // Past the end, nobody's data.
        assert_eq!(batch.at(2).question(&key), question("", "", "", "", None, false));
    }

    #[test]
    fn a_position_is_whole_or_refused() {
        let position = |epoch: &'static [u8], revision| pb::Position { epoch: epoch.into(), revision };
        assert_eq!(min_position(None), Ok(None));
        assert!(min_position(Some(&position(&[1; 16], 7))).is_ok_and(|position| position.is_some()));
        assert!(min_position(Some(&position(&[1; 15], 7))).is_err());
        assert!(min_position(Some(&position(&[1; 16], u64::MAX))).is_err());
    }

    #[test]
    fn only_an_allow_is_valid_for_a_while() {
        let span = Span::from_millis(50);
        let allow = Decision { reason: Reason::PlanDefaultIn, is_final: false };
        assert!(response(allow, None, span).valid_for.is_some());
        assert!(response(Decision::STALE, None, span).valid_for.is_none());
        assert!(responses(&[Decision::STALE, allow], None, span).valid_for.is_some());
        assert!(responses(&[Decision::STALE], None, span).valid_for.is_none());
    }

    #[test]
    fn the_wire_and_the_core_number_reasons_alike() {
        for known in Reason::ALL {
            assert_eq!(reason(known) as i32, i32::from(known.number()));
            assert_eq!(reason(known).as_str_name(), format!("REASON_{known}"));
        }
    }
}
