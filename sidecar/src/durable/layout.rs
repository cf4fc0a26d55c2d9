//! How the copy lies in Redis, as bytes.
//!
//! ```text
//!   consent:place        marker: place, recorded_at, generation, sizes, where the log begins; seal, check
//!   consent:bucket:N     the heads whose keys have the bits of N, packed; hash
//!   consent:log          batches of changes since the buckets, one head for each revision; hash
//! ```
//!
//! A value that was torn or damaged shows by its own hash. A value that belongs to another rewrite shows by its
//! generation, one that belongs elsewhere by its number. None of this stops somebody who means it: hashes are not
//! keyed, since whoever loads does not know the secret yet. What does is the check of the marker, made under the
//! secret, and the digest of everything, both compared before anything is answered from the copy.
//!
//! No id and no key lies here: heads carry keyed hashes of ids, and the secret appears only in what it has hashed.

use consent_core::chain::Chain;
use consent_core::confirm::{Place, Seal};
use consent_core::digest::Digest;
use consent_core::head::{HeadKey, HeadKind};
use consent_core::words::{Epoch, IdKey, Revision, Timestamp};

/// Where the marker is.
pub(super) const PLACE: &str = "consent:place";
/// Where the log is.
pub(super) const LOG: &str = "consent:log";
/// The fewest buckets: below that they hold so little that more of them would only cost keys.
pub(super) const BUCKETS_MIN: u32 = 4_096;
/// The most buckets.
pub(super) const BUCKETS_MAX: u32 = 65_536;
/// So many heads per bucket are aimed at: many make a compaction rewrite much for one change, few cost memory.
const HEADS_PER_BUCKET: usize = 256;

/// The first byte of a marker: another layout has another one.
const LAYOUT: u8 = 2;
const HASH_LEN: usize = 16;
const CHECK_LEN: usize = 32;
/// The length of every marker of this layout.
pub(super) const MARKER_LEN: usize = 225;

/// Drawn at every rewrite: what belongs together has the same.
pub(super) type Generation = [u8; 16];

/// Where a bucket is.
pub(super) fn bucket_key(number: u32) -> String {
    format!("consent:bucket:{number}")
}

/// How many buckets for so many heads: a power of two.
pub(super) fn buckets_for(heads: usize) -> u32 {
    let wanted = (heads / HEADS_PER_BUCKET).next_power_of_two();
    u32::try_from(wanted).unwrap_or(BUCKETS_MAX).clamp(BUCKETS_MIN, BUCKETS_MAX)
}

/// The bucket of a head, of so many. Keys are hashes, so any of their bits spread evenly; these are the ones by which
/// the table gives its parts, so that each part fills buckets of its own.
pub(super) fn bucket_of(key: HeadKey, buckets: u32) -> u32 {
    let [_, _, _, _, _, _, _, _, first, second, ..] = key.bytes();
    u32::from(u16::from_be_bytes([first, second])) / (BUCKETS_MAX / buckets)
}

/// What the copy says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    pub(super) generation: Generation,
    /// How many buckets: a power of two within the bounds.
    pub(super) buckets: u32,
    /// The log begins after this revision.
    pub(super) base: Revision,
    /// How many batches the log has.
    pub(super) batches: u64,
    /// Where buckets and log together stand.
    pub(super) place: Place,
    pub(super) recorded_at: Timestamp,
    pub(super) size: Size,
}

/// How much a copy is: whoever loads it takes no more than that, whatever lies there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Size {
    /// Heads in the buckets.
    pub(super) heads: u64,
    /// Bytes of all buckets.
    pub(super) buckets: u64,
    /// Bytes of the largest bucket.
    pub(super) largest: u32,
    /// Bytes of all batches of the log.
    pub(super) log: u64,
}

/// A marker as it lies in Redis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Written(Vec<u8>);

