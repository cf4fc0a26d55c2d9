//! What Consent decides, and nothing else: no I/O, no clock, no async, no randomness, no wire types.
//!
//! Time, random names and stored bytes come in as arguments; decisions go out as values. So the same code runs
//! in the servers, in the scripts and in the property tests, and each of them can stop time.
//!
//! - [`words`]: the vocabulary as types that do not mix.
//! - [`policy`], [`command`], [`event`], [`head`], [`layers`], [`ledger`], [`decision`]: the rule (policy file, fold, question to
//!   answer).
//! - [`chain`], [`digest`]: what proves that two histories, or two tables, are the same.
//! - [`confirm`]: the protocol behind a confirmed opt-out, as three machines.
//! - [`refusal`]: why a request got no answer. Why an answer is DENY is a `Reason`: the two never mix.

pub mod chain;
pub mod command;
pub mod confirm;
pub mod decision;
pub mod digest;
pub mod event;
pub mod head;
pub mod layers;
pub mod ledger;
pub mod policy;
pub mod refusal;
pub mod words;

mod bytes;
