//! One session: from a sidecar's hello to the end of its stream.
//!
//! Two loops in one task. One hears the sidecar and tells the grantor, in order. The other does what the grantor
//! orders and sends what the feed has, one message at a time. Either ends both. The grantor knows a session until
//! it is told that the stream is over; what it promised to the sidecar it keeps beyond that (R7).
//!
//! Of a snapshot that a sidecar has not finished the grantor hears nothing: it is no place (R13), and whether the rest
//! of it can be sent is for the session to find out, when the grantor's welcome says that it needs a snapshot.

use super::feed::{Ended, Feed, Had};
use super::snapshots::Admitted;
use super::{RETRY_SNAPSHOT_AFTER, Shared};
use crate::grantor::{Event, Link, Order};
use crate::ring::Newest;
use crate::store::{Reader, StoreError};
use consent::convert::sync::{self, Unfinished};
use consent::pb::SyncRequest;
use consent::said::Said;
use consent::status::status;
use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal, Start, Stream, ToAuthority, ToSidecar};
use consent_core::refusal::Refusal;
use consent_core::words::{Epoch, Incarnation, Revision};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// Orders that a session has not followed yet; a grant beyond them is lost.
const ORDERS_MAX: usize = 16;
/// How long a stream may stand without a hello.
const HELLO_WITHIN: Duration = Duration::from_secs(5);
/// How long a sidecar may leave a message untaken. One that stalls would keep a turn at a snapshot from others.
const TAKE_WITHIN: Duration = Duration::from_secs(30);
/// Times that a head and a chain are read again because the ledger grew in between.
const LOOK_UPS_MAX: usize = 8;

/// One session.
pub(super) struct Session<R: Reader> {
    shared: Arc<Shared<R>>,
    stream: Stream,
    said: mpsc::Sender<Result<Said, Status>>,
    end: CancellationToken,
}

/// What a sidecar has, by its hello.
struct Has {
    place: Option<Place>,
    unfinished: Option<Unfinished>,
    is_resumable: bool,
}

impl<R: Reader> Session<R> {
    pub(super) fn new(
        shared: Arc<Shared<R>>,
        stream: Stream,
        said: mpsc::Sender<Result<Said, Status>>,
        end: CancellationToken,
    ) -> Session<R> {
        Session { shared, stream, said, end }
    }

    pub(super) async fn run(self, mut inbound: Streaming<SyncRequest>) {
        let hello = tokio::select! {
            () = self.end.cancelled() => return,
            hello = tokio::time::timeout(HELLO_WITHIN, self.hear_hello(&mut inbound)) => hello,
        };
        let (hello, sidecar, had) = match hello {
            Ok(Ok(Some((hello @ ToAuthority::Hello { incarnation, .. }, had)))) => (hello, incarnation, had),
            Ok(Ok(Some(_))) => return self.part(no_hello("must be a hello, as the first of a stream")),
            Ok(Err(refusal)) => return self.part(refusal),
            Ok(Ok(None)) => return,
            Err(_) => return self.part(Refusal::DeadlineExceeded),
        };
        let (orders, received) = mpsc::channel(ORDERS_MAX);
        let link = Link { orders, end: self.end.clone() };
        self.tell(Event::Opened { stream: self.stream, link }).await;
        self.tell(Event::Said { stream: self.stream, message: hello }).await;
        tracing::info!(%sidecar, "session opened");
        let (heard, ended) = tokio::join!(self.listen(&mut inbound), self.speak(received, had));
        self.log_end(sidecar, ended);
        if let Err(refusal) = heard {
            self.part(refusal);
        }
    }

    // R13: only a place that the sidecar remembers, or that is sealed, may be one that the ledger has lost. One from
    // a copy that somebody else has written counts for nothing, and the sidecar gets a snapshot.
    async fn hear_hello(
        &self,
        inbound: &mut Streaming<SyncRequest>,
    ) -> Result<Option<(ToAuthority, Has)>, Refusal> {
        let Ok(Some(request)) = inbound.message().await else { return Ok(None) };
        let (seal, unfinished) = (sync::seal(&request)?, sync::unfinished(&request)?);
        let mut has = Has { place: None, unfinished, is_resumable: sync::is_resumable(&request) };
        let mut said = sync::to_authority(request)?;
        if let ToAuthority::Hello { place, incarnation, .. } = &mut said {
            if let Some(seal) = seal {
                let named = place.take();
                *place = named.filter(|named| Seal::of(&self.shared.id_key, named) == seal);
                if place.is_none() {
                    tracing::warn!(sidecar = %incarnation, "a hello names a place under a wrong seal");
                }
            }
            has.place = *place;
        }
        Ok(Some((said, has)))
    }

