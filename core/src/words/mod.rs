//! The vocabulary as types: whatever may be swapped by mistake has a type of its own.
//!
//! - [`ids`]: ids as callers write them, and the keyed hashes that stand for them on nodes.
//! - [`names`]: names and indexes of products, plans and kinds.
//! - [`ledger`]: revision, epoch, position, subject: where something stands in the ledger.
//! - [`party`]: account or organization, choices, restrictions.
//! - [`time`]: wall-clock [`Timestamp`]s and lease [`Moment`]s, which cannot be compared with each other.

pub mod ids;
pub mod ledger;
pub mod names;
pub mod party;
pub mod time;

pub use ids::{AccountId, AccountKey, ArtifactId, ArtifactKey, IdKey, OrganizationId, OrganizationKey};
pub use ledger::{Epoch, Incarnation, Nonce, Position, Revision, Subject};
pub use names::{Name, PlanIndex, ProductIndex};
pub use party::{Choice, Party, Restriction, Restrictions};
pub use time::{Moment, Seconds, Span, Timestamp};
