//! How both servers listen: the same limits, health and reflection on every port.
//!
//! tonic's own limits are open where it matters (unlimited streams, no reset limit, no keepalive), so each is set
//! here by hand. Reflection is served as v1 and v1alpha, since older clients know only the second.

use crate::DESCRIPTOR;
use crate::unread::reword;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
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

/// A tonic server with every limit set.
pub fn server() -> Server<Stack<Reworded, Identity>> {
    let reworded: Reworded = MapResponseLayer::new(reword);
    Server::builder()
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

/// Listens on a Unix socket with mode 0660. A socket file that nobody answers on is replaced; a live one is not.
pub async fn listen_unix(path: &Path) -> io::Result<UnixListener> {
    if path.exists() {
        match UnixStream::connect(path).await {
            Ok(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    "another process listens on this socket",
                ));
            }
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    Ok(listener)
}