    // Hears the sidecar until its stream, or the session, is over.
    async fn listen(&self, inbound: &mut Streaming<SyncRequest>) -> Result<(), Refusal> {
        let _guard = self.end.clone().drop_guard();
        loop {
            let heard = tokio::select! {
                () = self.end.cancelled() => return Ok(()),
                heard = hear(inbound) => heard?,
            };
            match heard {
                None => return Ok(()),
                Some(ToAuthority::Hello { .. }) => return Err(no_hello("is a second hello")),
                Some(message) => self.tell(Event::Said { stream: self.stream, message }).await,
            }
        }
    }

    // Says what there is to say until the session is over.
    async fn speak(&self, mut orders: mpsc::Receiver<Order>, has: Has) -> Option<Ended> {
        let _guard = self.end.clone().drop_guard();
        let mut feed: Option<Feed<R>> = None;
        let mut welcomed = None;
        loop {
            let said = tokio::select! {
                () = self.end.cancelled() => return None,
                order = orders.recv() => match order {
                    None | Some(Order::End) => return None,
                    Some(Order::LookUp(revision)) => {
                        self.look_up(revision).await;
                        None
                    }
                    Some(Order::Feed(after)) => {
                        // The grantor welcomes before it feeds.
                        feed = welcomed.take().and_then(|(epoch, admitted)| {
                            let from = has.place.filter(|place| Some(place.revision) == after);
                            self.feed(epoch, from, admitted, has.is_resumable)
                        });
                        None
                    }
                    Some(Order::Send(ToSidecar::Welcome { grantor, epoch, terms, start })) => {
                        let (start, admitted) = match start {
                            Start::Continue => (start, None),
                            Start::Snapshot | Start::RestOfSnapshot => match self.admit(epoch, &has).await {
                                None => {
                                    self.part(Refusal::Overloaded { retry_after: RETRY_SNAPSHOT_AFTER });
                                    return None;
                                }
                                Some((admitted, had)) => {
                                    let rest = had.map_or(Start::Snapshot, |_| Start::RestOfSnapshot);
                                    (rest, Some((admitted, had)))
                                }
                            },
                        };
                        welcomed = Some((epoch, admitted));
                        let (id_key, revision) = (&self.shared.id_key, self.shared.ring.newest().place.revision);
                        let welcome = sync::welcome(grantor, epoch, start, &terms, id_key, revision);
                        Some(Ok(Said::Message(welcome)))
                    }
                    Some(Order::Send(message)) => word(message),
                },
                () = ready(&mut feed), if feed.is_some() => match next(&mut feed).await {
                    Ok(said) => said.map(Ok),
                    Err(ended) => return Some(ended),
                },
            };
            if let Some(said) = said {
                tokio::select! {
                    () = self.end.cancelled() => return None,
                    sent = self.said.send_timeout(said, TAKE_WITHIN) => match sent {
                        Ok(()) => {}
                        Err(SendTimeoutError::Closed(_)) => return None,
                        Err(SendTimeoutError::Timeout(_)) => return Some(Ended::Stalled),
                    }
                }
            }
        }
    }

    // The grantor feeds on from the hello's own place, or not from it.
    fn feed(
        &self,
        epoch: Epoch,
        from: Option<Place>,
        admitted: Option<(Admitted, Option<Had>)>,
        is_resumable: bool,
    ) -> Option<Feed<R>> {
        match (from, admitted) {
            (Some(place), _) => Some(Feed::frames_after(&self.shared, epoch, place)),
            (None, Some((admitted, had))) => {
                Some(Feed::snapshot(&self.shared, epoch, admitted, had, is_resumable))
            }
            (None, None) => None,
        }
    }

    // A place among those who take a snapshot or wait for one, and what the sidecar has of one; none if there is no room,
    // or no telling what that is worth: it keeps it, and comes again.
    async fn admit(&self, epoch: Epoch, has: &Has) -> Option<(Admitted, Option<Had>)> {
        let admitted = self.shared.snapshots.admit()?;
        if let Some(Place { epoch, revision, .. }) = has.place {
            tracing::warn!(%epoch, %revision, "a sidecar comes from another history: it takes a snapshot");
            return Some((admitted, None));
        }
        let Some(unfinished) = &has.unfinished else { return Some((admitted, None)) };
        let had = match self.find(epoch, unfinished).await {
            Ok(had) => had,
            Err(error) => {
                tracing::warn!(%error, "an unfinished snapshot could not be checked");
                return None;
            }
        };
        if had.is_none() {
            tracing::info!(revision = %unfinished.reached.revision, "an unfinished snapshot is of no use here");
        }
        Some((admitted, had))
    }

