//! A wire that can be cut: a TCP relay between a sidecar and its authority.
//!
//! It counts what passes to the sidecar.
//!
//! It also keeps the sidecar's idea of the authority's address while the authority is killed and comes back on
//! another port.

use anyhow::Context;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// What the wire does now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wire {
    /// Bytes pass.
    Whole,
    /// Nothing passes and nothing is refused, as behind a firewall that drops: connections stay open, new ones are
    /// accepted, and what was sent meanwhile arrives late.
    Blackholed,
}

/// The relay.
#[derive(Debug)]
pub(crate) struct Relay {
    address: SocketAddr,
    wire: watch::Sender<Wire>,
    upstream: watch::Sender<Option<String>>,
    brought: Arc<AtomicU64>,
    _task: AbortOnDropHandle<()>,
}

impl Relay {
    /// Listens on a port of the kernel's choice; it leads nowhere yet.
    pub(crate) async fn start() -> anyhow::Result<Relay> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("the relay does not listen")?;
        let address = listener.local_addr()?;
        let (wire, wire_now) = watch::channel(Wire::Whole);
        let (upstream, upstream_now) = watch::channel(None);
        let brought = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(accept(listener, wire_now, upstream_now, Arc::clone(&brought)));
        Ok(Relay { address, wire, upstream, brought, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Leads new connections to `address` from now on, and cuts those that led elsewhere.
    pub(crate) fn lead_to(&self, address: &str) {
        self.upstream.send_replace(Some(address.to_owned()));
    }

    /// How many bytes the authority has sent through it so far.
    pub(crate) fn brought(&self) -> u64 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Lets nothing pass from now on.
    pub(crate) fn blackhole(&self) {
        self.wire.send_replace(Wire::Blackholed);
    }

    /// Lets everything pass again, what was held back first.
    pub(crate) fn heal(&self) {
        self.wire.send_replace(Wire::Whole);
    }
}

async fn accept(
    listener: TcpListener,
    wire: watch::Receiver<Wire>,
    upstream: watch::Receiver<Option<String>>,
    brought: Arc<AtomicU64>,
) {
    while let Ok((near, _)) = listener.accept().await {
        tokio::spawn(carry(near, wire.clone(), upstream.clone(), Arc::clone(&brought)));
    }
}

// Ends with either side's connection, with a new upstream, or with the relay.
async fn carry(
    near: TcpStream,
    mut wire: watch::Receiver<Wire>,
    mut upstream: watch::Receiver<Option<String>>,
    brought: Arc<AtomicU64>,
) {
    let Some(address) = upstream.borrow_and_update().clone() else { return };
    if wire.wait_for(|w| *w == Wire::Whole).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(&address).await else { return };
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
    let said = AtomicU64::new(0);
    tokio::select! {
        () = copy(near_read, far_write, wire.clone(), &said) => (),
        () = copy(far_read, near_write, wire, &brought) => (),
        _ = upstream.changed() => (),
    }
}

async fn copy(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut wire: watch::Receiver<Wire>,
    carried: &AtomicU64,
) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer).await {
        // Checked between reading and writing: what was read before the cut does not pass after it.
        if wire.wait_for(|w| *w == Wire::Whole).await.is_err() || to.write_all(&buffer[..n]).await.is_err() {
            return;
        }
        carried.fetch_add(n as u64, Ordering::Relaxed);
    }
}
