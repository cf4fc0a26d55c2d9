//! The deadline of a call, with enough time left to answer before it.
//!
//! tonic itself ends a call when `grpc-timeout` is over, with a bare CANCELLED, and the caller then learns nothing:
//! for a write that would look as if nothing had happened. So both servers count too, from the same instant: the
//! arrival of the headers. A handler that waits gives up a margin earlier, a tenth of the timeout and at most
//! 100 ms, and says what it knows; a call that has not been answered at half the margin, whatever it does, is
//! answered DEADLINE_EXCEEDED by [`InTime`].

use crate::clock;
use crate::status::status;
use consent_core::refusal::Refusal;
use consent_core::words::{Moment, Span};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use tonic::Request;
use tonic::body::Body;
use tonic::codegen::http;
use tower::{Layer, Service};

const TIMEOUT: &str = "grpc-timeout";
const MARGIN_MAX: Span = Span::from_millis(100);

/// Until when a server may wait for the sake of a call.
#[derive(Debug, Clone, Copy)]
pub struct Deadline(Moment);

impl Deadline {
    /// The deadline of a call: the caller's less the margin, `default` where the caller set none; both from when
    /// the call came in.
    pub fn of<T>(request: &Request<T>, default: Span) -> Deadline {
        let arrived = request.extensions().get().map_or_else(clock::now, |Arrived(at)| *at);
        let timeout = request.metadata().get(TIMEOUT).and_then(|value| parse(value.as_bytes()));
        Deadline(arrived.after(timeout.map_or(default, |timeout| timeout.minus(margin(timeout)))))
    }

    /// The deadline that comes after this long.
    pub fn after(wait: Span) -> Deadline {
        Deadline(clock::now().after(wait))
    }

    /// It, or what comes after this long from now, if that is earlier.
    #[must_use]
    pub fn at_most(self, wait: Span) -> Deadline {
        if self.left() > wait { Deadline::after(wait) } else { self }
    }

    /// What is left until it.
    pub fn left(self) -> Span {
        // Whoever must stop in time believes the clock that leaves less.
        self.0.shortest_since(clock::now())
    }

    /// Until it is over. Whoever polls this late finds it over, whether or not its timer has gone off: tonic's own,
    /// which is set for later, cannot come first.
    async fn over(self) {
        let mut timer = pin!(tokio::time::sleep(self.left().into()));
        poll_fn(|cx| if self.left() == Span::ZERO { Poll::Ready(()) } else { timer.as_mut().poll(cx) }).await;
    }

    /// What the future gives, if it comes in time; it is dropped otherwise. A future that is ready is always polled,
    /// however late it is.
    pub async fn within<F: Future>(self, future: F) -> Option<F::Output> {
        tokio::time::timeout(self.left().into(), future).await.ok()
    }
}

/// When the headers of a call came in.
#[derive(Debug, Clone, Copy)]
struct Arrived(Moment);

fn margin(timeout: Span) -> Span {
    MARGIN_MAX.min(Span::from_nanos(timeout.nanos() / 10))
}

/// Answers every call of a server by its deadline: see [`InTime`].
#[derive(Debug, Clone, Copy)]
pub struct InTimeLayer;

impl<S> Layer<S> for InTimeLayer {
    type Service = InTime<S>;

    fn layer(&self, inner: S) -> InTime<S> {
        InTime(inner)
    }
}

/// Notes when each call came in, and answers DEADLINE_EXCEEDED where the service has not answered in time.
#[derive(Debug, Clone)]
pub struct InTime<S>(S);

impl<S> Service<http::Request<Body>> for InTime<S>
where
    S: Service<http::Request<Body>, Response = http::Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let arrived = clock::now();
        request.extensions_mut().insert(Arrived(arrived));
        let timeout = request.headers().get(TIMEOUT).and_then(|value| parse(value.as_bytes()));
        let answer = self.0.call(request);
        let Some(timeout) = timeout else { return Box::pin(answer) };
        let half = Span::from_nanos(margin(timeout).nanos() / 2);
        let last = Deadline(arrived.after(timeout.minus(half)));
        Box::pin(async move {
            tokio::select! {
                biased;
                answer = answer => answer,
                () = last.over() => Ok(status(Refusal::DeadlineExceeded).into_http()),
            }
        })
    }
}

