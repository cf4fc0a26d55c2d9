//! The sync stream between the wire and the words of the core.
//!
//! Whatever comes in is checked here, whole, and named by its field when it is wrong; behind this edge there is no
//! message with a part missing. A head stays bytes: whether its semantics version can be read is for whoever
//! applies it, and one that cannot be read is a DENY there, never skipped. The version of a frame is another one:
//! it says what must be known of everything beside the head, and who knows less cannot apply any of it.
//!
//! What only drivers know of a hello, a seal and a snapshot whose stream broke, stands beside the machine's message:
//! [`sealed`], [`with_unfinished`].
//!
//! A hello that is not accepted ends the stream with a status; [`unwelcome`] and [`why_unwelcome`] are its two ends.

mod unfinished;

pub use unfinished::{Unfinished, unfinished, with_unfinished};

use super::{chain, invalid, revision, to_duration, to_timestamp};
use crate::pb::{self, ErrorReason, sync_request, sync_response};
use crate::status::{name, status};
use bytes::Bytes;
use consent_core::chain::Link;
use consent_core::confirm::{Frame, Place, Seal, Start, Terms, ToAuthority, ToSidecar, Unwelcome, Values};
use consent_core::digest::Digest;
use consent_core::head::{HeadKey, HeadKind};
use consent_core::ledger::HeadRecord;
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, IdKey, Incarnation, Nonce, Position, Revision, Timestamp};
use tonic::Status;
use tonic_types::StatusExt;

/// The semantics version of frames that this build writes, and the newest that it applies. A new version of heads
/// leaves it as it is: the head says that itself, and only whoever needs that head is denied.
const FRAME_SEMANTICS: u32 = 1;

/// What a sidecar hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromAuthority {
    /// The hello is accepted.
    Welcome {
        /// Always a [`ToSidecar::Welcome`].
        message: ToSidecar,
        /// The secret under which ids are hashed.
        id_key: IdKey,
        /// Where the authority stood.
        revision: Revision,
    },
    /// A snapshot begins: the frames between its chunks are those after this place.
    SnapshotBegin(Place),
    /// Some heads of a snapshot.
    SnapshotChunk {
        /// They.
        heads: Vec<HeadRecord>,
        /// Every one of them is at least this new.
        revision: Revision,
    },
    /// The snapshot is complete here, once every frame up to it is folded in.
    SnapshotEnd {
        /// What the table must now prove to hold.
        place: Place,
        /// When that revision was recorded.
        recorded_at: Timestamp,
    },
    /// Consecutive changes.
    Frames(Vec<Change>),
    /// A [`ToSidecar::Grant`] or [`ToSidecar::Draining`].
    Message(ToSidecar),
}

/// One revision with the head that it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its header, for the holder.
    pub frame: Frame,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The head as it is after it.
    pub head: HeadRecord,
}

/// What an authority hears.
pub fn to_authority(request: pb::SyncRequest) -> Result<ToAuthority, Refusal> {
    use sync_request::Message;
    match required("message", request.message)? {
        Message::Hello(hello) => Ok(ToAuthority::Hello {
            incarnation: incarnation("hello.incarnation", &hello.incarnation)?,
            place: hello.have.map(|have| place("hello.have", have)).transpose()?,
            semantics: u8::try_from(hello.semantics_version).unwrap_or(u8::MAX),
        }),
        Message::KeepAlive(keep_alive) => Ok(ToAuthority::KeepAlive { nonce: Nonce(keep_alive.nonce) }),
        Message::Ack(ack) => Ok(ToAuthority::Ack {
            revision: revision("ack.revision", ack.revision)?,
            chain: chain("ack.chain", &ack.chain)?,
        }),
        Message::Relinquish(relinquish) => Ok(ToAuthority::Relinquish { last: Nonce(relinquish.last_nonce) }),
    }
}

