//! The authority: owns the ledger, streams every change to the sidecars, and says when an opt-out is effective.

pub mod config;
pub mod confirmations;
pub mod lane;
pub mod ring;
mod service;
pub mod store;

pub use config::{BadStore, Config, Limits, StoreConfig};
