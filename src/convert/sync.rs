//! The sync stream between the wire and the words of the core.
//!
//! Whatever comes in is checked here, whole, and named by its field when it is wrong; behind this edge there is no
//! message with a part missing. A head stays bytes: whether its semantics version can be read is for whoever
//! applies it, and one that cannot be read is a DENY there, never skipped. The version of a frame is another one:
//! it says what must be known of everything beside the head, and who knows less cannot apply any of it.
//!
//! What only drivers know of a hello, a seal and a snapshot whose stream broke, stands beside the machine's message:
//! [`sealed`], [`with_unfinished`].
//!
//! A hello that is not accepted ends the stream with a status; [`unwelcome`] and [`why_unwelcome`] are its two ends.

mod down;
mod parts;
mod unfinished;
mod unwelcome;
mod up;
mod welcome;

pub use down::{
    Change, FromAuthority, draining, frame, frames, from_authority, grant, snapshot_begin, snapshot_chunk,
    snapshot_end,
};
pub use unfinished::{Unfinished, unfinished, with_unfinished};
pub use unwelcome::{unwelcome, why_unwelcome};
pub use up::{is_resumable, seal, sealed, sync_request, to_authority};
pub use welcome::welcome;
