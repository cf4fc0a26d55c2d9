//! Streams in which every request has one answer, in order, one at a time.
//!
//! A request is read when the answer to the one before has been taken for sending, so a peer that stops reading holds
//! one answer in memory, and what it has sent stays with it. After each answer the others on the thread have their
//! turn. A stream ends with OK only when its peer has ended its side and every request has its answer: whatever else
//! ends it, a panic too, ends it with a status, or a part of a corpus would look like the whole. There are few places
//! for streams, so one on which nothing moves ends as well.

use crate::deadline::Deadline;
use crate::status::status;
use crate::unread;
use consent_core::refusal::Refusal;
use consent_core::words::Span;
use std::future::Future;
use tokio::sync::mpsc::{self, OwnedPermit};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// How long a peer may let a stream be: send no whole request, or take no answer.
const IDLE_MAX: Span = Span::from_millis(60_000);

/// What answers the requests of one stream.
pub trait Answer<Q>: Send + 'static {
    /// What each gets.
    type Given: Send + 'static;

    /// Answers one. A status ends the stream.
    fn answer(&mut self, request: Q) -> impl Future<Output = Result<Self::Given, Status>> + Send;
}

/// The answers to a stream of requests, until `stopped` is cancelled: then it ends with NOT_SERVING. Its peer may let it
/// be for a minute, then it ends with STREAM_IDLE.
pub fn hold<Q, A>(
    requests: Streaming<Q>,
    answers: A,
    stopped: CancellationToken,
) -> ReceiverStream<Result<A::Given, Status>>
where
    Q: Send + 'static,
    A: Answer<Q>,
{
    hold_within(IDLE_MAX, requests, answers, stopped)
}

fn hold_within<Q, A>(
    idle: Span,
    requests: Streaming<Q>,
    mut answers: A,
    stopped: CancellationToken,
) -> ReceiverStream<Result<A::Given, Status>>
where
    Q: Send + 'static,
    A: Answer<Q>,
{
    // One answer, and the status in the end.
    let (out, given) = mpsc::channel(2);
    tokio::spawn(async move {
        let Ok(place) = out.clone().reserve_owned().await else { return };
        let mut end = End { place: Some(place), status: Some(status(Refusal::Internal)) };
        end.status = tokio::select! {
            biased;
            () = stopped.cancelled() => Some(status(Refusal::NotServing)),
            () = out.closed() => None,
            status = answer_all(idle, requests, &mut answers, &out) => status,
        };
    });
    ReceiverStream::new(given)
}

/// Gives the status with which the stream ends; `None`: the peer has ended it.
async fn answer_all<Q, A: Answer<Q>>(
    idle: Span,
    mut requests: Streaming<Q>,
    answers: &mut A,
    out: &mpsc::Sender<Result<A::Given, Status>>,
) -> Option<Status> {
    let is_idle = || Some(status(Refusal::StreamIdle { idle }));
    loop {
        let Some(place) = Deadline::after(idle).within(out.reserve()).await else { return is_idle() };
        let place = place.ok()?;
        let request = match Deadline::after(idle).within(requests.message()).await {
            Some(Ok(request)) => request?,
            Some(Err(unread)) => return Some(unread::worded(unread)),
            None => return is_idle(),
        };
        match answers.answer(request).await {
            Ok(answer) => place.send(Ok(answer)),
            Err(status) => return Some(status),
        }
        tokio::task::yield_now().await;
    }
}

/// Sends a status when it is dropped: also by a panic, which leaves it as it was in the beginning.
struct End<T> {
    place: Option<OwnedPermit<Result<T, Status>>>,
    status: Option<Status>,
}