    // Whether what a sidecar has of a snapshot was begun in this ledger, and with its secret. The digest at the end has
    // the last word, whatever is found here.
    async fn find(&self, epoch: Epoch, unfinished: &Unfinished) -> Result<Option<Had>, StoreError> {
        let Unfinished { reached, last, newest_chunk, seal } = *unfinished;
        let reader = &self.shared.reader;
        if reached.epoch != epoch || Seal::of(&self.shared.id_key, &reached) != seal {
            return Ok(None);
        }
        let head = reader.head().await?;
        if head.epoch != epoch || newest_chunk.max(reached.revision) > head.revision {
            return Ok(None);
        }
        let Some(before) = reached.revision.get().checked_sub(1).and_then(Revision::new) else {
            return Ok(None);
        };
        let found = reader.feed(before, 1).await?.into_iter().next();
        let same = found.filter(|entry| (entry.chain, entry.digest) == (reached.chain, reached.digest));
        Ok(same.map(|entry| {
            let reached = Newest { place: reached, recorded_at: entry.recorded_at };
            Had { reached, last, newest_page: newest_chunk }
        }))
    }

    // R13: head and chain as of one state of the primary. They are two reads, so they are taken only if both say
    // whether the ledger has the revision, and of one epoch.
    async fn look_up(&self, revision: Revision) {
        let stream = self.stream;
        let event = match self.head_and_chain(revision).await {
            Ok(Some((head, chain))) => Event::Found { stream, head, chain },
            Ok(None) => Event::NotFound { stream },
            Err(error) => {
                tracing::warn!(%error, "a hello could not be checked");
                Event::NotFound { stream }
            }
        };
        self.tell(event).await;
    }

    async fn head_and_chain(&self, revision: Revision) -> Result<Option<(Place, Option<Chain>)>, StoreError> {
        let reader = &self.shared.reader;
        for _ in 0..LOOK_UPS_MAX {
            let head = reader.head().await?;
            let chain = reader.proof_at(revision).await?.map(|(chain, _)| chain);
            let same_epoch = reader.head().await?.epoch == head.epoch;
            if same_epoch && chain.is_some() == (revision <= head.revision) {
                return Ok(Some((head.place(), chain)));
            }
        }
        Ok(None)
    }

    // A grantor that is gone needs to know nothing; the session is about to be ended.
    async fn tell(&self, event: Event) {
        let _ = self.shared.events.send(event).await;
    }

    // The last word to a sidecar. One that does not even take it learns by the end of its stream.
    fn part(&self, refusal: Refusal) {
        let _ = self.said.try_send(Err(status(refusal)));
    }

    fn log_end(&self, sidecar: Incarnation, ended: Option<Ended>) {
        self.shared.noted.closed.of(ended.as_ref().into()).inc();
        match ended {
            None => tracing::info!(%sidecar, "session closed"),
            Some(Ended::AnotherEpoch) => {
                tracing::info!(%sidecar, cause = "epoch", "session closed: the sidecar must sync again");
            }
            Some(Ended::Stalled) => {
                tracing::warn!(%sidecar, cause = "stalled", "session closed: the sidecar takes too little");
            }
            Some(Ended::Store(error)) => tracing::warn!(%sidecar, %error, "session closed"),
            Some(Ended::NotNext(error)) => tracing::error!(%sidecar, %error, "session closed"),
        }
    }
}

fn word(message: ToSidecar) -> Option<Result<Said, Status>> {
    let said = |response| Some(Ok(Said::Message(response)));
    match message {
        ToSidecar::Unwelcome(why) => Some(Err(sync::unwelcome(why))),
        ToSidecar::Grant { nonce, place } => said(sync::grant(nonce, place)),
        ToSidecar::Draining => said(sync::draining()),
        // A welcome is worded with what follows it, and frames are the feed's: the grantor sends none.
        ToSidecar::Welcome { .. } | ToSidecar::Frame(_) => None,
    }
}

async fn hear(inbound: &mut Streaming<SyncRequest>) -> Result<Option<ToAuthority>, Refusal> {
    match inbound.message().await {
        Ok(message) => message.map(sync::to_authority).transpose(),
        // The connection broke, or carried what is no message of ours: there is nobody to answer.
        Err(_) => Ok(None),
    }
}

async fn ready<R: Reader>(feed: &mut Option<Feed<R>>) {
    if let Some(feed) = feed {
        feed.ready().await;
    }
}

async fn next<R: Reader>(feed: &mut Option<Feed<R>>) -> Result<Option<Said>, Ended> {
    match feed {
        Some(feed) => feed.next().await,
        None => Ok(None),
    }
}

fn no_hello(problem: &str) -> Refusal {
    Refusal::Invalid { field: "message".to_owned(), problem: problem.to_owned() }
}
