//! What a mirrored account costs in memory, by the kernel's figure, the peak of each phase included.
//!
//! The sidecar is a process of its own and takes its heads over the stream: what the stream, the pages on their way
//! and the allocator need is in the figure. It is compared with what an account is: its key and its encoded head.

use crate::accounts::Accounts;
use crate::bench::{Bench, Goal, size};
use crate::kernel;
use crate::node::Node;
use crate::slices::Spread;

/// A table of fewer says nothing about bytes an account: it is smaller than a page on its way.
const LEAST: u64 = 100_000;
/// What a sidecar mirrors that is said to have nothing: whatever it needs in order to be LIVE it has then.
const FEW: u64 = 10;

/// A load of a size that nobody told, growth by a tenth while callers may ask, and a snapshot over a table that is
/// there.
pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let head = Accounts::new()?.head(0);
    let encoded = (head.key.bytes().len() + head.bytes.len()) as f64;
    for accounts in bench.sizes() {
        let name = format!("memory/{}", size(accounts));
        if !bench.wants_some_of(&name) {
            continue;
        }
        let mut node = Node::live(bench, FEW).await?;
        let pid = node.server.pid();
        let empty = kernel::resident(pid)?;
        let goal = if accounts < LEAST { Goal::None } else { Goal::AtMost(1.25) };
        let line = |bench: &mut Bench, phase: &str, accounts: u64| {
            let each = |bytes: u64| bytes.saturating_sub(empty) as f64 / accounts as f64;
            let (peak, now) = (each(kernel::peak(pid)?), each(kernel::resident(pid)?));
            let more = format!(
                "{peak:.1} B an account at most, {now:.1} B afterwards, and {:.1} MB for the process; key and head have \
                 {encoded} B",
                empty as f64 / 1e6
            );
            bench.figure(&format!("{name}/{phase}"), Spread::of([peak / encoded]), "x", &more, goal);
            kernel::forget_peak(pid)
        };
        kernel::forget_peak(pid)?;
        node.authority.begin_anew(accounts).await?;
        node.until_live(accounts).await?;
        line(bench, "load", accounts)?;
        let grown = accounts + accounts / 10;
        node.authority.grow_to(grown)?;
        node.until_live(grown).await?;
        line(bench, "growth", grown)?;
        let again = node.authority.start_over()?;
        node.until_live(again).await?;
        line(bench, "resync", again)?;
    }
    Ok(())
}
