//! The port: `GET /metrics`, and nothing else, over HTTP/1.1.
//!
//! A connection has one request and a few seconds, and there are few at once: a further one waits in the kernel's
//! queue. So whoever connects and says nothing, or asks all the time, keeps others from the numbers for a moment,
//! and the server from nothing. A request has no part that could be long: its head is bounded, and a body is not
//! read. There is no TLS yet, so a server binds it on loopback only.

use super::Collector;
use crate::incoming::Bounded;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinSet;
use tokio_stream::StreamExt;
use tokio_util::sync::CancellationToken;
use tonic::transport::server::TcpIncoming;

/// Where the page is.
pub const PATH: &str = "/metrics";
/// The format of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Connections at once.
const CONNECTIONS_MAX: usize = 8;
/// How long one may take.
const WITHIN: Duration = Duration::from_secs(5);
/// The bytes of a request's head, at most.
const REQUEST_LEN_MAX: usize = 8 * 1024;

/// A port that is bound, and shows nothing yet.
#[derive(Debug)]
pub struct Port {
    address: SocketAddr,
    listener: TcpListener,
}

impl Port {
    /// Binds it; port 0 takes any free one.
    pub fn bind(address: SocketAddr) -> io::Result<Port> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Port { address: listener.local_addr()?, listener })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Shows what `collector` has to whoever asks, until `stop`. An error: the listener cannot be used.
    pub async fn serve(self, collector: impl Collector, stop: CancellationToken) -> io::Result<()> {
        self.serve_within(collector, stop, CONNECTIONS_MAX, WITHIN).await
    }

    async fn serve_within(
        self,
        collector: impl Collector,
        stop: CancellationToken,
        connections: usize,
        within: Duration,
    ) -> io::Result<()> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(collector));
        let registry = Arc::new(registry);
        let listener = TcpIncoming::from(tokio::net::TcpListener::from_std(self.listener)?);
        let mut incoming = Bounded::new(listener, connections);
        let mut asked = JoinSet::new();
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                Some(_) = asked.join_next() => {}
                taken = incoming.next() => match taken.transpose()? {
                    Some(connection) => {
                        asked.spawn(tokio::time::timeout(within, answer(connection, Arc::clone(&registry))));
                    }
                    None => return Ok(()),
                },
            }
        }
    }
}

async fn answer(connection: impl AsyncRead + AsyncWrite + Unpin, registry: Arc<Registry>) {
    let service = service_fn(|request: Request<Incoming>| {
        ready(Ok::<_, Infallible>(respond(request.method(), request.uri().path(), &registry)))
    });
    // Whoever goes away, or speaks no HTTP, misses something; there is nobody to tell.
    let _ = http1::Builder::new()
        .keep_alive(false)
        .max_buf_size(REQUEST_LEN_MAX)
        .serve_connection(TokioIo::new(connection), service)
        .await;
}

