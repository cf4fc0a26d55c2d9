//! How both servers listen: the same limits, health and reflection on every port.
//!
//! tonic's own limits are open where it matters (unlimited streams, no reset limit, no keepalive), so each is set
//! here by hand. Reflection is served as v1 and v1alpha, since older clients know only the second.

use crate::DESCRIPTOR;
use crate::deadline::InTimeLayer;
use crate::unread::reword;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener, UnixStream};
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

/// Gives every refusal of tonic's own the contract's words.
type Reworded = MapResponseLayer<fn(Response<Body>) -> Response<Body>>;

/// A tonic server with every limit set, whose every refusal is one of the contract.
pub fn server() -> Server<Stack<Reworded, Stack<InTimeLayer, Identity>>> {
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

/// Listens on a Unix socket with mode 0660. Replaces a socket that nobody listens on any more, and nothing else: not
/// a file that is no socket, nor a socket whose listener is only too busy to answer, or not ours to ask.
pub async fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => replace(path).await?,
        Ok(_) => return Err(in_use("a file that is no socket has this name")),
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}

async fn replace(abandoned: &Path) -> io::Result<()> {
    match UnixStream::connect(abandoned).await.map_err(|error| (error.kind(), error)) {
        Ok(_) => Err(in_use("another process listens on this socket")),
        Err((io::ErrorKind::ConnectionRefused, _)) => std::fs::remove_file(abandoned),
        // What a full backlog says: somebody listens, and is behind.
        Err((io::ErrorKind::WouldBlock, _)) => {
            Err(in_use("another process listens on this socket, and is behind"))
        }
        Err((_, error)) => Err(error),
    }
}

fn in_use(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::AddrInUse, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::decision_service_server::{DecisionService, DecisionServiceServer};
    use crate::pb::{BatchCanTrainRequest, BatchCanTrainResponse, CanTrainRequest, CanTrainResponse};
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, bind, listen, socket};
    use std::future::pending;
    use std::os::unix::net::UnixStream as BlockingStream;
    use tokio::net::TcpStream;
    use tonic::codegen::{Bytes, http};
    use tonic::{Code, Request, Response, Status};
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

    async fn refusal(path: &Path) -> Option<io::ErrorKind> {
        listen_unix(path).await.err().map(|error| error.kind())
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let first = listen_unix(&path).await.expect("a free name");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse), "somebody listens");
        drop(first);
        assert!(path.exists(), "a listener that is killed leaves its file");
        listen_unix(&path).await.expect("an abandoned name");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("file");
        std::fs::write(&path, "dear").unwrap();
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse));
        assert_eq!(std::fs::read(&path).unwrap(), b"dear");
        let link = home.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(refusal(&link).await, Some(io::ErrorKind::AddrInUse));
        assert!(link.is_symlink());
        let nowhere = home.path().join("no/such/directory");
        assert_eq!(refusal(&nowhere).await, Some(io::ErrorKind::NotFound));
    }

    #[tokio::test]
    async fn a_listener_that_is_behind_keeps_its_socket() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("socket");
        let busy = socket(AddressFamily::UNIX, SocketType::STREAM, None).unwrap();
        bind(&busy, &SocketAddrUnix::new(&path).unwrap()).unwrap();
        listen(&busy, 0).unwrap();
        // A backlog of 0 has room for one.
        let _waiting = BlockingStream::connect(&path).unwrap();
        assert_eq!(refusal(&path).await, Some(io::ErrorKind::AddrInUse));
        assert!(path.exists());
    }
}
