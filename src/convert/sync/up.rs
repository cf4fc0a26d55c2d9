//! What a sidecar says, and an authority hears: the hello, keepalives, acks, and what gives a lease back.

use super::parts::{exactly, incarnation, place, proof, raw, required};
use crate::convert::{chain, revision};
use crate::pb::{self, sync_request};
use consent_core::confirm::{Seal, ToAuthority};
use consent_core::refusal::Refusal;
use consent_core::words::Nonce;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::sync::parts::somewhere;
    use consent_core::chain::Chain;
    use consent_core::words::{Incarnation, Revision};

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
}
