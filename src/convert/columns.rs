//! A message of a corpus: columns of questions to the core's words, and decisions to columns.
//!
//! Every column is checked to be as long as the others, once; nothing is copied, and an item costs no allocation. What
//! a wrong column lacks could only ever deny: there is no item for which a default would allow.

use super::decision::{Asked, Id, Questions, allows_any, reason, verdict};
use super::{id, invalid, present, to_duration};
use crate::column::{IdColumn, Texts};
use crate::pb;
use consent_core::decision::Decision;
use consent_core::refusal::Refusal;
use consent_core::words::ids::ID_LEN_MAX;
use consent_core::words::{Position, Span, Timestamp};

/// The most questions of one message to a sidecar.
pub const ITEMS_MAX: usize = 4096;
/// The most kinds of one message: as many as a byte can name.
pub const KINDS_MAX: usize = 256;

/// The checked questions of one message.
#[derive(Clone, Copy)]
pub struct Columns<'a> {
    product: &'a str,
    accounts: Ids<'a>,
    artifacts: Ids<'a>,
    kinds: &'a [String],
    kind_indexes: &'a [u8],
    collected_at_millis: &'a [i64],
    incognito: &'a [bool],
}

#[derive(Clone, Copy)]
enum Ids<'a> {
    Texts(&'a Texts),
    Uuids(&'a [[u8; 16]]),
}

/// Checks a message of 1 to `maximum` questions.
pub fn columns(request: &pb::StreamCanTrainRequest, maximum: usize) -> Result<Columns<'_>, Refusal> {
    let accounts = ids("accounts", request.accounts.as_ref())?;
    let count = accounts.len();
    if count == 0 {
        return Err(invalid("accounts", format_args!("is empty, it must have 1 to {maximum} items")));
    }
    if count > maximum {
        return Err(Refusal::TooMany { field: "accounts", count, maximum });
    }
    let artifacts = ids("artifacts", request.artifacts.as_ref())?;
    let kinds = &request.kinds[..];
    if kinds.is_empty() {
        return Err(invalid("kinds", "is empty, it must have 1 to 256 items"));
    }
    if kinds.len() > KINDS_MAX {
        return Err(Refusal::TooMany { field: "kinds", count: kinds.len(), maximum: KINDS_MAX });
    }
    let (kind_indexes, incognito) = (&request.kind_indexes[..], &request.incognito[..]);
    for (field, length, may_be_empty) in [
        ("artifacts", artifacts.len(), false),
        ("kind_indexes", kind_indexes.len(), kinds.len() == 1),
        ("collected_at_millis", request.collected_at_millis.len(), false),
        ("incognito", incognito.len(), true),
    ] {
        if length != count && !(may_be_empty && length == 0) {
            let problem = format!("has {length} items, it must have as many as accounts, {count}");
            return Err(invalid(field, problem));
        }
    }
    if let Some((place, index)) =
        (0..).zip(kind_indexes).find(|(_, index)| usize::from(**index) >= kinds.len())
    {
        let place: usize = place;
        let problem = format!("is {index}, and kinds has {} items", kinds.len());
        return Err(invalid(format!("kind_indexes[{place}]"), problem));
    }
    accounts.check("accounts")?;
    artifacts.check("artifacts")?;
    let (product, collected_at_millis) = (&request.product[..], &request.collected_at_millis[..]);
    Ok(Columns { product, accounts, artifacts, kinds, kind_indexes, collected_at_millis, incognito })
}

fn ids<'a>(field: &str, column: Option<&'a IdColumn>) -> Result<Ids<'a>, Refusal> {
    let IdColumn { texts, uuids } = present(field, column)?;
    let (whole, rest) = uuids.as_chunks();
    if !rest.is_empty() {
        let problem = format!("has {} bytes, it must have 16 for each id", uuids.len());
        return Err(invalid(format!("{field}.uuids"), problem));
    }
    match (texts.is_empty(), whole.is_empty()) {
        (false, false) => Err(invalid(field, "has texts and uuids, it must have only one of them")),
        (false, true) => Ok(Ids::Texts(texts)),
        (true, _) => Ok(Ids::Uuids(whole)),
    }
}

