//! One serving thread: a single-threaded runtime that serves the connections which it is handed.
//!
//! All that an answer needs happens on the thread that read its question. A call then costs a fifth less than on a
//! runtime of several threads, and no more of the machine is taken than there are threads.

use super::accept::Movable;
use consent::incoming::Seated;
use consent::serve::bulk_server;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

/// How long calls under way may take to end when the sidecar stops.
pub(super) const GRACE: Duration = Duration::from_secs(1);
/// How many files a thread has open for itself: those of its runtime.
pub(super) const FILES: usize = 4;

/// The connections that a thread is handed.
pub(super) struct Handed {
    pub(super) tcp: mpsc::Receiver<Seated<OwnedFd>>,
    pub(super) unix: mpsc::Receiver<Seated<OwnedFd>>,
}

/// Serves them until `stopped` is cancelled; calls under way then have [`GRACE`] to end.
pub(super) async fn serve(routes: Routes, handed: Handed, stopped: CancellationToken) {
    let over_tcp = serve_over::<TcpStream>(routes.clone(), handed.tcp, stopped.clone());
    let over_unix = serve_over::<UnixStream>(routes, handed.unix, stopped.clone());
    // tonic waits for open connections for ever; whoever keeps one open is cut off.
    let cut_off = async {
        stopped.cancelled().await;
        tokio::time::sleep(GRACE).await;
    };
    tokio::select! {
        ((), ()) = async { tokio::join!(over_tcp, over_unix) } => (),
        () = cut_off => (),
    }
}

async fn serve_over<IO: Movable>(
    routes: Routes,
    handed: mpsc::Receiver<Seated<OwnedFd>>,
    stopped: CancellationToken,
) {
    let incoming = ReceiverStream::new(handed).map(settle::<IO>);
    let server = bulk_server().add_routes(routes);
    if let Err(error) = server.serve_with_incoming_shutdown(incoming, stopped.cancelled_owned()).await {
        tracing::error!(%error, "a server ended");
    }
}

fn settle<IO: Movable>(seated: Seated<OwnedFd>) -> io::Result<Seated<IO>> {
    // tonic itself says nothing of a connection that it does not get.
    seated.try_map(IO::settle).inspect_err(|error| tracing::warn!(%error, "a connection is lost"))
}
