//! Reading from the node's Redis, and never more of it than a copy could have: it may hold anything, of any size.

use super::layout::{LOG, MARKER_LEN, PLACE, Written, bucket_key};
use super::server::Server;
use redis::RedisResult;

/// The marker, whatever it is; none if there is none. Of a longer value it is the beginning, which is no marker.
pub(super) async fn marker(server: &mut Server) -> RedisResult<Option<Written>> {
    let (bytes,): (Vec<u8>,) = server.run(redis::pipe().getrange(PLACE, 0, position(MARKER_LEN))).await?;
    Ok((!bytes.is_empty()).then(|| Written::new(bytes)))
}

/// These buckets; empty where there is none. Of one that is longer than `max` bytes it is the first `max` and one.
pub(super) async fn buckets(
    server: &mut Server,
    numbers: impl IntoIterator<Item = u32>,
    max: usize,
) -> RedisResult<Vec<Vec<u8>>> {
    let mut commands = redis::pipe();
    for number in numbers {
        commands.getrange(bucket_key(number), 0, position(max));
    }
    // To run nothing is an error.
    if commands.is_empty() { Ok(Vec::new()) } else { server.run(&commands).await }
}

/// How many batches the log has, and how many bytes they take in Redis.
pub(super) async fn log_size(server: &mut Server) -> RedisResult<(u64, u64)> {
    let mut commands = redis::pipe();
    // Of all its entries: by default the server guesses from a few. In no transaction: one that only reads is refused
    // all the same by a server that is out of memory.
    commands.llen(LOG).cmd("MEMORY").arg("USAGE").arg(LOG).arg("SAMPLES").arg(0);
    let (batches, bytes): (u64, Option<u64>) = server.run(&commands).await?;
    Ok((batches, bytes.unwrap_or(0)))
}

/// So many batches of the log, from this one on.
pub(super) async fn log(server: &mut Server, from: u64, count: u64) -> RedisResult<Vec<Vec<u8>>> {
    let last = usize::try_from(from + count - 1).unwrap_or(usize::MAX);
    let range =
        redis::Cmd::lrange(LOG, position(usize::try_from(from).unwrap_or(usize::MAX)), position(last));
    let (values,): (Vec<Vec<u8>>,) = server.run(redis::pipe().add_command(range)).await?;
    Ok(values)
}

fn position(number: usize) -> isize {
    isize::try_from(number).unwrap_or(isize::MAX)
}