impl Ids<'_> {
    fn len(&self) -> usize {
        match self {
            Ids::Texts(texts) => texts.len(),
            Ids::Uuids(uuids) => uuids.len(),
        }
    }

    fn check(&self, field: &str) -> Result<(), Refusal> {
        match self {
            Ids::Texts(texts) if texts.are_plain(ID_LEN_MAX) => Ok(()),
            Ids::Texts(texts) => (0..).zip(texts.iter()).try_for_each(|(place, text): (usize, _)| {
                // The field is worded only when it is wrong.
                id("", text).map(drop).or_else(|_| id(&format!("{field}.texts[{place}]"), text).map(drop))
            }),
            Ids::Uuids(_) => Ok(()),
        }
    }

    /// One of them; past the end the empty text, which is nobody's id.
    #[inline]
    fn at(&self, place: usize) -> Id<'_> {
        match self {
            Ids::Texts(texts) => Id::Text(texts.get(place).unwrap_or("")),
            Ids::Uuids(uuids) => uuids.get(place).map_or(Id::Text(""), Id::Uuid),
        }
    }
}

impl Questions for Columns<'_> {
    fn count(&self) -> usize {
        self.accounts.len()
    }

    #[inline]
    fn at(&self, place: usize) -> Asked<'_> {
        let kind = self.kind_indexes.get(place).copied().unwrap_or(0);
        Asked {
            account: self.accounts.at(place),
            artifact: self.artifacts.at(place),
            product: self.product,
            kind: self.kinds.get(usize::from(kind)).map_or("", String::as_str),
            collected_at: self.collected_at_millis.get(place).map(|millis| Timestamp::from_millis(*millis)),
            is_incognito: self.incognito.get(place).copied().unwrap_or(false),
        }
    }
}

