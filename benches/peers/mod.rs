//! Others, asked the same question on the same machine, in turn with CanTrain.
//!
//! They are no yardstick: each does more and less than this project, and a line says what. Run only when it is named,
//! since it needs what the product does not: a Redis server, and Cerbos' own binary (`./dev bench peers` gets both).

mod cerbos;
mod redis;

use crate::accounts::expected;
use crate::bench::{Bench, Goal, size};
use crate::callers::{Slice, beside};
use crate::kernel;
use crate::node::{Node, Port};
use crate::slices::{Pair, Spread};
use crate::unary::Asking;

/// How many ask at once, over how many connections: each peer is used as its users use it.
const CALLERS: usize = 64;
const CONNECTIONS: usize = 4;

/// Both peers, at the largest size that is wanted up to a million: Redis would need gigabytes for more.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let accounts = bench.largest().min(1_000_000);
    let node = Node::live(bench, accounts).await?;
    bench.note(&format!("CanTrain at {} accounts against each, over a Unix socket", size(accounts)));
    let asking = Asking::new(&node.server, Port::Unix, CONNECTIONS, accounts, expected).await?;
    let mirrored = kernel::resident(node.server.pid())?;
    redis::run(bench, &node, &asking, mirrored).await?;
    cerbos::run(bench, &asking, accounts).await
}

/// The lines of one comparison: what CanTrain does, against what the peer does.
fn report(bench: &mut Bench, name: &str, pairs: &[Pair<Slice>]) {
    let mut line = |what: &str, unit: &str, value: &dyn Fn(&Slice) -> f64| {
        let ratio = Spread::of_ratios(pairs, value);
        bench.figure(&format!("{name}/{what}"), ratio, "x", &beside(pairs, unit, value), Goal::None);
    };
    line("throughput", " decisions/s", &Slice::rate);
    line("p50", " us", &|slice| slice.percentile(50));
    line("p99", " us", &|slice| slice.percentile(99));
    line("processor", " decisions in a second of the server's", &Slice::rate_of_the_server);
}
