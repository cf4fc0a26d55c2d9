//! What the authority asks of a store: three narrow roles over one set of tables, and the promise of each.
//!
//! - [`Writer`]: the lane's own connection. It locks the one head row first, so revisions are dense and in commit
//!   order (R1), and everything that the lane decides from is read under that lock.
//! - [`Reader`]: committed state only, always of the primary.
//! - [`Leases`]: the rows of `authority_lease` (R2, R3, R7b, R8, R9).
//!
//! Every statement compares the live server identity with the stored one in its own snapshot; where they differ
//! it does nothing and gives [`StoreError::Foreign`], and its caller mints an epoch. SQL stands in this folder and
//! nowhere else; a store knows bytes, keys and numbers, and decides nothing. Both stores pass one and the same
//! conformance suite (`services/authority/tests/store`).

pub mod postgres;
pub mod sqlite;

mod lease_rows;
mod measured;
mod reads;
mod rows;
mod schema;

pub(crate) use measured::{Measured, Seen};
pub use postgres::PostgresStore;
pub use schema::Migrated;
pub use sqlite::SqliteStore;

use consent_core::chain::{Chain, Link};
use consent_core::confirm::Place;
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::ledger::HeadRecord;
use consent_core::words::{Epoch, IdKey, Incarnation, OrganizationKey, Revision, Subject, Timestamp};
use std::future::Future;
use thiserror::Error;
use uuid::Uuid;

/// The one row that serialises all writes: where the ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerHead {
    /// The incarnation of the ledger.
    pub epoch: Epoch,
    /// The epoch under which may be confirmed; R9.
    pub settled_epoch: Option<Epoch>,
    /// The newest revision.
    pub revision: Revision,
    /// The chain at it.
    pub chain: Chain,
    /// The digest of all heads at it.
    pub digest: Digest,
    /// When it was recorded. It never falls.
    pub recorded_at: Timestamp,
    /// The secret under which ids are hashed.
    pub id_key: IdKey,
}

impl LedgerHead {
    /// Where the ledger stands, with its proof.
    pub const fn place(&self) -> Place {
        Place { epoch: self.epoch, revision: self.revision, chain: self.chain, digest: self.digest }
    }
}

/// How a write is named: a retry under the same name is no second write.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RequestName {
    /// Who calls, by its authenticated name.
    pub caller: String,
    /// The caller's name for the write.
    pub request_id: Uuid,
}

/// What is remembered of a write, as long as its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestRecord {
    /// Its name.
    pub name: RequestName,
    /// A hash of its payload: another payload under the same name is refused.
    pub payload_hash: [u8; 32],
    /// The revision that its receipt named. For a write that changed nothing: where the party already stood.
    pub revision: Revision,
    /// The chain at that revision.
    pub chain: Chain,
    /// When that revision was recorded.
    pub recorded_at: Timestamp,
    /// Whether it appended events.
    pub changed: bool,
}

/// Whose heads, subjects and requests a batch decides from.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// The heads. The policy's, and that of the organization of each account named here, come along unasked.
    pub heads: Vec<HeadKey>,
    /// The requests that may have been made before.
    pub requests: Vec<RequestName>,
}

/// What was read under the lock.
#[derive(Debug, Clone)]
pub struct Locked {
    /// Where the ledger stands.
    pub head: LedgerHead,
    /// The store's clock now: `recorded_at` of the batch is the later of this and the head's.
    pub now: Timestamp,
    /// The heads that exist.
    pub heads: Vec<LockedHead>,
    /// The requests that were made before.
    pub requests: Vec<RequestRecord>,
}

impl Locked {
    /// When the batch is recorded: the store's clock, and never before the event before it.
    pub fn recorded_at(&self) -> Timestamp {
        self.now.max(self.head.recorded_at)
    }
}

/// A head under the lock, with what the receipt of a write that changes nothing says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedHead {
    /// The head.
    pub record: HeadRecord,
    /// The subject that events use for it; none for the policy.
    pub subject: Option<Subject>,
    /// The last event that touched it: the row of the ledger with the head's own `rev`.
    pub revision: Revision,
    /// The chain at that revision.
    pub chain: Chain,
    /// When it was recorded.
    pub recorded_at: Timestamp,
}

/// Erasable evidence of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The write that made it.
    pub request: RequestName,
    /// Who did it.
    pub actor: String,
    /// Through what it came: the wire's number of the channel.
    pub channel: i32,
    /// Which notice the person saw; empty for none.
    pub notice: String,
}

