//! The truth behind a script: every event ever recorded, on whatever branch, and the store that keeps one branch.

use consent_core::chain::{Chain, Link};
use consent_core::confirm::confirmer::{self, Reading, Row};
use consent_core::confirm::grantor;
use consent_core::confirm::{Place, Stream};
use consent_core::digest::Digest;
use consent_core::words::{Epoch, Incarnation, Moment, Revision};
use std::collections::BTreeMap;

/// What a table or a ledger holds: the names of its events, in order.
pub(crate) type Events = Vec<char>;

pub(crate) fn revision(number: usize) -> Revision {
    Revision::new(number as u64).unwrap()
}

pub(crate) fn link(event: char) -> Link {
    Link::new(*blake3::hash(event.to_string().as_bytes()).as_bytes())
}

pub(crate) fn chain(events: &[char]) -> Chain {
    events.iter().fold(Chain::EMPTY, |chain, event| chain.then(link(*event)))
}

/// The digest of a table that holds these events' effects.
pub(crate) fn digest(events: &[char]) -> Digest {
    let text: String = events.iter().collect();
    if events.is_empty() { Digest::EMPTY } else { Digest::new(*blake3::hash(text.as_bytes()).as_bytes()) }
}

pub(crate) fn place(epoch: Epoch, events: &[char]) -> Place {
    Place { epoch, revision: revision(events.len()), chain: chain(events), digest: digest(events) }
}

/// Which events a chain stands for.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<[u8; 32], Events>);

impl Tree {
    pub(crate) fn grow(&mut self, events: &[char]) {
        self.0.insert(*chain(events).bytes(), events.to_vec());
    }

    pub(crate) fn events(&self, chain: &Chain) -> &[char] {
        &self.0[chain.bytes()]
    }
}

/// What is asked of the store, by one run of a process.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Ask {
    Register,
    Renew { started: Moment },
    Report { drained: Revision },
    CloseRow,
    LookUp { stream: Stream, revision: Revision },
    Read { revisions: Vec<Revision> },
    Reap { incarnation: Incarnation, renew_seq: u64 },
    Settle { epoch: Epoch },
}

/// What the store answers: the input that its asker gets.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Told {
    Grantor(grantor::Input),
    Confirmer(confirmer::Input),
    Nothing,
}

