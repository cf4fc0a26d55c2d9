//! What a sidecar has of a snapshot whose stream broke, beside a hello that names no place.
//!
//! It is no table: nothing is answered from it, no machine hears of it, and no HOLD comes of it (R13). An authority
//! that cannot go on from it begins another snapshot.

use super::parts::{exactly, head_key, head_kind, place, proof, raw, required};
use crate::convert::revision;
use crate::pb::{self, sync_request};
use consent_core::confirm::{Place, Seal};
use consent_core::head::HeadKey;
use consent_core::refusal::Refusal;
use consent_core::words::Revision;

/// A part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unfinished {
    /// Every frame up to here is in it, from the place on where the snapshot began.
    pub reached: Place,
    /// Every chunk is in it up to this head.
    pub last: HeadKey,
    /// The newest revision that a chunk had: the snapshot ends there or later.
    pub newest_chunk: Revision,
    /// On the place that it reached, under the secret that its heads are kept under.
    pub seal: Seal,
}

/// The same hello, of a sidecar that has this.
pub fn with_unfinished(mut hello: pb::SyncRequest, unfinished: Unfinished) -> pb::SyncRequest {
    let Unfinished { reached, last, newest_chunk, seal } = unfinished;
    if let Some(sync_request::Message::Hello(hello)) = &mut hello.message {
        hello.unfinished = Some(Box::new(pb::UnfinishedSnapshot {
            reached: Some(proof(reached)),
            last_kind: head_kind(last.kind()).into(),
            last_key: raw(&last.bytes()),
            newest_chunk: newest_chunk.get(),
            seal: raw(seal.bytes()),
        }));
    }
    hello
}

/// What a hello says of a snapshot that its sidecar has not finished.
pub fn unfinished(request: &pb::SyncRequest) -> Result<Option<Unfinished>, Refusal> {
    let Some(sync_request::Message::Hello(pb::Hello { unfinished: Some(unfinished), .. })) = &request.message
    else {
        return Ok(None);
    };
    let field = |name: &str| format!("hello.unfinished.{name}");
    let reached = field("reached");
    Ok(Some(Unfinished {
        reached: place(&reached, required(&reached, unfinished.reached.clone())?)?,
        last: head_key(&field("last_kind"), unfinished.last_kind, &field("last_key"), &unfinished.last_key)?,
        newest_chunk: revision(&field("newest_chunk"), unfinished.newest_chunk)?,
        seal: Seal::new(exactly(&field("seal"), &unfinished.seal)?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::sync;
    use consent_core::chain::Chain;
    use consent_core::confirm::ToAuthority;
    use consent_core::digest::Digest;
    use consent_core::words::{AccountKey, Epoch, IdKey, Incarnation};

    fn hello() -> pb::SyncRequest {
        sync::sync_request(ToAuthority::Hello {
            incarnation: Incarnation::new([4; 16]),
            place: None,
            semantics: 1,
        })
    }

    fn some() -> Unfinished {
        let reached = Place {
            epoch: Epoch::new([1; 16]),
            revision: Revision::ZERO,
            chain: Chain::new([2; 32]),
            digest: Digest::new([3; 32]),
        };
        Unfinished {
            reached,
            last: HeadKey::Account(AccountKey::new([5; 16])),
            newest_chunk: Revision::MAX,
            seal: Seal::of(&IdKey::new([6; 16]), &reached),
        }
    }

    #[test]
    fn it_is_heard_as_it_was_said_and_only_where_it_was() {
        assert_eq!(unfinished(&with_unfinished(hello(), some())), Ok(Some(some())));
        assert_eq!(unfinished(&hello()), Ok(None));
    }

    #[test]
    fn a_wrong_part_is_named() {
        let field = |spoil: fn(&mut pb::UnfinishedSnapshot)| {
            let mut said = with_unfinished(hello(), some());
            if let Some(sync_request::Message::Hello(hello)) = &mut said.message {
                hello.unfinished.iter_mut().for_each(|it| spoil(it));
            }
            match unfinished(&said) {
                Err(Refusal::Invalid { field, .. }) => field,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(field(|it| it.reached = None), "hello.unfinished.reached");
        assert_eq!(field(|it| it.last_kind = 0), "hello.unfinished.last_kind");
        assert_eq!(field(|it| it.last_key = raw(&[1])), "hello.unfinished.last_key");
        assert_eq!(field(|it| it.newest_chunk = u64::MAX), "hello.unfinished.newest_chunk");
        assert_eq!(field(|it| it.seal = raw(&[1])), "hello.unfinished.seal");
    }
}