/// One event to append, with the one head that it changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub revision: Revision,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// Its canonical bytes.
    pub event: Vec<u8>,
    /// Their hash.
    pub link: Link,
    /// The chain after it.
    pub chain: Chain,
    /// The digest after it.
    pub digest: Digest,
    /// The head that it changed, as it is after it.
    pub head: HeadRecord,
    /// The organization of an account's head, for the join under the lock.
    pub organization: Option<OrganizationKey>,
    /// Who, through what.
    pub evidence: Evidence,
    /// The policy file's text, where the event published one.
    pub document: Option<String>,
}

/// A subject that events use from now on.
#[derive(Clone, PartialEq, Eq)]
pub struct SubjectRecord {
    /// The random name.
    pub subject: Subject,
    /// Whose it is.
    pub key: HeadKey,
    /// Its id: erasable.
    pub id: String,
}

/// One batch to commit: all of it or nothing.
#[derive(Clone, Default)]
pub struct Append {
    /// The events, with consecutive revisions from the locked head's next on. May be empty: a batch of writes that
    /// change nothing is remembered all the same.
    pub entries: Vec<Entry>,
    /// The subjects that these events use for the first time.
    pub subjects: Vec<SubjectRecord>,
    /// The requests to remember.
    pub requests: Vec<RequestRecord>,
}

impl Append {
    /// That the batch is dense and its times do not fall; that it follows the ledger's head is for the store to see.
    fn check(&self) -> Result<(), StoreError> {
        let neighbours = self.entries.iter().zip(self.entries.iter().skip(1));
        let (mut dense, mut rising) = (true, true);
        for (one, next) in neighbours {
            dense &= next.revision.follows(one.revision);
            rising &= next.recorded_at >= one.recorded_at;
        }
        if dense && rising {
            return Ok(());
        }
        Err(StoreError::Broken("the batch has a gap, or its times fall".into()))
    }
}

/// A committed event as the feed carries it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedEntry {
    /// Its number.
    pub revision: Revision,
    /// When it was recorded.
    pub recorded_at: Timestamp,
    /// The hash of the event.
    pub link: Link,
    /// The chain after it.
    pub chain: Chain,
    /// The digest after it.
    pub digest: Digest,
    /// The head that it changed, as it is after it.
    pub head: HeadRecord,
}

/// A committed event with its evidence, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerEntry {
    /// Its canonical bytes, revision and instant included.
    pub event: Vec<u8>,
    /// The chain after it.
    pub chain: Chain,
    /// The ids of the subjects it names, as far as they were not erased.
    pub ids: Vec<(Subject, String)>,
    /// Who, through what; none where it was erased.
    pub evidence: Option<Evidence>,
}

/// A page of heads in order of kind and key.
#[derive(Debug, Clone)]
pub struct HeadPage {
    /// The newest revision in the page's own snapshot: every head is at least that new.
    pub revision: Revision,
    /// The heads. Fewer than asked for: it was the last page.
    pub heads: Vec<HeadRecord>,
}

/// A row of `authority_lease`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The run of the authority process.
    pub incarnation: Incarnation,
    /// The newest revision when it registered.
    pub registered: Revision,
    /// How often it renewed.
    pub renew_seq: u64,
    /// What it reported as drained.
    pub drained: Revision,
}

/// What the confirmer decides from: one read of the primary, in one snapshot.
#[derive(Debug, Clone)]
pub struct LeaseTable {
    /// Where the ledger stands.
    pub head: LedgerHead,
    /// The open rows.
    pub open: Vec<LeaseRow>,
    /// The ledger's chain at each revision asked for; none where it has no such revision.
    pub chains: Vec<(Revision, Option<Chain>)>,
}

/// Why a store did not do what it was asked. Nothing of it reaches a caller but its kind.
#[derive(Debug, Error)]
pub enum StoreError {
    /// It cannot be reached, answers too late, or is not a primary that may be written to.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// The server is another one, or has another history, than the one stored: an epoch must be minted.
    #[error("the server's identity is not the stored one")]
    Foreign,
    /// It was not known whether a commit happened. Look the requests up under the lock.
    #[error("the outcome of the commit is unknown: {0}")]
    OutcomeUnknown(String),
    /// The schema is not the one of this program: `consent migrate` first, or a newer program.
    #[error("the schema is not of this program: {0}")]
    Schema(String),
    /// Stored bytes cannot be read, or a statement failed that never may.
    #[error("the store broke a promise: {0}")]
    Broken(String),
}

/// The lane's connection. One task owns it; nothing of it is shared.
pub trait Writer: Send + 'static {
    /// Begins a transaction, locks the head row, and reads what the batch needs. A lock that a stopped process
    /// holds is waited for only as long as the store's lock timeout.
    fn lock(&mut self, needs: &Needs) -> impl Future<Output = Result<Locked, StoreError>> + Send;
    /// Appends and commits what was decided under the lock: when it returns, the batch is durable and visible, or
    /// nothing of it is there, or the outcome is unknown.
    fn commit(&mut self, append: &Append) -> impl Future<Output = Result<(), StoreError>> + Send;
    /// Ends the transaction without a trace.
    fn release(&mut self) -> impl Future<Output = ()> + Send;
}

