//! A wire between a sidecar and its authority that counts what it carries, and the fault that can be planted on it.
//!
//! It sees snapshots as such and counts their bytes, whatever the two say about themselves. It also hears the secret of
//! each welcome, without which no copy could be forged well.
//!
//! With the fault it makes the sidecar believe that it has missed nothing: frames are kept back, and every grant names
//! the place of the hello. To a sidecar that is as if the authority's word counted for less than its own copy (R5).

use crate::carrier::{Carrier, Passage};
use anyhow::Context;
use consent::pb::sync_request::Message as Up;
use consent::pb::sync_response::Message as Down;
use consent::pb::{Proof, SyncRequest, SyncResponse};
use consent_core::words::IdKey;
use prost::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// What was carried since it was last asked.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Carried {
    /// Hellos that named a place.
    pub(super) from_copy: u64,
    /// Pages of snapshots, and their bytes.
    pub(super) pages: u64,
    pub(super) snapshot_bytes: u64,
    /// Bytes of frames.
    pub(super) frame_bytes: u64,
}

#[derive(Debug, Default)]
struct Seen {
    carried: Carried,
    secret: Option<IdKey>,
    is_faulty: bool,
}

/// The wire.
#[derive(Debug)]
pub(super) struct Wire {
    carrier: Carrier,
    seen: Arc<Mutex<Seen>>,
}

impl Wire {
    /// Listens on a port of the kernel's choice and leads to the authority at `upstream`, `host:port`.
    pub(super) async fn start(upstream: &str) -> anyhow::Result<Wire> {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let session = {
            let seen = Arc::clone(&seen);
            move || Session {
                is_faulty: lock(&seen).is_faulty,
                seen: Arc::clone(&seen),
                place: Mutex::new(None),
            }
        };
        Ok(Wire { carrier: Carrier::start(upstream, session).await?, seen })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.carrier.address()
    }

    /// What it carried since this was last asked.
    pub(super) fn carried(&self) -> Carried {
        std::mem::take(&mut lock(&self.seen).carried)
    }

    /// The deployment's secret, from the last welcome.
    pub(super) fn secret(&self) -> anyhow::Result<IdKey> {
        lock(&self.seen).secret.context("no welcome yet")
    }

    /// From the next session on, sidecars believe that they have missed nothing.
    pub(super) fn plant_the_fault(&self) {
        lock(&self.seen).is_faulty = true;
    }
}

// What is in it is whole whenever the lock is free.
fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    seen: Arc<Mutex<Seen>>,
    is_faulty: bool,
    /// Where the copy of this session's sidecar stands, once it has said so.
    place: Mutex<Option<Proof>>,
}

impl Passage for Session {
    fn up(&self, said: &SyncRequest) {
        if let Some(Up::Hello(hello)) = &said.message
            && let Some(have) = &hello.have
        {
            lock(&self.seen).carried.from_copy += 1;
            *lock(&self.place) = Some(have.clone());
        }
    }

    fn down(&self, mut said: SyncResponse) -> Option<SyncResponse> {
        let bytes = said.encoded_len() as u64;
        let mut seen = lock(&self.seen);
        match &mut said.message {
            Some(Down::Welcome(welcome)) => {
                seen.secret = <[u8; 16]>::try_from(&welcome.id_key[..]).ok().map(IdKey::new);
            }
            Some(Down::SnapshotBegin(_)) => seen.carried.snapshot_bytes += bytes,
            Some(Down::SnapshotChunk(_)) => {
                seen.carried.pages += 1;
                seen.carried.snapshot_bytes += bytes;
            }
            Some(Down::Frames(_)) => {
                seen.carried.frame_bytes += bytes;
                return (!self.is_faulty).then_some(said);
            }
            Some(Down::Grant(grant)) if self.is_faulty => {
                grant.at = lock(&self.place).clone().or(grant.at.take());
            }
            Some(Down::SnapshotEnd(_) | Down::Grant(_) | Down::Draining(_)) | None => {}
        }
        Some(said)
    }
}
