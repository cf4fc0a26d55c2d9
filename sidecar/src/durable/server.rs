//! The one connection to the node's Redis.
//!
//! A connection that met an error is never used again: a command that timed out may still run, and a reply that was
//! not waited for would be taken for the next one's. Whoever goes on after an error looks at what is there first.

use super::address::RedisAddress;
use super::layout::PLACE;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult};
use std::time::Duration;

/// A server that says nothing for so long hangs. One that is well replies to any command here in a fraction of a second,
/// but a node that starts may have one processor for all that starts on it, and to give a slow one up costs more: a
/// rewrite of the copy, or a snapshot.
const REPLY_WITHIN: Duration = Duration::from_secs(10);

/// Does the error say that a key is not what this program writes there, or a reply not what such a key gives? Trying
/// again would give the same for ever; writing anew mends it.
pub(super) fn is_about_the_key(error: &RedisError) -> bool {
    let refused = error.clone().into_server_errors();
    let is_of_another_type = refused.is_some_and(|all| all.iter().any(|(_, one)| one.code() == "WRONGTYPE"));
    is_of_another_type || error.kind() == ErrorKind::UnexpectedReturnType
}

/// What Redis said first, in one word, if it was Redis that refused something.
pub(super) fn refusal(error: &RedisError) -> Option<String> {
    let within = error.clone().into_server_errors();
    let first = within.as_deref().and_then(|all| all.first()).map(|(_, one)| one.code().to_owned());
    first.or_else(|| error.code().map(str::to_owned))
}

/// The node's Redis.
pub(super) struct Server {
    address: RedisAddress,
    reply_within: Duration,
    connection: Option<MultiplexedConnection>,
}

impl Server {
    /// Not connected yet.
    pub(super) fn new(address: RedisAddress) -> Server {
        Server::that_replies_within(REPLY_WITHIN, address)
    }

    /// The same, and it hangs if it says nothing for so long.
    pub(super) fn that_replies_within(reply_within: Duration, address: RedisAddress) -> Server {
        Server { address, reply_within, connection: None }
    }

    /// Connects, if it is not connected; says whether it was not.
    pub(super) async fn connect(&mut self) -> RedisResult<bool> {
        if self.connection.is_some() {
            return Ok(false);
        }
        let config = AsyncConnectionConfig::new()
            // It covers what is said over the socket first, too.
            .set_connection_timeout(Some(self.reply_within))
            .set_response_timeout(Some(self.reply_within));
        let client = Client::open(self.address.info())?;
        let mut connection = client.get_multiplexed_async_connection_with_config(&config).await?;
        // Whoever is not let in hears it now: the client's own task panics over a transaction that is refused from its
        // first word on. No value, of whatever type or size, makes this one an error.
        redis::cmd("EXISTS").arg(PLACE).exec_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(true)
    }

    /// Is it, as far as is known?
    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Runs the commands and gives their replies. After an error it is no longer connected.
    pub(super) async fn run<T: FromRedisValue>(&mut self, commands: &Pipeline) -> RedisResult<T> {
        self.connect().await?;
        let Some(connection) = self.connection.as_mut() else {
            return Err(std::io::Error::from(std::io::ErrorKind::NotConnected).into());
        };
        let replies = commands.query_async(connection).await;
        if replies.is_err() {
            self.connection = None;
        }
        replies
    }
}