impl Marker {
    /// Its bytes, with a seal on its place and a check over all of it, both under the secret.
    pub(super) fn write(&self, secret: &IdKey) -> Written {
        let Marker { generation, buckets, base, batches, place, recorded_at, size } = self;
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(generation);
        bytes.extend_from_slice(&buckets.to_be_bytes());
        bytes.extend_from_slice(&base.get().to_be_bytes());
        bytes.extend_from_slice(&batches.to_be_bytes());
        bytes.extend_from_slice(place.epoch.bytes());
        bytes.extend_from_slice(&place.revision.get().to_be_bytes());
        bytes.extend_from_slice(place.chain.bytes());
        bytes.extend_from_slice(place.digest.bytes());
        bytes.extend_from_slice(&recorded_at.millis().to_be_bytes());
        bytes.extend_from_slice(&size.heads.to_be_bytes());
        bytes.extend_from_slice(&size.buckets.to_be_bytes());
        bytes.extend_from_slice(&size.largest.to_be_bytes());
        bytes.extend_from_slice(&size.log.to_be_bytes());
        bytes.extend_from_slice(Seal::of(secret, place).bytes());
        let check = check(&bytes, secret);
        bytes.extend_from_slice(check.as_bytes());
        Written(bytes)
    }
}

impl Written {
    /// Whatever lies there.
    pub(super) fn new(bytes: Vec<u8>) -> Written {
        Written(bytes)
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// What it says and the seal on its place; `None`: it is no marker of this layout.
    pub(super) fn read(&self) -> Option<(Marker, Seal)> {
        let mut rest = Rest(self.0.as_slice());
        (rest.take::<1>()? == [LAYOUT]).then_some(())?;
        let generation = rest.take()?;
        let buckets = u32::from_be_bytes(rest.take()?);
        let base = rest.revision()?;
        let batches = u64::from_be_bytes(rest.take()?);
        let epoch = Epoch::new(rest.take()?);
        let revision = rest.revision()?;
        let chain = Chain::new(rest.take()?);
        let digest = Digest::new(rest.take()?);
        let recorded_at = Timestamp::from_millis(i64::from_be_bytes(rest.take()?));
        let size = Size {
            heads: u64::from_be_bytes(rest.take()?),
            buckets: u64::from_be_bytes(rest.take()?),
            largest: u32::from_be_bytes(rest.take()?),
            log: u64::from_be_bytes(rest.take()?),
        };
        let seal = Seal::new(rest.take()?);
        rest.take::<CHECK_LEN>()?;
        let fits = buckets.is_power_of_two() && (BUCKETS_MIN..=BUCKETS_MAX).contains(&buckets);
        let place = Place { epoch, revision, chain, digest };
        let marker = Marker { generation, buckets, base, batches, place, recorded_at, size };
        (rest.0.is_empty() && fits).then_some((marker, seal))
    }

    /// Was it written by somebody who knew the secret?
    pub(super) fn is_by(&self, secret: &IdKey) -> bool {
        let split = self.0.split_last_chunk::<CHECK_LEN>();
        split.is_some_and(|(body, found)| check(body, secret) == blake3::Hash::from_bytes(*found))
    }
}

fn check(body: &[u8], secret: &IdKey) -> blake3::Hash {
    blake3::keyed_hash(&blake3::derive_key("consent v1 durable copy", secret.bytes()), body)
}

/// A bucket's value.
pub(super) fn bucket<'a>(
    generation: &Generation,
    number: u32,
    heads: impl IntoIterator<Item = (HeadKey, &'a [u8])>,
) -> Vec<u8> {
    let mut value = generation.to_vec();
    value.extend_from_slice(&number.to_be_bytes());
    heads.into_iter().for_each(|(key, head)| put(&mut value, key, head));
    hashed(b'b', value)
}

/// The heads of a bucket; `None`: it is damaged, or not this bucket of this generation.
pub(super) fn read_bucket<'a>(value: &'a [u8], generation: &Generation, number: u32) -> Option<Packed<'a>> {
    let mut rest = Rest(unhashed(b'b', value)?);
    let is_it = rest.take()? == *generation && u32::from_be_bytes(rest.take()?) == number;
    is_it.then(|| Packed::whole(rest)).flatten()
}

