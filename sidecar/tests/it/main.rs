//! A sidecar over real sockets, against an authority that is played by hand.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

mod answers;
mod durable;
mod lease;
mod ledger;
mod mirror;
mod node;
mod resync;
mod script;
mod serving;
mod stream;

#[path = "../../../tests/support/copy.rs"]
mod copy;
#[path = "../../../tests/support/redis.rs"]
mod redis_server;
mod unfinished;