/// What a sidecar says.
pub fn sync_request(message: ToAuthority) -> pb::SyncRequest {
    use sync_request::Message;
    let message = match message {
        ToAuthority::Hello { incarnation, place, semantics } => Message::Hello(pb::Hello {
            incarnation: raw(incarnation.bytes()),
            have: place.map(proof),
            semantics_version: semantics.into(),
            seal: None,
            unfinished: None,
            resumable: true,
        }),
        ToAuthority::KeepAlive { nonce } => Message::KeepAlive(pb::KeepAlive { nonce: nonce.0 }),
        ToAuthority::Ack { revision, chain } => {
            Message::Ack(pb::Ack { revision: revision.get(), chain: raw(chain.bytes()) })
        }
        ToAuthority::Relinquish { last } => Message::Relinquish(pb::Relinquish { last_nonce: last.0 }),
    };
    pb::SyncRequest { message: Some(message) }
}

/// The same hello, of a place that is not remembered but was found with this seal.
pub fn sealed(mut hello: pb::SyncRequest, seal: Seal) -> pb::SyncRequest {
    if let Some(sync_request::Message::Hello(hello)) = &mut hello.message {
        hello.seal = Some(raw(seal.bytes()));
    }
    hello
}

/// The seal that a hello carries; none where the sidecar remembers its place.
pub fn seal(request: &pb::SyncRequest) -> Result<Option<Seal>, Refusal> {
    match &request.message {
        Some(sync_request::Message::Hello(pb::Hello { seal: Some(seal), .. })) => {
            exactly("hello.seal", seal).map(Seal::new).map(Some)
        }
        Some(_) | None => Ok(None),
    }
}

/// Does the sidecar want to hear where a snapshot begins?
pub fn is_resumable(request: &pb::SyncRequest) -> bool {
    matches!(&request.message, Some(sync_request::Message::Hello(hello)) if hello.resumable)
}

/// Reads what an authority says.
pub fn from_authority(response: pb::SyncResponse) -> Result<FromAuthority, Refusal> {
    use sync_response::Message;
    Ok(match required("message", response.message)? {
        Message::Welcome(welcome) => FromAuthority::Welcome {
            message: ToSidecar::Welcome {
                grantor: incarnation("welcome.incarnation", &welcome.incarnation)?,
                epoch: epoch("welcome.epoch", &welcome.epoch)?,
                terms: terms(required("welcome.terms", welcome.terms)?)?,
                start: start(welcome.start)?,
            },
            id_key: IdKey::new(exactly("welcome.id_key", &welcome.id_key)?),
            revision: revision("welcome.revision", welcome.revision)?,
        },
        Message::SnapshotBegin(begin) => FromAuthority::SnapshotBegin(place(
            "snapshot_begin.at",
            required("snapshot_begin.at", begin.at)?,
        )?),
        Message::SnapshotChunk(chunk) => FromAuthority::SnapshotChunk {
            heads: chunk.heads.into_iter().map(head_record).collect::<Result<_, _>>()?,
            revision: revision("snapshot_chunk.revision", chunk.revision)?,
        },
        Message::SnapshotEnd(end) => FromAuthority::SnapshotEnd {
            place: place("snapshot_end.at", required("snapshot_end.at", end.at)?)?,
            recorded_at: timestamp("snapshot_end.recorded_at", end.recorded_at)?,
        },
        Message::Frames(frames) => {
            let epoch = epoch("frames.epoch", &frames.epoch)?;
            FromAuthority::Frames(
                frames.frames.into_iter().map(|frame| change(epoch, frame)).collect::<Result<_, _>>()?,
            )
        }
        Message::Grant(grant) => FromAuthority::Message(ToSidecar::Grant {
            nonce: Nonce(grant.nonce),
            place: place("grant.at", required("grant.at", grant.at)?)?,
        }),
        Message::Draining(pb::Draining {}) => FromAuthority::Message(ToSidecar::Draining),
    })
}

