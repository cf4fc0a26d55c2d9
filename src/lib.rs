//! The contract in Rust.
