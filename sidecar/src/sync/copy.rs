//! The durable copy as the sync thread meets it: found at the start, proven at the first welcome, then followed.
//!
//! Between the two the holder names the copy's place in its hello, under the copy's seal (R13), and no reader sees
//! any of it: a welcome that goes on from a copy reaches the holder only after the copy was proven (I4). Proving takes
//! as long as reading does; the driver goes on meanwhile with everything but what the authority says next.

use crate::durable::{Durable, Proof, Proven, Unproven, Wrong};
use crate::table::{Heads, Incoming};
use consent_core::confirm::holder::Cause;
use consent_core::confirm::{Frame, Place, Seal, Stream, ToSidecar};
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Timestamp};
use std::future::pending;

/// So often a copy is looked for that was another one when it was read. Whoever writes to it is a run before this one
/// that has not ended yet, which soon has, or another sidecar, which never will.
const LOOKS: u32 = 3;

/// The copy; a node without Redis has none, and none of this does anything.
pub(super) struct NodeCopy {
    durable: Option<Durable>,
    found: Option<Unproven>,
    proving: Option<Proving>,
    looks: u32,
    is_sought: bool,
}

/// A copy on its way into the table, and the welcome that goes on from it: the holder hears of it when it is proven.
struct Proving {
    stream: Stream,
    welcome: ToSidecar,
    proof: Proof,
}

/// What came of it.
pub(super) struct Proved {
    pub(super) stream: Stream,
    pub(super) welcome: ToSidecar,
    pub(super) outcome: Result<Warm, Wrong>,
}

/// What a proven copy makes of the table.
pub(super) struct Warm {
    pub(super) heads: Heads,
    pub(super) place: Place,
    pub(super) recorded_at: Timestamp,
}

impl NodeCopy {
    pub(super) fn new(durable: Option<Durable>) -> NodeCopy {
        let is_sought = durable.is_some();
        NodeCopy { durable, found: None, proving: None, looks: LOOKS, is_sought }
    }

    /// Is it to be looked for before anything else?
    pub(super) fn is_sought(&self) -> bool {
        self.is_sought
    }

    /// Looks for it. Gives where it says that it stands.
    pub(super) async fn find(&mut self) -> Option<Place> {
        let found = self.durable.as_ref()?.find().await;
        (self.found, self.is_sought) = (found, false);
        self.looks = self.looks.saturating_sub(1);
        self.found.as_ref().map(Unproven::place)
    }

    /// The seal on its place, while it is not proven.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.found.as_ref().map(Unproven::seal)
    }

    /// Begins to prove it, if it is not proven yet, under the secret of a welcome that goes on from it; or else gives
    /// the welcome back.
    pub(super) fn prove(&mut self, stream: Stream, welcome: ToSidecar, secret: IdKey) -> Option<ToSidecar> {
        let Some((durable, found)) = self.durable.as_ref().zip(self.found.take()) else {
            return Some(welcome);
        };
        self.proving = Some(Proving { stream, welcome, proof: durable.prove(found, secret) });
        None
    }

    /// Is it being proven? Whatever the authority says after its welcome waits for that.
    pub(super) fn is_proving(&self) -> bool {
        self.proving.is_some()
    }

    /// Waits for the proof; for ever, if there is none.
    pub(super) async fn proved(&mut self) -> Proved {
        let outcome = match &mut self.proving {
            Some(proving) => proving.proof.as_mut().await,
            None => pending().await,
        };
        let (Some(Proving { stream, welcome, .. }), Some(durable)) = (self.proving.take(), &self.durable)
        else {
            return pending().await;
        };
        let outcome = outcome.map(|proven: Proven| {
            let (heads, place, recorded_at) = durable.proven(proven);
            Warm { heads, place, recorded_at }
        });
        Proved { stream, welcome, outcome }
    }

    /// It was not what it said. If it has become another one meanwhile, that one may be good.
    pub(super) fn refused(&mut self, wrong: &Wrong) {
        self.is_sought = matches!(wrong, Wrong::Moved) && self.looks > 0;
    }

    /// There is another table, or none: of what was found there is no more to say.
    pub(super) fn dropped(&mut self) {
        (self.found, self.proving) = (None, None);
        self.durable.iter().for_each(Durable::dropped);
    }

    /// A snapshot is the table now.
    pub(super) fn replaced(&mut self, place: Place, recorded_at: Timestamp) {
        (self.found, self.proving) = (None, None);
        self.durable.iter().for_each(|durable| durable.replaced(place, recorded_at));
    }

    /// The head that a frame brings, if it will have to be told.
    pub(super) fn record(&self, head: &Incoming) -> Option<HeadRecord> {
        self.durable.as_ref().map(|_| head.record())
    }

    /// The table has applied a frame.
    pub(super) fn changed(&self, frame: &Frame, recorded_at: Timestamp, head: Option<HeadRecord>) {
        if let Some((durable, head)) = self.durable.as_ref().zip(head) {
            durable.changed(frame.place(), recorded_at, head);
        }
    }

    /// The table goes on in another epoch.
    pub(super) fn entered(&self, epoch: Epoch) {
        self.durable.iter().for_each(|durable| durable.entered(epoch));
    }
}

/// Why a sidecar starts over from a copy that is not what it says.
pub(super) fn cause(wrong: &Wrong) -> Cause {
    match wrong {
        Wrong::Secret => Cause::Foreign,
        Wrong::Redis(_)
        | Wrong::Layout
        | Wrong::Bucket(_)
        | Wrong::Log
        | Wrong::TooLarge(_)
        | Wrong::Slow
        | Wrong::Moved
        | Wrong::Head(_)
        | Wrong::Digest => Cause::Digest,
    }
}
