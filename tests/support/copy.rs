//! Hands to lay on a durable copy: its layout written down a second time, so that a change of it that would leave old
//! copies behind shows, and values that are well formed and wrong.
//!
//! Shared by `#[path]`.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]
#![allow(clippy::expect_used, reason = "a copy that cannot be read is no copy to lay hands on")]

use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal};
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::words::{Epoch, IdKey, Revision};

/// Where the marker is.
pub(crate) const PLACE: &str = "consent:place";
/// Where the log is.
pub(crate) const LOG: &str = "consent:log";

/// Where a marker's parts begin: after layout, generation, buckets, base and batches comes its place.
pub(crate) mod at {
    pub(crate) const BASE: usize = 1 + 16 + 4;
    pub(crate) const BATCHES: usize = BASE + 8;
    pub(crate) const EPOCH: usize = BATCHES + 8;
    pub(crate) const REVISION: usize = EPOCH + 16;
    pub(crate) const CHAIN: usize = REVISION + 8;
    pub(crate) const DIGEST: usize = CHAIN + 32;
    pub(crate) const RECORDED_AT: usize = DIGEST + 32;
    /// After how much there is of everything.
    pub(crate) const SEAL: usize = RECORDED_AT + 8 + 28;
}

/// The bucket of a head, of 4,096.
pub(crate) fn bucket_of(key: HeadKey) -> String {
    let [_, _, _, _, _, _, _, _, first, second, ..] = key.bytes();
    format!("consent:bucket:{}", u16::from_be_bytes([first, second]) >> 4)
}

/// The heads in a bucket or a batch.
pub(crate) fn heads(value: &[u8], what: u8) -> Vec<(u8, Vec<u8>, Vec<u8>)> {
    let mut rest = &value[header(what)..value.len() - 16];
    let mut heads = Vec::new();
    while let Some((kind, after)) = rest.split_first() {
        let (key, after) = after.split_at(16);
        let (len, after) = after.split_at(4);
        let len = u32::from_be_bytes(len.try_into().expect("four bytes"));
        let (head, after) = after.split_at(len as usize);
        heads.push((*kind, key.to_vec(), head.to_vec()));
        rest = after;
    }
    heads
}

/// A bucket (`b`) or a batch (`l`) in which this key has another head, if it has one at all: well formed, and with the
/// right hash.
pub(crate) fn with_head(what: u8, value: &[u8], key: HeadKey, head: &[u8]) -> Vec<u8> {
    let mut body = value[..header(what)].to_vec();
    for (kind, its, before) in heads(value, what) {
        let is_it = kind == key.kind().number() && its == key.bytes();
        let head = if is_it { head } else { before.as_slice() };
        body.push(kind);
        body.extend_from_slice(&its);
        body.extend_from_slice(&u32::try_from(head.len()).expect("a short head").to_be_bytes());
        body.extend_from_slice(head);
    }
    rehash(what, body)
}

const fn header(what: u8) -> usize {
    if what == b'b' { 16 + 4 } else { 16 + 8 }
}

/// A bucket or a batch (`what`) with one head in the place of another: well formed, and with the right hash.
pub(crate) fn forge(what: u8, value: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let body = &value[..value.len() - 16];
    let packed =
        |head: &[u8]| [&u32::try_from(head.len()).expect("a short head").to_be_bytes()[..], head].concat();
    let (before, after) = (packed(before), packed(after));
    let at = body.windows(before.len()).position(|window| window == before).expect("the head is there");
    rehash(what, [&body[..at], &after, &body[at + before.len()..]].concat())
}

/// The value with this body.
pub(crate) fn rehash(what: u8, mut body: Vec<u8>) -> Vec<u8> {
    let mut hash = [0; 16];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"consent v1 durable copy").update(&[what]).update(&body);
    hasher.finalize_xof().fill(&mut hash);
    body.extend_from_slice(&hash);
    body
}

/// A marker changed from this byte on, with the check that `secret` gives. Its seal is left as it is.
pub(crate) fn forge_marker(marker: &[u8], at: usize, bytes: &[u8], secret: &IdKey) -> Vec<u8> {
    let mut body = marker[..marker.len() - 32].to_vec();
    body[at..at + bytes.len()].copy_from_slice(bytes);
    let key = blake3::derive_key("consent v1 durable copy", secret.bytes());
    let check = blake3::keyed_hash(&key, &body);
    body.extend_from_slice(check.as_bytes());
    body
}

/// The marker as somebody who knows `secret` would have written it: with a seal on its place, and a check.
pub(crate) fn sealed_marker(marker: &[u8], secret: &IdKey) -> Vec<u8> {
    let seal = Seal::of(secret, &place(marker).expect("a marker"));
    forge_marker(marker, at::SEAL, seal.bytes(), secret)
}

/// Where a marker says that its copy stands; none for what is too short to be one.
pub(crate) fn place(marker: &[u8]) -> Option<Place> {
    let array = |at: usize| marker.get(at..at + 32)?.try_into().ok();
    (marker.len() == at::SEAL + 32 + 32).then_some(())?;
    Some(Place {
        epoch: Epoch::new(marker.get(at::EPOCH..at::EPOCH + 16)?.try_into().ok()?),
        revision: Revision::new(u64::from_be_bytes(
            marker.get(at::REVISION..at::REVISION + 8)?.try_into().ok()?,
        ))?,
        chain: Chain::new(array(at::CHAIN)?),
        digest: Digest::new(array(at::DIGEST)?),
    })
}
