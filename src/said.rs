//! What an authority says on a sync stream, on its way out: worded for one sidecar, or encoded once for all of them.
//!
//! A fleet hears the same frames and the same pages, so those are encoded where they are made, and whoever sends them
//! shares the bytes: a session copies them into its connection and does nothing else with them. Frames are encoded
//! one by one, so that any run of consecutive ones is a message as it is, behind an envelope that names their epoch.
//!
//! The service is generated a second time for that ([`sync_service_server`]), with [`Said`] in the place of the
//! response; on the wire nothing tells the two apart.

use crate::pb::{self, SyncRequest, SyncResponse};
use bytes::{BufMut, Bytes, BytesMut};
use consent_core::words::Epoch;
use prost::{Message, encode_length_delimiter, length_delimiter_len};
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::{ProstCodec, ProstDecoder};

#[allow(
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes_without_reason,
    clippy::default_constructed_unit_structs,
    reason = "generated; the comments stand in proto/"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/consent.v1.SyncService.rs"));
}

pub use generated::sync_service_server;

/// A field that holds a message, a string or bytes, as the wire says it: its number and how its length is given.
const fn delimited(number: u8) -> u8 {
    number << 3 | 2
}

/// `SyncResponse.frames`, `Frames.epoch`, `Frames.frames`.
const FRAMES: u8 = delimited(4);
const FRAMES_EPOCH: u8 = delimited(1);
const FRAMES_FRAME: u8 = delimited(2);

/// What a stream keeps ready to encode into, in bytes. Most of what is said on an idle one is a grant, and there may be
/// ten thousand of them; a page makes its own room.
const BUFFER: usize = 1024;
/// So many bytes are handed to the connection at once.
const TOGETHER: usize = 32 * 1024;

/// One response of SyncService.
#[derive(Debug, Clone)]
pub enum Said {
    /// Worded for one sidecar.
    Message(SyncResponse),
    /// Encoded before.
    Encoded(Encoded),
}

impl Said {
    /// Its bytes on the wire.
    pub fn len(&self) -> usize {
        match self {
            Said::Message(message) => message.encoded_len(),
            Said::Encoded(encoded) => encoded.len(),
        }
    }

    /// Never: a response has at least its kind.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A response that was encoded before, in parts that others share.
#[derive(Debug, Clone)]
pub struct Encoded {
    envelope: Bytes,
    parts: Vec<Bytes>,
}

impl Encoded {
    /// A response as it is.
    pub fn whole(response: &SyncResponse) -> Encoded {
        Encoded { envelope: response.encode_to_vec().into(), parts: Vec::new() }
    }

    /// Consecutive frames of one epoch, each as [`put_frame`] wrote it, in order.
    pub fn frames(epoch: Epoch, parts: Vec<Bytes>) -> Encoded {
        let epoch = epoch.bytes();
        let named = 1 + length_delimiter_len(epoch.len()) + epoch.len();
        let length = named + parts.iter().map(Bytes::len).sum::<usize>();
        let mut envelope = BytesMut::with_capacity(1 + length_delimiter_len(length) + named);
        open(FRAMES, length, &mut envelope);
        open(FRAMES_EPOCH, epoch.len(), &mut envelope);
        envelope.put_slice(epoch);
        Encoded { envelope: envelope.freeze(), parts }
    }

    /// Its bytes on the wire.
    pub fn len(&self) -> usize {
        self.envelope.len() + self.parts.iter().map(Bytes::len).sum::<usize>()
    }

    /// Never: a response has at least its kind.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What it says.
    pub fn read(&self) -> Result<SyncResponse, prost::DecodeError> {
        let mut bytes = BytesMut::with_capacity(self.len());
        self.put(&mut bytes);
        SyncResponse::decode(bytes.freeze())
    }

    fn put(&self, to: &mut impl BufMut) {
        to.put_slice(&self.envelope);
        self.parts.iter().for_each(|part| to.put_slice(part));
    }
}

/// Encodes a frame behind others, as a part of any run of frames that holds it.
pub fn put_frame(frame: &pb::Frame, to: &mut BytesMut) {
    to.put_u8(FRAMES_FRAME);
    // It fails for want of room alone, and there is always room.
    let _ = frame.encode_length_delimited(to);
}

fn open(field: u8, length: usize, to: &mut BytesMut) {
    to.put_u8(field);
    // As above.
    let _ = encode_length_delimiter(length, to);
}

/// The codec of the service.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaidCodec;

/// Its one half: the other is prost's.
#[derive(Debug, Clone, Copy)]
pub struct SaidEncoder;

impl Codec for SaidCodec {
    type Encode = Said;
    type Decode = SyncRequest;
    type Encoder = SaidEncoder;
    type Decoder = ProstDecoder<SyncRequest>;

    fn encoder(&mut self) -> SaidEncoder {
        SaidEncoder
    }

    fn decoder(&mut self) -> ProstDecoder<SyncRequest> {
        ProstCodec::<SyncRequest, SyncRequest>::raw_decoder(BufferSettings::new(BUFFER, TOGETHER))
    }
}

impl Encoder for SaidEncoder {
    type Item = Said;
    type Error = Status;

    fn encode(&mut self, said: Said, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        match said {
            Said::Message(message) => {
                to.reserve(message.encoded_len());
                message.encode(to).map_err(|error| Status::internal(error.to_string()))
            }
            Said::Encoded(encoded) => {
                to.reserve(encoded.len());
                encoded.put(to);
                Ok(())
            }
        }
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, TOGETHER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb::sync_response::Message as Kind;
    use crate::pb::{Frames, Head, HeadKind};

    fn frame(revision: u64) -> pb::Frame {
        let head =
            Head { kind: HeadKind::Account.into(), key: vec![7; 16].into(), state: vec![1; 200].into() };
        pb::Frame { revision, link: vec![2; 32].into(), head: Some(head), ..pb::Frame::default() }
    }

    fn wire(encoded: &Encoded) -> Vec<u8> {
        let mut bytes = Vec::new();
        encoded.put(&mut bytes);
        assert_eq!(bytes.len(), encoded.len());
        bytes
    }

    #[test]
    fn any_run_of_frames_is_what_prost_would_have_encoded() {
        let epoch = Epoch::new([3; 16]);
        for count in [0, 1, 2, 300] {
            let frames: Vec<pb::Frame> = (1..=count).map(frame).collect();
            let message = Kind::Frames(Frames { epoch: vec![3; 16].into(), frames: frames.clone() });
            let typed = SyncResponse { message: Some(message) };
            // In one part, and in as many as there are frames.
            let mut together = BytesMut::new();
            frames.iter().for_each(|frame| put_frame(frame, &mut together));
            let apart = frames.iter().map(|frame| {
                let mut part = BytesMut::new();
                put_frame(frame, &mut part);
                part.freeze()
            });
            for parts in [vec![together.freeze()], apart.collect()] {
                let encoded = Encoded::frames(epoch, parts);
                assert_eq!(wire(&encoded), typed.encode_to_vec());
                assert_eq!(encoded.read().unwrap(), typed);
            }
        }
    }

    #[test]
    fn a_response_that_is_encoded_before_is_the_same_on_the_wire() {
        let response = crate::convert::sync::draining();
        assert_eq!(wire(&Encoded::whole(&response)), response.encode_to_vec());
    }
}