impl Told {
    /// The same ask with its answer lost on the way.
    pub(crate) fn unknown(&self) -> Option<Told> {
        use grantor::Input as G;
        match self {
            Told::Grantor(G::Renewed { started, .. }) => {
                Some(Told::Grantor(G::RenewalFailed { started: *started }))
            }
            Told::Grantor(G::DrainReported { .. }) => Some(Told::Grantor(G::ReportFailed)),
            Told::Grantor(G::RowClosed) => Some(Told::Grantor(G::CloseFailed)),
            Told::Grantor(G::Found { stream, .. }) => Some(Told::Grantor(G::NotFound { stream: *stream })),
            Told::Confirmer(confirmer::Input::Read(_)) => Some(Told::Confirmer(confirmer::Input::ReadFailed)),
            _ => None,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct StoredRow {
    pub(crate) row: Row,
    pub(crate) closed: bool,
    /// By whom it was closed: a reap of a living replica breaks I3.
    pub(crate) reaped: bool,
    /// What a failover without the last commit puts back.
    before: Row,
}

/// Postgres: the ledger, the head row and the lease rows. Each statement compares the live identity with the
/// stored one, and where they differ does nothing.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) ledger: Events,
    pub(crate) epoch: Epoch,
    pub(crate) settled: Option<Epoch>,
    pub(crate) rows: BTreeMap<Incarnation, StoredRow>,
    identity: u8,
    stored_identity: u8,
}

impl Store {
    pub(crate) fn born_empty() -> Store {
        let epoch = Epoch::new([0xe0; 16]);
        let rows = BTreeMap::new();
        Store { ledger: Events::new(), epoch, settled: Some(epoch), rows, identity: 0, stored_identity: 0 }
    }

    pub(crate) fn head(&self) -> Place {
        place(self.epoch, &self.ledger)
    }

    pub(crate) fn knows_itself(&self) -> bool {
        self.identity == self.stored_identity
    }

    /// R1.
    pub(crate) fn append(&mut self, event: char) -> Option<Place> {
        self.knows_itself().then(|| self.ledger.push(event))?;
        Some(self.head())
    }

    /// What a confirmer that reads now would find effective; `None` while nobody may confirm.
    pub(crate) fn effective(&self) -> Option<Revision> {
        (self.knows_itself() && self.settled == Some(self.epoch)).then_some(())?;
        let drained = self.open_rows().map(|row| row.drained_rev.max(row.reg_rev));
        Some(drained.min().unwrap_or(self.head().revision))
    }

    fn open_rows(&self) -> impl Iterator<Item = Row> {
        self.rows.values().filter(|row| !row.closed).map(|row| row.row)
    }

    /// A standby takes over that lacks everything after revision `keep`, and the last statement on each row.
    pub(crate) fn fail_over(&mut self, keep: usize, lose_last: bool) {
        self.ledger.truncate(keep);
        self.identity += 1;
        let kept = revision(keep);
        self.rows.retain(|_, row| row.row.reg_rev <= kept);
        for row in self.rows.values_mut() {
            if lose_last {
                row.row = row.before;
            }
            row.row.drained_rev = row.row.drained_rev.min(kept);
        }
    }

    /// R9: a new epoch closes every row in the same transaction.
    pub(crate) fn mint(&mut self) {
        self.stored_identity = self.identity;
        self.epoch = Epoch::new([0xe0 + self.identity; 16]);
        self.rows.values_mut().for_each(|row| row.closed = true);
    }

    pub(crate) fn ask(&mut self, who: Incarnation, ask: &Ask) -> Told {
        use grantor::Input as G;
        if !self.knows_itself() {
            return match ask {
                Ask::Renew { started } => Told::Grantor(G::RenewalFailed { started: *started }),
                Ask::Report { .. } => Told::Grantor(G::ReportFailed),
                Ask::CloseRow => Told::Grantor(G::CloseFailed),
                Ask::LookUp { stream, .. } => Told::Grantor(G::NotFound { stream: *stream }),
                Ask::Read { .. } => Told::Confirmer(confirmer::Input::ReadFailed),
                Ask::Reap { .. } | Ask::Settle { .. } => Told::Confirmer(confirmer::Input::Tried),
                Ask::Register => Told::Nothing,
            };
        }
        let head = self.head();
        match ask {
            Ask::Register => {
                let (reg_rev, drained_rev) = (head.revision, Revision::ZERO);
                let row = Row { incarnation: who, reg_rev, renew_seq: 0, drained_rev };
                self.rows.insert(who, StoredRow { row, closed: false, reaped: false, before: row });
                Told::Grantor(G::Registered { head })
            }
            Ask::Renew { started } => Told::Grantor(match self.change(who, |row| row.renew_seq += 1) {
                true => G::Renewed { started: *started, head },
                false => G::Fenced,
            }),
            Ask::Report { drained } => {
                self.change(who, |row| row.drained_rev = row.drained_rev.max(*drained));
                Told::Grantor(G::DrainReported { revision: *drained })
            }
            Ask::CloseRow => {
                self.rows.entry(who).and_modify(|row| row.closed = true);
                Told::Grantor(G::RowClosed)
            }
            Ask::LookUp { stream, revision } => {
                Told::Grantor(G::Found { stream: *stream, head, chain: self.chain_at(*revision) })
            }
            Ask::Read { revisions } => Told::Confirmer(confirmer::Input::Read(Reading {
                head,
                settled: self.settled,
                open_rows: self.open_rows().collect(),
                chains: revisions.iter().map(|revision| (*revision, self.chain_at(*revision))).collect(),
            })),
            Ask::Reap { incarnation, renew_seq } => {
                if let Some(row) =
                    self.rows.get_mut(incarnation).filter(|row| row.row.renew_seq == *renew_seq)
                {
                    (row.closed, row.reaped) = (true, true);
                }
                Told::Confirmer(confirmer::Input::Tried)
            }
            Ask::Settle { epoch } => {
                self.settled = if *epoch == self.epoch { Some(*epoch) } else { self.settled };
                Told::Confirmer(confirmer::Input::Tried)
            }
        }
    }

    /// A registration of two statements, with an append between them.
    pub(crate) fn overtake(&mut self, who: Incarnation) -> Option<()> {
        self.rows.get_mut(&who)?.row.reg_rev = revision(self.ledger.len().checked_sub(1)?);
        Some(())
    }

    fn change(&mut self, who: Incarnation, change: impl FnOnce(&mut Row)) -> bool {
        let Some(row) = self.rows.get_mut(&who).filter(|row| !row.closed) else { return false };
        row.before = row.row;
        change(&mut row.row);
        true
    }

    fn chain_at(&self, revision: Revision) -> Option<Chain> {
        self.ledger.get(..revision.get() as usize).map(chain)
    }
}
