//! The sync client: drives the core's holder over connections to authorities.
//!
//! One task on a thread of its own owns all of it: the holder, the connections, the snapshot on its way, and every
//! write to the node. Each event is one step: the clocks are read, the holder is told, and what it wants done is
//! done in its order before anything else happens (I4 and I5 rest on that order). Nothing here latches: whatever
//! goes wrong ends in a denial and in another connection, after a wait with full jitter.

mod connection;
mod connections;
mod copy;
mod snapshot;

pub(crate) use connections::Authority;

use crate::durable::Durable;
use crate::metrics::Lost;
use crate::node::{Node, Standing};
use crate::table::Incoming;
use connection::{End, Event};
use connections::{Awaited, Connections};
use consent::clock;
use consent::convert::sync::{Change, FromAuthority, sealed, sync_request, with_unfinished};
use consent_core::confirm::holder::{Cause, Input, Output};
use consent_core::confirm::{Holder, Start, Stream, ToAuthority, ToSidecar, Unwelcome};
use consent_core::head::SEMANTICS;
use consent_core::words::{IdKey, Timestamp};
use copy::{NodeCopy, Proved, Warm};
use snapshot::{BadSnapshot, Broken, Snapshot};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::sync::CancellationToken;

/// So many messages of authorities may wait for the driver; then their streams wait. Few, since each may be a page of a
/// snapshot, which takes a hundred kilobytes once it is read: what waits here is memory beside the table that is built.
const EVENTS: usize = 2;

/// The driver.
pub(crate) struct Driver {
    node: Arc<Node>,
    holder: Holder,
    connections: Connections,
    snapshot: Option<Snapshot>,
    /// What is left of a snapshot whose stream broke. The holder knows nothing of it: it is no table.
    unfinished: Option<Broken>,
    copy: NodeCopy,
    /// The head of the frame that the holder is told of, for it to order its apply.
    arriving: Option<(Timestamp, Incoming)>,
    /// What the holder is to be told once its outputs are performed.
    inputs: VecDeque<Input>,
    /// What went wrong with the last connection; for people.
    trouble: Option<String>,
    is_leaving: bool,
    has_left: bool,
    inbox: mpsc::Receiver<Event>,
}

impl Driver {
    /// A driver for one run of the process. The authority to begin with is drawn at random, so that not every node
    /// of a fleet begins with the same.
    pub(crate) fn new(node: Arc<Node>, authorities: Vec<Authority>, durable: Option<Durable>) -> Driver {
        let (events, inbox) = mpsc::channel(EVENTS);
        let [first, ..] = *node.incarnation.bytes();
        Driver {
            holder: Holder::new(node.incarnation, SEMANTICS),
            connections: Connections::new(authorities, usize::from(first), events),
            node,
            snapshot: None,
            unfinished: None,
            copy: NodeCopy::new(durable),
            arriving: None,
            inputs: VecDeque::new(),
            trouble: None,
            is_leaving: false,
            has_left: false,
            inbox,
        }
    }

