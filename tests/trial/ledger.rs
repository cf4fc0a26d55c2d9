//! The whole ledger as anybody can read it over the wire, and the proof that it is whole.
//!
//! Two readings that must agree: ListEvents (who, what, when, with the chain at each revision), and the sync stream
//! from revision 0, as a sidecar with an empty table would have it. From the second, chain and digest are computed
//! anew and compared at every revision. It asks for no lease, so no confirmation waits for it.

use crate::clients::{Authority, connect, millis, within};
use anyhow::{Context, bail, ensure};
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::{
    Frame, Hello, LedgerEvent, ListEventsRequest, Position, Proof, Start, SyncRequest, sync_request,
    sync_response,
};
use consent_core::chain::{Chain, Link};
use consent_core::digest::{Digest, DigestKey};
use consent_core::head::{HeadKey, HeadKind, SEMANTICS};
use consent_core::words::IdKey;
use std::collections::HashMap;
use std::time::Duration;
use tokio_stream::StreamExt;

/// The events read so far: dense, in order, of one epoch.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    epoch: Option<Vec<u8>>,
    events: Vec<LedgerEvent>,
}

impl Ledger {
    /// The newest revision read.
    pub(crate) fn revision(&self) -> u64 {
        self.events.len() as u64
    }

    /// The event at a revision.
    pub(crate) fn event(&self, revision: u64) -> Option<&LedgerEvent> {
        self.events.get(usize::try_from(revision.checked_sub(1)?).ok()?)
    }

    /// Reads what is new, and checks each page against what was read before.
    pub(crate) async fn read_on(&mut self, authority: &mut Authority) -> anyhow::Result<()> {
        loop {
            let request = ListEventsRequest { after_revision: self.revision(), page_size: 1000 };
            let page =
                authority.consent.list_events(within(Duration::from_secs(20), request)).await?.into_inner();
            let position = page.position.context("a page without a position")?;
            let epoch = self.epoch.get_or_insert_with(|| position.epoch.to_vec());
            ensure!(*epoch == position.epoch, "the epoch changed");
            ensure!(position.revision >= self.revision(), "the ledger is shorter than before");
            for event in page.events {
                ensure!(
                    event.revision == self.revision() + 1,
                    "revision {} follows {}",
                    event.revision,
                    self.revision()
                );
                ensure!(recorded(self.events.last()) <= recorded(Some(&event)), "recorded_at falls");
                self.events.push(event);
            }
            ensure!(page.next_after_revision == self.revision(), "next_after_revision is not the page's end");
            if self.revision() >= position.revision {
                return Ok(());
            }
        }
    }
}

/// Follows the sync stream as a sidecar would, over any number of authorities, and computes chain and digest anew at
/// every revision. It begins at revision 0, and goes on where it is.
#[derive(Debug)]
pub(crate) struct Follower {
    revision: u64,
    chain: Chain,
    digest: Digest,
    heads: HashMap<HeadKey, Vec<u8>>,
}

impl Default for Follower {
    fn default() -> Follower {
        Follower { revision: 0, chain: Chain::EMPTY, digest: Digest::EMPTY, heads: HashMap::new() }
    }
}

impl Follower {
    /// How many heads stand where it is.
    pub(crate) fn heads(&self) -> usize {
        self.heads.len()
    }

    /// Follows to the end of a ledger, which must have the same chain.
    pub(crate) async fn follow(&mut self, ledger: &Ledger, address: &str) -> anyhow::Result<()> {
        let epoch = ledger.epoch.clone().context("nothing was read")?;
        let hello = Hello {
            incarnation: uuid::Uuid::new_v4().as_bytes().to_vec().into(),
            have: Some(Proof {
                position: Some(Position { epoch: epoch.into(), revision: self.revision }),
                chain: self.chain.bytes().to_vec().into(),
                digest: self.digest.bytes().to_vec().into(),
            }),
            semantics_version: u32::from(SEMANTICS),
            seal: None,
            unfinished: None,
            // It has a table, and takes no snapshot.
            resumable: false,
        };
        let hello = SyncRequest { message: Some(sync_request::Message::Hello(hello)) };
        let mut client = SyncServiceClient::new(connect(address).await?);
        // The stream stays open for as long as we listen.
        let requests = tokio_stream::once(hello).chain(tokio_stream::pending());
        let mut stream = client.sync(requests).await?.into_inner();
        let mut secret = None;
        while secret.is_none() || self.revision < ledger.revision() {
            let message = tokio::time::timeout(crate::process::PATIENCE, stream.message())
                .await
                .context("the sync stream stands still")??
                .and_then(|message| message.message)
                .context("the sync stream ended")?;
            match (message, &secret) {
                (sync_response::Message::Welcome(welcome), None) => {
                    let goes_on = welcome.start() == Start::Frames;
                    ensure!(goes_on, "a sidecar at revision {} is not resumed", self.revision);
                    let id_key = <[u8; 16]>::try_from(welcome.id_key.as_ref()).context("no id key")?;
                    secret = Some(DigestKey::new(&IdKey::new(id_key)));
                }
                (sync_response::Message::Frames(frames), Some(secret)) => {
                    for frame in &frames.frames {
                        let event = ledger.event(frame.revision);
                        let taken = self.take(frame, event, secret);
                        taken.with_context(|| format!("at revision {}", frame.revision))?;
                    }
                }
                (other, _) => bail!("the sync stream says {other:?}"),
            }
        }
        Ok(())
    }

    fn take(&mut self, frame: &Frame, event: Option<&LedgerEvent>, secret: &DigestKey) -> anyhow::Result<()> {
        ensure!(frame.revision == self.revision + 1, "it follows {}", self.revision);
        self.revision = frame.revision;
        self.chain = self.chain.then(Link::from_slice(&frame.link).context("no link")?);
        ensure!(frame.chain == self.chain.bytes().as_slice(), "the chain is broken");
        if let Some(event) = event {
            ensure!(event.chain == frame.chain, "ListEvents shows another chain");
        }
        let head = frame.head.as_ref().context("no head")?;
        let kind = u8::try_from(head.kind).ok().and_then(HeadKind::from_number).context("no kind of head")?;
        let key = <[u8; 16]>::try_from(head.key.as_ref()).ok().and_then(|key| HeadKey::new(kind, key));
        let key = key.context("no key of a head")?;
        let before = self.heads.insert(key, head.state.to_vec());
        self.digest.replace(secret, key, before.as_deref(), &head.state);
        ensure!(frame.digest == self.digest.bytes().as_slice(), "the digest is not that of the heads");
        Ok(())
    }
}

fn recorded(event: Option<&LedgerEvent>) -> i64 {
    event.and_then(|event| event.recorded_at.as_ref()).map_or(0, millis)
}
