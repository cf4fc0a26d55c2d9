//! SetConsent, one opt-out a call, by 256 callers of a real authority: what gathering writes into one transaction
//! gains over a commit for each of them.
//!
//! The authority shares the core of its Postgres. The commits of one row are hand-written SQL, on the same tables,
//! without any call in front of them.

use crate::bench::{Bench, Goal};
use crate::callers::{Slice, beside, in_a_loop};
use crate::lane::{Opened, Written};
use crate::ledger::{Ledgers, Strangers};
use crate::replica::Replica;
use crate::slices::{Spread, in_turn};
use std::sync::Arc;

const CALLERS: usize = 256;
const CHANNELS: usize = 4;
/// One waits for the head row while another commits: more of them gain nothing.
const CONNECTIONS: usize = 2;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let ledgers = Ledgers::start(bench)?;
    let like = Opened::on(&ledgers.fresh().await?).await?;
    like.warm_up(&ledgers, bench.slice() / 10).await?;
    let written = Written::on(&ledgers.fresh().await?, CONNECTIONS, 1, &like).await?;
    let replica = Replica::start(bench, &ledgers.fresh().await?).await?;
    let writers = replica.writers(CHANNELS).await?;
    let strangers = Arc::new(Strangers::default());
    let length = bench.slice();
    let product = async || {
        let (writers, strangers) = (Arc::clone(&writers), Arc::clone(&strangers));
        in_a_loop(replica.pid(), CALLERS, length, move |caller, _| {
            let (mut writer, id) = (writers[caller % writers.len()].clone(), strangers.next());
            async move { writer.opt_out(id).await.map(drop) }
        })
        .await
    };
    let pid = ledgers.pid()?;
    let pairs = in_turn(bench.slices(), async || written.slice(pid, length).await, product).await?;
    let rate = |slice: &Slice| slice.rate();
    let ratio = Spread::of_ratios(&pairs, rate);
    bench.figure("writes/256", ratio, "x", &beside(&pairs, " opt-outs/s", rate), Goal::AtLeast(10.0));
    Ok(())
}
