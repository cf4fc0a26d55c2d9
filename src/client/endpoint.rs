//! Where a sidecar is asked: over a Unix socket, or over loopback. Nowhere else: connections are not encrypted, and an
//! answer counts on the clocks of the kernel that both share.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// What an endpoint must look like.
const FORM: &str = "write unix:///PATH or http://HOST:PORT, with a loopback address or localhost";

/// Where a sidecar listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Endpoint {
    Unix(PathBuf),
    /// `HOST:PORT`, of this machine.
    Tcp(String),
}

impl Endpoint {
    /// Reads `unix:///PATH` or `http://HOST:PORT`.
    pub(super) fn parse(text: &str) -> Result<Endpoint, String> {
        let wrong = || format!("is `{text}`, which is no endpoint: {FORM}");
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Endpoint::Unix(path)) } else { Err(wrong()) };
        }
        let address = text.strip_prefix("http://").ok_or_else(wrong)?.trim_end_matches('/');
        let is_here = match address.parse::<std::net::SocketAddr>() {
            Ok(address) => address.ip().is_loopback(),
            Err(_) => address.strip_prefix("localhost:").is_some_and(|port| port.parse::<u16>().is_ok()),
        };
        if is_here { Ok(Endpoint::Tcp(address.to_owned())) } else { Err(wrong()) }
    }

    /// Opens a stream to it.
    pub(super) async fn open(&self) -> io::Result<Stream> {
        match self {
            Endpoint::Unix(path) => UnixStream::connect(path).await.map(Stream::Unix),
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                // A name may stand for anything.
                if !stream.peer_addr()?.ip().is_loopback() {
                    return Err(io::Error::other("it is not on this machine"));
                }
                // Left on, Nagle's algorithm costs each call 40 ms.
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(stream))
            }
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Unix(path) => write!(f, "unix://{}", path.display()),
            Endpoint::Tcp(address) => write!(f, "http://{address}"),
        }
    }
}

/// A stream to a sidecar, of either kind.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_read(cx, into),
            Stream::Tcp(stream) => Pin::new(stream).poll_read(cx, into),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Stream::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            Stream::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Stream::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Stream::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_asked() {
        let unix = |path: &str| Ok(Endpoint::Unix(PathBuf::from(path)));
        let tcp = |address: &str| Ok(Endpoint::Tcp(address.to_owned()));
        assert_eq!(Endpoint::parse("unix:///run/consent.sock"), unix("/run/consent.sock"));
        assert_eq!(Endpoint::parse("unix:/run/consent.sock"), unix("/run/consent.sock"));
        assert_eq!(Endpoint::parse("http://127.0.0.1:7402"), tcp("127.0.0.1:7402"));
        assert_eq!(Endpoint::parse("http://127.0.0.1:7402/"), tcp("127.0.0.1:7402"));
        assert_eq!(Endpoint::parse("http://[::1]:7402"), tcp("[::1]:7402"));
        assert_eq!(Endpoint::parse("http://localhost:7402"), tcp("localhost:7402"));
        for wrong in [
            "",
            "unix:",
            "unix://consent.sock",
            "127.0.0.1:7402",
            "https://127.0.0.1:7402",
            "http://127.0.0.1",
            "http://localhost",
            "http://localhost:",
            "http://localhost:port",
            "http://10.0.0.1:7402",
            "http://0.0.0.0:7402",
            "http://sidecar.example:7402",
        ] {
            let problem = Endpoint::parse(wrong).unwrap_err();
            assert!(problem.contains(FORM) && problem.contains(wrong), "{problem}");
        }
    }
}
