//! What an authority is told at its start, and what bounds it.
//!
//! No secret of it is ever printed: the address of a Postgres store may hold a password, so a store is shown by
//! its kind alone.

use crate::ring;
use crate::sync::SnapshotLimits;
use consent_core::confirm::Terms;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// What an authority is told at its start.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen. Port 0: any free one. Only loopback, as long as there is no TLS.
    pub listen: SocketAddr,
    /// The name of this replica, for people: rows and leases belong to the run of a process, never to a name.
    pub replica: String,
    /// Where the ledger is.
    pub store: StoreConfig,
    /// The deployment's values for leases.
    pub terms: Terms,
    /// Where to show metrics. Port 0: any free one; only loopback. `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

/// Where the ledger is: `sqlite:DIRECTORY` or `postgres://...`.
#[derive(Clone, PartialEq, Eq)]
pub enum StoreConfig {
    /// Embedded, in files of this directory, which is made if it is not there. One process at a time.
    Sqlite {
        /// It.
        directory: PathBuf,
    },
    /// Postgres.
    Postgres {
        /// With user and database, as libpq takes it.
        url: String,
    },
}

/// Why a text names no store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("must be sqlite:DIRECTORY or postgres://USER@HOST/DATABASE")]
pub struct BadStore;

impl FromStr for StoreConfig {
    type Err = BadStore;

    fn from_str(text: &str) -> Result<StoreConfig, BadStore> {
        match text.split_once(':') {
            Some(("sqlite", directory)) if !directory.is_empty() => {
                Ok(StoreConfig::Sqlite { directory: directory.into() })
            }
            Some(("postgres" | "postgresql", rest)) if rest.starts_with("//") => {
                Ok(StoreConfig::Postgres { url: text.to_owned() })
            }
            _ => Err(BadStore),
        }
    }
}

impl StoreConfig {
    /// `sqlite` or `postgres`.
    pub const fn kind(&self) -> &'static str {
        match self {
            StoreConfig::Sqlite { .. } => "sqlite",
            StoreConfig::Postgres { .. } => "postgres",
        }
    }
}

impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreConfig({})", self.kind())
    }
}

/// What bounds an authority. Each bound has its rule for what happens there.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The tail of the ledger in memory. A session that falls behind it reads from the store.
    pub ring: ring::Bounds,
    /// Connections at once: more than sessions, so that sidecars alone do not keep writers out. At the bound a further
    /// one waits until another ends.
    pub connections: usize,
    /// Sidecars at once. At the bound a hello is answered Overloaded.
    pub sessions: usize,
    /// Snapshots under way, waited for and shared.
    pub snapshots: SnapshotLimits,
    /// Writes that wait for EFFECTIVE at once. At the bound a write is answered RECORDED, and a question OVERLOADED.
    pub waiters: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            ring: ring::Bounds::default(),
            connections: 16_384 + 1_024,
            sessions: 16_384,
            snapshots: SnapshotLimits::default(),
            waiters: 4_096,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_named_by_its_scheme() {
        let sqlite = StoreConfig::Sqlite { directory: "./data".into() };
        assert_eq!("sqlite:./data".parse(), Ok(sqlite));
        let url = "postgres://consent:secret@db/consent";
        assert_eq!(url.parse(), Ok(StoreConfig::Postgres { url: url.to_owned() }));
        for bad in ["", "sqlite", "sqlite:", "postgres:db", "mysql://db", "./data"] {
            assert_eq!(bad.parse::<StoreConfig>(), Err(BadStore), "{bad}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let store: StoreConfig = "postgres://consent:secret@db/consent".parse().expect("a store");
        assert!(!format!("{store:?}").contains("secret"));
    }
}
