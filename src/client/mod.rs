//! For whoever asks: a [`Guard`] stands between data and its use for training.
//!
//! It keeps the caller's half of the promise, rule R11 of the confirmation protocol: an ALLOW counts from before its
//! question was sent, and the clock is read again immediately before the data is used. Here the first is done by who
//! sends, and the second cannot be left out: an [`Allow`] alone permits nothing, it gives a [`Permit`] while it is
//! valid, and a permit cannot be kept for later. Anything but OK and ALLOW, whatever goes wrong, is a [`Deny`].
//!
//! ```no_run
//! use consent::client::{Deny, Guard, Permit, Question, Span, Timestamp};
//!
//! /// Data is kept for training here and nowhere else, and not without a permit.
//! fn keep(document: &str, permit: &Permit<'_>) {
//!     println!("kept at {}: {document}", permit.position().revision);
//! }
//!
//! async fn collect(guard: &Guard, document: &str, collected_at: Timestamp) -> Result<(), Deny> {
//!     let question = Question {
//!         account: "ada".to_owned(),
//!         artifact: "document-17".to_owned(),
//!         product: "le_chat".to_owned(),
//!         kind: "document".to_owned(),
//!         collected_at,
//!         is_incognito: false,
//!     };
//!     // Asked again while the answer may change, or is over before it can be used, for at most 200 ms.
//!     guard.with(&question, Span::from_millis(200), |permit| keep(document, &permit)).await
//! }
//!
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! let guard = Guard::connect("unix:///run/consent/node.sock")?;
//! if let Err(deny) = collect(&guard, "dear diary", Timestamp::from_millis(1_764_057_600_000)).await {
//!     println!("not kept: {deny}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! A job that uses results later takes them as a plan: it asks again at use, or subtracts what changed since
//! [`Allow::position`].

mod answer;
mod endpoint;
mod guard;
mod patience;
mod pool;
mod question;
#[cfg(test)]
mod script;
#[cfg(test)]
mod tests;

pub use answer::{Allow, Answer, Deny, Permit};
pub use guard::{Guard, Limits, Misconfigured};
pub use question::Question;

pub use consent_core::decision::Reason;
pub use consent_core::words::{Moment, Position, Span, Timestamp};
