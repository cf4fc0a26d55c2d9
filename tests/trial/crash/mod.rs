//! kill -9 at random moments: of the authority under 64 writers, and of the sidecar under questions.
//!
//! After every kill: each write that was answered is in the ledger as it was answered, revisions are dense, the
//! chain and the digest computed anew are those that the authority shows, and each request_id sent again gets the
//! answer it got (I6). After every restart of the sidecar: no ALLOW before it says LIVE, none at all for a person
//! who opted out while it was dead (I8, A7).

mod authority;
mod sidecar;
mod writer;

pub(crate) use sidecar::first_accept;

use crate::cluster::StoreKind;
use crate::random::Random;
use crate::tally::Tally;
use anyhow::ensure;

const PRODUCT: &str = "le_chat";

/// Both kinds of kill, `kills` times each on each store.
pub(crate) async fn run(tally: &mut Tally, kills: u64) -> anyhow::Result<()> {
    ensure!(kills > 0, "no kill proves nothing");
    let mut random = Random::announced()?;
    for kind in StoreKind::ALL {
        authority::killed(tally, kind, kills, &mut random).await?;
    }
    for kind in StoreKind::ALL {
        sidecar::killed(tally, kind, kills, &mut random).await?;
    }
    Ok(())
}
