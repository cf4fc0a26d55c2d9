//! A node with a Redis of its own.

use crate::copy::{self, PLACE};
use crate::ledger::Ledger;
use crate::node::{Node, config};
use crate::redis_server::Redis;
use crate::script::{Authority, Granting, Session, long, until};
use consent::pb::Reason;
use consent_core::confirm::{Place, Seal, Start};
use redis::Commands;

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

    /// A run of the node, with an authority of its own: one that is being dropped may say hello once more, and must not be
    /// taken for its successor.
    pub(crate) async fn start_node(&mut self) -> Node {
        self.authority = Authority::start().await;
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
        let is_there = |marker: &Option<Vec<u8>>| {
            let kept = marker.as_deref().and_then(copy::place);
            kept.is_some_and(|kept| (kept.epoch, kept.revision, kept.chain) == (epoch, revision, chain))
        };
        until("the copy", || async { self.marker() }, is_there).await;
    }

    /// Waits until the copy was written anew, and stands where the ledger does. A step may still set the marker of a
    /// copy that is gone: what follows on it is noticed, and is no copy.
    pub(crate) async fn kept_anew(&self, before: Option<Vec<u8>>) {
        let is_another =
            |now: &Option<Vec<u8>>| now.as_ref().is_some_and(|now| now.len() == 16) && *now != before;
        until("another copy", || async { self.generation() }, is_another).await;
        self.kept().await;
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
        // It stands where its repair will stand.
        let refused = self.generation();
        node.denies().await;
        let session = self.authority.hello(None).await;
        node.denies().await;
        session.snapshot(self.authority.incarnation, &self.ledger, long()).await;
        let session = session.grant_from_now_on(self.ledger.place);
        node.answers(reason).await;
        self.kept_anew(refused).await;
        drop((node, session));
        self.goes_on(reason).await;
    }

    /// All that lies in Redis.
    pub(crate) fn everything(&self) -> Vec<(String, Vec<u8>)> {
        let mut con = self.con();
        let keys: Vec<String> = con.keys("*").unwrap();
        let mut dumps = redis::pipe();
        for key in &keys {
            dumps.cmd("DUMP").arg(key);
        }
        let values: Vec<Vec<u8>> = dumps.query(&mut con).unwrap();
        keys.into_iter().zip(values).collect()
    }

    /// Puts that in the place of all that lies there.
    pub(crate) fn put_everything(&self, all: &[(String, Vec<u8>)]) {
        let mut commands = redis::pipe();
        commands.atomic().cmd("FLUSHALL").ignore();
        for (key, value) in all {
            commands.cmd("RESTORE").arg(key).arg(0).arg(value).ignore();
        }
        commands.query::<()>(&mut self.con()).unwrap();
    }

    pub(crate) fn con(&self) -> redis::Connection {
        self.redis.connect().expect("the Redis runs")
    }
}
