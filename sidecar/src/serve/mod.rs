//! Listening: the same services on loopback TCP and on a Unix socket, on threads of their own.
//!
//! - `accept`: takes the connections of both, and hands them out.
//! - `peers`: whose processes may ask on the Unix socket.
//! - `thread`: serves those that it is handed.

mod accept;
mod peers;
mod thread;

pub use peers::Peers;

use crate::decision::Decisions;
use crate::health::Probes;
use crate::metrics::Listener;
use crate::node::Node;
use crate::status::StatusPage;
use crate::thread::start as start_thread;
use crate::{Config, StartError};
use accept::{HANDED_MAX, hand_out};
use consent::files::make_room;
use consent::incoming::Bounded;
use consent::metrics::{Gauge, Per};
use consent::pb::decision_service_server::{self, DecisionServiceServer};
use consent::pb::sidecar_service_server::{self, SidecarServiceServer};
use consent::serve::{MESSAGE_LEN_MAX, add_reflection, listen_tcp};
use consent::socket::listen_unix;
use peers::Admitted;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thread::{GRACE, Handed};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::pb::health_server::HealthServer;

/// What a sidecar serves, beside health and reflection.
pub(crate) const SERVICES: [&str; 2] =
    [decision_service_server::SERVICE_NAME, sidecar_service_server::SERVICE_NAME];
/// Connections at once on each of the two, so that callers on one do not keep those on the other out. Every one of them
/// carries many calls.
pub(crate) const CONNECTIONS_MAX: usize = 1024;

/// What listens. Dropped, it listens no more, and calls under way have [`GRACE`] to end.
#[derive(Debug)]
pub(crate) struct Served {
    address: SocketAddr,
    socket: Option<PathBuf>,
    stopped: DropGuard,
    /// What takes connections, and what waits for the ends of threads. None of them ends by itself.
    parts: JoinSet<()>,
}

/// Listens for so many connections on each of the two. They are taken on the runtime on which this is called, and served
/// on threads of their own.
pub(crate) async fn start(
    node: &Arc<Node>,
    config: &Config,
    connections: usize,
) -> Result<Served, StartError> {
    start_serving(config, connections, &node.noted.connections, || routes(node)).await
}

/// Each thread gets routes of its own: they are counted at each call, and a count that threads share is slow.
async fn start_serving(
    config: &Config,
    connections: usize,
    open: &Per<Listener, Gauge>,
    routes: impl Fn() -> Result<Routes, StartError>,
) -> Result<Served, StartError> {
    let Config { listen, socket, cores, .. } = config;
    if !listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(*listen));
    }
    let listeners = if socket.is_some() { 2 } else { 1 };
    make_room(listeners * connections + cores.get() * thread::FILES);
    let failed = |at: String| move |source| StartError::Listen { at, source };
    let (address, tcp) = listen_tcp(*listen).await.map_err(failed(listen.to_string()))?;
    let unix = match socket {
        None => None,
        Some(socket) => {
            let path = socket.path.display().to_string();
            let listener = listen_unix(&socket.path).await.map_err(failed(path))?;
            Some(Admitted::new(UnixListenerStream::new(listener), socket.peers.clone()))
        }
    };

    let stop = CancellationToken::new();
    let stopped = stop.clone().drop_guard();
    let (mut parts, mut to_tcp, mut to_unix) = (JoinSet::new(), Vec::new(), Vec::new());
    for number in 0..cores.get() {
        let (over_tcp, tcp) = mpsc::channel(HANDED_MAX);
        let (over_unix, unix) = mpsc::channel(HANDED_MAX);
        let (routes, stop) = (routes()?, stop.clone());
        let serve = move || thread::serve(routes, Handed { tcp, unix }, stop);
        let ended = start_thread(format!("consent-core-{number}"), serve)?;
        parts.spawn(async move { ended.wait().await });
        to_tcp.push(over_tcp);
        to_unix.push(over_unix);
    }
    let tcp = hand_out(Bounded::new(tcp, connections).counted_in(open.of(Listener::Tcp)), to_tcp);
    parts.spawn(until_stopped(stop.clone(), tcp));
    if let Some(unix) = unix {
        let unix = hand_out(Bounded::new(unix, connections).counted_in(open.of(Listener::Unix)), to_unix);
        parts.spawn(until_stopped(stop, unix));
    }
    let socket = socket.as_ref().map(|socket| socket.path.clone());
    Ok(Served { address, socket, stopped, parts })
}

