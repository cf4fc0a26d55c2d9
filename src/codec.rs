//! prost's codec, over a message that lies in one piece of memory.
//!
//! tonic hands a message over in a buffer that many types of buffers stand behind, which costs a call for every field
//! that is read. Taken out of it first, a message is read as the slice that it is. On the wire nothing differs.

use bytes::Buf;
use prost::Message;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder};
use tonic_prost::ProstEncoder;

/// The codec of every service that is generated, but of the server's half of SyncService, whose answers lie encoded.
#[derive(Debug, Clone, Copy)]
pub struct WholeCodec<E, D>(PhantomData<(E, D)>);

/// Its one half: the other is prost's.
#[derive(Debug, Clone, Copy)]
pub struct WholeDecoder<D>(PhantomData<D>);

impl<E, D> Default for WholeCodec<E, D> {
    fn default() -> WholeCodec<E, D> {
        WholeCodec(PhantomData)
    }
}

impl<E, D> Codec for WholeCodec<E, D>
where
    E: Message + Send + 'static,
    D: Message + Default + Send + 'static,
{
    type Encode = E;
    type Decode = D;
    type Encoder = ProstEncoder<E>;
    type Decoder = WholeDecoder<D>;

    fn encoder(&mut self) -> ProstEncoder<E> {
        ProstEncoder::default()
    }

    fn decoder(&mut self) -> WholeDecoder<D> {
        WholeDecoder(PhantomData)
    }
}

impl<D: Message + Default> Decoder for WholeDecoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        // Nothing is copied, and what the message keeps of it shares it.
        let whole = from.copy_to_bytes(from.remaining());
        // In the words of prost's own, which `unread` knows.
        D::decode(whole).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
