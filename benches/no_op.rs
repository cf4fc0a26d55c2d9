//! The server that decides nothing: what a call costs that does the same in all but the decision.
//!
//! The same messages, the same answers byte for byte in size, the same layers, limits and ports, the same form of
//! runtime and the same services beside it as on a sidecar. What a sidecar takes longer than this is what deciding
//! costs.

use crate::baseline;
use crate::node::Server;
use consent::convert::columns::column_responses;
use consent::convert::decision::{response, responses};
use consent::dialogue::{self, Answer};
use consent::incoming::Bounded;
use consent::pb::decision_service_server::{self, DecisionService, DecisionServiceServer};
use consent::pb::{
    BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse, StreamCanTrainRequest,
    StreamCanTrainResponse,
};
use consent::serve::{MESSAGE_LEN_MAX, add_reflection, bulk_server, listen_tcp};
use consent::socket::listen_unix;
use consent_core::decision::{Decision, Reason};
use consent_core::words::{Epoch, Position, Revision, Span};
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Request, Response, Status, Streaming};

const ALLOW: Decision = Decision { reason: Reason::PlanDefaultIn, is_final: false };
const HOLD: Span = Span::from_millis(50);
/// As many as a sidecar takes.
const CONNECTIONS_MAX: usize = 1024;

/// Starts one.
pub(crate) async fn start(bench: &crate::bench::Bench) -> anyhow::Result<Server> {
    let program = std::env::current_exe()?;
    Server::start(bench, "no-op", &program, |socket| vec!["no-op".to_owned(), socket.to_owned()]).await
}

/// Is one, until it is killed.
pub(crate) fn serve(socket: &Path) -> ExitCode {
    baseline::on_one_thread(run(socket))
}

async fn run(socket: &Path) -> anyhow::Result<()> {
    let (address, tcp) = listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    let unix = UnixListenerStream::new(listen_unix(socket).await?);
    let (_, health) = tonic_health::server::health_reporter();
    let mut routes = RoutesBuilder::default();
    routes.add_service(DecisionServiceServer::new(NoOp).max_decoding_message_size(MESSAGE_LEN_MAX));
    routes.add_service(health);
    add_reflection(&mut routes, &[decision_service_server::SERVICE_NAME])?;
    let routes = routes.routes();
    // A sidecar's connections can all be told to end, so each of them listens for that. Here nobody says it.
    let never = || std::future::pending();
    let over_tcp = bulk_server()
        .add_routes(routes.clone())
        .serve_with_incoming_shutdown(Bounded::new(tcp, CONNECTIONS_MAX), never());
    let over_unix = bulk_server()
        .add_routes(routes)
        .serve_with_incoming_shutdown(Bounded::new(unix, CONNECTIONS_MAX), never());
    let servers = [tokio::spawn(over_tcp), tokio::spawn(over_unix)];
    tracing::info!(%address, "listening");
    for server in servers {
        server.await??;
    }
    Ok(())
}

struct NoOp;

/// What a sidecar at 10^7 accounts says, in length.
fn position() -> Option<Position> {
    Some(Position {
        epoch: Epoch::new([1; 16]),
        revision: Revision::new(10_000_001).unwrap_or(Revision::ZERO),
    })
}

#[tonic::async_trait]
impl DecisionService for NoOp {
    async fn can_train(
        &self,
        request: Request<CanTrainRequest>,
    ) -> Result<Response<CanTrainResponse>, Status> {
        std::hint::black_box(request.into_inner());
        Ok(Response::new(response(ALLOW, position(), HOLD)))
    }

    async fn batch_can_train(
        &self,
        request: Request<BatchCanTrainRequest>,
    ) -> Result<Response<BatchCanTrainResponse>, Status> {
        let request = std::hint::black_box(request.into_inner());
        Ok(Response::new(responses(&vec![ALLOW; request.requests.len()], position(), HOLD)))
    }

    type StreamCanTrainStream = ReceiverStream<Result<StreamCanTrainResponse, Status>>;

    async fn stream_can_train(
        &self,
        request: Request<Streaming<StreamCanTrainRequest>>,
    ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
        Ok(Response::new(dialogue::hold(request.into_inner(), NoOp, CancellationToken::new())))
    }
}

impl Answer<StreamCanTrainRequest> for NoOp {
    type Given = StreamCanTrainResponse;

    async fn answer(&mut self, request: StreamCanTrainRequest) -> Result<StreamCanTrainResponse, Status> {
        let request = std::hint::black_box(request);
        Ok(column_responses(&vec![ALLOW; request.collected_at_millis.len()], position(), HOLD))
    }
}
