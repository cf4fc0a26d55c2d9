//! A bare broadcast: a tonic server with nothing in it but streams, and a call that has the same bytes sent on all of
//! them. The bytes are encoded once, and copied as they are.

use crate::baseline;
use crate::bench::Bench;
use crate::process::Process;
use crate::raw::Raw;
use bytes::Bytes;
use consent::clock;
use consent::files::make_room;
use consent::pb::sync_response::Message;
use consent::pb::{SyncResponse, Welcome};
use prost::Message as _;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService, UnaryService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// Has the request's bytes sent to everybody, and gives the wall clock of when it began, in milliseconds.
pub(crate) const TRIGGER: &str = "/consent.v1.SyncService/Broadcast";
/// More than listeners ever have before them.
const UNDERWAY: usize = 16;
const CONNECTIONS: usize = 4096;

/// A broadcasting process.
#[derive(Debug)]
pub(crate) struct Broadcast {
    _process: Process,
    pub(crate) url: String,
}

/// Starts one on the servers' core.
pub(crate) async fn start(bench: &Bench) -> anyhow::Result<Broadcast> {
    let program = std::env::current_exe()?;
    let words = ["broadcast".to_owned()];
    let process = bench.cores.on_the_servers(|| Process::run("broadcast", &program, &words))?;
    let url = format!("http://{}", process.listening().await?);
    Ok(Broadcast { _process: process, url })
}

/// Is one, until it is killed.
pub(crate) fn serve() -> ExitCode {
    make_room(CONNECTIONS);
    baseline::on_one_thread(run())
}

async fn run() -> anyhow::Result<()> {
    let (address, incoming) = consent::serve::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    tracing::info!(%address, "listening");
    Ok(Server::builder().add_service(Bare::default()).serve_with_incoming(incoming).await?)
}

type Sent = Result<Bytes, Status>;

/// Everybody's stream.
#[derive(Debug, Clone, Default)]
struct Bare {
    streams: Arc<Mutex<Vec<mpsc::Sender<Sent>>>>,
}

impl NamedService for Bare {
    const NAME: &'static str = "consent.v1.SyncService";
}

impl Service<http::Request<Body>> for Bare {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let bare = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(Raw);
            Ok(if request.uri().path() == TRIGGER {
                grpc.unary(bare, request).await
            } else {
                grpc.streaming(bare, request).await
            })
        })
    }
}

impl StreamingService<Bytes> for Bare {
    type Response = Bytes;
    type ResponseStream = ReceiverStream<Sent>;
    type Future = Ready<Result<Response<ReceiverStream<Sent>>, Status>>;

    fn call(&mut self, _: Request<Streaming<Bytes>>) -> Self::Future {
        let (sender, receiver) = mpsc::channel(UNDERWAY);
        let welcome = SyncResponse { message: Some(Message::Welcome(Welcome::default())) };
        let is_told = sender.try_send(Ok(welcome.encode_to_vec().into())).is_ok();
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).push(sender);
        ready(if is_told { Ok(Response::new(ReceiverStream::new(receiver))) } else { Err(behind()) })
    }
}

impl UnaryService<Bytes> for Bare {
    type Response = Bytes;
    type Future = Ready<Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let began = clock::wall().millis();
        let bytes = request.into_inner();
        let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let are_told = streams.iter().all(|stream| stream.try_send(Ok(bytes.clone())).is_ok());
        let stamp = Bytes::copy_from_slice(&began.to_be_bytes());
        ready(if are_told { Ok(Response::new(stamp)) } else { Err(behind()) })
    }
}

fn behind() -> Status {
    Status::resource_exhausted("a listener is behind, or gone")
}
