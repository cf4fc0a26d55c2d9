//! Taking connections, and handing them to the serving threads in turn.
//!
//! One place takes them all: there they are counted, and refused. Listeners of each thread's own (SO_REUSEPORT) would
//! spread them by a hash, so that the few connections of a node, which stay for days, may all meet on one thread; and
//! there is no such thing for Unix sockets. This task runs beside the serving threads and costs them nothing.

use consent::incoming::{Bounded, Seated};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// So many connections may wait to be served by a thread; then no further one is taken, of any thread, until it has
/// come to them.
pub(super) const HANDED_MAX: usize = 16;

/// A connection that can be moved from the runtime that took it to another.
pub(super) trait Movable: AsyncRead + AsyncWrite + Connected + Unpin + Send + Sized + 'static {
    /// Takes it from the runtime on which this is called.
    fn loosen(self) -> io::Result<OwnedFd>;
    /// Gives it to the runtime on which this is called.
    fn settle(descriptor: OwnedFd) -> io::Result<Self>;
}

impl Movable for TcpStream {
    fn loosen(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }

    fn settle(descriptor: OwnedFd) -> io::Result<TcpStream> {
        TcpStream::from_std(descriptor.into())
    }
}

impl Movable for UnixStream {
    fn loosen(self) -> io::Result<OwnedFd> {
        Ok(self.into_std()?.into())
    }

    fn settle(descriptor: OwnedFd) -> io::Result<UnixStream> {
        UnixStream::from_std(descriptor.into())
    }
}

/// Hands what comes to the threads in turn, until one of them takes nothing any more.
pub(super) async fn hand_out<S, IO>(mut incoming: Bounded<S>, threads: Vec<mpsc::Sender<Seated<OwnedFd>>>)
where
    S: Stream<Item = io::Result<IO>> + Unpin,
    IO: Movable,
{
    for thread in threads.iter().cycle() {
        let Some(taken) = incoming.next().await else { return };
        match taken.and_then(|seated| seated.try_map(IO::loosen)) {
            Err(error) => tracing::warn!(%error, "a connection is lost"),
            Ok(connection) => {
                if thread.send(connection).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent::serve::listen_tcp;

    #[tokio::test]
    async fn they_go_to_the_threads_in_turn_and_keep_nagle_off() {
        let (address, incoming) = listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let (first, of_first) = mpsc::channel(HANDED_MAX);
        let (second, of_second) = mpsc::channel(HANDED_MAX);
        let handing = tokio::spawn(hand_out(Bounded::new(incoming, 8), vec![first, second]));
        let mut threads = [of_first, of_second];
        let mut callers = Vec::new();
        for thread in [0, 1, 0] {
            callers.push(TcpStream::connect(address).await.unwrap());
            let connection = threads[thread].recv().await.unwrap().try_map(TcpStream::settle).unwrap();
            assert!(connection.get_ref().nodelay().unwrap());
        }
        drop(threads);
        let _caller = TcpStream::connect(address).await.unwrap();
        handing.await.expect("it ends with a thread");
    }
}
