//! A Redis that is slow, one that stops, and one that never ends: which of them a proof waits for.

use super::{LOG_MAX, SECRET, Stage};
use crate::durable::server::Server;
use crate::durable::unproven::{Proven, Unproven, Wrong};
use crate::durable::{BACKLOG_BYTES_MAX, RedisAddress};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::task::AbortOnDropHandle;

/// So long each piece of a reply takes; a copy comes in 32 pieces and some.
const SLOW: Duration = Duration::from_millis(50);
/// Far longer than one piece takes, and shorter than all of them.
const REPLY_WITHIN: Duration = Duration::from_secs(1);
/// Longer than anything here.
const LONG: Duration = Duration::from_secs(60);

/// A way to the Redis on which every piece of a reply takes long.
struct SlowWay {
    directory: tempfile::TempDir,
    _task: AbortOnDropHandle<()>,
}

impl SlowWay {
    fn to(redis: PathBuf) -> SlowWay {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("slow.sock")).unwrap();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = UnixStream::connect(&redis).await.unwrap();
                tokio::spawn(carry(client, server));
            }
        });
        SlowWay { directory, _task: AbortOnDropHandle::new(task) }
    }

    fn address(&self) -> RedisAddress {
        let socket = self.directory.path().join("slow.sock");
        format!("unix://{}", socket.display()).parse().unwrap()
    }
}

async fn carry(client: UnixStream, server: UnixStream) {
    let ((mut asks, mut hears), (mut replies, mut takes)) = (client.into_split(), server.into_split());
    let down = async {
        let mut piece = vec![0; 1 << 20];
        while let Ok(bytes) = replies.read(&mut piece).await
            && bytes > 0
        {
            tokio::time::sleep(SLOW).await;
            if hears.write_all(&piece[..bytes]).await.is_err() {
                return;
            }
        }
    };
    // Either end ends the other.
    tokio::select! {
        _ = tokio::io::copy(&mut asks, &mut takes) => (),
        () = down => (),
    }
}

/// A copy of forty accounts, which nobody writes to any more, and a slow way to it.
async fn set() -> (Stage, SlowWay) {
    let mut stage = Stage::set(40, LOG_MAX, BACKLOG_BYTES_MAX);
    stage.kept().await;
    stage.change(super::account(1));
    stage.kept().await;
    stage.writer.abort();
    let url = stage.redis.url();
    let way = SlowWay::to(PathBuf::from(url.trim_start_matches("unix://")));
    (stage, way)
}

async fn prove(address: RedisAddress, reply_within: Duration, within: Duration) -> Result<Proven, Wrong> {
    let mut server = Server::that_replies_within(reply_within, address);
    let found = Unproven::find(&mut server).await?.ok_or(Wrong::Layout)?;
    found.prove_within(within, server, SECRET).await
}

#[tokio::test]
async fn one_that_goes_on_is_waited_for_longer_than_for_any_reply() {
    let (stage, way) = set().await;
    let proven = prove(way.address(), REPLY_WITHIN, LONG).await.unwrap();
    assert_eq!(proven.place, stage.place);
    let cut_short = prove(way.address(), LONG, REPLY_WITHIN).await;
    assert!(matches!(cut_short, Err(Wrong::Slow)), "all of it takes no longer than one reply may");
}

#[tokio::test]
async fn one_that_stops_is_given_up_however_long_all_of_it_may_take() {
    let (stage, _way) = set().await;
    let mut server = Server::new(stage.redis.url().parse().unwrap());
    let found = Unproven::find(&mut server).await.unwrap().expect("a copy");
    let server = Server::that_replies_within(SLOW, stage.redis.url().parse().unwrap());
    stage.redis.pause().unwrap();
    let outcome = found.prove_within(LONG, server, SECRET).await;
    assert!(matches!(outcome, Err(Wrong::Redis(error)) if error.is_timeout()));
}
