//! A slow wire that knows what it carries, and the fault that can be planted on it: acks that come too early.
//!
//! It delivers every message of the authority some time late, as a long wire would. With the fault it also acknowledges
//! each frame as soon as the sidecar has it, as if the answer hold (R6) were removed from the ack.
//!
//! The wire is slow because an authority holds each revision for its own answers too (R7): on a fast wire that alone
//! is long enough to hide a sidecar that does not hold.

use crate::carrier::{Carrier, Passage};
use consent::pb::{Ack, Frames, SyncRequest, SyncResponse, sync_request, sync_response};
use consent_core::words::Span;

/// When frames are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// When the sidecar says so.
    Honest,
    /// As soon as the sidecar has them.
    Early,
}

/// The slow wire to the authority at `upstream`, `host:port`.
pub(crate) async fn slow_wire(upstream: &str, acks: Acks) -> anyhow::Result<Carrier> {
    Carrier::start(upstream, move || Slow { acks }).await
}

struct Slow {
    acks: Acks,
}

impl Passage for Slow {
    /// Far more than an authority's own hold.
    const LATE: Span = Span::from_millis(150);

    fn arrived(&self, said: &SyncResponse) -> Option<SyncRequest> {
        if self.acks == Acks::Early { ack_of(said) } else { None }
    }
}

fn ack_of(message: &SyncResponse) -> Option<SyncRequest> {
    let Some(sync_response::Message::Frames(Frames { frames, .. })) = &message.message else { return None };
    let last = frames.last()?;
    let ack = Ack { revision: last.revision, chain: last.chain.clone() };
    Some(SyncRequest { message: Some(sync_request::Message::Ack(ack)) })
}
