//! The mirror: a node's heads and its lease, kept up to date by a thread of its own, and answers from them.
//!
//! It is all of a sidecar but its sockets, which are put on top of it: one decision, one table, one lease, whoever asks.
//! A Rust process that wants its answers without a socket starts one by itself.

use crate::StartError;
use crate::decision::Basis;
use crate::durable::{self, Durable, RedisAddress};
use crate::metrics::SidecarPage;
use crate::node::Node;
use crate::sync::{Authority, Driver};
use crate::thread::{self, Ended};
use consent::clock;
use consent::convert::decision::Asked;
pub use consent::convert::decision::BadQuestion;
use consent::metrics::Port;
use consent_core::confirm::Validity;
pub use consent_core::confirm::holder::State;
use consent_core::decision::Decision;
use consent_core::words::{Incarnation, Moment, Position, Timestamp};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a stop may take to give the lease back: far longer than any hold. An authority waits for the end of a lease
/// that is not given back.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// What a mirror is started with.
#[derive(Debug, Clone)]
pub struct MirrorConfig {
    /// Authorities to sync from, `http://host:port`. At least one; they are tried in turn.
    pub authorities: Vec<String>,
    /// The node's Redis, for a durable copy of the table; `None`: from memory alone. No two mirrors share a database.
    pub redis: Option<RedisAddress>,
    /// Where to show metrics: loopback only. Port 0 takes any free one; `None`: nowhere.
    pub metrics: Option<SocketAddr>,
}

impl MirrorConfig {
    /// A mirror of these authorities, from memory alone.
    pub fn new(authorities: Vec<String>) -> MirrorConfig {
        MirrorConfig { authorities, redis: None, metrics: None }
    }
}

/// A mirror in this process. Share it: asking needs no lock, and no runtime.
///
/// ```no_run
/// use consent_core::words::Timestamp;
/// use consent_sidecar::{Artifact, Mirror, MirrorConfig};
///
/// # async fn filter(prompts: Vec<(String, String, i64)>) -> Result<(), Box<dyn std::error::Error>> {
/// let mirror = Mirror::start(MirrorConfig::new(vec!["http://127.0.0.1:7401".to_owned()]))?;
/// mirror.ready().await;
/// for (account, id, millis) in prompts {
///     let artifact = Artifact {
///         id: &id,
///         product: "le_chat",
///         kind: "input",
///         collected_at: Some(Timestamp::from_millis(millis)),
///         is_incognito: false,
///     };
///     let answer = mirror.can_train(&account, &artifact)?;
///     // Right before the data is used, and not earlier.
///     if answer.permits() {
///         println!("{id} is kept: {}", answer.decision.reason);
///     }
/// }
/// mirror.stop().await;
/// # Ok(())
/// # }
/// ```
///
/// Dropped without [`Mirror::stop`] it gives its lease back all the same, as long as its process lasts.
#[derive(Debug)]
pub struct Mirror {
    node: Arc<Node>,
    metrics: Option<SocketAddr>,
    /// The end of the sync thread, by itself or because it was told to.
    synced: Ended,
    _leave: DropGuard,
}

/// One piece of data, as it is asked about. Nothing of it is copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Artifact<'a> {
    /// Its id: 1 to 128 bytes.
    pub id: &'a str,
    /// The product in which it arose, by the policy's name: `le_chat`.
    pub product: &'a str,
    /// What it is, by the policy's name: `input`.
    pub kind: &'a str,
    /// When it was collected; `None` denies.
    pub collected_at: Option<Timestamp>,
    /// Was it collected in an incognito session?
    pub is_incognito: bool,
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "only an ALLOW that is not over permits anything"]
pub struct Answer {
    /// What was decided, why, and whether waiting cannot change a DENY. An ALLOW is over soon: see
    /// [`Answer::permits`].
    pub decision: Decision,
    /// The state that it was decided from; none where there is none (NOT_READY).
    pub position: Option<Position>,
    validity: Option<Validity>,
}