impl<T> Drop for End<T> {
    fn drop(&mut self) {
        if let (Some(place), Some(status)) = (self.place.take(), self.status.take()) {
            place.send(Err(status));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::{GetStatusRequest, GetStatusResponse};
    use hyper::body::Frame;
    use std::pin::Pin;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::{Context, Poll};
    use std::time::Duration;
    use tokio_stream::StreamExt;
    use tonic::Code;
    use tonic::body::Body;
    use tonic::codec::Codec;
    use tonic_prost::ProstCodec;

    /// Counts what it has answered; panics at a call.
    struct Counts {
        answered: Arc<AtomicUsize>,
        panics_at: usize,
    }

    impl Answer<GetStatusRequest> for Counts {
        type Given = GetStatusResponse;

        async fn answer(&mut self, _: GetStatusRequest) -> Result<GetStatusResponse, Status> {
            let answered = self.answered.fetch_add(1, Ordering::Relaxed) + 1;
            assert_ne!(answered, self.panics_at, "a planted fault");
            Ok(GetStatusResponse { accounts: answered as u64, ..GetStatusResponse::default() })
        }
    }

    /// As many requests as there are empty messages in this body.
    fn requests(body: &str) -> Streaming<GetStatusRequest> {
        requests_of(Body::new(body.to_owned()))
    }

    fn requests_of(body: Body) -> Streaming<GetStatusRequest> {
        let mut codec = ProstCodec::<GetStatusResponse, GetStatusRequest>::default();
        Streaming::new_request(codec.decoder(), body, None, None)
    }

    /// A body that says nothing.
    struct Never;

    impl hyper::body::Body for Never {
        type Data = bytes::Bytes;
        type Error = Status;

        fn poll_frame(
            self: Pin<&mut Never>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<bytes::Bytes>, Status>>> {
            Poll::Pending
        }
    }

    const THREE: &str = "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

    fn counts(panics_at: usize) -> (Counts, Arc<AtomicUsize>) {
        let answered = Arc::default();
        (Counts { answered: Arc::clone(&answered), panics_at }, answered)
    }

    /// The others have their turn, many times.
    async fn settle() {
        for _ in 0..64 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_next_is_read_when_an_answer_was_taken() {
        let (counts, answered) = counts(0);
        let mut answers = hold(requests(THREE), counts, CancellationToken::new());
        for n in 1..=3 {
            settle().await;
            assert_eq!(answered.load(Ordering::Relaxed), n);
            assert_eq!(answers.next().await.unwrap().unwrap().accounts, n as u64);
        }
        assert!(answers.next().await.is_none());
    }

    #[tokio::test]
    async fn whatever_ends_it_early_is_told() {
        let torn = format!("{THREE}\0\0");
        let compressed = format!("{THREE}\u{1}\0\0\0\0");
        for (body, panics_at, whole, code) in [
            (THREE, 2, 1, Code::Internal),
            (&torn, 0, 3, Code::InvalidArgument),
            (&compressed, 0, 3, Code::InvalidArgument),
        ] {
            let mut answers = hold(requests(body), counts(panics_at).0, CancellationToken::new());
            for _ in 0..whole {
                answers.next().await.unwrap().unwrap();
            }
            assert_eq!(answers.next().await.unwrap().unwrap_err().code(), code);
            assert!(answers.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn one_on_which_nothing_moves_ends_and_makes_room() {
        let idle = Span::from_millis(20);
        // One who sends nothing; one who has sent three, and takes none of the answers.
        for (requests, whole) in [(requests_of(Body::new(Never)), 0), (requests(THREE), 1)] {
            let (counts, answered) = counts(0);
            let mut answers = hold_within(idle, requests, counts, CancellationToken::new());
            // What it held for the stream is let go of, its place too, before anybody takes a word of it.
            let let_go = async {
                while Arc::strong_count(&answered) > 1 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(10), let_go).await.expect("it makes room");
            for _ in 0..whole {
                answers.next().await.unwrap().unwrap();
            }
            let status = answers.next().await.unwrap().unwrap_err();
            assert_eq!(status.code(), Code::Aborted, "{status}");
            assert!(answers.next().await.is_none());
        }
    }

    #[tokio::test]
    async fn who_is_told_to_stop_says_so_last_however_slow_its_reader_is() {
        let stopped = CancellationToken::new();
        let (counts, answered) = counts(0);
        let mut answers = hold(requests(THREE), counts, stopped.clone());
        settle().await;
        stopped.cancel();
        settle().await;
        assert!(answers.next().await.unwrap().is_ok());
        assert_eq!(answers.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
        assert!(answers.next().await.is_none());
        assert_eq!(answered.load(Ordering::Relaxed), 1);
    }
}
