//! A bare bidirectional stream: a tonic server with nothing in it but one method, which gives back what it hears.
//! There is no task and no queue behind a stream: less than this no tonic server holds.

use crate::baseline;
use crate::bench::Bench;
use crate::process::Process;
use crate::raw::Raw;
use bytes::Bytes;
use consent::files::make_room;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::process::ExitCode;
use std::task::{Context, Poll};
use tonic::body::Body;
use tonic::codegen::{Service, http};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};

/// The method.
pub(crate) const PATH: &str = "/bench.Echo/Echo";
const CONNECTIONS: usize = 16_384;

/// An echoing process.
#[derive(Debug)]
pub(crate) struct Echo {
    process: Process,
    pub(crate) url: String,
}

impl Echo {
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }
}

/// Starts one on the servers' core.
pub(crate) async fn start(bench: &Bench) -> anyhow::Result<Echo> {
    let program = std::env::current_exe()?;
    let words = ["echo".to_owned()];
    let process = bench.cores.on_the_servers(|| Process::run("echo", &program, &words))?;
    let url = format!("http://{}", process.listening().await?);
    Ok(Echo { process, url })
}

/// Is one, until it is killed.
pub(crate) fn serve() -> ExitCode {
    make_room(CONNECTIONS);
    baseline::on_all_cores(run())
}

async fn run() -> anyhow::Result<()> {
    let (address, incoming) = consent::serve::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0))).await?;
    tracing::info!(%address, "listening");
    Ok(Server::builder().add_service(Echoing).serve_with_incoming(incoming).await?)
}

#[derive(Debug, Clone, Copy)]
struct Echoing;

impl NamedService for Echoing {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Echoing {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async move { Ok(Grpc::new(Raw).streaming(Echoing, request).await) })
    }
}

impl StreamingService<Bytes> for Echoing {
    type Response = Bytes;
    type ResponseStream = Streaming<Bytes>;
    type Future = Ready<Result<Response<Streaming<Bytes>>, Status>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        ready(Ok(Response::new(request.into_inner())))
    }
}
