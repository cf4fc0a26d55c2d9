//! Health: readiness per service, and liveness apart.
//!
//! Ready means that the first renewal has returned and the lease on the store lasts: then the store can be reached,
//! and what is written can be confirmed. `""` says the same. `liveness` says SERVING as long as the process answers
//! at all: a store that is away is no reason to restart the process.

use crate::failure::Failure;
use consent::clock;
use consent::pb::consent_service_server::SERVICE_NAME as CONSENT;
use consent::pb::decision_service_server::SERVICE_NAME as DECISION;
use consent::pb::policy_service_server::SERVICE_NAME as POLICY;
use consent::pb::sync_service_server::SERVICE_NAME as SYNC;
use consent_core::confirm::Lease;
use consent_core::words::Span;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

/// What the authority serves.
pub(crate) const SERVICES: [&str; 4] = [CONSENT, DECISION, POLICY, SYNC];
/// The name under which liveness is asked for.
pub(crate) const LIVENESS: &str = "liveness";

/// Nothing is ready yet. To be called before the port is open.
pub(crate) async fn begin(reporter: &HealthReporter) {
    reporter.set_service_status(LIVENESS, ServingStatus::Serving).await;
    report(reporter, ServingStatus::NotServing).await;
}

/// Reports readiness until the process is told to stop, and from then on that it is not ready.
pub(crate) async fn run(
    reporter: HealthReporter,
    mut lease: watch::Receiver<Option<Lease>>,
    stop: CancellationToken,
) -> Result<(), Failure> {
    let mut ready = false;
    loop {
        let held = lease.borrow_and_update().filter(|lease| lease.left(clock::now()) > Span::ZERO);
        if ready != held.is_some() {
            ready = held.is_some();
            tracing::info!(ready, "readiness changed");
            report(&reporter, if ready { ServingStatus::Serving } else { ServingStatus::NotServing }).await;
        }
        let owned = tokio::select! {
            () = stop.cancelled() => false,
            changed = lease.changed() => changed.is_ok(),
            () = clock::alarm(held.map(|lease| lease.until)) => true,
        };
        if !owned {
            // Told to stop; or the owner of the lease is gone, and the process is about to be.
            report(&reporter, ServingStatus::NotServing).await;
            stop.cancelled().await;
            return Ok(());
        }
    }
}

async fn report(reporter: &HealthReporter, status: ServingStatus) {
    for name in SERVICES.into_iter().chain([""]) {
        reporter.set_service_status(name, status).await;
    }
}
