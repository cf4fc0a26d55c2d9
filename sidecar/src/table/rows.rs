//! Rows of 32-bit words under 128-bit keys: what all heads but the policy are kept in.
//!
//! 256 shards, by the first byte of a key's order. In a shard the rows stand in the order of their keys, each at its
//! home or a little behind it, as in linear probing (Amble and Knuth's ordered hash table): the keys are keyed
//! hashes, so their order is as good as random. A search ends at the first row with a higher key, so a miss costs no
//! more than a hit, and nine slots of ten may be taken. Nothing is ever removed: heads are for good.
//!
//! A shard that is full is rebuilt alone, a segment or a sixteenth larger, or twice as large while it has none, beside
//! the one that readers see; segments have one size, so what one shard gives back fits the next that grows. Its rows
//! are as wide as its widest. Keys that are no hashes make searches long, but a shard never much more than twice as
//! large as its rows.
//!
//! The methods that take `&self` and store are called by one writer, within [`super::sequenced`]; readers may
//! meet anything there meanwhile, so they index nothing without a check.

use super::atomic::{AtomicU32, Ordering};
use std::cmp;
use std::sync::Arc;

const SHARDS: usize = 256;
/// The words of a key.
const KEY: usize = 4;
/// The slots of a segment. A smaller shard is one smaller segment. The smaller they are, the less is lost where the
/// allocator cuts them out of what a page of a snapshot leaves behind.
const SEGMENT: usize = 128;
/// From so many slots on a shard grows by a sixteenth, below that by a segment: in a small table what the process needs
/// beside the rows weighs more, so less may lie free among them.
const LARGE: usize = 64 * SEGMENT;
/// The slots of the smallest shard that has any.
const SLOTS_MIN: usize = 16;
/// The last slots of a shard are nobody's home: rows of the last homes spill into them. So many do for hashes.
const SPILL: usize = 32;
/// A row that has no free slot within so many of its home lets its shard grow, if it is half full at least.
const REACH: usize = 1024;

/// Keys in the order of the table.
///
/// It is not the order of their bytes, in which snapshots come: rows in ascending order would crowd into the front
/// of every shard that is still small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(u128);

impl Key {
    pub(super) const fn new(bytes: [u8; 16]) -> Key {
        Key(u128::from_be_bytes(bytes).rotate_left(64))
    }

    const fn bytes(self) -> [u8; 16] {
        self.0.rotate_right(64).to_be_bytes()
    }

    const fn shard(self) -> usize {
        (self.0 >> 120) as usize
    }

    const fn first_word(self) -> u32 {
        (self.0 >> 96) as u32
    }

    const fn words(self) -> [u32; KEY] {
        [(self.0 >> 96) as u32, (self.0 >> 64) as u32, (self.0 >> 32) as u32, self.0 as u32]
    }

    fn load(words: &[AtomicU32]) -> Key {
        let [a, b, c, d, ..] = words else { return Key(0) };
        let pair = |high: &AtomicU32, low: &AtomicU32| {
            u64::from(high.load(Ordering::Relaxed)) << 32 | u64::from(low.load(Ordering::Relaxed))
        };
        Key(u128::from(pair(a, b)) << 64 | u128::from(pair(c, d)))
    }
}

/// A row: what stands under a key. Its first word is never zero.
#[derive(Debug, Clone, Copy)]
pub(super) struct Row<'a>(&'a [AtomicU32]);

impl<'a> Row<'a> {
    /// One word; zero past the end.
    pub(super) fn word(self, index: usize) -> u32 {
        self.0.get(KEY + index).map_or(0, |word| word.load(Ordering::Relaxed))
    }

    fn key(self) -> Key {
        Key::load(self.0)
    }

    fn is_taken(self) -> bool {
        self.word(0) != 0
    }