/// Words a welcome.
pub fn welcome(
    grantor: Incarnation,
    epoch: Epoch,
    start: Start,
    terms: &Terms,
    id_key: &IdKey,
    revision: Revision,
) -> pb::SyncResponse {
    response(sync_response::Message::Welcome(pb::Welcome {
        incarnation: raw(grantor.bytes()),
        epoch: raw(epoch.bytes()),
        resume: start == Start::Continue,
        id_key: raw(id_key.bytes()),
        terms: Some(terms_announced(terms)),
        revision: revision.get(),
        start: start_announced(start).into(),
    }))
}

/// Words the beginning of a snapshot.
pub fn snapshot_begin(at: Place) -> pb::SyncResponse {
    response(sync_response::Message::SnapshotBegin(pb::SnapshotBegin { at: Some(proof(at)) }))
}

/// Words a page of a snapshot.
pub fn snapshot_chunk(heads: Vec<HeadRecord>, revision: Revision) -> pb::SyncResponse {
    let heads = heads.into_iter().map(head).collect();
    response(sync_response::Message::SnapshotChunk(pb::SnapshotChunk { heads, revision: revision.get() }))
}

/// Words the end of a snapshot.
pub fn snapshot_end(at: Place, recorded_at: Timestamp) -> pb::SyncResponse {
    response(sync_response::Message::SnapshotEnd(pb::SnapshotEnd {
        at: Some(proof(at)),
        recorded_at: Some(to_timestamp(recorded_at)),
    }))
}

/// Words a change. It shares its buffers: a frame is made once and sent to every session.
pub fn frame(change: Change) -> pb::Frame {
    pb::Frame {
        revision: change.frame.revision.get(),
        recorded_at: Some(to_timestamp(change.recorded_at)),
        link: raw(change.frame.link.bytes()),
        chain: raw(change.frame.chain.bytes()),
        digest: raw(&change.frame.digest.bytes()[..]),
        head: Some(head(change.head)),
        semantics_version: FRAME_SEMANTICS,
    }
}

/// Words consecutive frames.
pub fn frames(epoch: Epoch, frames: Vec<pb::Frame>) -> pb::SyncResponse {
    response(sync_response::Message::Frames(pb::Frames { epoch: raw(epoch.bytes()), frames }))
}

/// Words a grant.
pub fn grant(nonce: Nonce, at: Place) -> pb::SyncResponse {
    response(sync_response::Message::Grant(pb::Grant { nonce: nonce.0, at: Some(proof(at)) }))
}

/// Words that the authority leaves.
pub fn draining() -> pb::SyncResponse {
    response(sync_response::Message::Draining(pb::Draining {}))
}

/// Ends the stream of a hello that is not accepted.
pub fn unwelcome(why: Unwelcome) -> Status {
    status(match why {
        Unwelcome::Held => Refusal::ForeignPosition,
        Unwelcome::Busy { retry_after } => Refusal::Overloaded { retry_after },
        Unwelcome::Leaving => Refusal::NotServing,
    })
}

/// Why a stream was ended, if its hello was not accepted; none for any other end.
pub fn why_unwelcome(ended: &Status) -> Option<Unwelcome> {
    let details = ended.get_error_details();
    let reason = details.error_info()?.reason.as_str();
    if reason == name(ErrorReason::ForeignPosition) {
        Some(Unwelcome::Held)
    } else if reason == name(ErrorReason::Overloaded) {
        let retry_after = details.retry_info().and_then(|info| info.retry_delay).unwrap_or_default();
        Some(Unwelcome::Busy { retry_after: retry_after.into() })
    } else if reason == name(ErrorReason::NotServing) {
        Some(Unwelcome::Leaving)
    } else {
        None
    }
}

fn start(start: i32) -> Result<Start, Refusal> {
    match pb::Start::try_from(start) {
        Ok(pb::Start::Frames) => Ok(Start::Continue),
        Ok(pb::Start::Snapshot) => Ok(Start::Snapshot),
        Ok(pb::Start::RestOfSnapshot) => Ok(Start::RestOfSnapshot),
        Ok(pb::Start::Unspecified) | Err(_) => Err(invalid("welcome.start", "is unknown")),
    }
}

