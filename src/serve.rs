//! How both servers listen: the same limits, health and reflection on every port.
//!
//! tonic's own limits are open where it matters (unlimited streams, no reset limit, no keepalive), so each is set
//! here by hand. Reflection is served as v1 and v1alpha, since older clients know only the second.

use crate::DESCRIPTOR;
use crate::deadline::InTimeLayer;
use crate::unread::reword;
use std::hint::black_box;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::codegen::http::Response;
use tonic::service::RoutesBuilder;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::layer::util::{Identity, Stack};
use tower::util::MapResponseLayer;

/// The largest request that a server decodes, in bytes: a batch of 1000 questions with ids of 128 bytes fits, and
/// so does the largest policy file. A larger one is OUT_OF_RANGE before it is read.
pub const MESSAGE_LEN_MAX: usize = 1 << 20;
/// Calls at once on one connection; a further one waits in the client.
const STREAMS_MAX: u32 = 256;
const KEEPALIVE: Duration = Duration::from_secs(5);
/// What a caller may send of one stream of bulk before any of it is read, in bytes: some messages, so that a corpus is
/// not held up by the announcements of how much may follow.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same for all streams of one connection: what a caller who is read too slowly may fill of the server's memory.
const CONNECTION_WINDOW: u32 = 4 << 20;

/// A tonic server with all that is set here.
type Limited = Server<Stack<Reworded, Stack<InTimeLayer, Identity>>>;
/// Gives every refusal of tonic's own the contract's words.
type Reworded = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;

/// A tonic server with every limit set, whose every refusal is one of the contract.
pub fn server() -> Limited {
    let reworded: Reworded = MapResponseLayer::new(reword);
    Server::builder()
        .layer(InTimeLayer)
        .layer(reworded)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_header_list_size(16 * 1024)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
}

/// The same for callers who send in bulk, and are few: each may fill more memory.
pub fn bulk_server() -> Limited {
    keep_memory_between_messages();
    server().initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW)
}

/// glibc gives back what is free at the end of a thread's memory as soon as that is more than twice the largest
/// mapping that was ever freed. A batch of 1000 is half a megabyte when it is decoded; to fetch its pages anew for every
/// batch takes as long as a sixth of its decisions. So one of the size of the largest message is freed here; at most
/// twice that stays with each thread.
fn keep_memory_between_messages() {
    drop(black_box(Vec::<u8>::with_capacity(MESSAGE_LEN_MAX)));
}

/// Adds reflection, v1 and v1alpha, of these services and of health: a list of what is not served would mislead.
pub fn add_reflection(
    routes: &mut RoutesBuilder,
    services: &[&str],
) -> Result<(), tonic_reflection::server::Error> {
    let builder = |own: &str| {
        let builder = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
        let names = services.iter().copied().chain([tonic_health::pb::health_server::SERVICE_NAME, own]);
        names.fold(builder, |builder, name| builder.with_service_name(name))
    };
    routes.add_service(builder("grpc.reflection.v1.ServerReflection").build_v1()?);
    routes.add_service(builder("grpc.reflection.v1alpha.ServerReflection").build_v1alpha()?);
    Ok(())
}

/// Listens on TCP with Nagle off: left on, each call takes 40 ms longer.
pub async fn listen_tcp(address: SocketAddr) -> io::Result<(SocketAddr, TcpIncoming)> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    Ok((local, TcpIncoming::from(listener).with_nodelay(Some(true))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::decision_service_server::{DecisionService, DecisionServiceServer};
    use crate::pb::{
        BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse,
        StreamCanTrainRequest, StreamCanTrainResponse,
    };
    use std::future::pending;
    use tokio::net::TcpStream;
    use tokio_stream::StreamExt;
    use tonic::codegen::{Bytes, http};
    use tonic::{Code, Request, Response, Status, Streaming};
    use tonic_types::StatusExt;

    /// Never answers.
    struct Silent;

    #[tonic::async_trait]
    impl DecisionService for Silent {
        async fn can_train(&self, _: Request<CanTrainRequest>) -> Result<Response<CanTrainResponse>, Status> {
            pending().await
        }

        async fn batch_can_train(
            &self,
            _: Request<BatchCanTrainRequest>,
        ) -> Result<Response<BatchCanTrainResponse>, Status> {
            pending().await
        }

        type StreamCanTrainStream = tokio_stream::Pending<Result<StreamCanTrainResponse, Status>>;

        async fn stream_can_train(
            &self,
            _: Request<Streaming<StreamCanTrainRequest>>,
        ) -> Result<Response<Self::StreamCanTrainStream>, Status> {
            pending().await
        }
    }

    #[tokio::test]
    async fn a_late_call_is_refused_before_the_transport_drops_it() {
        let (address, incoming) = listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let silent = server().add_service(DecisionServiceServer::new(Silent));
        tokio::spawn(silent.serve_with_incoming(incoming));
        // tonic's own client counts the timeout too, and might be first.
        let stream = TcpStream::connect(address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        for timeout in ["1n", "1m", "50m"] {
            let request = http::Request::post("http://localhost/consent.v1.DecisionService/CanTrain")
                .header("content-type", "application/grpc")
                .header("te", "trailers")
                .header("grpc-timeout", timeout)
                .body(())
                .unwrap();
            let (response, mut body) = client.send_request(request, false).unwrap();
            // The body of an empty message; whoever is refused earlier wants none.
            let _ = body.send_data(Bytes::from_static(&[0; 5]), true);
            let refusal = Status::from_header_map(response.await.unwrap().headers()).expect("a refusal");
            assert_eq!(refusal.code(), Code::DeadlineExceeded, "{timeout}: {refusal:?}");
            assert_eq!(refusal.get_details_error_info().expect("ErrorInfo").reason, "DEADLINE_EXCEEDED");
        }
    }

    #[tokio::test]
    async fn a_connection_that_is_taken_has_nagle_off() {
        let (address, mut incoming) = listen_tcp(([127, 0, 0, 1], 0).into()).await.unwrap();
        let _caller = TcpStream::connect(address).await.unwrap();
        assert!(incoming.next().await.unwrap().unwrap().nodelay().unwrap());
    }
}