    /// Stores a key and its words; zeros behind them.
    fn store(self, key: Key, words: &[u32]) {
        let Some((to_key, to)) = self.0.split_at_checked(KEY) else { return };
        let (to, rest) = to.split_at(words.len().min(to.len()));
        to_key.iter().zip(key.words()).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
        to.iter().zip(words).for_each(|(to, word)| to.store(*word, Ordering::Relaxed));
        rest.iter().for_each(|to| to.store(0, Ordering::Relaxed));
    }

    /// Stores what another row holds, which is no wider; zeros behind it.
    fn take(self, other: Row<'_>) {
        let (to, rest) = self.0.split_at(other.0.len().min(self.0.len()));
        let words = other.0.iter().map(|word| word.load(Ordering::Relaxed));
        to.iter().zip(words).for_each(|(to, word)| to.store(word, Ordering::Relaxed));
        rest.iter().for_each(|to| to.store(0, Ordering::Relaxed));
    }
}

/// Where a row goes. It is good until the next change of its shard.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// Over the row that the key has.
    Over(usize),
    /// Between two rows: those from `slot` up to the free one move on by one.
    Between {
        /// The new row's.
        slot: usize,
        /// The first free one from there.
        free: usize,
    },
}

impl Place {
    /// Has the key no row yet?
    pub(super) const fn is_new(self) -> bool {
        matches!(self, Place::Between { .. })
    }
}

/// All rows of one kind. A clone shares the shards.
#[derive(Debug, Clone)]
pub(super) struct Rows {
    shards: Box<[Arc<Shard>]>,
    /// There is no slot, so there is no row.
    is_bare: bool,
}

impl Rows {
    /// No rows, with room for so many of so many words.
    pub(super) fn with_room(rows: usize, words: usize) -> Rows {
        let share = rows.div_ceil(SHARDS);
        // Keys are hashes: a shard whose share is larger by chance rarely has to grow while the table is loaded.
        let size = if rows == 0 { Size::NONE } else { Size::of(share + 3 * share.isqrt()) };
        let shards = (0..SHARDS).map(|_| Arc::new(Shard::new(size, KEY + words))).collect();
        Rows { shards, is_bare: size.slots == 0 }
    }

    /// Is there certainly no row, and none to come without that [`Rows::grow`] makes room for it?
    pub(super) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The row under this key.
    pub(super) fn find(&self, key: Key) -> Option<Row<'_>> {
        self.shard(key)?.find(key)
    }

    /// Where the row under this key is looked for first, as [`touch`] takes it.
    pub(super) fn home(&self, key: Key) -> &[AtomicU32] {
        self.shard(key).map_or(&[], |shard| shard.at_home(key))
    }

    /// Where a row of so many words goes; `None` if its shard must grow first.
    pub(super) fn place(&self, key: Key, words: usize) -> Option<Place> {
        self.shard(key)?.place(key, KEY + words)
    }

    /// Rebuilds the shard of this key with more room, beside the one there is.
    pub(super) fn grow(&mut self, key: Key, words: usize) {
        self.is_bare = false;
        if let Some(shard) = self.shards.get_mut(key.shard()) {
            *shard = Arc::new(shard.grown(KEY + words));
        }
    }

    /// Puts a row where [`Rows::place`] said.
    pub(super) fn put(&self, place: Place, key: Key, words: &[u32]) {
        if let Some(shard) = self.shard(key) {
            shard.put(place, key, words);
        }
    }

    /// The bytes of the keys in one shard, in order.
    pub(super) fn keys(&self, shard: u8) -> impl Iterator<Item = [u8; 16]> {
        let shard = self.shards.get(usize::from(shard)).into_iter();
        let rows = shard.flat_map(|shard| shard.rows_from(0));
        rows.filter(|row| row.is_taken()).map(|row| row.key().bytes())
    }

    /// How many rows there are.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.taken()).sum()
    }

    /// How many bytes they take, free slots included.
    pub(super) fn bytes(&self) -> usize {
        self.shards.iter().map(|shard| shard.size.slots * shard.width * size_of::<AtomicU32>()).sum()
    }

    fn shard(&self, key: Key) -> Option<&Shard> {
        self.shards.get(key.shard()).map(Arc::as_ref)
    }
}

