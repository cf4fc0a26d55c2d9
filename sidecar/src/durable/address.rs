//! Where a node's Redis is: on the node, and nowhere else.
//!
//! Redis trusts whoever reaches it and speaks in plain text, so it is reached over a Unix socket or loopback.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use thiserror::Error;

/// The address of the Redis that keeps a node's durable copy: `unix:///path?db=0` or `redis://127.0.0.1:port`.
#[derive(Clone)]
pub struct RedisAddress(ConnectionInfo);

/// Why a text is no such address.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum BadAddress {
    /// It cannot be read. What was given is not repeated: it may carry a password.
    #[error("it is no address of a Redis; write unix:///PATH?db=0 or redis://127.0.0.1:PORT")]
    Malformed,
    /// It is elsewhere. Where is not repeated either: of a password with a slash the beginning reads as a host.
    #[error("a node's Redis is on the node: a Unix socket or a loopback address")]
    NotLocal,
}

impl FromStr for RedisAddress {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<RedisAddress, BadAddress> {
        let info = text.into_connection_info().map_err(|_| BadAddress::Malformed)?;
        match info.addr() {
            ConnectionAddr::Unix(path) if path.file_name().is_some() => Ok(RedisAddress(info)),
            ConnectionAddr::Tcp(host, _) if is_loopback(host) => Ok(RedisAddress(info)),
            ConnectionAddr::Tcp(..) | ConnectionAddr::TcpTls { .. } => Err(BadAddress::NotLocal),
            // Of another kind, or a socket without a name.
            ConnectionAddr::Unix(_) | _ => Err(BadAddress::Malformed),
        }
    }
}

impl RedisAddress {
    pub(super) fn info(&self) -> ConnectionInfo {
        self.0.clone()
    }
}

/// Without the password that it may carry.
impl fmt::Display for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.addr())
    }
}

impl fmt::Debug for RedisAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisAddress({self})")
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    host == "localhost" || address.is_ok_and(|address: IpAddr| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redis_of_the_node_is_taken() {
        for text in [
            "unix:///run/redis.sock",
            "unix:///run/redis.sock?db=3",
            "redis://127.0.0.1:6379",
            "redis://localhost:6379/2",
            "redis://[::1]:6379",
        ] {
            assert!(text.parse::<RedisAddress>().is_ok(), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_what_is_wrong_with_it() {
        let refused = |text: &str| text.parse::<RedisAddress>().map(|_| ()).expect_err(text);
        assert_eq!(refused("redis://10.0.0.1:6379"), BadAddress::NotLocal);
        assert_eq!(refused("redis://cache.example"), BadAddress::NotLocal);
        for text in ["", "unix://", "http://127.0.0.1", "/run/redis.sock", "unix:///run/redis.sock?db=x"] {
            assert_eq!(refused(text), BadAddress::Malformed, "{text}");
        }
    }

    #[test]
    fn no_password_is_shown() {
        let address: RedisAddress = "redis://someone:secret@127.0.0.1:6379".parse().unwrap();
        assert_eq!(address.to_string(), "127.0.0.1:6379");
        assert!(!format!("{address:?}").contains("secret"));
        for text in ["redis://secret/x@127.0.0.1", "redis://a:secret@10.0.0.1", "http://a:secret@127.0.0.1"] {
            let refused = text.parse::<RedisAddress>().expect_err(text);
            assert!(!format!("{refused} {refused:?}").contains("secret"), "{text}: {refused}");
        }
    }
}