fn respond(method: &Method, path: &str, registry: &Registry) -> Response<String> {
    if path != PATH {
        return response(StatusCode::NOT_FOUND, "the metrics are at /metrics\n");
    }
    if method != Method::GET {
        let mut refused = response(StatusCode::METHOD_NOT_ALLOWED, "only GET\n");
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
        return refused;
    }
    let mut page = String::new();
    match encode(&mut page, registry) {
        Ok(()) => {
            let mut shown = response(StatusCode::OK, page);
            shown.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
            shown
        }
        Err(error) => {
            tracing::error!(%error, "the metrics cannot be written");
            response(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written\n")
        }
    }
}

fn response(status: StatusCode, body: impl Into<String>) -> Response<String> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::label;
    use crate::metrics::{Counter, DescriptorEncoder, Histogram, Page, Per};
    use std::fmt;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    label! {
        /// What is eaten.
        enum Fruit = "fruit" {
            Apple = "apple",
            Pear = "pear",
        }
    }

    #[derive(Debug)]
    struct Kitchen {
        eaten: Per<Fruit, Counter>,
        weights: Histogram,
    }

    impl Collector for Kitchen {
        fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
            let mut page = Page::new(encoder);
            page.info("kitchen", "Which.", [("floor", "second")])?;
            page.per("eaten", "Fruits.", &self.eaten)?;
            page.counters("cut", "Pieces.", [([("fruit", "apple"), ("by", "knife")], 4)])?;
            page.gauge("warm", "Degrees.", Some(18.5))?;
            page.gauge("cold", "Degrees; none while it is off.", None)?;
            page.histogram("weight", "Kilograms.", &self.weights)
        }
    }

    const ASK: &str = "GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n";

    const KITCHEN: &str = "\
# HELP kitchen Which.
# TYPE kitchen info
kitchen_info{floor=\"second\"} 1
# HELP eaten Fruits.
# TYPE eaten counter
eaten_total{fruit=\"apple\"} 0
eaten_total{fruit=\"pear\"} 3
# HELP cut Pieces.
# TYPE cut counter
cut_total{fruit=\"apple\",by=\"knife\"} 4
# HELP warm Degrees.
# TYPE warm gauge
warm 18.5
# HELP cold Degrees; none while it is off.
# TYPE cold gauge
# HELP weight Kilograms.
# TYPE weight histogram
weight_sum 1.5
weight_count 1
weight_bucket{le=\"1.0\"} 0
weight_bucket{le=\"2.0\"} 1
weight_bucket{le=\"+Inf\"} 1
# EOF
";

    fn kitchen() -> Kitchen {
        let kitchen = Kitchen { eaten: Per::default(), weights: Histogram::new([1.0, 2.0]) };
        kitchen.eaten.of(Fruit::Pear).inc_by(3);
        kitchen.weights.observe(1.5);
        kitchen
    }

    fn bind() -> Port {
        Port::bind(([127, 0, 0, 1], 0).into()).unwrap()
    }

    fn open() -> (SocketAddr, CancellationToken) {
        let (port, stop) = (bind(), CancellationToken::new());
        let address = port.address();
        tokio::spawn(port.serve(kitchen(), stop.clone()));
        (address, stop)
    }

    /// What is said to these bytes, up to the end of the connection.
    async fn said(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn whoever_asks_gets_the_page_and_the_end_of_the_connection() {
        let (address, _stop) = open();
        let text = said(address, ASK).await;
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(head.contains(&format!("content-type: {OPEN_METRICS}")), "{head}");
        assert_eq!(body, KITCHEN);
    }

    #[tokio::test]
    async fn nothing_else_is_there() {
        let (address, _stop) = open();
        for (request, status) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("GET /metrics/x HTTP/1.1\r\nhost: x\r\n\r\n", "404"),
            ("POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n", "405"),
            ("DELETE /metrics HTTP/1.1\r\nhost: x\r\n\r\n", "405"),
            ("what is this\r\n\r\n", "400"),
        ] {
            let text = said(address, request).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {text}");
        }
        let long = format!("GET /metrics HTTP/1.1\r\nhost: {}", "x".repeat(2 * REQUEST_LEN_MAX));
        assert!(said(address, &long).await.starts_with("HTTP/1.1 431"));
    }

    #[tokio::test]
    async fn whoever_says_nothing_is_cut_off_and_only_then_another_is_taken() {
        let port = bind();
        let address = port.address();
        let within = Duration::from_millis(20);
        tokio::spawn(port.serve_within(kitchen(), CancellationToken::new(), 1, within));
        let silent = TcpStream::connect(address).await.unwrap();
        assert!(said(address, ASK).await.ends_with(KITCHEN));
        assert_eq!(silent.try_read(&mut [0]).expect("it is over"), 0);
    }

    #[tokio::test]
    async fn a_stop_ends_it() {
        let (address, stop) = open();
        let mut silent = TcpStream::connect(address).await.unwrap();
        said(address, ASK).await;
        stop.cancel();
        assert_eq!(silent.read(&mut [0]).await.unwrap_or(0), 0, "cut off");
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
