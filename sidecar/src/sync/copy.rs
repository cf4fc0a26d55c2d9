//! The durable copy as the sync thread meets it: found at the start, proven at the first welcome, then followed.
//!
//! Between the two the holder names the copy's place in its hello, under the copy's seal (R13), and no reader sees
//! any of it: a welcome that goes on from a copy reaches the holder only after the copy was proven (I4).

use crate::durable::{Durable, Unproven, Wrong};
use crate::table::{Heads, Incoming};
use consent_core::confirm::holder::Cause;
use consent_core::confirm::{Frame, Place, Seal};
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Timestamp};

/// The copy; a node without Redis has none, and none of this does anything.
pub(super) struct NodeCopy {
    durable: Option<Durable>,
    found: Option<Unproven>,
}

/// What a proven copy makes of the table.
pub(super) struct Warm {
    pub(super) heads: Heads,
    pub(super) place: Place,
    pub(super) recorded_at: Timestamp,
}

impl NodeCopy {
    pub(super) fn new(durable: Option<Durable>) -> NodeCopy {
        NodeCopy { durable, found: None }
    }

    /// Looks for it. Gives where it says that it stands.
    pub(super) async fn load(&mut self) -> Option<Place> {
        self.found = self.durable.as_ref()?.load().await;
        self.found.as_ref().map(Unproven::place)
    }

    /// The seal on its place, while it is not proven.
    pub(super) fn seal(&self) -> Option<Seal> {
        self.found.as_ref().map(Unproven::seal)
    }

    /// Proves it, if it is not proven yet, under the secret of a welcome that goes on from it.
    pub(super) fn prove(&mut self, secret: &IdKey) -> Option<Result<Warm, Wrong>> {
        let (durable, found) = self.durable.as_ref().zip(self.found.take())?;
        Some(found.prove(secret).map(|proven| {
            let (heads, place, recorded_at) = durable.proven(proven);
            Warm { heads, place, recorded_at }
        }))
    }

    /// There is another table, or none: of what was found there is no more to say.
    pub(super) fn dropped(&mut self) {
        self.found = None;
        self.durable.iter().for_each(Durable::dropped);
    }

    /// A snapshot is the table now.
    pub(super) fn replaced(&mut self, place: Place, recorded_at: Timestamp) {
        self.found = None;
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
        | Wrong::Moved
        | Wrong::Head(_)
        | Wrong::Digest => Cause::Digest,
    }
}
