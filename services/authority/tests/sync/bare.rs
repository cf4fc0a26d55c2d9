//! A sidecar reduced to its mouth and ears, and a table that believes nothing without proof.

use consent::clock;
use consent::convert::sync::{FromAuthority, Unfinished, from_authority, sync_request};
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::{SyncRequest, SyncResponse};
use consent_authority::Authority;
use consent_core::confirm::{Place, Seal, Start, ToAuthority, ToSidecar};
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{Head, HeadKey};
use consent_core::ledger::HeadRecord;
use consent_core::words::{IdKey, Incarnation, Moment, Nonce, Revision};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// What no healthy authority takes, on any machine, and less than the long leases.
pub(crate) const TOO_LONG: Duration = Duration::from_secs(20);

pub(crate) struct Bare {
    say: mpsc::Sender<consent::pb::SyncRequest>,
    inbound: Streaming<SyncResponse>,
    pub(crate) table: Table,
    /// The secret of the welcome.
    pub(crate) id_key: Option<IdKey>,
    /// What has come of a snapshot.
    pub(crate) part: Part,
}

/// What has come of a snapshot so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    reached: Option<Place>,
    newest_chunk: Option<Revision>,
    /// The keys of its pages, as they came.
    pub(crate) keys: Vec<HeadKey>,
}

/// A grant, and when the keepalive that it answers was sent: from there its lease counts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Granted {
    pub(crate) asked: Moment,
    pub(crate) place: Place,
}

impl Bare {
    /// Connects, and says the first message.
    pub(crate) async fn open(authority: &Authority, first: ToAuthority) -> Result<Bare, Status> {
        Bare::open_with(authority, sync_request(first)).await
    }

    /// Connects, and says the first message as it is on the wire.
    pub(crate) async fn open_with(authority: &Authority, first: SyncRequest) -> Result<Bare, Status> {
        let address = format!("http://{}", authority.address());
        let mut client = SyncServiceClient::connect(address).await.expect("a connection");
        let (say, said) = mpsc::channel(64);
        say.send(first).await.expect("room");
        let inbound = client.sync(ReceiverStream::new(said)).await?.into_inner();
        Ok(Bare { say, inbound, table: Table::default(), id_key: None, part: Part::default() })
    }

    /// A new run of a sidecar that has a table of this place, or none.
    pub(crate) async fn hello(authority: &Authority, place: Option<Place>) -> Bare {
        Bare::open(authority, hello(place)).await.expect("a stream")
    }

    /// A sidecar with a whole table.
    pub(crate) async fn synced(authority: &Authority) -> Bare {
        let mut bare = Bare::hello(authority, None).await;
        assert_eq!(bare.welcomed().await, Start::Snapshot);
        bare.snapshot().await;
        bare
    }

    pub(crate) async fn say(&self, message: ToAuthority) {
        self.say.send(sync_request(message)).await.expect("the stream is open");
    }

    /// What comes next; none at the end of the stream.
    pub(crate) async fn hear(&mut self) -> Option<Result<FromAuthority, Status>> {
        let heard = tokio::time::timeout(TOO_LONG, self.inbound.message()).await.expect("in time");
        heard.transpose().map(|heard| heard.map(|said| from_authority(said).expect("readable")))
    }

    pub(crate) async fn next(&mut self) -> FromAuthority {
        self.hear().await.expect("the stream goes on").expect("no error")
    }

    pub(crate) async fn welcomed(&mut self) -> Start {
        let said = self.next().await;
        let FromAuthority::Welcome { message: ToSidecar::Welcome { start, .. }, id_key, .. } = said else {
            panic!("no welcome: {said:?}")
        };
        self.table.secret = Some(DigestKey::new(&id_key));
        self.id_key = Some(id_key);
        start
    }

    /// Takes a snapshot with the frames between its pages. Gives the number of its pages.
    pub(crate) async fn snapshot(&mut self) -> usize {
        self.pages(usize::MAX).await
    }

