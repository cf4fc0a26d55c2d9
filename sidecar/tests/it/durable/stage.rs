//! A node with a Redis of its own, and hands to lay on what lies there.
//!
//! The layout is written down here a second time, so that a change of it that would leave old copies behind shows.

use crate::ledger::Ledger;
use crate::node::{Node, config};
use crate::redis_server::Redis;
use crate::script::{Authority, Granting, Session, long, until};
use consent::pb::Reason;
use consent_core::confirm::{Place, Seal, Start};
use consent_core::head::HeadKey;
use consent_core::words::IdKey;
use redis::Commands;

pub(crate) const PLACE: &str = "consent:place";
pub(crate) const LOG: &str = "consent:log";
/// Of the marker: layout, generation, buckets, base, batches, epoch; then revision and chain.
const REVISION_AT: usize = 1 + 16 + 4 + 8 + 8 + 16;

pub(crate) struct Stage {
    pub(crate) redis: Redis,
    pub(crate) authority: Authority,
    pub(crate) ledger: Ledger,
}

impl Stage {
    pub(crate) async fn set() -> Stage {
        let redis = Redis::start().expect("a Redis");
        Stage { redis, authority: Authority::start().await, ledger: Ledger::new() }
    }

    /// A run of the node.
    pub(crate) async fn start_node(&self) -> Node {
        let redis = Some(self.redis.url().parse().expect("an address"));
        Node::start_with(consent_sidecar::Config { redis, ..config(&[&self.authority]) }).await
    }

    /// A first run that has taken a snapshot, and whose copy is written.
    pub(crate) async fn first_run(&mut self) -> (Node, Granting) {
        let node = self.start_node().await;
        let session = self.authority.bring_to_life(&self.ledger, long()).await;
        self.kept().await;
        (node, session)
    }

    /// Waits until the copy stands where the ledger does.
    pub(crate) async fn kept(&self) {
        let Place { epoch, revision, chain, .. } = self.ledger.place;
        let wanted = [&epoch.bytes()[..], &revision.get().to_be_bytes(), chain.bytes()].concat();
        let is_there = |marker: &Option<Vec<u8>>| {
            let marker = marker.as_deref().unwrap_or_default();
            marker.get(REVISION_AT - 16..REVISION_AT + 40) == Some(&wanted)
        };
        until("the copy", || async { self.marker() }, is_there).await;
    }

    pub(crate) fn marker(&self) -> Option<Vec<u8>> {
        self.redis.connect().ok()?.get(PLACE).ok()
    }

    /// Which rewrite the copy is of.
    pub(crate) fn generation(&self) -> Option<Vec<u8>> {
        self.marker()?.get(1..17).map(<[u8]>::to_vec)
    }

    /// The next run says hello with the place of the copy, sealed; until it is granted a lease it allows nothing.
    pub(crate) async fn hello_from_copy(&mut self, node: &Node, place: Place) -> Session {
        let session = self.authority.hello(Some(place)).await;
        assert_eq!(session.seal, Some(Seal::of(&self.ledger.id_key, &place)));
        node.denies().await;
        session
    }

    /// The next run goes on from the copy, which stands where the ledger does, and answers for this reason.
    pub(crate) async fn goes_on(&mut self, reason: Reason) -> (Node, Granting) {
        let node = self.start_node().await;
        let session = self.hello_from_copy(&node, self.ledger.place).await;
        session.welcome(self.authority.incarnation, &self.ledger, long(), Start::Continue).await;
        let session = session.grant_from_now_on(self.ledger.place);
        node.answers(reason).await;
        (node, session)
    }

    /// A session that must end in a snapshot: the copy was refused, and is repaired afterwards.
    pub(crate) async fn starts_anew(&mut self, node: Node, reason: Reason) {
        node.denies().await;
        let session = self.authority.hello(None).await;
        node.denies().await;
        session.snapshot(self.authority.incarnation, &self.ledger, long()).await;
        let session = session.grant_from_now_on(self.ledger.place);
        node.answers(reason).await;
        self.kept().await;
        drop((node, session));
        self.goes_on(reason).await;
    }

    pub(crate) fn con(&self) -> redis::Connection {
        self.redis.connect().expect("the Redis runs")
    }
}

/// The bucket of a head, of 4,096.
pub(crate) fn bucket_of(key: HeadKey) -> String {
    let [_, _, _, _, _, _, _, _, first, second, ..] = key.bytes();
    format!("consent:bucket:{}", u16::from_be_bytes([first, second]) >> 4)
}

/// A bucket or a batch (`what`) with one head in the place of another: well formed, and with the right hash.
pub(crate) fn forge(what: u8, value: &[u8], before: &[u8], after: &[u8]) -> Vec<u8> {
    let body = &value[..value.len() - 16];
    let packed = |head: &[u8]| [&u32::try_from(head.len()).unwrap().to_be_bytes()[..], head].concat();
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

/// A marker changed from this byte on, with the seal and the check that `secret` gives.
pub(crate) fn forge_marker(marker: &[u8], at: usize, bytes: &[u8], secret: &IdKey) -> Vec<u8> {
    let mut body = marker[..marker.len() - 32].to_vec();
    body[at..at + bytes.len()].copy_from_slice(bytes);
    let key = blake3::derive_key("consent v1 durable copy", secret.bytes());
    let check = blake3::keyed_hash(&key, &body);
    body.extend_from_slice(check.as_bytes());
    body
}

/// Where a marker's parts begin.
pub(crate) mod at {
    pub(crate) const REVISION: usize = super::REVISION_AT;
    pub(crate) const RECORDED_AT: usize = REVISION + 8 + 32 + 32;
}