async fn until_stopped(stop: CancellationToken, work: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => (),
        () = work => (),
    }
}

fn routes(node: &Arc<Node>) -> Result<Routes, StartError> {
    let mut routes = RoutesBuilder::default();
    let decisions = DecisionServiceServer::new(Decisions::new(Arc::clone(node)));
    routes.add_service(decisions.max_decoding_message_size(MESSAGE_LEN_MAX));
    routes.add_service(SidecarServiceServer::new(StatusPage::new(Arc::clone(node))));
    routes.add_service(HealthServer::new(Probes::new(Arc::clone(node))));
    add_reflection(&mut routes, &SERVICES)?;
    Ok(routes.routes())
}

impl Served {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Resolves when a part of it has ended by itself, by a panic or otherwise.
    pub(crate) async fn ended(&mut self) {
        self.parts.join_next().await;
    }

    /// Listens no more; calls under way have [`GRACE`] to end.
    pub(crate) async fn stop(self) {
        let Served { socket, stopped, mut parts, .. } = self;
        if let Some(socket) = &socket {
            // While it is listened on: a later start takes the name of one that nobody listens on, and would lose it
            // here. It may be gone already.
            let _ = std::fs::remove_file(socket);
        }
        drop(stopped);
        let ended = async { while parts.join_next().await.is_some() {} };
        if tokio::time::timeout(2 * GRACE, ended).await.is_err() {
            tracing::warn!("a serving thread does not end");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Socket;
    use consent::pb::sidecar_service_client::SidecarServiceClient;
    use consent::pb::sidecar_service_server::SidecarService;
    use consent::pb::{GetStatusRequest, GetStatusResponse};
    use consent_core::words::Incarnation;
    use std::num::NonZeroUsize;
    use std::time::Duration;
    use tempfile::TempDir;
    use tonic::transport::{Channel, Endpoint};
    use tonic::{Request, Response, Status};

    /// Reached only by a test that fails.
    const PATIENCE: Duration = Duration::from_secs(20);

    async fn status(channel: &Channel) -> Result<GetStatusResponse, Status> {
        let mut client = SidecarServiceClient::new(channel.clone());
        Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
    }

    async fn ask(channel: &Channel) -> GetStatusResponse {
        status(channel).await.expect("an answer")
    }

    /// A connection that was answered on.
    async fn connect(endpoint: &Endpoint) -> Channel {
        let channel = endpoint.connect_lazy();
        ask(&channel).await;
        channel
    }

    fn config(directory: &TempDir, cores: usize) -> Config {
        let path = directory.path().join("socket");
        Config {
            socket: Some(Socket { path, peers: Peers::Group }),
            cores: NonZeroUsize::new(cores).unwrap(),
            ..Config::new(Vec::new(), SocketAddr::from(([127, 0, 0, 1], 0)))
        }
    }

    /// Its two addresses.
    fn endpoints(served: &Served) -> [Endpoint; 2] {
        let unix = served.socket().unwrap().display();
        [format!("http://{}", served.address()), format!("unix://{unix}")]
            .map(|url| Endpoint::from_shared(url).unwrap())
    }

    #[tokio::test]
    async fn a_connection_over_the_bound_is_served_when_another_ends() {
        let directory = tempfile::tempdir().unwrap();
        let node = Arc::new(Node::new(Incarnation::new([2; 16])));
        let served = start(&node, &config(&directory, 2), 1).await.unwrap();
        for endpoint in endpoints(&served) {
            let first = connect(&endpoint).await;
            let second = tokio::spawn(async move { connect(&endpoint).await });
            // The one connection is in use, and goes on answering; the other is not taken, by any thread.
            for _ in 0..8 {
                ask(&first).await;
            }
            assert!(!second.is_finished());
            drop(first);
            second.await.expect("an answer");
        }
        served.stop().await;
    }

    /// Says on which thread it answers. A call with a header of one of these names gets no answer.
    struct Traced(mpsc::Sender<()>);
    const PANICS: &str = "panics";
    const HANGS: &str = "hangs";

    #[tonic::async_trait]
    impl SidecarService for Traced {
        async fn get_status(
            &self,
            request: Request<GetStatusRequest>,
        ) -> Result<Response<GetStatusResponse>, Status> {
            assert!(!request.metadata().contains_key(PANICS), "a planted fault");
            if request.metadata().contains_key(HANGS) {
                self.0.send(()).await.unwrap();
                std::future::pending::<()>().await;
            }
            let version = std::thread::current().name().unwrap_or_default().to_owned();
            Ok(Response::new(GetStatusResponse { version, ..GetStatusResponse::default() }))
        }
    }

    async fn call_that(how: &'static str, channel: Channel) -> Result<Response<GetStatusResponse>, Status> {
        let mut request = Request::new(GetStatusRequest {});
        request.metadata_mut().insert(how, "yes".parse().unwrap());
        SidecarServiceClient::new(channel).get_status(request).await
    }

    /// What is served, and the calls that hang.
    async fn traced(directory: &TempDir, cores: usize) -> (Served, mpsc::Receiver<()>) {
        let (hanging, hang) = mpsc::channel(8);
        let routes = || Ok(Routes::new(SidecarServiceServer::new(Traced(hanging.clone()))));
        (start_serving(&config(directory, cores), 8, &Per::default(), routes).await.unwrap(), hang)
    }

    #[tokio::test]
    async fn connections_are_served_by_the_threads_in_turn() {
        let directory = tempfile::tempdir().unwrap();
        let (served, _) = traced(&directory, 3).await;
        for endpoint in endpoints(&served) {
            let mut open = Vec::new();
            for number in [0, 1, 2, 0] {
                let channel = connect(&endpoint).await;
                assert_eq!(ask(&channel).await.version, format!("consent-core-{number}"));
                open.push(channel);
            }
        }
        served.stop().await;
    }

    #[tokio::test]
    async fn a_call_that_panics_is_answered_with_an_error_and_the_thread_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let (served, _) = traced(&directory, 1).await;
        for endpoint in endpoints(&served) {
            let channel = connect(&endpoint).await;
            call_that(PANICS, channel.clone()).await.expect_err("no answer");
            ask(&channel).await;
        }
        served.stop().await;
    }

    #[tokio::test]
    async fn the_end_of_a_serving_thread_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        let (mut served, _) = traced(&directory, 2).await;
        let ended = start_thread("panics".to_owned(), async || panic!("a planted fault")).unwrap();
        served.parts.spawn(async move { ended.wait().await });
        served.ended().await;
        served.stop().await;
    }

    #[tokio::test]
    async fn who_keeps_a_call_open_is_cut_off_by_a_stop() {
        let directory = tempfile::tempdir().unwrap();
        let (served, mut hang) = traced(&directory, 2).await;
        let mut calls = Vec::new();
        for endpoint in endpoints(&served) {
            calls.push(tokio::spawn(call_that(HANGS, connect(&endpoint).await)));
            hang.recv().await.unwrap();
        }
        let path = served.socket().unwrap().to_owned();
        served.stop().await;
        for call in calls {
            let end = tokio::time::timeout(PATIENCE, call).await.expect("it is cut off").unwrap();
            end.expect_err("no answer");
        }
        assert!(!path.exists());
    }
}
