//! The contract in Rust: what the services and their callers share.
//!
//! - [`client`]: for whoever asks: a guard whose ALLOW cannot be used without reading the clock again.
//! - [`pb`]: generated from `proto/`; it goes no deeper than the conversions.
//! - [`column`]: a column of ids, and the answers in columns, which are not generated.
//! - [`codec`]: how messages are read from what a connection received.
//! - [`clock`]: the only file that reads a clock.
//! - [`status`]: the only map from a [`Refusal`](consent_core::refusal::Refusal) to a gRPC status.
//! - [`convert`]: between the wire and the core, and the only place where UNSPECIFIED exists.
//! - [`backoff`]: how long to wait before trying again.
//! - [`dialogue`]: streams in which every request has one answer.
//! - [`deadline`]: until when a server may wait for a call.
//! - [`files`]: how many files a server may have open.
//! - [`incoming`]: which connections a server takes.
//! - [`logs`]: where the log of both servers goes.
//! - [`metrics`]: what both servers tell Prometheus, and the port for it.
//! - [`said`]: what an authority says to its sidecars, encoded once for all of them.
//! - [`serve`]: how both servers listen: limits, health, reflection.
//! - [`socket`]: Unix sockets, and the directories that they may be in.

pub mod backoff;
pub mod client;
pub mod clock;
pub mod codec;
pub mod column;
pub mod convert;
pub mod deadline;
pub mod dialogue;
pub mod files;
pub mod incoming;
pub mod logs;
pub mod metrics;
pub mod said;
pub mod serve;
pub mod socket;
pub mod status;
mod unread;

/// Generated from `proto/consent/v1`.
#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    clippy::wildcard_enum_match_arm,
    reason = "generated; the comments stand in proto/"
)]
pub mod pb {
    tonic::include_proto!("consent.v1");

    pub use crate::column::{IdColumn, StreamCanTrainResponse};
}

/// The compiled contract with its comments: what reflection serves.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The version that programs say of themselves.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The examples that are compiled: those of the page that everybody reads first.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
