//! Listening: the same services on loopback TCP and on a Unix socket.

use crate::StartError;
use crate::decision::Decisions;
use crate::health::Probes;
use crate::node::Node;
use crate::status::StatusPage;
use consent::incoming::Bounded;
use consent::pb::decision_service_server::{self, DecisionServiceServer};
use consent::pb::sidecar_service_server::{self, SidecarServiceServer};
use consent::serve::{MESSAGE_LEN_MAX, add_reflection, listen_tcp, listen_unix, server};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::pb::health_server::HealthServer;

/// What a sidecar serves, beside health and reflection.
pub(crate) const SERVICES: [&str; 2] =
    [decision_service_server::SERVICE_NAME, sidecar_service_server::SERVICE_NAME];
/// Connections at once on each of the two, so that callers on one do not keep those on the other out. Every one of them
/// carries many calls.
pub(crate) const CONNECTIONS_MAX: usize = 1024;
/// How long calls under way may take to end when the sidecar stops.
const GRACE: Duration = Duration::from_secs(1);

/// What listens.
#[derive(Debug)]
pub(crate) struct Served {
    address: SocketAddr,
    socket: Option<PathBuf>,
    stopped: CancellationToken,
    servers: JoinSet<()>,
}

/// Listens on `listen`, and on `socket` if there is one, for so many connections on each.
pub(crate) async fn start(
    node: Arc<Node>,
    listen: SocketAddr,
    socket: Option<PathBuf>,
    connections: usize,
) -> Result<Served, StartError> {
    if !listen.ip().is_loopback() {
        return Err(StartError::NotLoopback(listen));
    }
    let stopped = CancellationToken::new();
    let routes = routes(&node, &stopped)?;
    let failed = |at: String| move |source| StartError::Listen { at, source };
    let (address, tcp) = listen_tcp(listen).await.map_err(failed(listen.to_string()))?;
    let unix = match &socket {
        None => None,
        Some(path) => Some(listen_unix(path).await.map_err(failed(path.display().to_string()))?),
    };

    let mut servers = JoinSet::new();
    let over_tcp = server().add_routes(routes.clone());
    let stop = stopped.clone();
    servers.spawn(async move {
        let incoming = Bounded::new(tcp, connections);
        report(over_tcp.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await);
    });
    if let Some(unix) = unix {
        let over_unix = server().add_routes(routes);
        let stop = stopped.clone();
        servers.spawn(async move {
            let incoming = Bounded::new(UnixListenerStream::new(unix), connections);
            report(over_unix.serve_with_incoming_shutdown(incoming, stop.cancelled_owned()).await);
        });
    }
    Ok(Served { address, socket, stopped, servers })
}

fn routes(node: &Arc<Node>, stopped: &CancellationToken) -> Result<Routes, StartError> {
    let mut routes = RoutesBuilder::default();
    let decisions = DecisionServiceServer::new(Decisions::new(Arc::clone(node)));
    routes.add_service(decisions.max_decoding_message_size(MESSAGE_LEN_MAX));
    routes.add_service(SidecarServiceServer::new(StatusPage::new(Arc::clone(node))));
    routes.add_service(HealthServer::new(Probes::new(Arc::clone(node), stopped.clone())));
    add_reflection(&mut routes, &SERVICES)?;
    Ok(routes.routes())
}

fn report(served: Result<(), tonic::transport::Error>) {
    if let Err(error) = served {
        tracing::error!(%error, "a server ended");
    }
}

impl Served {
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn socket(&self) -> Option<&Path> {
        self.socket.as_deref()
    }

    /// Resolves when a server has ended by itself.
    pub(crate) async fn ended(&mut self) {
        self.servers.join_next().await;
    }

    /// Listens no more; calls under way have [`GRACE`] to end.
    pub(crate) async fn stop(mut self) {
        self.stopped.cancel();
        let ended = async { while self.servers.join_next().await.is_some() {} };
        // tonic waits for open connections for ever; whoever keeps one open is cut off.
        let _ = tokio::time::timeout(GRACE, ended).await;
        self.servers.shutdown().await;
        if let Some(socket) = &self.socket {
            // It may be gone already.
            let _ = std::fs::remove_file(socket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::pb::GetStatusRequest;
    use consent::pb::sidecar_service_client::SidecarServiceClient;
    use consent_core::words::Incarnation;
    use tonic::transport::{Channel, Endpoint};

    async fn ask(channel: &Channel) {
        let mut client = SidecarServiceClient::new(channel.clone());
        client.get_status(GetStatusRequest {}).await.expect("an answer");
    }

    /// A connection that was answered on.
    async fn connect(endpoint: &Endpoint) -> Channel {
        let channel = endpoint.connect_lazy();
        ask(&channel).await;
        channel
    }

    #[tokio::test]
    async fn a_connection_over_the_bound_is_served_when_another_ends() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("socket");
        let node = Arc::new(Node::new(Incarnation::new([2; 16])));
        let listen = SocketAddr::from(([127, 0, 0, 1], 0));
        let served = start(node, listen, Some(socket.clone()), 1).await.unwrap();
        let tcp = Endpoint::from_shared(format!("http://{}", served.address())).unwrap();
        let unix = Endpoint::from_shared(format!("unix://{}", socket.display())).unwrap();
        for endpoint in [tcp, unix] {
            let first = connect(&endpoint).await;
            let second = tokio::spawn(async move { connect(&endpoint).await });
            // The one connection is in use, and goes on answering; the other is not taken.
            for _ in 0..8 {
                ask(&first).await;
            }
            assert!(!second.is_finished());
            drop(first);
            second.await.expect("an answer");
        }
        served.stop().await;
    }
}