    /// The same, or as many pages of it. Fewer: it was whole.
    pub(crate) async fn pages(&mut self, wanted: usize) -> usize {
        let mut pages = 0;
        while pages < wanted {
            match self.next().await {
                FromAuthority::SnapshotBegin(place) => {
                    assert!(self.part.reached.replace(place).is_none(), "it begins once");
                }
                FromAuthority::SnapshotChunk { heads, revision } => {
                    pages += 1;
                    self.part.newest_chunk = self.part.newest_chunk.max(Some(revision));
                    for head in heads {
                        self.part.keys.push(head.key);
                        self.table.put(head);
                    }
                }
                FromAuthority::Frames(changes) => {
                    for change in changes {
                        let reached = self.part.reached.expect("a place where it begins");
                        assert!(change.frame.revision.follows(reached.revision), "no gap, and none twice");
                        assert_eq!(change.frame.chain, reached.chain.then(change.frame.link));
                        self.part.reached = Some(change.frame.place());
                        self.table.put(change.head);
                    }
                }
                FromAuthority::SnapshotEnd { place, .. } => {
                    assert_eq!(self.part.reached, Some(place), "it ends where its frames lead");
                    assert!(
                        self.part.newest_chunk <= Some(place.revision),
                        "it ends at its newest page or later"
                    );
                    assert_eq!(self.table.digest, place.digest, "the snapshot is whole");
                    self.table.place = Some(place);
                    return pages;
                }
                FromAuthority::Message(ToSidecar::Grant { .. }) => {}
                said @ (FromAuthority::Welcome { .. } | FromAuthority::Message(_)) => {
                    panic!("not in a snapshot: {said:?}")
                }
            }
        }
        pages
    }

    /// What a hello names of a snapshot that was not finished.
    pub(crate) fn unfinished(&self) -> Unfinished {
        let reached = self.part.reached.expect("it has begun");
        Unfinished {
            reached,
            last: *self.part.keys.last().expect("a page"),
            newest_chunk: self.part.newest_chunk.expect("a page"),
            seal: Seal::of(&self.id_key.expect("a welcome"), &reached),
        }
    }

    /// Takes frames until the table is at this revision.
    pub(crate) async fn follow(&mut self, revision: Revision) {
        while self.table.revision() < revision {
            let said = self.next().await;
            if matches!(said, FromAuthority::Message(ToSidecar::Grant { .. })) {
                continue;
            }
            let FromAuthority::Frames(changes) = said else { panic!("no frames: {said:?}") };
            for change in changes {
                let at = self.table.place.expect("a table");
                assert!(change.frame.revision.follows(at.revision), "no gap, and none twice");
                assert_eq!(change.frame.epoch, at.epoch);
                assert_eq!(change.frame.chain, at.chain.then(change.frame.link));
                self.table.put(change.head);
                assert_eq!(change.frame.digest, self.table.digest);
                self.table.place = Some(change.frame.place());
            }
        }
    }

    /// Asks for a lease, of which the authority must be ready to grant one. Frames meanwhile are not taken.
    pub(crate) async fn lease(&mut self, nonce: u64) -> Granted {
        let asked = clock::now();
        self.say(ToAuthority::KeepAlive { nonce: Nonce(nonce) }).await;
        loop {
            let said = self.next().await;
            if matches!(said, FromAuthority::Frames(_)) {
                continue;
            }
            let FromAuthority::Message(ToSidecar::Grant { nonce: granted, place }) = said else {
                panic!("no grant: {said:?}")
            };
            assert_eq!(granted, Nonce(nonce));
            return Granted { asked, place };
        }
    }

    pub(crate) async fn ack(&self) {
        let Place { revision, chain, .. } = self.table.place.expect("a table");
        self.say(ToAuthority::Ack { revision, chain }).await;
    }
}

pub(crate) fn hello(place: Option<Place>) -> ToAuthority {
    let incarnation = Incarnation::new(*uuid::Uuid::new_v4().as_bytes());
    ToAuthority::Hello { incarnation, place, semantics: 1 }
}

/// Heads with their digest. Newest wins.
pub(crate) struct Table {
    heads: HashMap<HeadKey, (Revision, Vec<u8>)>,
    digest: Digest,
    secret: Option<DigestKey>,
    pub(crate) place: Option<Place>,
}

impl Default for Table {
    fn default() -> Table {
        Table { heads: HashMap::new(), digest: Digest::EMPTY, secret: None, place: None }
    }
}

impl Table {
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// Goes on from the table of an earlier run.
    pub(crate) fn take(&mut self, earlier: Table) {
        *self = earlier;
    }

    fn revision(&self) -> Revision {
        self.place.expect("a table").revision
    }

    fn put(&mut self, record: HeadRecord) {
        let secret = self.secret.as_ref().expect("a welcome");
        let rev = Head::decode(record.key.kind(), &record.bytes).expect("a head").rev();
        let before = self.heads.get(&record.key);
        if before.is_none_or(|(before, _)| *before < rev) {
            let before = before.map(|(_, bytes)| bytes.as_slice());
            self.digest.replace(secret, record.key, before, &record.bytes);
            self.heads.insert(record.key, (rev, record.bytes));
        }
    }
}