/// Asks memory for the cache lines at these homes, and for the next four of each: nine slots of ten are taken, so a row
/// stands some lines behind its home, and one that was not asked for costs more than four that were not needed. It
/// waits for none of them before it has asked for all; the fewer instructions stand between, the more are on their way
/// at once. The number means nothing; it is there to be used, or nothing would be asked for.
pub(super) fn touch(homes: &[&[AtomicU32]]) -> u32 {
    const LINE: usize = 16;
    homes.iter().fold(0, |sum, words| {
        let line = |at: usize| words.get(at * LINE).map_or(0, |word| word.load(Ordering::Relaxed));
        sum ^ line(0) ^ line(1) ^ line(2) ^ line(3) ^ line(4)
    })
}

/// How many slots a shard has.
#[derive(Debug, Clone, Copy)]
struct Size {
    slots: usize,
    /// How many of them are nobody's home.
    spill: usize,
}

impl Size {
    const NONE: Size = Size { slots: 0, spill: 0 };

    const fn new(slots: usize) -> Size {
        Size { slots, spill: if slots / 4 < SPILL { slots / 4 } else { SPILL } }
    }

    /// The least for so many rows.
    fn of(rows: usize) -> Size {
        let slots = (rows * 10).div_ceil(9);
        let is_small = slots <= SEGMENT / 2;
        Size::new(if is_small {
            slots.next_power_of_two().max(SLOTS_MIN)
        } else {
            slots.next_multiple_of(SEGMENT)
        })
    }

    /// The next, for a shard in which so many slots are taken.
    fn more(self, taken: usize) -> Size {
        let Size { slots, spill } = self;
        if slots == 0 || self.is_half_full(taken) {
            let slots = match slots {
                ..SEGMENT => slots.max(SLOTS_MIN / 2) * 2,
                SEGMENT..LARGE => slots + SEGMENT,
                LARGE.. => slots + (slots / 16).next_multiple_of(SEGMENT),
            };
            Size { spill: Size::new(slots).spill.max(spill), slots }
        } else {
            // The keys are no hashes: other homes would not help those that crowd at the end.
            Size { slots: slots + spill, spill: spill * 2 }
        }
    }

    /// Is there room for one more?
    const fn is_full(self, taken: usize) -> bool {
        (taken + 1) * 10 > self.slots * 9
    }

    const fn is_half_full(self, taken: usize) -> bool {
        taken * 2 > self.slots
    }
}

/// The rows of one part of the keys.
#[derive(Debug)]
struct Shard {
    segments: Box<[Box<[AtomicU32]>]>,
    size: Size,
    /// The words of a row, its key's included.
    width: usize,
    /// How many slots are taken; the writer's.
    taken: AtomicU32,
}

impl Shard {
    fn new(size: Size, width: usize) -> Shard {
        let segment = |first: usize| {
            let words = (size.slots - first).min(SEGMENT) * width;
            (0..words).map(|_| AtomicU32::new(0)).collect()
        };
        let segments = (0..size.slots).step_by(SEGMENT).map(segment).collect();
        Shard { segments, size, width, taken: AtomicU32::new(0) }
    }

