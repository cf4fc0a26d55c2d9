//! What every write of every service has in common: into the lane, then wait for EFFECTIVE if asked to.
//!
//! Once a write is durable its caller hears RECORDED at least. A deadline that passes while it waits for EFFECTIVE
//! is no error: it would look as if nothing had happened. The one error after RECORDED is LOST, and it is true.

use super::refusals::{is_callers_fault, refused_write};
use crate::confirmations::{Confirmations, Judgement};
use crate::lane::{Lane, Receipt, Write};
use crate::metrics::{Method, Noted, Outcome};
use crate::store::RequestName;
use consent::clock;
use consent::convert::{consent as wire, to_timestamp};
use consent::deadline::Deadline;
use consent::metrics::Label;
use consent::pb;
use consent_core::policy::Warning;
use consent_core::refusal::Refusal;
use consent_core::words::Span;
use std::sync::Arc;
use tonic::{Request, Status};

/// How long a call without a deadline waits.
const WAIT_DEFAULT: Span = Span::from_millis(10_000);

/// Callers are not authenticated on loopback, the only place where an authority listens without TLS.
const CALLER: &str = "local";

/// The deadline of a call to the authority.
pub(crate) fn deadline<T>(request: &Request<T>) -> Deadline {
    Deadline::of(request, WAIT_DEFAULT)
}

/// How far a write has come, as the wire says it.
pub(crate) fn confirmation(judgement: Judgement) -> Result<pb::Confirmation, Refusal> {
    match judgement {
        Judgement::Recorded => Ok(pb::Confirmation::Recorded),
        Judgement::Effective => Ok(pb::Confirmation::Effective),
        Judgement::Lost => Err(Refusal::Lost),
    }
}

/// The way of a write. Clones share all of it.
#[derive(Debug, Clone)]
pub(crate) struct Writes {
    pub(crate) lane: Lane,
    pub(crate) confirmations: Confirmations,
    pub(crate) noted: Arc<Noted>,
}

/// A durable write: what the caller gets, and what a published policy drops.
pub(crate) struct Recorded {
    pub(crate) receipt: pb::Receipt,
    pub(crate) warnings: Vec<Warning>,
}

impl Writes {
    /// Makes the write, if it is one, by the deadline. `document` is the policy file's text where one is published.
    pub(crate) async fn make(
        &self,
        method: Method,
        write: Result<wire::Write, Refusal>,
        document: Option<String>,
        deadline: Deadline,
    ) -> Result<Recorded, Status> {
        let made = async {
            let wire::Write { command, ids, context } = write?;
            let wire::Context { request_id, actor, channel, notice, wait_effective } = context;
            let request = RequestName { caller: CALLER.to_owned(), request_id };
            let write = Write { request, command, ids, actor, channel: channel.into(), notice, document };
            let receipt = self.lane.write(write, deadline).await?;
            Ok((receipt, wait_effective.then_some(deadline)))
        };
        let made = made.await.map_err(|refusal| refused_write(method.text(), refusal));
        self.noted.writes.of(method).of(outcome(&made)).inc();
        let (receipt, wait) = made?;
        self.confirmed(receipt, wait).await.map_err(|refusal| refused_write(method.text(), refusal))
    }

    async fn confirmed(&self, receipt: Receipt, wait: Option<Deadline>) -> Result<Recorded, Refusal> {
        let Receipt { position, chain, recorded_at, changed, warnings } = receipt;
        // It was committed a moment ago: where no reading can judge it, that much is known.
        let judgement = match wait {
            Some(deadline) => {
                let recorded = clock::now();
                let judged = self.confirmations.judge(position.revision, chain, true, deadline).await;
                self.noted.confirmed(&judged, clock::now().longest_since(recorded));
                judged
            }
            None => Ok(Judgement::Recorded),
        };
        let receipt = pb::Receipt {
            position: Some(position.into()),
            chain: chain.bytes().to_vec().into(),
            recorded_at: Some(to_timestamp(recorded_at)),
            confirmation: confirmation(judgement.unwrap_or(Judgement::Recorded))?.into(),
            changed,
        };
        Ok(Recorded { receipt, warnings })
    }
}

fn outcome<T>(made: &Result<(Receipt, T), Status>) -> Outcome {
    match made {
        Ok((receipt, _)) if receipt.changed => Outcome::Recorded,
        Ok(_) => Outcome::Unchanged,
        Err(status) if is_callers_fault(status) => Outcome::Refused,
        Err(_) => Outcome::Failed,
    }
}