    /// Runs until `stop` is cancelled and everything is given back (R12).
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        while !self.has_left {
            if self.copy.is_sought() && !self.is_leaving {
                self.find_copy(&stop).await;
            }
            if !self.is_leaving {
                self.connections.ensure();
            }
            tokio::select! {
                biased;
                () = stop.cancelled(), if !self.is_leaving => self.leave(),
                Some(event) = self.inbox.recv(), if !self.copy.is_proving() => self.on(event),
                proved = self.copy.proved() => self.proved(proved),
                () = clock::alarm(self.holder.wake_at()) => self.step(Input::TimePassed),
                () = clock::alarm(self.connections.wake_at()) => (),
                () = clock::alarm(self.unfinished.as_ref().map(Broken::over_at)) => {
                    self.unfinished.take_if(|unfinished| unfinished.is_over(clock::now()));
                }
            }
            while let Some((stream, awaited)) = self.connections.silent(clock::now()) {
                self.give_up(stream, awaited);
            }
            // With many frames waiting this loop would go on alone, and fill the queues of what it says.
            tokio::task::yield_now().await;
        }
        self.inbox.close();
        self.connections.finish().await;
    }

    async fn find_copy(&mut self, stop: &CancellationToken) {
        tokio::select! {
            biased;
            () = stop.cancelled() => self.leave(),
            found = self.copy.find() => {
                // Its digest is compared as soon as a welcome gives the secret for it.
                if let Some(place) = found {
                    self.step(Input::Loaded { place, digest: place.digest });
                }
            }
        }
    }

    fn give_up(&mut self, stream: Stream, awaited: Awaited) {
        let (lost, why) = match awaited {
            Awaited::Welcome => (Lost::Silent, "it did not answer the hello in time"),
            Awaited::Turn => (Lost::Busy, "it sent snapshots to others for too long"),
            Awaited::Piece => (Lost::Silent, "it went silent in the middle of a snapshot"),
            Awaited::Grant(_) => (Lost::Silent, "it answered no keepalive for a whole lease"),
        };
        self.note(stream, lost, why.to_owned());
        self.connections.gave_up(stream, awaited);
        self.interrupt(stream);
        self.close(stream);
        self.step(Input::Disconnected { stream });
    }

    fn leave(&mut self) {
        self.is_leaving = true;
        self.step(Input::Leave);
        self.stand();
    }

    fn on(&mut self, event: Event) {
        match event {
            Event::Connected { stream, outbox } => {
                if let Some(connection) = self.connections.get(stream) {
                    connection.outbox = Some(outbox);
                    connection.await_from(clock::now(), Awaited::Welcome);
                    self.step(Input::Connected { stream });
                }
            }
            Event::Heard { stream, message } => {
                if self.connections.get(stream).is_some() {
                    self.heard(stream, message);
                }
            }
            Event::Ended { stream, end } => {
                if self.connections.get(stream).is_some() {
                    self.ended(stream, end);
                }
            }
        }
    }

    fn heard(&mut self, stream: Stream, message: FromAuthority) {
        match message {
            FromAuthority::Welcome { message, id_key, .. } => self.welcomed(stream, message, id_key),
            FromAuthority::SnapshotBegin(place) => {
                self.on_snapshot(stream, |snapshot| snapshot.begin(place));
            }
            FromAuthority::SnapshotChunk { heads, revision } => {
                let page = |snapshot: &mut Snapshot| snapshot.page(heads, revision);
                self.on_snapshot(stream, page);
            }
            FromAuthority::SnapshotEnd { place, recorded_at } => {
                let Some(snapshot) = self.snapshot.take_if(|snapshot| snapshot.stream() == stream) else {
                    return self.unreadable(stream, "the end of a snapshot that was not begun".to_owned());
                };
                self.answered(stream);
                match snapshot.end(&place) {
                    Err(bad) => self.unreadable(stream, bad.to_string()),
                    Ok(heads) => {
                        let digest = heads.digest();
                        if self.holder.takes(&place) {
                            self.node.table.install(heads, &place, recorded_at);
                            if digest == place.digest {
                                self.node.noted.snapshots.inc();
                                self.copy.replaced(place, recorded_at);
                            }
                        }
                        self.step(Input::SnapshotLoaded { stream, place, digest });
                    }
                }
            }
            FromAuthority::Frames(changes) => {
                for change in changes {
                    // Any of them may end the connection, and what follows is then no longer wanted.
                    if self.connections.get(stream).is_some() {
                        self.changed(stream, change);
                    }
                }
            }
            FromAuthority::Message(message) => {
                if let Some(connection) = self.connections.get(stream) {
                    connection.spoke();
                }
                if let ToSidecar::Grant { place, .. } = &message {
                    self.node.noted.granted(place.revision);
                }
                self.step(Input::Received { stream, message });
            }
        }
    }

    fn answered(&mut self, stream: Stream) {
        if let Some(connection) = self.connections.get(stream) {
            connection.answered();
        }
    }

    fn welcomed(&mut self, stream: Stream, message: ToSidecar, id_key: IdKey) {
        let ToSidecar::Welcome { terms, start, .. } = message else { return };
        if let Some(connection) = self.connections.get(stream) {
            connection.welcomed(clock::now(), start, id_key, terms.sidecar_lease());
        }
        let is_other = |known: IdKey| start == Start::Continue && known != id_key;
        if self.node.table.id_key().is_some_and(is_other) {
            // Every key in the table was made under another secret: nothing in it would ever be found.
            self.trouble = Some("the authority hashes ids under another secret than the table's".to_owned());
            return self.step(Input::Doubted { cause: Cause::Foreign });
        }
        let heard = match start {
            Start::Continue => self.copy.prove(stream, message, id_key),
            Start::Snapshot | Start::RestOfSnapshot => Some(message),
        };
        if let Some(message) = heard {
            self.step(Input::Received { stream, message });
            self.stand();
        }
    }

    /// The copy is read, under the secret of a welcome, which counts only now.
    fn proved(&mut self, proved: Proved) {
        let Proved { stream, welcome, outcome } = proved;
        match outcome {
            Ok(Warm { heads, place, recorded_at }) => {
                self.node.table.install(heads, &place, recorded_at);
                tracing::info!(revision = %place.revision, "the durable copy is the table");
                self.step(Input::Received { stream, message: welcome });
                self.stand();
            }
            Err(wrong) => {
                tracing::warn!(%wrong, "the durable copy is thrown away");
                self.trouble = Some(format!("its durable copy was not used: {wrong}"));
                self.step(Input::Doubted { cause: copy::cause(&wrong) });
                self.copy.refused(&wrong);
            }
        }
    }

    /// R6: one revision. A head that needs a newer reader is kept, as a snapshot's is; what no writer wrote is not.
    fn changed(&mut self, stream: Stream, change: Change) {
        if self.snapshot.as_ref().is_some_and(|snapshot| snapshot.stream() == stream) {
            return self.on_snapshot(stream, |snapshot| snapshot.change(change));
        }
        let Change { frame, recorded_at, head } = change;
        match Incoming::read(head, frame.revision) {
            Err(why) => self.unreadable(stream, format!("the head of revision {} {why}", frame.revision)),
            Ok(head) => {
                self.arriving = Some((recorded_at, head));
                self.step(Input::Received { stream, message: ToSidecar::Frame(frame) });
                self.arriving = None;
            }
        }
    }

    fn on_snapshot(&mut self, stream: Stream, add: impl FnOnce(&mut Snapshot) -> Result<(), BadSnapshot>) {
        let snapshot = self.snapshot.as_mut().filter(|snapshot| snapshot.stream() == stream);
        match snapshot.map(add) {
            Some(Ok(())) => {
                if let Some(connection) = self.connections.get(stream) {
                    connection.await_from(clock::now(), Awaited::Piece);
                }
            }
            Some(Err(bad)) => self.unreadable(stream, bad.to_string()),
            None => self.unreadable(stream, "a page of a snapshot that was not begun".to_owned()),
        }
    }

    /// Something came that this build cannot go on from: every lease is dropped, and a new hello is tried.
    fn unreadable(&mut self, stream: Stream, why: String) {
        tracing::warn!(
            authority = self.connections.url(stream),
            why,
            "an authority said what cannot be read"
        );
        self.trouble = Some(why);
        self.step(Input::Doubted { cause: Cause::Unreadable });
    }

    fn ended(&mut self, stream: Stream, end: End) {
        match end {
            End::Unreadable(why) => {
                self.node.noted.lost.of(Lost::Unreadable).inc();
                return self.unreadable(stream, why);
            }
            End::Unwelcome(why) => {
                let (lost, reason) = match why {
                    Unwelcome::Held => (Lost::Held, "it does not have the history that this node has seen"),
                    Unwelcome::Busy { .. } => {
                        (Lost::Busy, "it is not ready, or serves as many sidecars as it may")
                    }
                    Unwelcome::Leaving => (Lost::Leaving, "it leaves"),
                };
                self.note(stream, lost, reason.to_owned());
                self.step(Input::Received { stream, message: ToSidecar::Unwelcome(why) });
            }
            End::Broken(why) => {
                self.note(stream, Lost::Broken, why);
                self.interrupt(stream);
            }
        }
        self.close(stream);
        self.step(Input::Disconnected { stream });
    }

    /// Counts a connection that was lost, keeps what is wrong with it for people, and logs it unless it is what was
    /// logged last.
    fn note(&mut self, stream: Stream, lost: Lost, why: String) {
        self.node.noted.lost.of(lost).inc();
        if self.trouble.as_ref() != Some(&why) {
            tracing::warn!(
                authority = self.connections.url(stream),
                why,
                "the connection to an authority is over"
            );
            self.trouble = Some(why);
            self.stand();
        }
    }

    /// Tells the holder, and does what it wants done, in its order, before it is told anything else.
    fn step(&mut self, input: Input) {
        self.inputs.push_back(input);
        let mut outputs = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            self.holder.step(clock::now(), input, &mut outputs);
            outputs.drain(..).for_each(|output| self.perform(output));
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { stream, message } => {
                let Some(connection) = self.connections.get(stream) else { return };
                if matches!(message, ToAuthority::KeepAlive { .. }) {
                    connection.await_grant(clock::now());
                }
                let said = match (message, self.copy.seal(), &self.unfinished) {
                    (ToAuthority::Hello { place: Some(_), .. }, Some(seal), _) => {
                        sealed(sync_request(message), seal)
                    }
                    (ToAuthority::Hello { place: None, .. }, _, Some(unfinished)) => {
                        with_unfinished(sync_request(message), unfinished.named())
                    }
                    (message, ..) => sync_request(message),
                };
                let Some(outbox) = connection.outbox.as_ref() else { return };
                // One that takes nothing because it is over says so itself, after all that it has brought.
                if let Err(TrySendError::Full(_)) = outbox.try_send(said) {
                    self.note(stream, Lost::Full, "it takes no messages any more".to_owned());
                    self.interrupt(stream);
                    self.close(stream);
                    self.inputs.push_back(Input::Disconnected { stream });
                }
            }
            Output::Apply { frame, .. } => {
                if let Some((recorded_at, head)) = self.arriving.take() {
                    let (kind, record) = (head.kind(), self.copy.record(&head));
                    let digest = self.node.table.apply(&frame, recorded_at, head);
                    if digest == frame.digest {
                        self.node.noted.applied(kind, recorded_at);
                        self.copy.changed(&frame, recorded_at, record);
                    }
                    self.inputs.push_back(Input::Applied { revision: frame.revision, digest });
                }
            }
            Output::TakeSnapshot { stream, is_rest } => self.take_snapshot(stream, is_rest),
            Output::DropTable => {
                self.copy.dropped();
                self.node.table.clear();
            }
            Output::EnterEpoch(epoch) => {
                self.node.table.enter(epoch);
                self.copy.entered(epoch);
            }
            Output::Publish(lease) => {
                self.node.publish(lease);
                if lease.is_some() {
                    self.connections.proved_good();
                    self.trouble = None;
                }
            }
            Output::Changed { from, to } => {
                self.stand();
                let why = self.node.standing.borrow().why.clone();
                tracing::info!(?from, ?to, why, "the state changed");
            }
            Output::Resync(cause) => {
                self.unfinished = None;
                self.node.noted.resyncs.of(cause.into()).inc();
                tracing::warn!(?cause, "the leases are dropped, and sync starts over");
            }
            Output::Close { stream, retry_after } => {
                self.connections.leave_alone(stream, retry_after);
                self.close(stream);
            }
            Output::SeekAnother { leaving } => {
                if let Some(connection) = self.connections.get(leaving) {
                    connection.is_leaving = true;
                }
            }
            Output::Left => self.has_left = true,
        }
    }

    fn take_snapshot(&mut self, stream: Stream, is_rest: bool) {
        let authority = self.connections.url(stream);
        let Some(id_key) = self.connections.id_key(stream) else { return };
        let unfinished = self.unfinished.take().filter(|_| is_rest);
        self.snapshot = match unfinished {
            Some(unfinished) => {
                tracing::info!(authority, "the rest of a snapshot comes");
                unfinished.go_on(stream, id_key)
            }
            None if is_rest => None,
            None => {
                tracing::info!(authority, "a snapshot comes");
                Some(Snapshot::new(stream, id_key))
            }
        };
        if self.snapshot.is_none() {
            self.trouble = Some("the rest of a snapshot comes that this node has not begun".to_owned());
            self.inputs.push_back(Input::Doubted { cause: Cause::Unreadable });
        }
    }

    /// A stream is over that nobody here has closed: what it brought of a snapshot is kept.
    fn interrupt(&mut self, stream: Stream) {
        if let Some(snapshot) = self.snapshot.take_if(|snapshot| snapshot.stream() == stream) {
            self.unfinished = snapshot.broken();
        }
    }

    fn close(&mut self, stream: Stream) {
        self.connections.close(stream);
        self.snapshot.take_if(|snapshot| snapshot.stream() == stream);
        self.stand();
    }

    /// Says where the sidecar stands, for people and probes.
    fn stand(&mut self) {
        let standing = Standing::new(
            self.holder.state(),
            self.holder.cause(),
            self.trouble.as_deref(),
            self.connections.followed(),
        );
        let standing = if self.is_leaving { standing.of_one_that_stops() } else { standing };
        self.node.standing.send_if_modified(|before| std::mem::replace(before, standing.clone()) != standing);
    }
}