/// Reads `grpc-timeout`: up to eight digits and a unit. Anything else is no timeout, as for tonic.
fn parse(value: &[u8]) -> Option<Span> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0u64, |count, digit| count * 10 + u64::from(digit - b'0'));
    let nanos: u64 = match unit {
        b'H' => 3_600_000_000_000,
        b'M' => 60_000_000_000,
        b'S' => 1_000_000_000,
        b'm' => 1_000_000,
        b'u' => 1_000,
        b'n' => 1,
        _ => return None,
    };
    Some(Span::from_nanos(count.saturating_mul(nanos)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;
    use tonic::{Code, Status};
    use tonic_types::StatusExt;

    #[test]
    fn the_header_is_read_as_grpc_writes_it() {
        assert_eq!(parse(b"100m"), Some(Span::from_millis(100)));
        assert_eq!(parse(b"3S"), Some(Span::from_millis(3000)));
        assert_eq!(parse(b"5u"), Some(Span::from_nanos(5000)));
        assert_eq!(parse(b"99999999H"), Some(Span::from_nanos(u64::MAX)));
        for bad in [&b""[..], b"S", b"5", b"5x", b"-5S", b"123456789S", b"5 S"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_server_gives_up_before_its_caller_does() {
        let mut request = Request::new(());
        assert!(Deadline::of(&request, Span::from_millis(70)).left() <= Span::from_millis(70));
        request.metadata_mut().insert(TIMEOUT, "1000m".parse().unwrap());
        assert!(Deadline::of(&request, Span::ZERO).left() <= Span::from_millis(900));
        request.metadata_mut().insert(TIMEOUT, "100m".parse().unwrap());
        assert!(Deadline::of(&request, Span::ZERO).left() <= Span::from_millis(90));
    }

    #[test]
    fn a_server_waits_no_longer_than_it_says_whatever_its_caller_would() {
        let (day, second) = (Span::from_millis(86_400_000), Span::from_millis(1000));
        assert!(Deadline::after(day).at_most(second).left() <= second);
        assert!(Deadline::after(second).at_most(day).left() <= second);
    }

    #[test]
    fn time_counts_from_when_the_call_came_in() {
        let mut request = Request::new(());
        request.metadata_mut().insert(TIMEOUT, "1000m".parse().unwrap());
        request.extensions_mut().insert(Arrived(Moment { boot: 0, raw: 0 }));
        assert_eq!(
            Deadline::of(&request, Span::ZERO).0,
            Moment { boot: 0, raw: 0 }.after(Span::from_millis(900))
        );
    }

    #[tokio::test]
    async fn what_is_ready_is_given_even_when_it_is_late() {
        let over = Deadline(Moment { boot: 0, raw: 0 });
        assert_eq!(over.within(async { 1 }).await, Some(1));
        assert_eq!(over.within(std::future::pending::<()>()).await, None);
    }

    fn request(timeout: Option<&str>) -> http::Request<Body> {
        let mut request = http::Request::new(Body::empty());
        if let Some(timeout) = timeout {
            request.headers_mut().insert(TIMEOUT, timeout.parse().unwrap());
        }
        request
    }

    #[tokio::test]
    async fn a_call_that_is_not_answered_in_time_is_refused_in_the_words_of_the_contract() {
        let silent =
            |_: http::Request<Body>| std::future::pending::<Result<http::Response<Body>, Infallible>>();
        let mut silent = InTimeLayer.layer(tower::service_fn(silent));
        for timeout in ["1n", "20m"] {
            let Ok(answer) = silent.call(request(Some(timeout))).await;
            let answer = Status::from_header_map(answer.headers()).expect("a status");
            assert_eq!(answer.code(), Code::DeadlineExceeded);
            assert_eq!(answer.get_details_error_info().expect("ErrorInfo").reason, "DEADLINE_EXCEEDED");
        }
    }

    #[tokio::test]
    async fn an_answer_that_is_there_is_given_and_its_call_knows_when_it_came() {
        let prompt = async |request: http::Request<Body>| {
            assert!(request.extensions().get::<Arrived>().is_some());
            Ok::<_, Infallible>(http::Response::new(Body::empty()))
        };
        let mut prompt = InTimeLayer.layer(tower::service_fn(move |request| Box::pin(prompt(request))));
        for timeout in [None, Some("0n"), Some("20m"), Some("soon")] {
            let Ok(answer) = prompt.call(request(timeout)).await;
            assert!(answer.headers().is_empty(), "{timeout:?}");
        }
    }
}