fn start_announced(start: Start) -> pb::Start {
    match start {
        Start::Continue => pb::Start::Frames,
        Start::Snapshot => pb::Start::Snapshot,
        Start::RestOfSnapshot => pb::Start::RestOfSnapshot,
    }
}

fn response(message: sync_response::Message) -> pb::SyncResponse {
    pb::SyncResponse { message: Some(message) }
}

fn change(epoch: Epoch, frame: pb::Frame) -> Result<Change, Refusal> {
    let version = frame.semantics_version;
    if !(1..=FRAME_SEMANTICS).contains(&version) {
        let why = format_args!("is {version}, this build applies frames of 1 to {FRAME_SEMANTICS}");
        return Err(invalid("frame.semantics_version", why));
    }
    Ok(Change {
        frame: Frame {
            epoch,
            revision: revision("frame.revision", frame.revision)?,
            link: Link::new(exactly("frame.link", &frame.link)?),
            chain: chain("frame.chain", &frame.chain)?,
            digest: Digest::new(exactly("frame.digest", &frame.digest)?),
        },
        recorded_at: timestamp("frame.recorded_at", frame.recorded_at)?,
        head: head_record(required("frame.head", frame.head)?)?,
    })
}

fn head(record: HeadRecord) -> pb::Head {
    pb::Head {
        kind: head_kind(record.key.kind()).into(),
        key: raw(&record.key.bytes()),
        state: Bytes::from(record.bytes),
    }
}

fn head_record(head: pb::Head) -> Result<HeadRecord, Refusal> {
    // A kind of head that this build does not know may be a new kind of DENY: refused, never skipped.
    let key = head_key("head.kind", head.kind, "head.key", &head.key)?;
    Ok(HeadRecord { key, bytes: head.state.into() })
}

fn head_key(kind_field: &str, kind: i32, key_field: &str, key: &[u8]) -> Result<HeadKey, Refusal> {
    let kind = match pb::HeadKind::try_from(kind) {
        Ok(pb::HeadKind::Policy) => HeadKind::Policy,
        Ok(pb::HeadKind::Organization) => HeadKind::Organization,
        Ok(pb::HeadKind::Account) => HeadKind::Account,
        Ok(pb::HeadKind::Exclusion) => HeadKind::Exclusion,
        Ok(pb::HeadKind::Unspecified) | Err(_) => return Err(invalid(kind_field, "is unknown")),
    };
    HeadKey::new(kind, exactly(key_field, key)?)
        .ok_or_else(|| invalid(key_field, "must be zeros for the policy"))
}

fn head_kind(kind: HeadKind) -> pb::HeadKind {
    match kind {
        HeadKind::Policy => pb::HeadKind::Policy,
        HeadKind::Organization => pb::HeadKind::Organization,
        HeadKind::Account => pb::HeadKind::Account,
        HeadKind::Exclusion => pb::HeadKind::Exclusion,
    }
}

fn proof(place: Place) -> pb::Proof {
    pb::Proof {
        position: Some(Position { epoch: place.epoch, revision: place.revision }.into()),
        chain: raw(place.chain.bytes()),
        digest: raw(&place.digest.bytes()[..]),
    }
}

fn place(field: &str, proof: pb::Proof) -> Result<Place, Refusal> {
    let at = format!("{field}.position");
    let position = super::position(&at, &required(&at, proof.position)?)?;
    Ok(Place {
        epoch: position.epoch,
        revision: position.revision,
        chain: chain(&format!("{field}.chain"), &proof.chain)?,
        digest: Digest::new(exactly(&format!("{field}.digest"), &proof.digest)?),
    })
}

fn terms_announced(terms: &Terms) -> pb::Terms {
    let values = terms.values();
    pb::Terms {
        sidecar_lease: Some(to_duration(values.sidecar_lease)),
        replica_lease: Some(to_duration(values.replica_lease)),
        drift_ppm: values.drift_ppm,
        slack: Some(to_duration(values.slack)),
        answer_hold: Some(to_duration(values.hold)),
        poll: Some(to_duration(values.poll)),
    }
}

