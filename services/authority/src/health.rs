//! Health: readiness that follows the lease itself, and liveness that does not.
//!
//! Ready means that the first renewal has returned and the lease on the store lasts: then the store can be reached,
//! and what is written can be confirmed. `""` says the same. A reporter that remembers what it was last told would go
//! on saying so in a process that was stopped and has just come back; here each probe reads the lease. `liveness` says
//! SERVING as long as the process answers at all: a store that is away is no reason to restart the process.

use consent::clock;
use consent::pb::consent_service_server::SERVICE_NAME as CONSENT;
use consent::pb::decision_service_server::SERVICE_NAME as DECISION;
use consent::pb::policy_service_server::SERVICE_NAME as POLICY;
use consent::pb::sync_service_server::SERVICE_NAME as SYNC;
use consent_core::confirm::Lease;
use consent_core::words::{Moment, Span};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// What the authority serves.
pub(crate) const SERVICES: [&str; 4] = [CONSENT, DECISION, POLICY, SYNC];
/// The name under which liveness is asked for.
pub(crate) const LIVENESS: &str = "liveness";

/// What a probe asks about.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// Does the process run?
    Liveness,
    /// May it promise, and confirm?
    Readiness,
}

/// grpc.health.v1 on an authority.
#[derive(Clone)]
pub(crate) struct Probes {
    lease: watch::Receiver<Option<Lease>>,
    leaving: CancellationToken,
}

impl Probes {
    /// From when `leaving` is cancelled nothing is ready, and every watch ends.
    pub(crate) fn new(lease: watch::Receiver<Option<Lease>>, leaving: CancellationToken) -> Probes {
        Probes { lease, leaving }
    }

    /// The status now, and until when it lasts if nothing else happens.
    fn status(&self, probe: Probe) -> (ServingStatus, Option<Moment>) {
        let now = clock::now();
        let lease = self.lease.borrow().filter(|lease| lease.left(now) > Span::ZERO);
        match (probe, lease) {
            (Probe::Liveness, _) => (ServingStatus::Serving, None),
            (Probe::Readiness, Some(lease)) if !self.leaving.is_cancelled() => {
                (ServingStatus::Serving, Some(lease.until))
            }
            (Probe::Readiness, Some(_) | None) => (ServingStatus::NotServing, None),
        }
    }

    /// Tells every change of the status, until nobody listens or the authority leaves, which is told last.
    async fn follow(mut self, probe: Probe, out: mpsc::Sender<Result<HealthCheckResponse, Status>>) {
        let mut told = None;
        loop {
            let leaving = self.leaving.is_cancelled();
            let (now, until) = self.status(probe);
            if told.replace(now) != Some(now) && out.send(Ok(response(now))).await.is_err() {
                return;
            }
            if leaving {
                return;
            }
            tokio::select! {
                () = out.closed() => return,
                () = self.leaving.cancelled() => {}
                changed = self.lease.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                () = clock::end_of(until) => {}
            }
        }
    }
}

fn probe(request: &HealthCheckRequest) -> Result<Probe, Status> {
    match request.service.as_str() {
        LIVENESS => Ok(Probe::Liveness),
        "" => Ok(Probe::Readiness),
        service if SERVICES.contains(&service) => Ok(Probe::Readiness),
        _ => Err(Status::not_found("there is no such service here")),
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Probes {
    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let (status, _) = self.status(probe(request.get_ref())?);
        Ok(Response::new(response(status)))
    }

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let probe = probe(request.get_ref())?;
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(self.clone().follow(probe, out));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::Epoch;

    #[tokio::test]
    async fn a_probe_reads_the_lease_and_not_what_was_told_of_it() {
        let lease = |until| Some(Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(50) });
        let (published, read) = watch::channel(None);
        let leaving = CancellationToken::new();
        let probes = Probes::new(read, leaving.clone());
        let ready = || probes.status(Probe::Readiness).0;
        assert_eq!(ready(), ServingStatus::NotServing);
        published.send_replace(lease(clock::now().after(Span::from_millis(3_600_000))));
        assert_eq!(ready(), ServingStatus::Serving);
        // As after a stop of the whole process: the lease is over, and nobody has said so yet.
        published.send_replace(lease(clock::now()));
        assert_eq!(ready(), ServingStatus::NotServing);
        published.send_replace(lease(clock::now().after(Span::from_millis(3_600_000))));
        leaving.cancel();
        assert_eq!(ready(), ServingStatus::NotServing);
        assert_eq!(probes.status(Probe::Liveness).0, ServingStatus::Serving);
    }

    #[tokio::test]
    async fn a_watch_ends_with_the_word_that_nothing_is_ready() {
        let until = clock::now().after(Span::from_millis(3_600_000));
        let lease = Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(50) };
        let (_published, read) = watch::channel(Some(lease));
        let leaving = CancellationToken::new();
        let (out, mut told) = mpsc::channel(1);
        tokio::spawn(Probes::new(read, leaving.clone()).follow(Probe::Readiness, out));
        let mut next = async || told.recv().await.map(|said| said.expect("a status").status());
        assert_eq!(next().await, Some(ServingStatus::Serving));
        leaving.cancel();
        assert_eq!(next().await, Some(ServingStatus::NotServing));
        assert_eq!(next().await, None);
    }
}
