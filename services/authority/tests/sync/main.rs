//! The sync stream and the confirmation behind it, through a real authority on the embedded store, with a sidecar
//! that says by hand what a sidecar may say, or keeps silent where it may not.
//!
//! Nothing here sleeps to be in step with something: a test waits for what it is told, and where it looks at a
//! clock it is the lease clock, to see that nothing came too early.

#![allow(clippy::expect_used, reason = "a test may fail")]

mod bare;
mod feed;
mod leaving;
mod ledger;
#[path = "../../../../tests/support/postgres.rs"]
mod postgres;
mod promises;
mod replicas;
mod snapshots;
mod welcome;
