//! Bytes: one encoding per value, no other is read, and the bytes of today are the bytes of tomorrow.

use consent_core::chain::{Chain, Link};
use consent_core::command::Command;
use consent_core::digest::{Digest, DigestKey};
use consent_core::event::{Event, Recorded, Subjects};
use consent_core::head::{Head, HeadKey, HeadKind, SEMANTICS, Unreadable};
use consent_core::words::{Choice, IdKey, Restriction, Revision, Subject, Timestamp};
use proptest::prelude::*;

use crate::ledger::{Ledger, account, artifact, company, member};

/// A ledger with an event of every kind and a head in every state.
fn everything() -> Ledger {
    let mut ledger = Ledger::mistral();
    ledger.at(2_500).put("ada", Some("acme")).put("bob", None);
    ledger.plan(member("ada"), "le_chat", Some("free")).plan(company("acme"), "ai_studio", Some("gold"));
    ledger.choose(member("ada"), "le_chat", Choice::Out).choose(company("acme"), "le_chat", Choice::In);
    ledger.restrict("ada", Restriction::Region).lift("ada", Restriction::Region);
    ledger.restrict("ada", Restriction::LegalHold).plan(member("ada"), "le_chat", None);
    ledger.run(&Command::EraseAccount { account: account("bob"), expected: None }).unwrap();
    ledger.run(&Command::ExcludeArtifact { artifact: artifact("a chat") }).unwrap();
    ledger
}

fn recorded(ledger: &Ledger) -> Vec<Recorded<Subjects>> {
    let subject = |named| Subject::new(HeadKey::from(named).bytes());
    let numbers = (1..).filter_map(Revision::new);
    let recorded_at = Timestamp::from_millis(ledger.now);
    numbers
        .zip(&ledger.events)
        .map(|(revision, event)| Recorded { revision, recorded_at, event: event.name_with(subject) })
        .collect()
}