/// The answers to one message, in order.
pub fn column_responses(
    decisions: &[Decision],
    position: Option<Position>,
    valid_for: Span,
) -> pb::StreamCanTrainResponse {
    pb::StreamCanTrainResponse {
        decisions: decisions.iter().map(|decision| verdict(*decision).into()).collect(),
        reasons: decisions.iter().map(|decision| reason(decision.reason).into()).collect(),
        finals: decisions.iter().map(|decision| decision.is_final).collect(),
        position: position.map(Into::into),
        valid_for: allows_any(decisions).then(|| to_duration(valid_for)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::decision::asked;
    use consent_core::decision::Question;
    use consent_core::words::IdKey;
    use uuid::Uuid;

    const KEY: IdKey = IdKey::new([7; 16]);
    const UUID: &str = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6";

    fn uuid(count: u8) -> [u8; 16] {
        let mut bytes = *Uuid::parse_str(UUID).unwrap().as_bytes();
        bytes[15] += count;
        bytes
    }

    fn message() -> pb::StreamCanTrainRequest {
        pb::StreamCanTrainRequest {
            product: "le_chat".to_owned(),
            accounts: Some(IdColumn::of_texts(["ada", "ben", UUID])),
            artifacts: Some(IdColumn::of_uuids([0, 1, 2].map(uuid))),
            kinds: vec!["input".to_owned(), "output".to_owned()],
            kind_indexes: vec![0, 1, 0].into(),
            collected_at_millis: vec![1, 0, i64::MAX],
            incognito: vec![false, true, false],
            min_position: None,
        }
    }

    fn changed(change: impl FnOnce(&mut pb::StreamCanTrainRequest)) -> String {
        let mut request = message();
        change(&mut request);
        match columns(&request, ITEMS_MAX) {
            Err(Refusal::Invalid { field, .. }) => field,
            Err(Refusal::TooMany { field, .. }) => format!("{field}, too many"),
            Err(other) => panic!("{other:?}"),
            Ok(columns) => columns.count().to_string(),
        }
    }

    #[test]
    fn a_wrong_column_is_named() {
        let texts = |texts: &[&str]| Some(IdColumn::of_texts(texts));
        let both = || IdColumn { uuids: uuid(0).to_vec().into(), ..IdColumn::of_texts(["ada"]) };
        assert_eq!(changed(|_| ()), "3");
        assert_eq!(changed(|r| (r.incognito.clear(), r.kinds.truncate(2)).1), "3");
        assert_eq!(changed(|r| (r.kinds.truncate(1), r.kind_indexes.clear()).1), "3");
        assert_eq!(changed(|r| r.accounts = None), "accounts");
        assert_eq!(changed(|r| r.accounts = Some(IdColumn::default())), "accounts");
        assert_eq!(changed(|r| r.accounts = Some(both())), "accounts");
        assert_eq!(changed(|r| r.accounts = texts(&["ada"; ITEMS_MAX + 1])), "accounts, too many");
        assert_eq!(changed(|r| r.accounts = texts(&["ada", "", "ben"])), "accounts.texts[1]");
        assert_eq!(changed(|r| r.accounts = texts(&["ada", "ben", "a\u{9b}"])), "accounts.texts[2]");
        assert_eq!(changed(|r| r.artifacts = None), "artifacts");
        assert_eq!(changed(|r| r.artifacts = texts(&["a", "b"])), "artifacts");
        assert_eq!(changed(|r| r.artifacts = texts(&[&"x".repeat(129), "b", "c"])), "artifacts.texts[0]");
        let torn = IdColumn { uuids: vec![7; 47].into(), ..IdColumn::default() };
        assert_eq!(changed(|r| r.artifacts = Some(torn)), "artifacts.uuids");
        assert_eq!(changed(|r| r.kinds.clear()), "kinds");
        assert_eq!(changed(|r| r.kinds = vec![String::new(); KINDS_MAX + 1]), "kinds, too many");
        assert_eq!(changed(|r| r.kind_indexes = vec![0, 1].into()), "kind_indexes");
        assert_eq!(changed(|r| r.kind_indexes.clear()), "kind_indexes");
        assert_eq!(changed(|r| r.kind_indexes = vec![0, 1, 2].into()), "kind_indexes[2]");
        assert_eq!(changed(|r| r.collected_at_millis.push(1)), "collected_at_millis");
        assert_eq!(changed(|r| r.collected_at_millis.clear()), "collected_at_millis");
        assert_eq!(changed(|r| r.incognito.push(true)), "incognito");
    }

    #[test]
    fn a_column_asks_what_a_single_question_would() {
        let request = message();
        let columns = columns(&request, ITEMS_MAX).unwrap();
        let texts = [0, 1, 2].map(|place| Uuid::from_bytes(uuid(place)).to_string());
        let expected = |place: usize| {
            let kind = &request.kinds[usize::from(request.kind_indexes[place])];
            Question {
                account: KEY.account(["ada", "ben", UUID][place]),
                artifact: KEY.artifact(&texts[place]),
                product: "le_chat",
                kind,
                collected_at: Some(Timestamp::from_millis([1, 0, i64::MAX][place])),
                is_incognito: place == 1,
            }
        };
        let questions: Vec<_> = columns.under(&KEY).collect();
        assert_eq!(questions, [0, 1, 2].map(expected));
        assert_eq!(texts[0], UUID);

        let artifact = pb::Artifact {
            id: UUID.to_owned(),
            product: "le_chat".to_owned(),
            kind: "input".to_owned(),
            collected_at: Some(crate::convert::to_timestamp(Timestamp::from_millis(1))),
            incognito: false,
        };
        let single = pb::CanTrainRequest {
            account: "ada".to_owned(),
            artifact: Some(artifact),
            ..pb::CanTrainRequest::default()
        };
        assert_eq!(asked(&single).unwrap().question(&KEY), questions[0]);
    }

    #[test]
    fn what_is_not_there_denies() {
        let request = message();
        let columns = columns(&request, ITEMS_MAX).unwrap();
        let past = columns.at(3).question(&KEY);
        assert_eq!((past.account, past.artifact), (KEY.account(""), KEY.artifact("")));
        assert_eq!((past.kind, past.collected_at), ("input", None));
    }
}
