//! Health: readiness that follows the lease itself, and liveness that does not.
//!
//! SERVING means that the node may allow at the moment of asking. A reporter that remembers what it was last told
//! would go on saying so in a process that was stopped and has just come back; here each probe reads the lease.

use crate::node::Node;
use crate::serve::SERVICES;
use consent::clock;
use consent::status::status as refusal;
use consent_core::refusal::Refusal;
use consent_core::words::Moment;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

/// The name under which a probe learns that the process runs, whatever its state.
pub(crate) const LIVENESS: &str = "liveness";

/// What a probe asks about.
#[derive(Debug, Clone, Copy)]
enum Probe {
    /// Does the process run?
    Liveness,
    /// May the node allow?
    Readiness,
}

/// grpc.health.v1 on a sidecar.
pub(crate) struct Probes {
    node: Arc<Node>,
}

impl Probes {
    pub(crate) fn new(node: Arc<Node>) -> Probes {
        Probes { node }
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

/// The status now, and until when it lasts if nothing else happens.
fn status(node: &Node, probe: Probe) -> (ServingStatus, Option<Moment>) {
    match probe {
        Probe::Liveness => (ServingStatus::Serving, None),
        Probe::Readiness => match node.valid_lease(clock::now()) {
            Some(lease) if !node.leaving.is_cancelled() => (ServingStatus::Serving, Some(lease.until)),
            Some(_) | None => (ServingStatus::NotServing, None),
        },
    }
}

fn response(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl Health for Probes {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let (status, _) = status(&self.node, probe(request.get_ref())?);
        Ok(Response::new(response(status)))
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<ReceiverStream<Result<HealthCheckResponse, Status>>>, Status> {
        let probe = probe(request.get_ref())?;
        let (out, stream) = mpsc::channel(1);
        tokio::spawn(follow(Arc::clone(&self.node), probe, out));
        Ok(Response::new(ReceiverStream::new(stream)))
    }
}

/// Tells every change of the status, until nobody listens or the sidecar stops, which is told last.
async fn follow(node: Arc<Node>, probe: Probe, out: mpsc::Sender<Result<HealthCheckResponse, Status>>) {
    let mut standing = node.standing.subscribe();
    let mut told = None;
    loop {
        let leaving = node.leaving.is_cancelled();
        let (now, until) = status(&node, probe);
        if told.replace(now) != Some(now) && out.send(Ok(response(now))).await.is_err() {
            return;
        }
        if leaving {
            // Who has gone needs no word.
            let _ = out.send(Err(refusal(Refusal::NotServing))).await;
            return;
        }
        tokio::select! {
            () = out.closed() => return,
            () = node.leaving.cancelled() => (),
            changed = standing.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = clock::alarm(until) => (),
        }
    }
}