fn terms(terms: pb::Terms) -> Result<Terms, Refusal> {
    let read = |field: &str, wire: Option<prost_types::Duration>| {
        let field = format!("welcome.terms.{field}");
        super::span(&field, &required(&field, wire)?)
    };
    Terms::new(Values {
        sidecar_lease: read("sidecar_lease", terms.sidecar_lease)?,
        replica_lease: read("replica_lease", terms.replica_lease)?,
        drift_ppm: terms.drift_ppm,
        slack: read("slack", terms.slack)?,
        hold: read("answer_hold", terms.answer_hold)?,
        poll: read("poll", terms.poll)?,
    })
    .map_err(|why| invalid("welcome.terms", format_args!("is not safe: {why}")))
}

fn timestamp(field: &str, at: Option<prost_types::Timestamp>) -> Result<Timestamp, Refusal> {
    super::timestamp(field, &required(field, at)?)
}

fn epoch(field: &str, bytes: &[u8]) -> Result<Epoch, Refusal> {
    exactly(field, bytes).map(Epoch::new)
}

fn incarnation(field: &str, bytes: &[u8]) -> Result<Incarnation, Refusal> {
    exactly(field, bytes).map(Incarnation::new)
}

fn exactly<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| invalid(field, format_args!("has {} bytes, it must have {N}", bytes.len())))
}

fn required<T>(field: &str, part: Option<T>) -> Result<T, Refusal> {
    part.ok_or_else(|| invalid(field, "is missing"))
}