    /// The rows from this slot on, be they free.
    fn rows_from(&self, slot: usize) -> impl Iterator<Item = Row<'_>> {
        let (first, rest) = match self.segments.get(slot / SEGMENT..) {
            Some([first, rest @ ..]) => (first.get(slot % SEGMENT * self.width..).unwrap_or(&[]), rest),
            Some([]) | None => (&[][..], &[][..]),
        };
        let rest = rest.iter().flat_map(|segment| segment.chunks_exact(self.width));
        first.chunks_exact(self.width).chain(rest).map(Row)
    }

    /// The row in a slot, be it free; `None` past the last.
    fn row(&self, slot: usize) -> Option<Row<'_>> {
        let first = slot % SEGMENT * self.width;
        self.segments.get(slot / SEGMENT)?.get(first..first + self.width).map(Row)
    }

    /// The slot where a key's row is looked for first.
    fn home(&self, key: Key) -> usize {
        let homes = self.size.slots - self.size.spill;
        // All that is below the byte that chose the shard, as a part of the whole.
        let part = (key.0 >> 56) as u64;
        ((u128::from(part) * homes as u128) >> 64) as usize
    }

    fn find(&self, key: Key) -> Option<Row<'_>> {
        let home = self.home(key);
        let mut first = home % SEGMENT * self.width;
        for segment in self.segments.get(home / SEGMENT..)? {
            let mut words = segment.get(first..)?;
            // Chunks would be counted first, which takes a division.
            while let Some((row, behind)) = words.split_at_checked(self.width) {
                let row = Row(row);
                words = behind;
                // Nearly all of those that are passed by are told by their first word.
                let first = row.0.first().map_or(0, |word| word.load(Ordering::Relaxed));
                if first != 0 && first < key.first_word() {
                    continue;
                }
                let found = row.key();
                if found >= key {
                    return (found == key && row.is_taken()).then_some(row);
                }
                if found == Key(0) && !row.is_taken() {
                    return None;
                }
            }
            first = 0;
        }
        None
    }

    /// The words of its segment from the home of a key on.
    fn at_home(&self, key: Key) -> &[AtomicU32] {
        let home = self.home(key);
        let segment = self.segments.get(home / SEGMENT);
        segment.and_then(|segment| segment.get(home % SEGMENT * self.width..)).unwrap_or(&[])
    }

    fn place(&self, key: Key, width: usize) -> Option<Place> {
        if width > self.width {
            return None;
        }
        let (home, taken) = (self.home(key), self.taken());
        let reach = if self.size.is_half_full(taken) { REACH } else { self.size.slots };
        let mut between = None;
        let place = self.rows_from(home).zip(home..home + reach).find_map(|(row, slot)| {
            if !row.is_taken() {
                return Some(Place::Between { slot: between.unwrap_or(slot), free: slot });
            }
            // Behind the first higher key there are higher ones only.
            if between.is_none() {
                match row.key().cmp(&key) {
                    cmp::Ordering::Less => (),
                    cmp::Ordering::Equal => return Some(Place::Over(slot)),
                    cmp::Ordering::Greater => between = Some(slot),
                }
            }
            None
        })?;
        (!place.is_new() || !self.size.is_full(taken)).then_some(place)
    }

    fn put(&self, place: Place, key: Key, words: &[u32]) {
        let slot = match place {
            Place::Over(slot) => slot,
            Place::Between { slot, free } => {
                for to in (slot + 1..=free).rev() {
                    if let (Some(from), Some(to)) = (self.row(to - 1), self.row(to)) {
                        to.take(from);
                    }
                }
                self.taken.store(self.taken.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
                slot
            }
        };
        if let Some(row) = self.row(slot) {
            row.store(key, words);
        }
    }

    /// The same rows, with room for one more, and for rows of this width.
    fn grown(&self, width: usize) -> Shard {
        let taken = self.taken();
        let is_too_narrow = width > self.width && !self.size.is_full(taken);
        let mut size = if is_too_narrow { self.size } else { self.size.more(taken) };
        loop {
            let shard = Shard::new(size, width.max(self.width));
            if shard.take_all(self) {
                return shard;
            }
            size = size.more(taken);
        }
    }

    /// Takes over the rows of another, which stand in order: no search, and nothing moves twice.
    fn take_all(&self, other: &Shard) -> bool {
        let mut next = 0;
        for row in other.rows_from(0).filter(|row| row.is_taken()) {
            let slot = self.home(row.key()).max(next);
            let Some(to) = self.row(slot) else { return false };
            to.take(row);
            next = slot + 1;
        }
        self.taken.store(other.taken.load(Ordering::Relaxed), Ordering::Relaxed);
        true
    }

    fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed) as usize
    }
}
