//! Batches for the cases: an event is its own number in bytes, a head is whatever a case says.

use consent_authority::store::{
    Append, Entry, Evidence, Locked, Needs, Reader, RequestName, RequestRecord, Store, StoreError,
    SubjectRecord, Writer,
};
use consent_core::chain::{Chain, Link};
use consent_core::digest::Digest;
use consent_core::head::HeadKey;
use consent_core::ledger::HeadRecord;
use consent_core::words::{AccountKey, OrganizationKey, Revision, Subject};
use uuid::Uuid;

/// A write to one head.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) head: HeadKey,
    pub(crate) organization: Option<OrganizationKey>,
    pub(crate) request: RequestName,
}

pub(crate) fn account(number: u64) -> HeadKey {
    HeadKey::Account(AccountKey::new(u128::from(number).to_be_bytes()))
}

pub(crate) fn organization(number: u64) -> OrganizationKey {
    OrganizationKey::new(u128::from(number).to_be_bytes())
}

pub(crate) fn request(number: u64) -> RequestName {
    RequestName { caller: "local".into(), request_id: Uuid::from_u128(number.into()) }
}

/// To an account of its own.
pub(crate) fn write(number: u64) -> Write {
    Write { head: account(number), organization: None, request: request(number) }
}

pub(crate) fn needs(writes: &[Write]) -> Needs {
    Needs {
        heads: writes.iter().map(|write| write.head).collect(),
        requests: writes.iter().map(|write| write.request.clone()).collect(),
    }
}

/// What the lane would append for these writes, decided under this lock.
pub(crate) fn append(locked: &Locked, writes: &[Write]) -> Append {
    let mut append = Append::default();
    let (mut revision, mut chain) = (locked.head.revision, locked.head.chain);
    let recorded_at = locked.recorded_at();
    for write in writes {
        revision = revision.next().expect("a revision");
        let link = link(revision);
        chain = chain.then(link);
        append.entries.push(Entry {
            revision,
            recorded_at,
            event: revision.get().to_be_bytes().to_vec(),
            link,
            chain,
            digest: digest(revision),
            head: HeadRecord { key: write.head, bytes: head_bytes(revision) },
            organization: write.organization,
            evidence: Evidence {
                request: write.request.clone(),
                actor: "a person".into(),
                channel: 1,
                notice: String::new(),
            },
            document: matches!(write.head, HeadKey::Policy).then(|| format!("policy {revision}")),
        });
        let is_known = locked.heads.iter().any(|head| head.record.key == write.head)
            || append.subjects.iter().any(|subject| subject.key == write.head);
        if !is_known && write.head != HeadKey::Policy {
            append.subjects.push(SubjectRecord {
                subject: subject(write.head),
                key: write.head,
                id: id(write.head),
            });
        }
        append.requests.push(RequestRecord {
            name: write.request.clone(),
            payload_hash: [7; 32],
            revision,
            chain,
            recorded_at,
            changed: true,
        });
    }
    append
}

/// Locks, decides and commits.
pub(crate) async fn commit<W: Writer>(writer: &mut W, writes: &[Write]) -> Result<Append, StoreError> {
    let locked = writer.lock(&needs(writes)).await?;
    let append = append(&locked, writes);
    writer.commit(&append).await.map(|()| append)
}

pub(crate) fn link(revision: Revision) -> Link {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&revision.get().to_be_bytes());
    Link::new(bytes)
}

pub(crate) fn digest(revision: Revision) -> Digest {
    Digest::new(*link(revision).bytes())
}

pub(crate) fn head_bytes(revision: Revision) -> Vec<u8> {
    format!("head {revision}").into_bytes()
}

pub(crate) fn subject(key: HeadKey) -> Subject {
    let mut bytes = key.bytes();
    bytes[0] = key.kind().number();
    Subject::new(bytes)
}

pub(crate) fn id(key: HeadKey) -> String {
    format!("{key:?}")
}

pub(crate) fn revision(number: u64) -> Revision {
    Revision::new(number).expect("a revision")
}

/// The whole feed, checked: dense, on one chain, and up to the ledger's head.
pub(crate) async fn checked_ledger<S: Store>(store: &S) -> u64 {
    let reader = store.reader();
    let head = reader.head().await.expect("the head");
    let (mut last, mut chain) = (Revision::ZERO, Chain::EMPTY);
    loop {
        let page = reader.feed(last, 100).await.expect("the feed");
        let Some(newest) = page.last() else { break };
        for entry in &page {
            assert!(entry.revision.follows(last), "{} after {last}", entry.revision);
            chain = chain.then(entry.link);
            assert_eq!(entry.chain, chain, "the chain at {}", entry.revision);
            assert_eq!(entry.head.bytes, head_bytes(entry.revision));
            last = entry.revision;
        }
        assert_eq!(newest.revision, last);
    }
    assert!(last >= head.revision, "the feed ends at {last}, the head is {}", head.revision);
    assert_eq!(reader.proof_at(last).await.expect("the proof"), Some((chain, proof_digest(last))));
    last.get()
}

fn proof_digest(revision: Revision) -> Digest {
    if revision == Revision::ZERO { Digest::EMPTY } else { digest(revision) }
}
