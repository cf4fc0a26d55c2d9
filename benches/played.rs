//! Sidecars that are played: a connection and a stream of their own, a true hello, and no table behind it.

use anyhow::{Context, bail};
use consent::convert::sync::{FromAuthority, from_authority, sync_request};
use consent::pb::sync_service_client::SyncServiceClient;
use consent::pb::{SyncRequest, SyncResponse};
use consent::status::status;
use consent_core::confirm::{Place, ToAuthority};
use consent_core::head::SEMANTICS;
use consent_core::words::Incarnation;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Status, Streaming};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(50);

/// A stream that lasts as long as the sender that it comes with.
pub(crate) type Stream = (mpsc::Sender<SyncRequest>, Streaming<SyncResponse>);

/// Where the ledger stands, as one learns it who takes a snapshot of it.
pub(crate) async fn place(url: &str) -> anyhow::Result<Place> {
    // A replica that has no lease of its own yet lets nobody in.
    let admitted = async {
        loop {
            match snapshot(url).await {
                Err(refused) if is_busy(&refused) => tokio::time::sleep(LOOK).await,
                done => return done,
            }
        }
    };
    tokio::time::timeout(PATIENCE, admitted).await.context("the authority lets nobody in")?
}

/// Says hello over a connection of its own. What is answered is still to be read.
pub(crate) async fn hello(url: &str, place: Option<Place>) -> anyhow::Result<Stream> {
    let channel = Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).connect().await?;
    let (say, said) = mpsc::channel(1);
    let incarnation = Incarnation::new(*Uuid::new_v4().as_bytes());
    say.send(sync_request(ToAuthority::Hello { incarnation, place, semantics: SEMANTICS })).await?;
    Ok((say, SyncServiceClient::new(channel).sync(ReceiverStream::new(said)).await?.into_inner()))
}

/// The next thing that an authority says.
pub(crate) async fn next(stream: &mut Streaming<SyncResponse>) -> anyhow::Result<FromAuthority> {
    let said = stream.message().await?.context("the authority has ended the stream")?;
    Ok(from_authority(said).map_err(status)?)
}

async fn snapshot(url: &str) -> anyhow::Result<Place> {
    let (_say, mut stream) = hello(url, None).await?;
    while let Some(response) = stream.message().await? {
        if let FromAuthority::SnapshotEnd { place, .. } = from_authority(response).map_err(status)? {
            return Ok(place);
        }
    }
    bail!("a snapshot without an end")
}

fn is_busy(refused: &anyhow::Error) -> bool {
    refused.downcast_ref::<Status>().is_some_and(|status| status.code() == Code::ResourceExhausted)
}
