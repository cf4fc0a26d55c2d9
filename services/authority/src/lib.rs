//! The authority: owns the ledger, streams every change to the sidecars, and says when an opt-out is effective.
//!
//! ```text
//!   callers ──▶ service ──▶ lane ─────────▶ store ◀──────── confirmations ──▶ EFFECTIVE
//!                                             │ ▲                R8, R9
//!                                        tail │ │ lease row
//!                                             ▼ │
//!   sidecars ◀──▶ sync ◀──── ring ◀─────── tail, grantor
//!                  ▲                            │ R2 R3 R5 R7 R12
//!                  └──────── orders ────────────┘
//! ```
//!
//! - [`store`]: what is asked of a store, and the two that do it. The only place with SQL.
//! - [`lane`]: the one task that writes.
//! - `tail`, [`ring`]: the committed ledger, followed and kept at hand.
//! - `sync`: a session per sidecar. `grantor`: what the sidecars were promised.
//! - [`confirmations`]: who waits for EFFECTIVE.
//! - `service`: what callers call. `health`: what probes ask. `metrics`: what is counted, and shown.
//! - `authority`: the start, the watch over the tasks, and the stop.
//!
//! Absent on purpose: any decision. What is allowed, granted or effective is decided in `consent-core`; here it is
//! carried out.

mod authority;
pub mod config;
pub mod confirmations;
mod failure;
mod grantor;
mod health;
pub mod lane;
mod metrics;
mod random;
pub mod ring;
mod service;
pub mod store;
mod sync;
mod tail;

pub use authority::{Authority, migrate, start, start_within};
pub use config::{BadStore, Config, Limits, StoreConfig};
pub use failure::{Failure, StartError};
pub use random::NoRandomness;
pub use sync::SnapshotLimits;
