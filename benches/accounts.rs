//! The made-up ledger of the figures: as many accounts as wanted, each computed from its number and kept nowhere.
//!
//! Its policy is the seed's. An account is on the open plan of both products; every ninth opted out of `le_chat`, so
//! that an answer can be told from a wrong one. It belongs to no organization, as most do: the smallest head there
//! is, and so the strictest goal for what it costs.

use anyhow::{Context, anyhow};
use consent::clock;
use consent::convert::to_timestamp;
use consent::pb::{Artifact, CanTrainRequest, Reason};
use consent_core::event::Event;
use consent_core::head::{AccountHead, AccountProduct, Head, HeadKey, KnownAccount};
use consent_core::ledger::{HeadRecord, State};
use consent_core::policy::PolicyFile;
use consent_core::words::{Choice, IdKey, PlanIndex, Restrictions, Revision, Seconds, Timestamp};
use std::sync::atomic::{AtomicU64, Ordering};
use uuid::Uuid;

/// The secret of this deployment.
pub(crate) const ID_KEY: IdKey = IdKey::new([7; 16]);
/// Unix seconds when the policy was published, before any account came.
const PUBLISHED: i64 = 1_600_000_000;
/// Unix seconds from which on accounts came.
const CAME: u32 = 1_700_000_000;

/// What all accounts have in common.
#[derive(Debug, Clone)]
pub(crate) struct Accounts {
    policy: HeadRecord,
    /// By product: the open plan, and whether it is `le_chat`.
    open: Vec<(Option<PlanIndex>, bool)>,
    /// When every artifact that is asked about was collected: an hour before the run.
    pub(crate) collected_at: Timestamp,
}

impl Accounts {
    /// Under the seed's policy.
    pub(crate) fn new() -> anyhow::Result<Accounts> {
        let file = PolicyFile::parse(include_str!("../policies/mistral.toml"))
            .map_err(|errors| anyhow!("the seed's policy: {errors:?}"))?;
        let mut state = State::empty();
        let event = Event::PolicyPublished { policy: file.document().clone() };
        let first = Revision::ZERO.next().context("a first revision")?;
        let change = state.apply(&event, first, Timestamp::from_millis(PUBLISHED * 1000))?;
        // In the order of the policy's head, which is not the file's.
        let mut open = Vec::new();
        for (_, product) in state.policy().indexes() {
            let is_le_chat = product.name.as_str() == "le_chat";
            let plan = if is_le_chat { "free" } else { "experiment" };
            let index =
                product.plans.iter().position(|(name, _)| name.as_str() == plan).context("an open plan")?;
            open.push((u8::try_from(index + 1).ok().and_then(PlanIndex::new), is_le_chat));
        }
        let collected_at = Timestamp::from_millis(clock::wall().millis() - 3_600_000);
        Ok(Accounts { policy: change.record(), open, collected_at })
    }

    /// The policy's head, at revision 1.
    pub(crate) fn policy(&self) -> HeadRecord {
        self.policy.clone()
    }

    /// The head of account `number`, which came with revision [`revision_of`] of it.
    pub(crate) fn head(&self, number: u64) -> HeadRecord {
        let since = Seconds::new(CAME + (number % 1_000_000) as u32);
        let product = |&(plan, is_le_chat): &(Option<PlanIndex>, bool)| AccountProduct {
            plan,
            choice: (is_le_chat && is_out(number)).then_some(Choice::Out),
            allow_since: since,
        };
        let head = AccountHead::Known(KnownAccount {
            rev: revision_of(number),
            organization: None,
            restrictions: Restrictions::NONE,
            products: self.open.iter().map(product).collect(),
        });
        HeadRecord { key: HeadKey::Account(ID_KEY.account(&id(number))), bytes: Head::Account(head).encode() }
    }

    /// May a prompt of account `number` be trained on? `artifact` tells one question from another.
    pub(crate) fn question(&self, number: u64, artifact: u64) -> CanTrainRequest {
        CanTrainRequest {
            account: id(number),
            artifact: Some(Artifact {
                id: artifact_id(artifact),
                product: "le_chat".to_owned(),
                kind: "input".to_owned(),
                collected_at: Some(to_timestamp(self.collected_at)),
                incognito: false,
            }),
            min_position: None,
        }
    }
}

/// What is to be answered about account `number`.
pub(crate) fn expected(number: u64) -> Reason {
    if is_out(number) { Reason::AccountOptedOut } else { Reason::PlanDefaultIn }
}

/// Questions, or messages of them, that a server was paused over for longer than an answer may be relied on.
static STALE: AtomicU64 = AtomicU64::new(0);

/// Counts a message that was answered STALE: right, and no decision.
pub(crate) fn note_stale() {
    STALE.fetch_add(1, Ordering::Relaxed);
}

/// How many there were.
pub(crate) fn stale() -> u64 {
    STALE.load(Ordering::Relaxed)
}

/// The id of an artifact.
pub(crate) fn artifact_id(number: u64) -> String {
    format!("artifact-{number:012}")
}

/// The id of account `number`: every other one is a UUID in text, as half of the world's are.
pub(crate) fn id(number: u64) -> String {
    if number.is_multiple_of(2) { format!("account-{number:012}") } else { uuid_text(number) }
}

/// A UUID for a number, of an account or an artifact.
pub(crate) fn uuid(number: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&scattered(number).to_be_bytes());
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// The id that it stands for.
fn uuid_text(number: u64) -> String {
    Uuid::from_bytes(uuid(number)).hyphenated().to_string()
}

/// The revision of the one event of account `number`. The policy's is 1.
pub(crate) fn revision_of(number: u64) -> Revision {
    Revision::new(number + 2).unwrap_or(Revision::MAX)
}

/// A number that cannot be guessed from the one before: which accounts are asked about, in which order.
pub(crate) fn scattered(number: u64) -> u64 {
    let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 8
}

fn is_out(number: u64) -> bool {
    number.is_multiple_of(9)
}
