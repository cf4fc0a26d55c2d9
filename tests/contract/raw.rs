//! Sends bytes as they are: what no client that is generated from the contract could send.

use bytes::{Buf, BufMut, Bytes};
use std::future::poll_fn;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{Service, http};
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Calls a unary method with these bytes as its message, and gives the bytes of the answer.
pub(crate) async fn call(
    channel: &Channel,
    method: &str,
    message: impl Into<Bytes>,
) -> Result<Bytes, Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    client.ready().await.map_err(|e| Status::unavailable(e.to_string()))?;
    let path = PathAndQuery::try_from(format!("/consent.v1.{method}")).expect("a path");
    Ok(client.unary(Request::new(message.into()), path, AsTheyAre).await?.into_inner())
}

/// Calls a unary method with these bytes as its whole body, framing and all, said to be in this encoding.
pub(crate) async fn refused(channel: &Channel, method: &str, encoding: &str, body: &'static str) -> Status {
    let request = http::Request::post(format!("http://localhost/consent.v1.{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-encoding", encoding)
        .body(Body::new(body.to_owned()))
        .expect("a request");
    let mut channel = channel.clone();
    poll_fn(|cx| channel.poll_ready(cx)).await.expect("a connection");
    let response = channel.call(request).await.expect("a response");
    Status::from_header_map(response.headers()).expect("a refusal")
}

/// Replaces `mark` in an encoded message by as many bytes that are no UTF-8.
pub(crate) fn not_utf8(message: &impl prost::Message, mark: &str) -> Vec<u8> {
    let mut bytes = message.encode_to_vec();
    let at = bytes.windows(mark.len()).position(|window| window == mark.as_bytes()).expect("the mark");
    bytes[at..at + mark.len()].fill(0xff);
    bytes
}

#[derive(Debug, Clone, Copy)]
struct AsTheyAre;

impl Codec for AsTheyAre {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = AsTheyAre;
    type Decoder = AsTheyAre;

    fn encoder(&mut self) -> AsTheyAre {
        AsTheyAre
    }

    fn decoder(&mut self) -> AsTheyAre {
        AsTheyAre
    }
}

impl Encoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for AsTheyAre {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = from.remaining();
        Ok(Some(from.copy_to_bytes(length)))
    }
}