fn raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::chain::Chain;
    use consent_core::words::Span;

    fn somewhere() -> Place {
        Place {
            epoch: Epoch::new([1; 16]),
            revision: Revision::ZERO,
            chain: Chain::new([2; 32]),
            digest: Digest::new([3; 32]),
        }
    }

    #[test]
    fn what_a_sidecar_says_is_heard_as_it_was_said() {
        let said = [
            ToAuthority::Hello { incarnation: Incarnation::new([4; 16]), place: None, semantics: 1 },
            ToAuthority::Hello {
                incarnation: Incarnation::new([4; 16]),
                place: Some(somewhere()),
                semantics: 255,
            },
            ToAuthority::KeepAlive { nonce: Nonce(7) },
            ToAuthority::Ack { revision: Revision::MAX, chain: Chain::new([5; 32]) },
            ToAuthority::Relinquish { last: Nonce(u64::MAX) },
        ];
        for message in said {
            assert_eq!(to_authority(sync_request(message)), Ok(message));
        }
    }

    #[test]
    fn what_an_authority_says_is_heard_as_it_was_said() {
        let (epoch, grantor) = (Epoch::new([1; 16]), Incarnation::new([9; 16]));
        let terms = Terms::default();
        for start in [Start::Continue, Start::Snapshot, Start::RestOfSnapshot] {
            let id_key = IdKey::new([6; 16]);
            assert_eq!(
                from_authority(welcome(grantor, epoch, start, &terms, &id_key, Revision::MAX)),
                Ok(FromAuthority::Welcome {
                    message: ToSidecar::Welcome { grantor, epoch, terms, start },
                    id_key,
                    revision: Revision::MAX,
                })
            );
        }
        for (start, resume) in [(Start::Continue, true), (Start::Snapshot, false)] {
            let said = welcome(grantor, epoch, start, &terms, &IdKey::new([6; 16]), Revision::MAX);
            let Some(sync_response::Message::Welcome(welcome)) = said.message else { panic!("no welcome") };
            assert_eq!(welcome.resume, resume, "for a sidecar that knows no other word");
        }
        assert_eq!(
            from_authority(snapshot_begin(somewhere())),
            Ok(FromAuthority::SnapshotBegin(somewhere()))
        );
        let head = HeadRecord { key: HeadKey::Policy, bytes: vec![1, 2, 3] };
        assert_eq!(
            from_authority(snapshot_chunk(vec![head.clone()], Revision::ZERO)),
            Ok(FromAuthority::SnapshotChunk { heads: vec![head.clone()], revision: Revision::ZERO })
        );
        let recorded_at = Timestamp::from_millis(-1);
        let change = Change {
            frame: Frame {
                epoch,
                revision: Revision::MAX,
                link: Link::new([7; 32]),
                chain: Chain::new([8; 32]),
                digest: Digest::new([9; 32]),
            },
            recorded_at,
            head,
        };
        assert_eq!(
            from_authority(frames(epoch, vec![frame(change.clone())])),
            Ok(FromAuthority::Frames(vec![change]))
        );
        assert_eq!(
            from_authority(snapshot_end(somewhere(), recorded_at)),
            Ok(FromAuthority::SnapshotEnd { place: somewhere(), recorded_at })
        );
        let granted = ToSidecar::Grant { nonce: Nonce(3), place: somewhere() };
        assert_eq!(from_authority(grant(Nonce(3), somewhere())), Ok(FromAuthority::Message(granted)));
        assert_eq!(from_authority(draining()), Ok(FromAuthority::Message(ToSidecar::Draining)));
    }

    #[test]
    fn a_wrong_part_is_named() {
        use sync_request::Message;
        let field = |message: Option<Message>| match to_authority(pb::SyncRequest { message }) {
            Err(Refusal::Invalid { field, .. }) => field,
            other => panic!("{other:?}"),
        };
        assert_eq!(field(None), "message");
        assert_eq!(field(Some(Message::Hello(pb::Hello::default()))), "hello.incarnation");
        let have = Some(pb::Proof { position: None, ..proof(somewhere()) });
        let hello = pb::Hello { incarnation: raw(&[1; 16]), have, ..Default::default() };
        assert_eq!(field(Some(Message::Hello(hello))), "hello.have.position");
        assert_eq!(
            field(Some(Message::Ack(pb::Ack { revision: u64::MAX, ..Default::default() }))),
            "ack.revision"
        );
        assert_eq!(field(Some(Message::Ack(pb::Ack::default()))), "ack.chain");
    }

    #[test]
    fn a_sidecar_refuses_unsafe_terms_and_unknown_heads() {
        let unsafe_terms = pb::Terms {
            replica_lease: Some(to_duration(Span::from_millis(1))),
            ..terms_announced(&Terms::default())
        };
        assert!(terms(unsafe_terms).is_err());
        let unknown = pb::Head { kind: 9, key: raw(&[0; 16]), state: Bytes::new() };
        assert_eq!(head_record(unknown), Err(invalid("head.kind", "is unknown")));
    }

    #[test]
    fn a_frame_of_a_version_that_is_not_known_is_refused_whatever_its_head_needs() {
        let head = HeadRecord { key: HeadKey::Policy, bytes: vec![u8::MAX] };
        let place = somewhere();
        let (link, chain, digest) = (Link::new([7; 32]), place.chain, place.digest);
        let frame = Frame { epoch: place.epoch, revision: place.revision, link, chain, digest };
        let sent = super::frame(Change { frame, recorded_at: Timestamp::from_millis(0), head });
        assert!(change(place.epoch, sent.clone()).is_ok());
        for semantics_version in [0, FRAME_SEMANTICS + 1] {
            match change(place.epoch, pb::Frame { semantics_version, ..sent.clone() }) {
                Err(Refusal::Invalid { field, .. }) => assert_eq!(field, "frame.semantics_version"),
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn an_unwelcome_comes_through_the_status() {
        let retry_after = Span::from_millis(250);
        for why in [Unwelcome::Held, Unwelcome::Busy { retry_after }, Unwelcome::Leaving] {
            assert_eq!(why_unwelcome(&unwelcome(why)), Some(why));
        }
        assert_eq!(why_unwelcome(&Status::unavailable("the connection broke")), None);
    }
}
