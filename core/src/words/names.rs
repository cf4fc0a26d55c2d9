//! Names in the policy file, and the small permanent indexes that stand for them in heads.

use core::fmt;
use thiserror::Error;

/// A text is no name: names are `[a-z][a-z0-9_]{0,31}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is no name: names are [a-z][a-z0-9_]{{0,31}}")]
pub struct BadName;

/// The name of a policy, product, plan or kind: `[a-z][a-z0-9_]{0,31}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// The longest name, in bytes.
    pub const LEN_MAX: usize = 32;

    /// Takes the text as it is, or says that it is no name.
    pub fn new(text: &str) -> Result<Name, BadName> {
        let tail = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        match text.as_bytes() {
            [first, rest @ ..] if first.is_ascii_lowercase() && rest.len() < Name::LEN_MAX => {
                if rest.iter().all(|&c| tail(c)) { Ok(Name(text.to_owned())) } else { Err(BadName) }
            }
            _ => Err(BadName),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The permanent index of a product: its place in the policy's list of every product it ever named, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProductIndex(pub u8);

/// The permanent index of a plan within its product, given at first mention: 1 to 62, or [`PlanIndex::NONE_LEFT`].
/// "No plan" is `Option::None`, 0 in encoded heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PlanIndex(u8);

impl PlanIndex {
    /// What a plan gets that is mentioned when all 62 indexes are taken: NIL for good, so DENY.
    pub const NONE_LEFT: PlanIndex = PlanIndex(63);
    /// The largest index that names a plan.
    pub const MAX: PlanIndex = PlanIndex(62);

    /// The index with this number: 1 to 63.
    pub const fn new(index: u8) -> Option<PlanIndex> {
        if index >= 1 && index <= 63 { Some(PlanIndex(index)) } else { None }
    }

    /// Its number: 1 to 63.
    pub const fn get(self) -> u8 {
        self.0
    }
}