/// A batch's value: the heads that the revisions from `first` on changed, one each.
pub(super) fn batch<'a>(
    generation: &Generation,
    first: Revision,
    heads: impl IntoIterator<Item = (HeadKey, &'a [u8])>,
) -> Vec<u8> {
    let mut value = generation.to_vec();
    value.extend_from_slice(&first.get().to_be_bytes());
    heads.into_iter().for_each(|(key, head)| put(&mut value, key, head));
    hashed(b'l', value)
}

/// The first revision of a batch and its heads; `None`: it is damaged, or of another generation.
pub(super) fn read_batch<'a>(value: &'a [u8], generation: &Generation) -> Option<(Revision, Packed<'a>)> {
    let mut rest = Rest(unhashed(b'l', value)?);
    (rest.take()? == *generation).then_some(())?;
    let first = rest.revision()?;
    Some((first, Packed::whole(rest)?))
}

fn put(value: &mut Vec<u8>, key: HeadKey, head: &[u8]) {
    value.push(key.kind().number());
    value.extend_from_slice(&key.bytes());
    // No head comes near 4 GiB: it has come in a message.
    value.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
    value.extend_from_slice(head);
}

// A bucket is no batch, whatever its bytes.
fn hash(what: u8, body: &[u8]) -> [u8; HASH_LEN] {
    let mut hash = [0; HASH_LEN];
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"consent v1 durable copy").update(&[what]).update(body);
    hasher.finalize_xof().fill(&mut hash);
    hash
}

fn hashed(what: u8, mut value: Vec<u8>) -> Vec<u8> {
    let hash = hash(what, &value);
    value.extend_from_slice(&hash);
    value
}

fn unhashed(what: u8, value: &[u8]) -> Option<&[u8]> {
    let (body, found) = value.split_last_chunk::<HASH_LEN>()?;
    (hash(what, body) == *found).then_some(body)
}

/// Packed heads, found to be whole.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packed<'a>(Rest<'a>);

impl<'a> Packed<'a> {
    fn whole(rest: Rest<'a>) -> Option<Packed<'a>> {
        let mut ahead = rest;
        while !ahead.0.is_empty() {
            ahead.head()?;
        }
        Some(Packed(rest))
    }
}

impl<'a> Iterator for Packed<'a> {
    type Item = (HeadKey, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.0.head()
    }
}

/// What is not read yet.
#[derive(Debug, Clone, Copy)]
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn revision(&mut self) -> Option<Revision> {
        Revision::new(u64::from_be_bytes(self.take()?))
    }

