//! The policy: the versioned rule book, data and not code (rule.md section 9).
//!
//! A [`PolicyFile`] is a TOML text that was parsed and found whole, with the line of every key;
//! [`PolicyFile::check`] holds it against the policy in force. What is left then is a [`Document`]: resolved,
//! sorted, without lines. Events carry it, so the ledger refolds without a TOML reader.

mod check;
mod depth;
mod guard;
mod parse;

use core::fmt;

pub use check::{Dropped, Warning};
pub use guard::{BadGuard, Guard};
pub use parse::PolicyFile;

use crate::words::Name;

/// What a plan does to consent. The order is that of openness: a step up is a loosening.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// The policy in force has no such plan. It denies.
    Nil,
    /// Nobody may open it.
    LockedOut,
    /// Denied until its owner opts in.
    DefaultOut,
    /// Allowed until its owner opts out.
    DefaultIn,
}

/// What a gate (a kind's, or incognito's) lets through. The order is that of openness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// The policy in force has no such kind. It denies.
    Nil,
    /// Never trained on.
    Never,
    /// Trained on where consent allows it.
    Trainable,
}

impl Mode {
    /// As the file writes it; NIL is not written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Nil => "nil",
            Mode::LockedOut => "locked_out",
            Mode::DefaultOut => "default_out",
            Mode::DefaultIn => "default_in",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A whole policy, resolved: every `counts_as` replaced by what it counts as. Names rise strictly in each list, so
/// that there is one document, and one encoding, per policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Whose rule book it is; the same for good.
    pub name: Name,
    /// Strictly rising.
    pub version: u64,
    /// How far the collector's and the store's clocks may differ.
    pub guard: Guard,
    /// The products in force.
    pub products: Vec<ProductDocument>,
}

/// One product of a [`Document`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProductDocument {
    /// Its name.
    pub name: Name,
    /// Never NIL: NEVER for `deny`, TRAINABLE for `as_kind`.
    pub incognito: Class,
    /// Its plans; no mode is NIL.
    pub plans: Vec<(Name, Mode)>,
    /// Its kinds; no class is NIL.
    pub kinds: Vec<(Name, Class)>,
}
