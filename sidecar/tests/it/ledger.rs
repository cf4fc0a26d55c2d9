//! A ledger in memory, folded by the core: what the scripted authority tells of.

use consent::clock;
use consent::convert::sync::{self, Change};
use consent::pb;
use consent_core::chain::{Chain, Link};
use consent_core::confirm::{Frame, Place};
use consent_core::digest::{Digest, DigestKey};
use consent_core::event::{Event, Keys};
use consent_core::head::{Head, HeadKey, SEMANTICS};
use consent_core::ledger::{HeadRecord, State};
use consent_core::policy::PolicyFile;
use consent_core::words::{
    AccountKey, Choice, Epoch, IdKey, Party, PlanIndex, ProductIndex, Revision, Timestamp,
};

const POLICY: &str = r#"
schema = 1
name = "test"
version = 1
guard = "0s"
loosens = []

[product.le_chat]
incognito = "deny"
plan.free = { mode = "default_in" }
kind.input = "trainable"
"#;

pub(crate) const LE_CHAT: ProductIndex = ProductIndex(0);

/// A ledger with its heads.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(crate) epoch: Epoch,
    pub(crate) id_key: IdKey,
    /// Where it stands.
    pub(crate) place: Place,
    pub(crate) recorded_at: Timestamp,
    state: State,
}

impl Ledger {
    /// One hour ago a policy was published, and the account `ada` came, on the plan `free`.
    pub(crate) fn new() -> Ledger {
        let epoch = Epoch::new([1; 16]);
        let (chain, digest) = (Chain::EMPTY, Digest::EMPTY);
        let mut ledger = Ledger {
            epoch,
            id_key: IdKey::new([7; 16]),
            place: Place { epoch, revision: Revision::ZERO, chain, digest },
            recorded_at: Timestamp::from_millis(clock::wall().millis() - 3_600_000),
            state: State::empty(),
        };
        let policy = PolicyFile::parse(POLICY).expect("the policy is whole").document().clone();
        ledger.append(Event::PolicyPublished { policy });
        ledger.append(Event::PlanSet {
            party: Party::Account(ledger.account("ada")),
            product: LE_CHAT,
            plan: PlanIndex::new(1),
        });
        ledger
    }

    pub(crate) fn account(&self, id: &str) -> AccountKey {
        self.id_key.account(id)
    }

    /// The next revision.
    pub(crate) fn append(&mut self, event: Event<Keys>) -> Change {
        let revision = self.place.revision.next().expect("the ledger is short");
        let changed = self.state.apply(&event, revision, self.recorded_at).expect("the event is whole");
        let (before, after) = (changed.before.as_ref().map(Head::encode), changed.after.encode());
        let mut digest = self.place.digest;
        digest.replace(&DigestKey::new(&self.id_key), changed.key, before.as_deref(), &after);
        // What the hash of an event is made of is no business of a sidecar.
        let mut link = [0; 32];
        link[..8].copy_from_slice(&revision.get().to_be_bytes());
        let link = Link::new(link);
        let frame = Frame { epoch: self.epoch, revision, link, chain: self.place.chain.then(link), digest };
        self.place = frame.place();
        Change { frame, recorded_at: self.recorded_at, head: changed.record() }
    }

    /// The next revision, as a newer writer writes it: its head needs a newer reader than this build's.
    pub(crate) fn append_newer(&mut self, event: Event<Keys>) -> Change {
        let mut change = self.append(event);
        let (secret, key) = (DigestKey::new(&self.id_key), change.head.key);
        self.place.digest.remove(&secret, key, &change.head.bytes);
        change.head.bytes[0] = SEMANTICS + 1;
        self.place.digest.add(&secret, key, &change.head.bytes);
        change.frame.digest = self.place.digest;
        change
    }

    /// `ada` chooses.
    pub(crate) fn choose(&mut self, choice: Choice) -> Change {
        let party = Party::Account(self.account("ada"));
        self.append(Event::ConsentSet { party, product: LE_CHAT, choice })
    }

    /// Every head.
    pub(crate) fn heads(&self) -> Vec<HeadRecord> {
        self.state.heads().map(|(key, head)| HeadRecord { key, bytes: head.encode() }).collect()
    }

    /// The head under a key.
    pub(crate) fn head(&self, key: HeadKey) -> HeadRecord {
        self.heads().into_iter().find(|head| head.key == key).expect("there is such a head")
    }
}

/// One message with these revisions.
pub(crate) fn frames(changes: impl IntoIterator<Item = Change>) -> pb::SyncResponse {
    let changes: Vec<Change> = changes.into_iter().collect();
    let epoch = changes[0].frame.epoch;
    sync::frames(epoch, changes.into_iter().map(sync::frame).collect())
}