    fn head(&mut self) -> Option<(HeadKey, &'a [u8])> {
        let [kind] = self.take()?;
        let key = HeadKey::new(HeadKind::from_number(kind)?, self.take()?)?;
        let len = usize::try_from(u32::from_be_bytes(self.take()?)).ok()?;
        let (head, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some((key, head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use consent_core::words::AccountKey;

    const SECRET: IdKey = IdKey::new([7; 16]);
    const GENERATION: Generation = [3; 16];

    fn revision(number: u64) -> Revision {
        Revision::new(number).unwrap()
    }

    fn marker() -> Marker {
        let place = Place {
            epoch: Epoch::new([1; 16]),
            revision: revision(9),
            chain: Chain::new([2; 32]),
            digest: Digest::new([4; 32]),
        };
        Marker {
            generation: GENERATION,
            buckets: BUCKETS_MIN,
            base: revision(5),
            batches: 2,
            place,
            recorded_at: Timestamp::from_millis(-12),
            size: Size { heads: 3, buckets: 400_000, largest: 120, log: 77 },
        }
    }

    fn heads() -> [(HeadKey, &'static [u8]); 3] {
        let account = |byte| HeadKey::Account(AccountKey::new([byte; 16]));
        [(HeadKey::Policy, b"policy"), (account(1), b""), (account(255), b"\x01\x02")]
    }

    #[test]
    fn a_marker_reads_back_and_shows_who_wrote_it() {
        let written = marker().write(&SECRET);
        let (read, seal) = written.read().unwrap();
        assert_eq!((&read, seal), (&marker(), Seal::of(&SECRET, &marker().place)));
        assert_eq!(written.bytes().len(), MARKER_LEN);
        assert!(written.is_by(&SECRET));
        assert!(!written.is_by(&IdKey::new([8; 16])), "another secret");
        for at in 0..written.bytes().len() {
            let mut changed = written.bytes().to_vec();
            changed[at] ^= 1;
            assert!(!Written::new(changed).is_by(&SECRET), "byte {at} is not covered");
        }
    }

    #[test]
    fn a_marker_cut_short_or_of_another_layout_is_none() {
        let whole = marker().write(&SECRET).bytes().to_vec();
        for len in 0..whole.len() {
            assert_eq!(Written::new(whole[..len].to_vec()).read(), None, "{len} bytes");
        }
        let newer = [&[LAYOUT + 1], &whole[1..]].concat();
        assert_eq!(Written::new(newer).read(), None);
        assert_eq!(Written::new([&whole[..], &[0]].concat()).read(), None);
        let uneven = Marker { buckets: BUCKETS_MIN + 1, ..marker() };
        assert_eq!(uneven.write(&SECRET).read(), None, "buckets must divide the keys evenly");
    }

    #[test]
    fn packed_heads_read_back() {
        let value = bucket(&GENERATION, 6, heads());
        let read: Vec<_> = read_bucket(&value, &GENERATION, 6).unwrap().collect();
        assert_eq!(read, heads());
        let value = batch(&GENERATION, revision(6), heads());
        let (first, read) = read_batch(&value, &GENERATION).unwrap();
        assert_eq!((first, read.collect::<Vec<_>>()), (revision(6), heads().to_vec()));
    }

    #[test]
    fn what_is_damaged_or_belongs_elsewhere_is_not_read() {
        let value = bucket(&GENERATION, 6, heads());
        for at in 0..value.len() {
            let mut changed = value.clone();
            changed[at] ^= 1;
            assert!(read_bucket(&changed, &GENERATION, 6).is_none(), "byte {at}");
            assert!(read_bucket(&value[..at], &GENERATION, 6).is_none(), "{at} bytes");
        }
        assert!(read_bucket(&value, &GENERATION, 7).is_none(), "another bucket");
        assert!(read_bucket(&value, &[4; 16], 6).is_none(), "another generation");
        assert!(read_batch(&value, &GENERATION).is_none(), "a bucket is no batch");
    }

    #[test]
    fn a_bucket_that_names_what_is_no_head_is_not_read() {
        let mut body = GENERATION.to_vec();
        body.extend_from_slice(&6_u32.to_be_bytes());
        let with = |tail: &[u8]| hashed(b'b', [&body[..], tail].concat());
        assert!(read_bucket(&with(&[]), &GENERATION, 6).is_some());
        assert!(read_bucket(&with(&[9; 21]), &GENERATION, 6).is_none(), "no such kind");
        assert!(read_bucket(&with(&[3]), &GENERATION, 6).is_none(), "cut short");
        let longer_than_there_is = [&[3][..], &[1; 16], &9_u32.to_be_bytes(), &[0; 8]].concat();
        assert!(read_bucket(&with(&longer_than_there_is), &GENERATION, 6).is_none());
    }

    #[test]
    fn every_key_has_a_bucket_and_neighbours_share_it() {
        assert_eq!((buckets_for(0), buckets_for(1_000_000)), (BUCKETS_MIN, BUCKETS_MIN));
        assert_eq!((buckets_for(10_000_000), buckets_for(usize::MAX)), (65_536, BUCKETS_MAX));
        let account = |first, second| {
            let mut key = [0; 16];
            (key[8], key[9]) = (first, second);
            HeadKey::Account(AccountKey::new(key))
        };
        assert_eq!(bucket_of(HeadKey::Policy, BUCKETS_MIN), 0);
        assert_eq!(bucket_of(account(255, 255), BUCKETS_MIN), BUCKETS_MIN - 1);
        assert_eq!(bucket_of(account(255, 255), BUCKETS_MAX), BUCKETS_MAX - 1);
        assert_eq!(bucket_of(account(0, 15), BUCKETS_MIN), 0);
        assert_eq!(bucket_of(account(0, 16), BUCKETS_MIN), 1);
    }
}
