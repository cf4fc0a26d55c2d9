//! Confirmed opt-out: once EFFECTIVE(r) has been told, no ALLOW from a state older than r is given, or still
//! valid, anywhere (I1).
//!
//! ```text
//!    a node                         an authority replica                      the store
//!   ┌──────────────┐  Hello        ┌──────────────┐  register, renew       ┌───────────────────┐
//!   │    Holder    │──KeepAlive──▶ │   Grantor    │──report drained──────▶ │ authority_lease   │
//!   │ R4 R6 R10    │  Ack          │ R2 R3 R5 R7  │  close                 │ ledger_head       │
//!   │ R12          │  Relinquish   │ R7b R12 R13  │                        │ ledger            │
//!   │              │ ◀──Welcome─── │              │ ◀─revisions, head───── │ (R1: the lane)    │
//!   │              │   Frame       └──────────────┘                        └───────────────────┘
//!   │              │   Grant                                                    ▲        │
//!   └──────┬───────┘   Draining    ┌──────────────┐  reap, settle               │        │
//!          │ Lease                 │  Confirmer   │─────────────────────────────┘        │
//!          ▼                       │ R8 R8b R9    │ ◀─rows, head, chain at r─────────────┘
//!   serving threads                └──────┬───────┘
//!   (R10, callers R11)                    ▼ EFFECTIVE(r), or LOST
//! ```
//!
//! A sidecar may answer ALLOW while a *lease* of some replica lasts ([`holder`]). A replica stands by each grant
//! until the sidecar has acknowledged a newer state or the grant is over whatever the clocks did ([`grantor`]).
//! Its row in the store says up to which revision nobody relies on it any more; whoever confirms r waits until
//! every open row says r, and takes a row out only when its replica is surely dead ([`confirmer`]).
//!
//! The machines are sans-IO: `step(now, input, &mut outputs)` never fails, never waits and reads no clock. A driver
//! reads, steps, and **performs the outputs in their order before the next input**; the order is the order of
//! effects ("apply, then ack"; "record, then send"). `wake_at` is a hint for a timer: no safety rests on a timer
//! that fires in time. Production, scripts and random walks run this same code.
//!
//! Invariants: I1 above; I3 a replica that answers is not expired at any confirmer; I4 an active grant has
//! m <= applied, on the same chain, with the same digest; I5 what a sidecar applies is one chain and never falls
//! within an epoch; I8 only LIVE allows; I9 what a confirmer counts as effective never falls within an epoch.
//!
//! - [`terms`]: T_S, T_R, rho, sigma, H, delta and lambda.
//! - [`lease`]: the value by which serving threads answer (R10).
//! - [`message`]: what holder and grantor say to each other.
//! - [`seal`]: by which an authority believes a place that a sidecar does not remember itself.

pub mod confirmer;
pub mod grantor;
pub mod holder;
pub mod lease;
pub mod message;
pub mod seal;
pub mod terms;

pub use confirmer::Confirmer;
pub use grantor::Grantor;
pub use holder::Holder;
pub use lease::{Lease, Validity};
pub use message::{Frame, Place, Start, Stream, ToAuthority, ToSidecar, Unwelcome};
pub use seal::Seal;
pub use terms::{Terms, UnsafeTerms, Values};
