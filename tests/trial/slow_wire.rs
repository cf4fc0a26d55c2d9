//! A slow wire that knows what it carries, and the fault that can be planted on it: acks that come too early.
//!
//! It stands between a sidecar and its authority as a SyncService of its own and delivers every message of the
//! authority some time late, as a long wire would. With the fault it also acknowledges each frame as soon as the
//! sidecar has it, as if the answer hold (R6) were removed from the ack. The programs themselves carry no fault:
//! what the judge must find is planted here.
//!
//! The wire is slow because an authority holds each revision for its own answers too (R7): on a fast wire that alone
//! is long enough to hide a sidecar that does not hold.

use anyhow::Context;
use consent::clock;
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::sync_service_server::{SyncService, SyncServiceServer};
use consent::pb::{Ack, Frames, SyncRequest, SyncResponse, sync_request, sync_response};
use consent_core::words::{Moment, Span};
use std::net::SocketAddr;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

/// How late each message arrives: far more than an authority's own hold.
const LATE: Span = Span::from_millis(150);

/// When frames are acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acks {
    /// When the sidecar says so.
    Honest,
    /// As soon as the sidecar has them.
    Early,
}

/// The slow wire.
#[derive(Debug)]
pub(crate) struct SlowWire {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl SlowWire {
    /// Listens on a port of the kernel's choice and leads to the authority at `upstream`, `host:port`.
    pub(crate) async fn start(upstream: &str, acks: Acks) -> anyhow::Result<SlowWire> {
        let (address, incoming) = consent::serve::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context("the slow wire does not listen")?;
        let session = Session { upstream: format!("http://{upstream}"), acks };
        let server = consent::serve::server().add_service(SyncServiceServer::new(session));
        let task = tokio::spawn(async move {
            if let Err(trouble) = server.serve_with_incoming(incoming).await {
                eprintln!("the slow wire ended: {trouble}");
            }
        });
        Ok(SlowWire { address, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

struct Session {
    upstream: String,
    acks: Acks,
}

type ToSidecar = mpsc::Sender<Result<SyncResponse, Status>>;

#[tonic::async_trait]
impl SyncService for Session {
    type SyncStream = ReceiverStream<Result<SyncResponse, Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let (to_authority, authority_hears) = mpsc::channel(64);
        let (on_the_way, arriving) = mpsc::channel(1024);
        let (to_sidecar, sidecar_hears) = mpsc::channel(64);
        let early = (self.acks == Acks::Early).then(|| to_authority.clone());
        tokio::spawn(up(request.into_inner(), to_authority));
        tokio::spawn(deliver(arriving, to_sidecar.clone(), early));
        let upstream = self.upstream.clone();
        // Apart from the answer: the authority may speak only once it has heard the hello.
        tokio::spawn(async move {
            if let Err(status) = down(upstream, authority_hears, on_the_way).await {
                // The sidecar may be gone as well.
                let _ = to_sidecar.send(Err(status)).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sidecar_hears)))
    }
}

async fn up(mut from_sidecar: Streaming<SyncRequest>, to_authority: mpsc::Sender<SyncRequest>) {
    while let Ok(Some(message)) = from_sidecar.message().await {
        if to_authority.send(message).await.is_err() {
            return;
        }
    }
}

async fn down(
    upstream: String,
    authority_hears: mpsc::Receiver<SyncRequest>,
    on_the_way: mpsc::Sender<(Moment, SyncResponse)>,
) -> Result<(), Status> {
    let mut client =
        SyncServiceClient::connect(upstream).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut from_authority = client.sync(ReceiverStream::new(authority_hears)).await?.into_inner();
    while let Some(message) = from_authority.message().await? {
        if on_the_way.send((clock::now().after(LATE), message)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn deliver(
    mut arriving: mpsc::Receiver<(Moment, SyncResponse)>,
    to_sidecar: ToSidecar,
    early: Option<mpsc::Sender<SyncRequest>>,
) {
    while let Some((due, message)) = arriving.recv().await {
        clock::sleep_until(due).await;
        let ack = early.as_ref().zip(ack_of(&message));
        if to_sidecar.send(Ok(message)).await.is_err() {
            return;
        }
        if let Some((to_authority, ack)) = ack
            && to_authority.send(ack).await.is_err()
        {
            return;
        }
    }
}

fn ack_of(message: &SyncResponse) -> Option<SyncRequest> {
    let Some(sync_response::Message::Frames(Frames { frames, .. })) = &message.message else { return None };
    let last = frames.last()?;
    let ack = Ack { revision: last.revision, chain: last.chain.clone() };
    Some(SyncRequest { message: Some(sync_request::Message::Ack(ack)) })
}