/// Reads of the primary, each in one snapshot.
pub trait Reader: Clone + Send + Sync + 'static {
    /// Where the ledger stands.
    fn head(&self) -> impl Future<Output = Result<LedgerHead, StoreError>> + Send;
    /// The events after `after`, in order and without a gap, at most `limit`. Fewer come only at the end.
    fn feed(
        &self,
        after: Revision,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<FeedEntry>, StoreError>> + Send;
    /// Chain and digest at a revision; none if there is no such revision.
    fn proof_at(
        &self,
        revision: Revision,
    ) -> impl Future<Output = Result<Option<(Chain, Digest)>, StoreError>> + Send;
    /// A page of heads after a place (kind, key), at most `limit`.
    fn heads_after(
        &self,
        after: Option<HeadKey>,
        limit: u32,
    ) -> impl Future<Output = Result<HeadPage, StoreError>> + Send;
    /// These heads (with the policy's, and the organizations of the accounts named) and the ledger's head, of one
    /// snapshot.
    fn heads_of(
        &self,
        keys: &[HeadKey],
    ) -> impl Future<Output = Result<(LedgerHead, Vec<HeadRecord>), StoreError>> + Send;
    /// The id behind a key, unless it was erased.
    fn id_of(&self, key: HeadKey) -> impl Future<Output = Result<Option<String>, StoreError>> + Send;
    /// A page of the ledger with its evidence, after a revision.
    fn ledger(
        &self,
        after: Revision,
        limit: u32,
    ) -> impl Future<Output = Result<(LedgerHead, Vec<LedgerEntry>), StoreError>> + Send;
    /// The newest policy that was published: its text, revision and instant.
    fn policy_document(
        &self,
    ) -> impl Future<Output = Result<Option<(String, Revision, Timestamp)>, StoreError>> + Send;
}

/// The rows of `authority_lease`.
pub trait Leases: Send + 'static {
    /// R2: a row for this run of the process, registered at the newest revision.
    fn register(
        &mut self,
        incarnation: Incarnation,
        replica: &str,
    ) -> impl Future<Output = Result<LedgerHead, StoreError>> + Send;
    /// R3: `renew_seq + 1` where the row is mine and not closed. None: I am fenced.
    fn renew(
        &mut self,
        incarnation: Incarnation,
    ) -> impl Future<Output = Result<Option<LedgerHead>, StoreError>> + Send;
    /// R7b: what is drained; `renew_seq` stays untouched. False: the row is closed or gone.
    fn report_drained(
        &mut self,
        incarnation: Incarnation,
        drained: Revision,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// R8: the open rows, the ledger's head and its chain at these revisions (rising), in one snapshot.
    fn table(
        &mut self,
        revisions: &[Revision],
    ) -> impl Future<Output = Result<LeaseTable, StoreError>> + Send;
    /// R8b: closes the row if its `renew_seq` is still the one seen.
    fn reap(
        &mut self,
        incarnation: Incarnation,
        renew_seq: u64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// R9: sets the settled epoch, if `epoch` is still the ledger's.
    fn settle(&mut self, epoch: Epoch) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// R9: under the head lock, and only if the server's identity is not the stored one: stores it, sets `fresh` as
    /// the epoch, and closes every row. False: somebody else has done it.
    fn mint(&mut self, fresh: Epoch) -> impl Future<Output = Result<bool, StoreError>> + Send;
    /// R12: closes my own row.
    fn close(&mut self, incarnation: Incarnation) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// A store: makes the three roles, each with connections of its own.
pub trait Store: Send + Sync + 'static {
    /// The lane's role.
    type Writer: Writer;
    /// The readers' role.
    type Reader: Reader;
    /// The confirmer's and grantor's role.
    type Leases: Leases;

    /// A connection for the lane.
    fn writer(&self) -> impl Future<Output = Result<Self::Writer, StoreError>> + Send;
    /// Readers with a few connections of their own, opened when they are needed and shared by its clones: who must
    /// not wait behind others has a reader of its own.
    fn reader(&self) -> Self::Reader;
    /// A connection for the lease rows.
    fn leases(&self) -> impl Future<Output = Result<Self::Leases, StoreError>> + Send;
    /// Sends a word at every commit of any replica, as far as it hears of it: a wake-up, never the truth. Poll.
    fn wakeups(&self) -> tokio::sync::watch::Receiver<()>;
}
