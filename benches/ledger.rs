//! The ledger that writes go to: a Postgres of the run's own on the servers' core, as durable as in production, and
//! its databases with the schema of the product.

use crate::bench::Bench;
use crate::postgres::Postgres;
use anyhow::{Context, anyhow};
use consent_authority::StoreConfig;
use std::sync::atomic::{AtomicU64, Ordering};

/// The caller that every write names.
pub(crate) const CALLER: &str = "bench";
/// The product of every choice.
pub(crate) const PRODUCT: &str = "le_chat";
/// The policy in force: the seed's.
pub(crate) const POLICY: &str = include_str!("../policies/mistral.toml");

/// A server with ledgers.
pub(crate) struct Ledgers(Postgres);

impl Ledgers {
    /// Starts the server.
    pub(crate) fn start(bench: &Bench) -> anyhow::Result<Ledgers> {
        bench.cores.on_the_servers(Postgres::start).map(Ledgers).map_err(|trouble| anyhow!(trouble))
    }

    /// The address of a new one, empty.
    pub(crate) async fn fresh(&self) -> anyhow::Result<String> {
        let url = self.0.fresh_database().map_err(|trouble| anyhow!(trouble))?;
        consent_authority::migrate(&StoreConfig::Postgres { url: url.clone() }).await?;
        Ok(url)
    }

    /// The server's first process.
    pub(crate) fn pid(&self) -> anyhow::Result<u32> {
        self.0.pid().context("Postgres does not run")
    }
}

/// Accounts that nobody mentioned before: every write is the first of its account, and none changes nothing.
#[derive(Debug, Default)]
pub(crate) struct Strangers(AtomicU64);

impl Strangers {
    /// The next one's id.
    pub(crate) fn next(&self) -> String {
        format!("account-{:012}", self.0.fetch_add(1, Ordering::Relaxed))
    }
}
