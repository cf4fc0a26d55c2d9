//! Why an authority does not start, or stops by itself.

use crate::random::NoRandomness;
use crate::ring::NotNext;
use crate::store::StoreError;
use std::io;
use std::net::SocketAddr;
use thiserror::Error;

/// Why an authority did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// There is no TLS yet, so only this machine may be served.
    #[error("the listen address {0} is not loopback: without TLS only this machine may be served")]
    NotLoopback(SocketAddr),
    /// The port cannot be had.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// Which.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No run and no epoch can be named.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The contract that this program was built with cannot be served by reflection.
    #[error("the contract's descriptor is broken: {0}")]
    Descriptor(String),
}

/// Why an authority stopped by itself. None of these is tried again within the process: its supervisor starts it
/// anew, as a new incarnation.
#[derive(Debug, Error)]
pub enum Failure {
    /// Another replica took this one for dead and closed its row (R3, R8b). Since its lease ended it has granted and
    /// answered nothing.
    #[error("fenced: another replica took this one for dead and closed its row")]
    Fenced,
    /// The ledger is not one history.
    #[error("the ledger broke a promise: {0}")]
    Ledger(#[from] NotNext),
    /// The store broke a promise.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No run and no epoch can be named.
    #[error(transparent)]
    Randomness(#[from] NoRandomness),
    /// The port is not served any more.
    #[error("the listener failed: {0}")]
    Listener(#[from] tonic::transport::Error),
    /// The metrics cannot be shown any more.
    #[error("the metrics' listener failed: {0}")]
    Metrics(#[from] io::Error),
    /// A part without which it cannot serve is gone.
    #[error("the {0} ended")]
    Ended(&'static str),
    /// A task panicked: what it kept may be half changed.
    #[error("a task panicked: {0}")]
    Panicked(String),
}
