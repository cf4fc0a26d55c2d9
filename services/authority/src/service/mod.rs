//! What the authority serves to callers: three services over one lane, one reader and one lease.
//!
//! - `consent`, `policy`: writes go into the lane by `writes`, reads come from the primary.
//! - `decision`: answers from one read of the primary, under the replica's own lease.
//! - `snapshot`: heads of one read as the core's state. `refusals`: what a store says, and what a caller hears.

mod consent;
mod decision;
mod policy;
mod refusals;
mod snapshot;
mod writes;

use crate::confirmations::Confirmations;
use crate::lane::Lane;
use crate::metrics::Noted;
use crate::store::Reader;
use ::consent::pb::consent_service_server::ConsentServiceServer;
use ::consent::pb::decision_service_server::DecisionServiceServer;
use ::consent::pb::policy_service_server::PolicyServiceServer;
use ::consent::serve::MESSAGE_LEN_MAX;
use consent_core::confirm::Lease;
use consent_core::words::IdKey;
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;

/// What the services stand on.
pub(crate) struct Parts<R> {
    pub(crate) reader: R,
    pub(crate) lane: Lane,
    pub(crate) confirmations: Confirmations,
    pub(crate) id_key: IdKey,
    /// RL: what the grantor holds by its last renewal; none before the first, and once it was fenced.
    pub(crate) lease: watch::Receiver<Option<Lease>>,
    pub(crate) noted: Arc<Noted>,
    /// Cancelled when the replica leaves.
    pub(crate) leave: CancellationToken,
}

/// Adds ConsentService, PolicyService and DecisionService.
pub(crate) fn add<R: Reader>(routes: &mut RoutesBuilder, parts: Parts<R>) {
    let Parts { reader, lane, confirmations, id_key, lease, noted, leave } = parts;
    let writes = writes::Writes { lane, confirmations, noted };
    let consent = consent::Consent { writes: writes.clone(), reader: reader.clone(), id_key };
    let policy = policy::Policy { writes, reader: reader.clone() };
    let streams = Arc::new(Semaphore::new(decision::STREAMS_MAX));
    let decisions = decision::Decisions { reader, id_key, lease, streams, leave };
    routes
        .add_service(ConsentServiceServer::new(consent).max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(PolicyServiceServer::new(policy).max_decoding_message_size(MESSAGE_LEN_MAX))
        .add_service(DecisionServiceServer::new(decisions).max_decoding_message_size(MESSAGE_LEN_MAX));
}
