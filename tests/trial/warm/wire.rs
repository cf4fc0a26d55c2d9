//! A wire between a sidecar and its authority that counts what it carries, and the fault that can be planted on it.
//!
//! It stands between them as a SyncService of its own, so it sees snapshots as such and counts their bytes, whatever
//! the two say about themselves. It also hears the secret of each welcome, without which no copy could be forged well.
//!
//! With the fault it makes the sidecar believe that it has missed nothing: frames are kept back, and every grant names
//! the place of the hello. To a sidecar that is as if the authority's word counted for less than its own copy (R5).

use anyhow::Context;
use consent::pb::sync_request::Message as Up;
use consent::pb::sync_response::Message as Down;
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::sync_service_server::{SyncService, SyncServiceServer};
use consent::pb::{Proof, SyncRequest, SyncResponse};
use consent_core::words::IdKey;
use prost::Message;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

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
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _task: AbortOnDropHandle<()>,
}

impl Wire {
    /// Listens on a port of the kernel's choice and leads to the authority at `upstream`, `host:port`.
    pub(super) async fn start(upstream: &str) -> anyhow::Result<Wire> {
        let (address, incoming) = consent::serve::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context("the wire does not listen")?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let session = Session { upstream: format!("http://{upstream}"), seen: Arc::clone(&seen) };
        let server = consent::serve::server().add_service(SyncServiceServer::new(session));
        let task = tokio::spawn(async move {
            if let Err(trouble) = server.serve_with_incoming(incoming).await {
                eprintln!("the wire ended: {trouble}");
            }
        });
        Ok(Wire { address, seen, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(super) const fn address(&self) -> SocketAddr {
        self.address
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
fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Session {
    upstream: String,
    seen: Arc<Mutex<Seen>>,
}

#[tonic::async_trait]
impl SyncService for Session {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (to_authority, authority_hears) = mpsc::channel(64);
        let (to_sidecar, sidecar_hears) = mpsc::channel(64);
        // Where the copy of this session's sidecar stands, once it has said so.
        let place = Arc::new(Mutex::new(None));
        let seen = Arc::clone(&self.seen);
        tokio::spawn(up(request.into_inner(), to_authority, Arc::clone(&seen), Arc::clone(&place)));
        let upstream = self.upstream.clone();
        tokio::spawn(async move {
            if let Err(status) = down(upstream, authority_hears, to_sidecar.clone(), seen, place).await {
                // The sidecar may be gone as well.
                let _ = to_sidecar.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sidecar_hears)))
    }
}

type CopysPlace = Arc<Mutex<Option<Proof>>>;

async fn up(
    mut from_sidecar: Streaming<SyncRequest>,
    to_authority: mpsc::Sender<SyncRequest>,
    seen: Arc<Mutex<Seen>>,
    place: CopysPlace,
) {
    while let Ok(Some(request)) = from_sidecar.message().await {
        if let Some(Up::Hello(hello)) = &request.message
            && let Some(have) = &hello.have
        {
            lock(&seen).carried.from_copy += 1;
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(have.clone());
        }
        if to_authority.send(request).await.is_err() {
            return;
        }
    }
}

async fn down(
    upstream: String,
    authority_hears: mpsc::Receiver<SyncRequest>,
    to_sidecar: mpsc::Sender<Result<SyncResponse, Status>>,
    seen: Arc<Mutex<Seen>>,
    place: CopysPlace,
) -> Result<(), Status> {
    let is_faulty = lock(&seen).is_faulty;
    let mut client =
        SyncServiceClient::connect(upstream).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut from_authority = client.sync(ReceiverStream::new(authority_hears)).await?.into_inner();
    while let Some(mut response) = from_authority.message().await? {
        let bytes = response.encoded_len() as u64;
        let mut is_kept_back = false;
        {
            let mut seen = lock(&seen);
            match &mut response.message {
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
                    is_kept_back = is_faulty;
                }
                Some(Down::Grant(grant)) if is_faulty => {
                    let copy = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    grant.at = copy.or(grant.at.take());
                }
                Some(Down::SnapshotEnd(_) | Down::Grant(_) | Down::Draining(_)) | None => {}
            }
        }
        if !is_kept_back && to_sidecar.send(Ok(response)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}
