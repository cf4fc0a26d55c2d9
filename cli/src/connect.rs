//! How the asking commands reach a server: one connection, one call, one deadline.

use crate::failure::Failure;
use crate::output::Format;
use crate::values;
use clap::Args;
use consent_core::words::Span;
use std::time::Duration;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};

/// Where `consent dev` and the defaults of `consent authority` listen.
pub(crate) const AUTHORITY: &str = "http://127.0.0.1:7401";
/// Where `consent dev` and the defaults of `consent sidecar` listen.
pub(crate) const SIDECAR: &str = "http://127.0.0.1:7402";

/// What every asking command takes.
#[derive(Debug, Args)]
pub(crate) struct Call {
    /// How long to wait for the answer
    #[arg(long, global = true, value_name = "SPAN", default_value = "10s", env = "CONSENT_TIMEOUT")]
    #[arg(value_parser = values::span)]
    pub(crate) timeout: Span,
    /// For whom the result is printed: a person or a program
    #[arg(short, long, global = true, value_name = "FORMAT", default_value = "text", env = "CONSENT_OUTPUT")]
    pub(crate) output: Format,
}

impl Call {
    /// A request that carries the deadline, so that the server knows it too.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout.into());
        request
    }
}

/// Connects to `http://HOST:PORT` or `unix:///PATH`.
pub(crate) async fn connect(endpoint: &str) -> Result<Channel, Failure> {
    let wrong =
        || Failure::usage(format!("`{endpoint}` is no endpoint; write http://HOST:PORT or unix:///PATH"));
    // tonic takes anything that looks like a URI and then waits; a missing scheme should not.
    if !endpoint.starts_with("http://") && !endpoint.starts_with("unix://") {
        return Err(wrong());
    }
    let parsed = Endpoint::from_shared(endpoint.to_owned()).map_err(|_| wrong())?;
    parsed
        .connect_timeout(Duration::from_secs(5))
        .tcp_nodelay(true)
        .connect()
        .await
        .map_err(|e| Failure::unreachable(endpoint, &e).next("consent dev"))
}