fn heads(ledger: &Ledger) -> Vec<(HeadKey, Vec<u8>)> {
    ledger.changes.iter().map(|change| (change.key, change.after.encode())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn every_kind_of_event_and_head_is_here() {
    let ledger = everything();
    let mut tags: Vec<u8> = recorded(&ledger).iter().map(|recorded| recorded.encode()[14]).collect();
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    for kind in HeadKind::ALL {
        assert!(heads(&ledger).iter().any(|(key, _)| key.kind() == kind));
        assert_eq!(HeadKind::from_number(kind.number()), Some(kind));
    }
    assert_eq!([HeadKind::from_number(0), HeadKind::from_number(5)], [None; 2]);
}

#[test]
fn what_is_written_is_read_back() {
    let ledger = everything();
    for recorded in recorded(&ledger) {
        assert_eq!(Recorded::decode(&recorded.encode()), Ok(recorded));
    }
    for change in &ledger.changes {
        let record = change.record();
        assert_eq!(Head::decode(record.key.kind(), &record.bytes).as_ref(), Ok(&change.after));
        assert_eq!(HeadKey::new(record.key.kind(), record.key.bytes()), Some(record.key));
    }
    assert_eq!(HeadKey::new(HeadKind::Policy, [1; 16]), None);
}

#[test]
fn a_newer_version_cannot_be_read_and_a_cut_or_longer_one_is_malformed() {
    let ledger = everything();
    let malformed = |read: Result<(), Unreadable>| matches!(read, Err(Unreadable::Malformed(_)));
    let mut samples: Vec<(Option<HeadKind>, Vec<u8>)> = Vec::new();
    samples.extend(heads(&ledger).into_iter().map(|(key, bytes)| (Some(key.kind()), bytes)));
    samples.extend(recorded(&ledger).iter().map(|recorded| (None, recorded.encode())));
    for (kind, bytes) in samples {
        let read = |bytes: &[u8]| match kind {
            Some(kind) => Head::decode(kind, bytes).map(|_| ()),
            None => Recorded::decode(bytes).map(|_| ()),
        };
        assert_eq!(read(&bytes), Ok(()));
        for cut in 0..bytes.len() {
            assert!(malformed(read(&bytes[..cut])), "{kind:?} cut to {cut}");
        }
        let mut other = bytes.clone();
        other.push(0);
        assert!(malformed(read(&other)));
        other.pop();
        other[0] = SEMANTICS + 1;
        assert_eq!(read(&other), Err(Unreadable::Newer(SEMANTICS + 1)));
        other[0] = 0;
        assert!(malformed(read(&other)));
    }
}

/// These bytes are in ledgers, on nodes and in digests. A change here is a new semantics version.
#[test]
fn the_bytes_of_today() {
    let ledger = everything();
    let all = recorded(&ledger);
    let opt_out =
        all.iter().find(|recorded| matches!(recorded.event, Event::ConsentSet { choice: Choice::Out, .. }));
    let opt_out = opt_out.unwrap().encode();
    assert_eq!(hex(&opt_out), "01000000000800000000000009c40301ded3b91b27a5fe1f916c53033000d34b0103");
    let known = ledger.state.account(account("ada")).unwrap().unwrap().encode();
    assert_eq!(hex(&known), "0104000000000d01d5bcb66a7b430452d308eddd0390e4b8024000000003c000000003");
    let link = Link::of(&opt_out);
    assert_eq!(hex(link.bytes()), "59bc37248a5c6ad8a4a8721b50dc5599487a7f8c043b3b8e0e9a7468701a2c53");
    assert_eq!(
        hex(Chain::EMPTY.then(link).bytes()),
        "cfb7cdb1f6924b43f66b24eb716f82623798e7fb8e0090a0fe9bbb8319a08dd9"
    );
    let mut digest = Digest::EMPTY;
    digest.add(&DigestKey::new(&IdKey::new([3; 16])), HeadKey::Account(account("ada")), &known);
    assert_eq!(hex(digest.bytes()), "a172904c23f28444c524e35719f5918af242a874449503d3ff7e73a6f028cf8c");
}

#[test]
fn a_digest_is_a_sum() {
    let secret = DigestKey::new(&IdKey::new([3; 16]));
    let ledger = everything();
    let (mut up, mut down) = (Digest::EMPTY, Digest::EMPTY);
    let records = heads(&ledger);
    for (key, bytes) in &records {
        up.add(&secret, *key, bytes);
    }
    for (key, bytes) in records.iter().rev() {
        down.add(&secret, *key, bytes);
    }
    assert_eq!(up, down);
    let other = DigestKey::new(&IdKey::new([4; 16]));
    let mut elsewhere = Digest::EMPTY;
    for (key, bytes) in &records {
        elsewhere.add(&other, *key, bytes);
        up.remove(&secret, *key, bytes);
    }
    assert_eq!(up, Digest::EMPTY);
    assert_ne!(elsewhere, down);
    // Carries run through all 32 bytes.
    let mut wraps = Digest::new([0xff; 32]);
    wraps.add(&secret, records[0].0, &records[0].1);
    wraps.remove(&secret, records[0].0, &records[0].1);
    assert_eq!(wraps, Digest::new([0xff; 32]));
}

proptest! {
    #![proptest_config(crate::ledger::seeded())]

    /// Whatever is read is exactly what would be written: no value has two encodings.
    #[test]
    fn nothing_is_read_that_would_not_be_written(which in any::<prop::sample::Index>(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let ledger = everything();
        let (heads, events) = (heads(&ledger), recorded(&ledger));
        let place = which.index(heads.len() + events.len());
        let (kind, mut bytes) = match heads.get(place) {
            Some((key, bytes)) => (Some(key.kind()), bytes.clone()),
            None => (None, events[place - heads.len()].encode()),
        };
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        match kind {
            Some(kind) => if let Ok(head) = Head::decode(kind, &bytes) {
                prop_assert_eq!(head.encode(), bytes);
            },
            None => if let Ok(recorded) = Recorded::decode(&bytes) {
                prop_assert_eq!(recorded.encode(), bytes);
            },
        }
    }
}
