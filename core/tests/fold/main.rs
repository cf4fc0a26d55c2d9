//! What commands come to, what is answered then, and what it all is in bytes: rule.md by its tables and examples.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test that stops loudly is what is wanted here"
)]

mod commands;
mod encoding;
mod examples;
mod ledger;
mod policies;
mod seed_rows;
mod truth_table;
