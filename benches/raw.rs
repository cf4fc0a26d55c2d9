//! Calls whose requests were encoded before the clock ran, and whose answers are kept as they came.
//!
//! To word 1000 questions costs a caller as much as it costs a server to answer them. Callers that did that in a
//! slice would be measured, and the server would wait for them.

use bytes::{Buf, BufMut, Bytes};
use tokio_stream::Stream;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// Messages as bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// One call.
pub(crate) async fn unary(channel: Channel, path: &'static str, request: Bytes) -> Result<Bytes, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|trouble| Status::unavailable(trouble.to_string()))?;
    Ok(client.unary(Request::new(request), PathAndQuery::from_static(path), Raw).await?.into_inner())
}

/// A stream each way.
pub(crate) async fn streaming(
    channel: Channel,
    path: &'static str,
    requests: impl Stream<Item = Bytes> + Send + 'static,
) -> Result<Streaming<Bytes>, Status> {
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|trouble| Status::unavailable(trouble.to_string()))?;
    let path = PathAndQuery::from_static(path);
    Ok(client.streaming(Request::new(requests), path, Raw).await?.into_inner())
}
