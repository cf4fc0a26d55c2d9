//! Whose processes may ask on the Unix socket.
//!
//! The mode of the file admits its owner and its group; a list of users narrows that further. The kernel says whose
//! process connects (SO_PEERCRED), as this process's own user namespace sees it: users that it does not have come as
//! one, 65534, which better is on no list. Who is not on it is cut off before a byte is read.

use consent::clock;
use consent_core::words::{Moment, Span};
use std::collections::BTreeSet;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::net::UnixStream;
use tokio_stream::Stream;

/// Whose processes may ask on a Unix socket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Peers {
    /// All that the mode of its file admits: its owner's and its group's.
    #[default]
    Group,
    /// Of those only the processes of these users, by their numbers.
    Users(BTreeSet<u32>),
}

impl Peers {
    fn admit(&self, stream: &UnixStream) -> bool {
        match self {
            Peers::Group => true,
            Peers::Users(users) => stream.peer_cred().is_ok_and(|peer| users.contains(&peer.uid())),
        }
    }
}

/// How often refusals are told of, at most.
const TOLD_EVERY: Span = Span::from_millis(60_000);

/// The connections of a listener that come from `peers`.
#[derive(Debug)]
pub(super) struct Admitted<S> {
    listener: S,
    peers: Peers,
    refused: u64,
    told: Option<Moment>,
}

impl<S> Admitted<S> {
    pub(super) fn new(listener: S, peers: Peers) -> Admitted<S> {
        Admitted { listener, peers, refused: 0, told: None }
    }

    fn refuse(&mut self) {
        self.refused += 1;
        let now = clock::now();
        if self.told.is_none_or(|told| now.shortest_since(told) >= TOLD_EVERY) {
            self.told = Some(now);
            tracing::warn!(
                refused = self.refused,
                "the Unix socket was asked by a process whose user is not listed"
            );
        }
    }
}

impl<S> Stream for Admitted<S>
where
    S: Stream<Item = io::Result<UnixStream>> + Unpin,
{
    type Item = io::Result<UnixStream>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match ready!(Pin::new(&mut self.listener).poll_next(cx)) {
                Some(Ok(stream)) if !self.peers.admit(&stream) => self.refuse(),
                other => return Poll::Ready(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::getuid;
    use tokio_stream::StreamExt;

    #[tokio::test]
    async fn who_is_not_listed_is_cut_off_and_counted() {
        let own = getuid().as_raw();
        let admitted = async |peers| {
            let (ours, _theirs) = UnixStream::pair().unwrap();
            let mut admitted = Admitted::new(tokio_stream::iter([Ok(ours)]), peers);
            (admitted.next().await.is_some(), admitted.refused)
        };
        assert_eq!(admitted(Peers::Group).await, (true, 0));
        assert_eq!(admitted(Peers::Users([own, own + 1].into())).await, (true, 0));
        assert_eq!(admitted(Peers::Users([own + 1].into())).await, (false, 1));
        assert_eq!(admitted(Peers::Users(BTreeSet::new())).await, (false, 1));
    }

    #[tokio::test]
    async fn a_stranger_that_comes_again_and_again_is_told_of_once() {
        let strangers: Vec<_> = (0..5).map(|_| Ok(UnixStream::pair().unwrap().0)).collect();
        let mut admitted = Admitted::new(tokio_stream::iter(strangers), Peers::Users(BTreeSet::new()));
        assert!(admitted.next().await.is_none());
        let told = admitted.told.unwrap();
        admitted.refuse();
        assert_eq!((admitted.refused, admitted.told), (6, Some(told)));
        // A minute ago by both clocks.
        admitted.told = Some(Moment { boot: 0, raw: 0 });
        admitted.refuse();
        assert_ne!(admitted.told, Some(Moment { boot: 0, raw: 0 }));
    }
}
