//! A wire that knows what it carries: a SyncService of its own between a sidecar and its authority, on which each
//! message can be heard, delayed, changed or kept back.
//!
//! The programs themselves carry no fault: what a judge must find is planted here. For a wire that is only cut there is
//! the relay, which carries bytes.

use anyhow::Context;
use consent::clock;
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::sync_service_server::{SyncService, SyncServiceServer};
use consent::pb::{SyncRequest, SyncResponse};
use consent_core::words::{Moment, Span};
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Request, Response, Status, Streaming};

/// What happens to the messages of one session. Nothing, unless it says so.
pub(crate) trait Passage: Send + Sync + 'static {
    /// How late each message of the authority arrives.
    const LATE: Span = Span::ZERO;

    /// The sidecar says this.
    fn up(&self, _said: &SyncRequest) {}

    /// The authority says this: what of it the sidecar is to hear.
    fn down(&self, said: SyncResponse) -> Option<SyncResponse> {
        Some(said)
    }

    /// The sidecar has this: what the authority hears of it, in the sidecar's name.
    fn arrived(&self, _said: &SyncResponse) -> Option<SyncRequest> {
        None
    }
}

/// The wire.
#[derive(Debug)]
pub(crate) struct Carrier {
    address: SocketAddr,
    _task: AbortOnDropHandle<()>,
}

impl Carrier {
    /// Listens on a port of the kernel's choice and leads to the authority at `upstream`, `host:port`. Each session has a
    /// passage of its own.
    pub(crate) async fn start<P: Passage>(
        upstream: &str,
        passage: impl Fn() -> P + Send + Sync + 'static,
    ) -> anyhow::Result<Carrier> {
        let (address, incoming) = consent::serve::listen_tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .context("the wire does not listen")?;
        let sessions = Sessions { upstream: format!("http://{upstream}"), passage };
        let server = consent::serve::server().add_service(SyncServiceServer::new(sessions));
        let task = tokio::spawn(async move {
            if let Err(trouble) = server.serve_with_incoming(incoming).await {
                eprintln!("the wire ended: {trouble}");
            }
        });
        Ok(Carrier { address, _task: AbortOnDropHandle::new(task) })
    }

    /// Where it listens.
    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }
}

/// What an authority says, its last word included: on the way nothing overtakes anything.
type Said = Result<SyncResponse, Status>;

struct Sessions<F> {
    upstream: String,
    passage: F,
}

#[tonic::async_trait]
impl<P: Passage, F: Fn() -> P + Send + Sync + 'static> SyncService for Sessions<F> {
    type SyncStream = ReceiverStream<Said>;

    async fn sync(
        &self,
        request: Request<Streaming<SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, Status> {
        let passage = Arc::new((self.passage)());
        let (to_authority, authority_hears) = mpsc::channel(64);
        // On a wire that is not slow nothing gathers.
        let (on_the_way, arriving) = mpsc::channel(if P::LATE == Span::ZERO { 1 } else { 1024 });
        let (to_sidecar, sidecar_hears) = mpsc::channel(64);
        // A sidecar that has said all is heard to the end: nothing here keeps its side open.
        let in_its_name = to_authority.downgrade();
        tokio::spawn(up(request.into_inner(), to_authority, Arc::clone(&passage)));
        tokio::spawn(deliver(arriving, to_sidecar, in_its_name, Arc::clone(&passage)));
        let upstream = self.upstream.clone();
        // Apart from the answer: the authority may speak only once it has heard the hello.
        tokio::spawn(async move {
            if let Err(status) = down(upstream, authority_hears, &on_the_way, passage).await {
                // The sidecar may be gone as well.
                let _ = on_the_way.send((clock::now().after(P::LATE), Err(status))).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(sidecar_hears)))
    }
}

async fn up<P: Passage>(
    mut from_sidecar: Streaming<SyncRequest>,
    to_authority: mpsc::Sender<SyncRequest>,
    passage: Arc<P>,
) {
    while let Ok(Some(said)) = from_sidecar.message().await {
        passage.up(&said);
        if to_authority.send(said).await.is_err() {
            return;
        }
    }
}

async fn down<P: Passage>(
    upstream: String,
    authority_hears: mpsc::Receiver<SyncRequest>,
    on_the_way: &mpsc::Sender<(Moment, Said)>,
    passage: Arc<P>,
) -> Result<(), Status> {
    let mut client =
        SyncServiceClient::connect(upstream).await.map_err(|e| Status::unavailable(e.to_string()))?;
    let mut from_authority = client.sync(ReceiverStream::new(authority_hears)).await?.into_inner();
    while let Some(said) = from_authority.message().await? {
        if let Some(said) = passage.down(said)
            && on_the_way.send((clock::now().after(P::LATE), Ok(said))).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

async fn deliver<P: Passage>(
    mut arriving: mpsc::Receiver<(Moment, Said)>,
    to_sidecar: mpsc::Sender<Said>,
    in_its_name: mpsc::WeakSender<SyncRequest>,
    passage: Arc<P>,
) {
    while let Some((due, said)) = arriving.recv().await {
        clock::sleep_until(due).await;
        let answer = said.as_ref().ok().and_then(|said| passage.arrived(said));
        if to_sidecar.send(said).await.is_err() {
            return;
        }
        if let Some(answer) = answer
            && let Some(to_authority) = in_its_name.upgrade()
            && to_authority.send(answer).await.is_err()
        {
            return;
        }
    }
}