impl Answer {
    /// May the data be used now? Reads the clocks (R11): ask right before it is used, and ask the mirror again once this
    /// says no.
    pub fn permits(&self) -> bool {
        self.decision.is_allow() && self.validity.is_some_and(|validity| validity.holds(clock::now()))
    }

    /// When an ALLOW is over: as soon as one of the two clocks says so. `None` for a DENY.
    pub fn valid_until(&self) -> Option<Moment> {
        self.validity.filter(|_| self.decision.is_allow()).map(|validity| validity.until())
    }
}

/// Where a mirror stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Only [`State::Live`] allows.
    pub state: State,
    /// Why it is not LIVE, in a sentence; empty if it is.
    pub why: String,
    /// The authority that it follows; empty if it is connected to none.
    pub authority: String,
    /// Where its table stands; none while there is none.
    pub position: Option<Position>,
    /// How many accounts it mirrors.
    pub accounts: u64,
}

impl Mirror {
    /// Starts one. It denies until it is LIVE.
    pub fn start(config: MirrorConfig) -> Result<Mirror, StartError> {
        Ok(Prepared::new(config)?.begin()?)
    }

    /// May this artifact of this account be used to train models? Decides now, from memory, and neither allocates nor
    /// waits.
    pub fn can_train(&self, account: &str, artifact: &Artifact<'_>) -> Result<Answer, BadQuestion> {
        let Artifact { id, product, kind, collected_at, is_incognito } = *artifact;
        let asked = Asked::new(account, id, product, kind, collected_at, is_incognito)?;
        let mut decision = [Decision::NOT_READY];
        let Basis { position, validity } = self.node.decide(None, &[asked][..], &mut decision);
        let [decision] = decision;
        Ok(Answer { decision, position, validity })
    }

    /// May it allow at this moment?
    pub fn is_ready(&self) -> bool {
        self.node.is_ready(clock::now())
    }

