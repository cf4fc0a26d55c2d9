//! One connection to an authority: a task that carries messages and decides nothing.
//!
//! Both of its queues are bounded: a driver that falls behind slows the authority down through the stream's own
//! flow control, and an authority that takes nothing any more is a connection that is over.

use consent::convert::sync::{FromAuthority, from_authority, why_unwelcome};
use consent::pb;
use consent::pb::sync_service_client::SyncServiceClient;
use consent::status::status;
use consent_core::confirm::{Stream, Unwelcome};
use consent_core::words::Span;
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tonic::transport::Endpoint;

/// So many messages may wait to be sent; there are a few for each keepalive interval.
const OUTBOX: usize = 64;
/// How long a connection that was closed here may take to send what was said last: a relinquish.
const LINGER: Duration = Duration::from_secs(1);
/// The largest message that is taken from an authority, in bytes: a page of a snapshot, or the policy, is smaller.
const MESSAGE_LEN_MAX: usize = 16 << 20;
/// How much may be on its way from an authority at once, in bytes: memory beside the table that is built. So much lets
/// through 125 MB a second where an authority is a millisecond away, and 2 MB where it is sixty.
const WINDOW: u32 = 128 << 10;

/// What a connection tells its driver.
pub(super) enum Event {
    /// It stands, and takes messages.
    Connected {
        /// It.
        stream: Stream,
        /// Where to put them. Dropping it ends what this side says.
        outbox: mpsc::Sender<pb::SyncRequest>,
    },
    /// The authority said something.
    Heard {
        /// The connection.
        stream: Stream,
        /// What.
        message: FromAuthority,
    },
    /// It is over. Nothing follows.
    Ended {
        /// It.
        stream: Stream,
        /// Why.
        end: End,
    },
}

/// Why a connection is over, if this side did not close it.
pub(super) enum End {
    /// The hello was not accepted.
    Unwelcome(Unwelcome),
    /// The authority said what cannot be read.
    Unreadable(String),
    /// Anything else; the sentence goes to the log.
    Broken(String),
}

/// Makes a connection's endpoint. A peer that answers nothing is noticed after some seconds; the lease, which does
/// not wait for that, is shorter.
pub(super) fn endpoint(url: &str) -> Result<Endpoint, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(Duration::from_secs(2))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(3))
        .keep_alive_while_idle(true)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW))
}

/// Runs a connection in a task of its own, and tells its driver of its end, whatever that is: of one that ended
/// untold, by a panic, the driver would think for ever that it stands.
pub(super) async fn watch(
    stream: Stream,
    events: mpsc::Sender<Event>,
    connection: impl Future<Output = Option<End>> + Send + 'static,
) {
    let end = tokio::spawn(connection).await;
    if let Some(end) = end.unwrap_or_else(|_| Some(End::Broken("its task failed".to_owned()))) {
        // A driver that is gone needs no word.
        let _ = events.send(Event::Ended { stream, end }).await;
    }
}

/// Connects after `delay` and carries messages until either side is done. `closed` is how the driver ends it: then
/// there is nothing to tell.
pub(super) async fn run(
    stream: Stream,
    endpoint: Endpoint,
    delay: Span,
    events: mpsc::Sender<Event>,
    closed: CancellationToken,
) -> Option<End> {
    let opened = async {
        tokio::time::sleep(delay.into()).await;
        open(stream, &endpoint, &events).await
    };
    let opened = tokio::select! {
        () = closed.cancelled() => return None,
        opened = opened => opened,
    };
    let mut messages = match opened {
        Err(end) => return Some(end),
        Ok(messages) => messages,
    };
    tokio::select! {
        end = carry(stream, &mut messages, &events) => Some(end),
        () = closed.cancelled() => {
            // The driver listens no more; the authority still gets what was said last.
            let rest = async { while let Ok(Some(_)) = messages.message().await {} };
            let _ = tokio::time::timeout(LINGER, rest).await;
            None
        }
    }
}

async fn open(
    stream: Stream,
    endpoint: &Endpoint,
    events: &mpsc::Sender<Event>,
) -> Result<Streaming<pb::SyncResponse>, End> {
    let channel = endpoint.connect().await.map_err(|error| End::Broken(sentence(&error)))?;
    let (outbox, requests) = mpsc::channel(OUTBOX);
    // Before the call: an authority may read the hello before it answers at all.
    let driver_gone = |_| End::Broken("the driver stopped".to_owned());
    events.send(Event::Connected { stream, outbox }).await.map_err(driver_gone)?;
    let mut client = SyncServiceClient::new(channel).max_decoding_message_size(MESSAGE_LEN_MAX);
    let response = client.sync(ReceiverStream::new(requests)).await.map_err(|ended| end(&ended))?;
    Ok(response.into_inner())
}

async fn carry(
    stream: Stream,
    messages: &mut Streaming<pb::SyncResponse>,
    events: &mpsc::Sender<Event>,
) -> End {
    loop {
        let message = match messages.message().await {
            Ok(Some(message)) => message,
            Ok(None) => return End::Broken("the authority ended the stream".to_owned()),
            Err(ended) => return end(&ended),
        };
        match from_authority(message) {
            Ok(message) => {
                if events.send(Event::Heard { stream, message }).await.is_err() {
                    return End::Broken("the driver stopped".to_owned());
                }
            }
            Err(refusal) => return End::Unreadable(status(refusal).message().to_owned()),
        }
    }
}

fn end(ended: &tonic::Status) -> End {
    match why_unwelcome(ended) {
        Some(why) => End::Unwelcome(why),
        None => End::Broken(format!("{}: {}", ended.code(), ended.message())),
    }
}

/// An error with its causes: tonic's own says only "transport error".
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |sentence, cause| format!("{sentence}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_driver_hears_of_every_end_that_it_did_not_order() {
        let (events, mut inbox) = mpsc::channel(2);
        let ends: [fn() -> Option<End>; 3] =
            [|| None, || Some(End::Broken("broken".to_owned())), || panic!("a planted fault")];
        for (number, end) in (0..).zip(ends) {
            watch(Stream(number), events.clone(), async move { end() }).await;
        }
        drop(events);
        let mut told = Vec::new();
        while let Some(Event::Ended { stream, end: End::Broken(_) }) = inbox.recv().await {
            told.push(stream);
        }
        assert_eq!(told, [Stream(1), Stream(2)]);
    }
}
