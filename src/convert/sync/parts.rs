//! What the messages of both sides are made of: heads, places, and bytes of which there must be so many.

use crate::convert::{self, chain, invalid};
use crate::pb::{self, sync_response};
use bytes::Bytes;
use consent_core::confirm::Place;
use consent_core::digest::Digest;
use consent_core::head::{HeadKey, HeadKind};
use consent_core::ledger::HeadRecord;
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, Incarnation, Position, Timestamp};

pub(super) fn head(record: HeadRecord) -> pb::Head {
    pb::Head {
        kind: head_kind(record.key.kind()).into(),
        key: raw(&record.key.bytes()),
        state: Bytes::from(record.bytes),
    }
}

pub(super) fn head_record(head: pb::Head) -> Result<HeadRecord, Refusal> {
    // A kind of head that this build does not know may be a new kind of DENY: refused, never skipped.
    let key = head_key("head.kind", head.kind, "head.key", &head.key)?;
    Ok(HeadRecord { key, bytes: head.state.into() })
}

pub(super) fn head_key(kind_field: &str, kind: i32, key_field: &str, key: &[u8]) -> Result<HeadKey, Refusal> {
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

pub(super) fn head_kind(kind: HeadKind) -> pb::HeadKind {
    match kind {
        HeadKind::Policy => pb::HeadKind::Policy,
        HeadKind::Organization => pb::HeadKind::Organization,
        HeadKind::Account => pb::HeadKind::Account,
        HeadKind::Exclusion => pb::HeadKind::Exclusion,
    }
}

pub(super) fn proof(place: Place) -> pb::Proof {
    pb::Proof {
        position: Some(Position { epoch: place.epoch, revision: place.revision }.into()),
        chain: raw(place.chain.bytes()),
        digest: raw(&place.digest.bytes()[..]),
    }
}

pub(super) fn place(field: &str, proof: pb::Proof) -> Result<Place, Refusal> {
    let at = format!("{field}.position");
    let position = convert::position(&at, &required(&at, proof.position)?)?;
    Ok(Place {
        epoch: position.epoch,
        revision: position.revision,
        chain: chain(&format!("{field}.chain"), &proof.chain)?,
        digest: Digest::new(exactly(&format!("{field}.digest"), &proof.digest)?),
    })
}

pub(super) fn timestamp(field: &str, at: Option<prost_types::Timestamp>) -> Result<Timestamp, Refusal> {
    convert::timestamp(field, &required(field, at)?)
}

pub(super) fn epoch(field: &str, bytes: &[u8]) -> Result<Epoch, Refusal> {
    exactly(field, bytes).map(Epoch::new)
}

pub(super) fn incarnation(field: &str, bytes: &[u8]) -> Result<Incarnation, Refusal> {
    exactly(field, bytes).map(Incarnation::new)
}

pub(super) fn exactly<const N: usize>(field: &str, bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.try_into().map_err(|_| invalid(field, format_args!("has {} bytes, it must have {N}", bytes.len())))
}

pub(super) fn required<T>(field: &str, part: Option<T>) -> Result<T, Refusal> {
    part.ok_or_else(|| invalid(field, "is missing"))
}

pub(super) fn raw(bytes: &[u8]) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

pub(super) fn response(message: sync_response::Message) -> pb::SyncResponse {
    pb::SyncResponse { message: Some(message) }
}

/// A place for tests.
#[cfg(test)]
pub(super) fn somewhere() -> Place {
    Place {
        epoch: Epoch::new([1; 16]),
        revision: consent_core::words::Revision::ZERO,
        chain: consent_core::chain::Chain::new([2; 32]),
        digest: Digest::new([3; 32]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_refuses_unknown_heads() {
        let unknown = pb::Head { kind: 9, key: raw(&[0; 16]), state: Bytes::new() };
        assert_eq!(head_record(unknown), Err(invalid("head.kind", "is unknown")));
    }
}
