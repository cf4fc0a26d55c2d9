//! The contract as its callers meet it: what the descriptor says, what a refusal says, and what happens to bad input.
//!
//! - [`descriptor`]: nothing without a comment, and zero of every enum refuses or denies.
//! - [`statuses`]: every refusal has its status, every ErrorReason its refusal, and both are as `proto/` says.
//! - [`reflection`]: each server lists what it serves, and serves what it lists.
//! - [`bad_input`]: what no caller should send, sent to real servers over a real socket; most of it is
//!   [`spoiled`] in one place.
//! - [`metrics`]: what both servers show of themselves is what `METRICS.md` lists.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that stops loudly is what is wanted here"
)]

mod bad_input;
mod descriptor;
mod metrics;
mod raw;
mod reflection;
mod servers;
mod spoiled;
mod statuses;
