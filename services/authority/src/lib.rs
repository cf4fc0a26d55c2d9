//! The authority: owns the ledger, streams every change to the sidecars, and says when an opt-out is effective.

pub mod lane;
pub mod store;
