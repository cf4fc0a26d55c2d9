//! Which connections a server takes: so many at once, and none in a hurry when the system has no more to give.
//!
//! At the bound a further connection is not taken. It waits in the kernel's queue, whose length is bounded too, until
//! another one ends: to refuse it in words would take the very connection that there is no room for, and to take it
//! and cut it off would have its caller come back at once. Where the process is out of file descriptors, `accept`
//! fails again immediately, and tonic tries again immediately: here that waits for a moment, and is logged.

use crate::metrics::Gauge;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_util::sync::PollSemaphore;
use tonic::transport::server::Connected;

/// How long nothing is taken after the system refused to give a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// The connections of a listener, so many of them at once.
#[derive(Debug)]
pub struct Bounded<S> {
    listener: S,
    seats: PollSemaphore,
    /// Taken before the connection that will have it.
    seat: Option<OwnedSemaphorePermit>,
    pause: Option<Pin<Box<Sleep>>>,
    /// How many are open.
    open: Gauge,
    /// What was logged last, so that a trouble that stays is logged once.
    trouble: Option<Trouble>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    Full,
    Refused,
}

impl<S> Bounded<S> {
    /// Takes at most `connections` from `listener` at once.
    pub fn new(listener: S, connections: usize) -> Bounded<S> {
        let seats = PollSemaphore::new(Arc::new(Semaphore::new(connections)));
        Bounded { listener, seats, seat: None, pause: None, open: Gauge::default(), trouble: None }
    }

    /// The same, with those that are open counted in this gauge.
    #[must_use]
    pub fn counted_in(self, open: &Gauge) -> Bounded<S> {
        Bounded { open: open.clone(), ..self }
    }

    fn poll_seat(&mut self, cx: &mut Context<'_>) -> Poll<Option<OwnedSemaphorePermit>> {
        if self.seat.is_some() {
            return Poll::Ready(self.seat.take());
        }
        let seat = self.seats.poll_acquire(cx);
        if seat.is_pending() && self.trouble.replace(Trouble::Full) != Some(Trouble::Full) {
            tracing::warn!("as many connections are open as may be; further ones wait");
        }
        seat
    }

    fn refused(&mut self, error: &io::Error) {
        if self.trouble.replace(Trouble::Refused) != Some(Trouble::Refused) {
            tracing::warn!(%error, "no connection can be taken");
        }
        self.pause = Some(Box::pin(tokio::time::sleep(PAUSE)));
    }
}

/// Is only the one connection lost that was to be taken?
fn is_of_the_peer(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

impl<S, IO> Stream for Bounded<S>
where
    S: Stream<Item = io::Result<IO>> + Unpin,
{
    type Item = io::Result<Seated<IO>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(cx));
                this.pause = None;
            }
            // Nobody closes the semaphore; if somebody did, nothing would be taken any more.
            let Some(seat) = ready!(this.poll_seat(cx)) else { return Poll::Ready(None) };
            match Pin::new(&mut this.listener).poll_next(cx) {
                Poll::Ready(Some(Ok(io))) => {
                    // At the bound one comes for each that ends: the trouble stays, and was logged.
                    if this.seats.available_permits() > 0 {
                        this.trouble = None;
                    }
                    return Poll::Ready(Some(Ok(Seated { io, _seat: Seat::new(seat, &this.open) })));
                }
                Poll::Ready(Some(Err(error))) if is_of_the_peer(&error) => this.seat = Some(seat),
                Poll::Ready(Some(Err(error))) => {
                    this.seat = Some(seat);
                    this.refused(&error);
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    this.seat = Some(seat);
                    return Poll::Pending;
                }
            }
        }
    }
}

/// A connection that was taken. When it ends, another one may be.
#[derive(Debug)]
pub struct Seated<IO> {
    io: IO,
    _seat: Seat,
}

/// What a connection has for as long as it is open.
#[derive(Debug)]
struct Seat {
    _permit: OwnedSemaphorePermit,
    open: Gauge,
}

impl Seat {
    fn new(permit: OwnedSemaphorePermit, open: &Gauge) -> Seat {
        open.inc();
        Seat { _permit: permit, open: open.clone() }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.open.dec();
    }
}

impl<IO> Seated<IO> {
    /// The connection in another form, in the same seat. Where it has none it is over, and its seat free.
    pub fn try_map<T>(self, form: impl FnOnce(IO) -> io::Result<T>) -> io::Result<Seated<T>> {
        Ok(Seated { io: form(self.io)?, _seat: self._seat })
    }

    /// The connection.
    pub fn get_ref(&self) -> &IO {
        &self.io
    }
}

impl<IO: Connected> Connected for Seated<IO> {
    type ConnectInfo = IO::ConnectInfo;

    fn connect_info(&self) -> IO::ConnectInfo {
        self.io.connect_info()
    }
}

impl<IO: AsyncRead + Unpin> AsyncRead for Seated<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, into)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Seated<IO> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::task::Waker;
    use tokio_stream::StreamExt;

    type Accepted = Vec<io::Result<&'static str>>;

    fn listener(
        accepted: Accepted,
        connections: usize,
    ) -> Bounded<impl Stream<Item = io::Result<&'static str>>> {
        Bounded::new(tokio_stream::iter(accepted), connections)
    }

    /// What is taken without any wait; none if there is nothing.
    fn take<S>(bounded: &mut Bounded<S>) -> Option<Seated<&'static str>>
    where
        S: Stream<Item = io::Result<&'static str>> + Unpin,
    {
        match Pin::new(bounded).poll_next(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(taken) => Some(taken.expect("the listener goes on").expect("no error comes through")),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn one_more_than_the_bound_waits_until_another_ends() {
        let open = Gauge::default();
        let mut bounded = listener(vec![Ok("a"), Ok("b"), Ok("c")], 2).counted_in(&open);
        let (a, b) = (take(&mut bounded).unwrap(), take(&mut bounded).unwrap());
        assert_eq!((a.io, b.io, open.get()), ("a", "b", 2));
        assert!(take(&mut bounded).is_none());
        // In another form it is the same one.
        let a = a.try_map(|io| Ok(io.len())).unwrap();
        assert!(take(&mut bounded).is_none());
        assert!(a.try_map(|_| Err::<(), _>(Errno::BADF.into())).is_err());
        assert_eq!(open.get(), 1);
        assert_eq!(take(&mut bounded).unwrap().io, "c");
    }

    #[tokio::test]
    async fn a_system_that_gives_none_is_asked_again_only_after_a_pause() {
        let out_of_files = || Err(Errno::MFILE.into());
        let mut bounded = listener(vec![out_of_files(), out_of_files(), Ok("a")], 2);
        for _ in 0..3 {
            assert!(take(&mut bounded).is_none());
        }
        assert!(bounded.pause.is_some());
        assert_eq!(bounded.next().await.unwrap().unwrap().io, "a");
        assert!(bounded.pause.is_none() && bounded.trouble.is_none());
    }

    #[tokio::test]
    async fn a_peer_that_is_gone_before_it_was_taken_costs_no_pause_and_no_seat() {
        let gone = || Err(Errno::CONNABORTED.into());
        let mut bounded = listener(vec![gone(), gone(), Ok("a")], 1);
        assert_eq!(take(&mut bounded).unwrap().io, "a");
    }
}
