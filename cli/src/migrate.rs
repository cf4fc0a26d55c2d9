//! `consent migrate`: brings a store's schema to what this version needs. Its own command, never done by a start.

use crate::failure::{Exit, Failure};
use crate::output;
use clap::Args as ClapArgs;
use consent_authority::StoreConfig;

/// Bring a store's schema up to date; there is no way back
#[derive(Debug, ClapArgs)]
pub(crate) struct Args {
    /// The ledger's store: sqlite:DIRECTORY, or postgres://USER:PASSWORD@HOST/DATABASE
    #[arg(long, value_name = "STORE", env = "CONSENT_STORE", hide_env_values = true)]
    store: StoreConfig,
}

/// Migrates, and says from where to where.
pub(crate) async fn run(args: Args) -> Result<Exit, Failure> {
    let migrated = consent_authority::migrate(&args.store).await.map_err(|e| Failure::cannot_start(&e))?;
    output::line(&describe(migrated.before, migrated.now))?;
    Ok(Exit::Done)
}

fn describe(before: i64, now: i64) -> String {
    if before == now { format!("schema {now}, as before") } else { format!("schema {now}, before {before}") }
}