    /// Waits until it may, for however long that takes, or until it has stopped.
    pub async fn ready(&self) {
        let mut standing = self.node.standing.subscribe();
        while !self.is_ready() {
            tokio::select! {
                () = self.node.leaving.cancelled() => return,
                changed = standing.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Where it stands.
    pub fn status(&self) -> Status {
        let (standing, _) = self.node.standing_at(clock::now());
        let view = self.node.table.read();
        let (position, accounts) = match view.state() {
            Some(state) => (Some(state.position()), state.accounts()),
            None => (None, 0),
        };
        Status { state: standing.state, why: standing.why, authority: standing.authority, position, accounts }
    }

    /// Where it shows its metrics, if anywhere.
    pub fn metrics(&self) -> Option<SocketAddr> {
        self.metrics
    }

    /// Resolves if its thread ends by itself, and when it has stopped. It denies then: start another, or end the process.
    pub async fn ended(&self) {
        self.synced.wait().await;
    }

    /// Ends it cleanly (R12): the lease is dropped, and from then on it denies; when no answer from before is valid the
    /// lease is given back. Needs a tokio runtime with time, which bounds it.
    pub async fn stop(&self) {
        self.node.leaving.cancel();
        if tokio::time::timeout(LEAVE_WITHIN, self.synced.wait()).await.is_err() {
            tracing::warn!("the lease was not given back in time");
        }
    }
}

/// A mirror that has yet to begin: whatever can be wrong with what it is started with has been found, and nothing
/// outside this process has noticed.
pub(crate) struct Prepared {
    pub(crate) node: Arc<Node>,
    authorities: Vec<Authority>,
    redis: Option<RedisAddress>,
    metrics: Option<Port>,
}

impl Prepared {
    pub(crate) fn new(config: MirrorConfig) -> Result<Prepared, StartError> {
        let MirrorConfig { authorities, redis, metrics } = config;
        if authorities.is_empty() {
            return Err(StartError::NoAuthority);
        }
        let authority = |url: &String| {
            Authority::new(url).map_err(|source| StartError::BadAuthority { url: url.clone(), source })
        };
        let authorities = authorities.iter().map(authority).collect::<Result<Vec<_>, _>>()?;
        let mut incarnation = [0; 16];
        getrandom::fill(&mut incarnation).map_err(|error| io::Error::other(error.to_string()))?;
        let node = Arc::new(Node::new(Incarnation::new(incarnation)));
        let metrics = metrics.map(bind_metrics).transpose()?;
        Ok(Prepared { node, authorities, redis, metrics })
    }

    /// Where it will show its metrics, if anywhere.
    pub(crate) fn metrics(&self) -> Option<SocketAddr> {
        self.metrics.as_ref().map(Port::address)
    }

    pub(crate) fn begin(self) -> io::Result<Mirror> {
        let metrics = self.metrics();
        let (node, leave) = (Arc::clone(&self.node), self.node.leaving.clone().drop_guard());
        Ok(Mirror { synced: self.start_sync()?, node, metrics, _leave: leave })
    }

    /// Applying a snapshot must not delay an answer: sync has a thread and a runtime of its own, and Redis and metrics
    /// with it.
    fn start_sync(self) -> io::Result<Ended> {
        let Prepared { node, authorities, redis, metrics } = self;
        thread::start("consent-sync".to_owned(), move || async move {
            let _stands_down = StandsDown(Arc::clone(&node));
            let (durable, writer) = redis.map(|address| durable::open(address, Arc::clone(&node))).unzip();
            if let Some(port) = metrics {
                let page = SidecarPage::new(Arc::clone(&node), durable.as_ref().map(Durable::waiting));
                tokio::spawn(show(port, page));
            }
            let leave = node.leaving.clone();
            let drive = Driver::new(node, authorities, durable).run(leave);
            match writer {
                None => drive.await,
                Some(writer) => tokio::select! {
                    () = drive => (),
                    () = writer.run() => (),
                },
            }
        })
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared(..)")
    }
}

fn bind_metrics(address: SocketAddr) -> Result<Port, StartError> {
    if !address.ip().is_loopback() {
        return Err(StartError::NotLoopback(address));
    }
    Port::bind(address).map_err(|source| StartError::Listen { at: address.to_string(), source })
}

/// Without the one who writes to it, a node allows nothing, and says that it is not ready: at once, and not only when
/// its lease is over.
struct StandsDown(Arc<Node>);

impl Drop for StandsDown {
    fn drop(&mut self) {
        self.0.publish(None);
        self.0.leaving.cancel();
    }
}

/// Shows the page for as long as the runtime lasts. A sidecar without it answers all the same.
async fn show(port: Port, page: SidecarPage) {
    if let Err(error) = port.serve(page, CancellationToken::new()).await {
        tracing::error!(%error, "metrics are not shown any more");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::confirm::Lease;
    use consent_core::words::{Epoch, Span};

    #[tokio::test]
    async fn a_node_whose_sync_has_panicked_has_no_lease_and_leaves() {
        let node = Arc::new(Node::new(Incarnation::new([2; 16])));
        let until = clock::now().after(Span::from_millis(3_600_000));
        node.publish(Some(Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(50) }));
        let of_thread = Arc::clone(&node);
        let synced = thread::start("consent-sync".to_owned(), move || async move {
            let _stands_down = StandsDown(of_thread);
            panic!("a planted fault")
        });
        synced.unwrap().wait().await;
        assert!(node.lease().is_none() && node.leaving.is_cancelled());
    }

    #[test]
    fn an_answer_permits_until_it_is_over_and_a_deny_never() {
        let now = clock::now();
        let answer = |reason, until| {
            let lease = Lease { epoch: Epoch::new([1; 16]), until, hold: Span::from_millis(3_600_000) };
            Answer { decision: Decision { reason, is_final: false }, position: None, validity: lease.at(now) }
        };
        let (later, soon) = (now.after(Span::from_millis(3_600_000)), now.after(Span::from_nanos(1)));
        let allow = consent_core::decision::Reason::PlanDefaultIn;
        assert!(answer(allow, later).permits());
        assert_eq!(answer(allow, later).valid_until(), Some(later));
        while clock::now().shortest_since(soon) == Span::ZERO {}
        assert!(!answer(allow, soon).permits());
        let deny = answer(consent_core::decision::Reason::AccountOptedOut, later);
        assert!(!deny.permits() && deny.valid_until().is_none());
    }
}
