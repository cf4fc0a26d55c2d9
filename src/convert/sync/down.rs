//! What an authority says, and a sidecar hears: snapshots, frames and grants. The welcome has a file of its own.

use super::parts::{
    epoch, exactly, head, head_record, incarnation, place, proof, raw, required, response, timestamp,
};
use super::welcome::{start, terms};
use crate::convert::{chain, invalid, revision, to_timestamp};
use crate::pb::{self, sync_response};
use consent_core::chain::Link;
use consent_core::confirm::{Frame, Place, ToSidecar};
use consent_core::digest::Digest;
use consent_core::ledger::HeadRecord;
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, IdKey, Nonce, Revision, Timestamp};

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::sync::parts::somewhere;
    use crate::convert::sync::welcome;
    use consent_core::chain::Chain;
    use consent_core::confirm::{Start, Terms};
    use consent_core::head::HeadKey;
    use consent_core::words::Incarnation;

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
}
