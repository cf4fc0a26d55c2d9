//! Pages of heads on their way to a fleet: read once and encoded once for all snapshots that are under way together.
//!
//! A page shows the heads after a key as of its own read, at revision R. A snapshot that sends every frame after a
//! place S is right with any page of R >= S: a head's last change up to S is in the page, a later one is in a frame,
//! and newest wins. So the one rule of sharing is: **a snapshot takes no page that is older than the place where its
//! frames begin**, and it ends at or past the newest page that it took. For a page to serve many, snapshots that begin
//! soon after one another begin at one place, a little behind the ledger: the frames since then cost less than the
//! pages would.
//!
//! Pages are kept only while somebody takes a snapshot or waits for one. At the bound on their bytes those that came
//! first stay, since the next snapshot asks for them first; of the others the latest stay, since those who go in step
//! ask for them next. What is not kept is read again.

use crate::ring::Newest;
use crate::store::{Reader, StoreError};
use consent::convert::sync;
use consent::said::Encoded;
use consent_core::head::HeadKey;
use consent_core::words::{Moment, Revision, Span};
use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;

/// Heads in one page.
pub(super) const PAGE: u32 = 1_000;
/// A snapshot begins at most so many revisions behind the ledger, so as to share pages: a megabyte of frames.
const BEHIND_MAX: u64 = 4_096;
/// Pages are shared for so long. One that is wrong, however it came to be, makes every table wrong that is made with it;
/// so it must not live for as long as those come again.
const SHARED_FOR: Span = Span::from_millis(30_000);
/// A page is read again at most so often because others had read it too early.
const READS_MAX: usize = 4;

/// A page.
#[derive(Debug, Clone)]
pub(super) struct Page {
    /// As it is sent; `None`: no head is left.
    pub(super) encoded: Option<Encoded>,
    /// Where the ledger stood when it was read.
    pub(super) revision: Revision,
    /// After which head the next one begins; `None`: it was the last.
    pub(super) next_after: Option<HeadKey>,
}

/// The pages that are kept.
#[derive(Debug)]
pub(super) struct Pages {
    bytes_max: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    /// Where snapshots begin, and since when.
    begins_at: Option<(Newest, Moment)>,
    /// By the head after which they begin.
    slots: HashMap<Option<HeadKey>, Slot>,
    /// Those that may go, oldest first.
    latest: VecDeque<Option<HeadKey>>,
    bytes: usize,
}

#[derive(Debug, Default)]
struct Slot {
    /// Empty while somebody reads it, for whom the others wait.
    page: Arc<OnceCell<Page>>,
    /// What it counts for; 0 until it is read.
    bytes: usize,
}

impl Pages {
    /// None yet, and never more than so many bytes.
    pub(super) fn new(bytes_max: usize) -> Pages {
        Pages { bytes_max, kept: Mutex::default() }
    }

    /// Where a snapshot begins that begins now, with the ledger at `newest`.
    pub(super) fn begin(&self, newest: Newest, now: Moment) -> Newest {
        let mut kept = self.kept();
        if let Some((earlier, since)) = kept.begins_at {
            let is_over = now.longest_since(since) > SHARED_FOR;
            // Numbers of another history say nothing about the age of a page.
            if is_over || earlier.place.epoch != newest.place.epoch {
                *kept = Kept::default();
            } else if newest.place.revision.get() <= earlier.place.revision.get() + BEHIND_MAX {
                return earlier;
            }
        }
        kept.begins_at = Some((newest, now));
        newest
    }

    /// The heads after a key, as of a read at or after revision `since`.
    pub(super) async fn after<R: Reader>(
        &self,
        reader: &R,
        after: Option<HeadKey>,
        since: Revision,
    ) -> Result<Page, StoreError> {
        for _ in 0..READS_MAX {
            let slot = self.kept().slot(after, since);
            let page = slot.get_or_try_init(|| read(reader, after)).await?;
            self.kept().count(after, &slot, page, self.bytes_max);
            // Whoever read it may have begun before this snapshot did.
            if page.revision >= since {
                return Ok(page.clone());
            }
        }
        Err(StoreError::Unavailable("the primary is behind what was read from it before".to_owned()))
    }

    // Nothing in it is half done where somebody may panic: bytes counted wrong would only share less.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// The place of a page, emptied if what is there is too old.
    fn slot(&mut self, after: Option<HeadKey>, since: Revision) -> Arc<OnceCell<Page>> {
        let slot = self.slots.entry(after).or_default();
        if slot.page.get().is_some_and(|page| page.revision < since) {
            self.bytes -= slot.bytes;
            *slot = Slot::default();
        }
        Arc::clone(&slot.page)
    }

    fn count(&mut self, after: Option<HeadKey>, read: &Arc<OnceCell<Page>>, page: &Page, bytes_max: usize) {
        let same = |slot: &&mut Slot| Arc::ptr_eq(&slot.page, read) && slot.bytes == 0;
        let Some(slot) = self.slots.get_mut(&after).filter(same) else { return };
        // What a slot takes beside its bytes is little, and a page without heads is one of them.
        slot.bytes = page.encoded.as_ref().map_or(0, Encoded::len) + size_of::<Slot>();
        self.bytes += slot.bytes;
        if self.bytes > bytes_max / 4 * 3 {
            self.latest.push_back(after);
        }
        while self.bytes > bytes_max
            && let Some(oldest) = self.latest.pop_front()
        {
            self.bytes -= self.slots.remove(&oldest).map_or(0, |slot| slot.bytes);
        }
    }
}

async fn read<R: Reader>(reader: &R, after: Option<HeadKey>) -> Result<Page, StoreError> {
    let page = reader.heads_after(after, PAGE).await?;
    let is_full = page.heads.len() == PAGE as usize;
    let next_after = page.heads.last().map(|head| head.key).filter(|_| is_full);
    let revision = page.revision;
    let chunk = (!page.heads.is_empty()).then(|| sync::snapshot_chunk(page.heads, revision));
    Ok(Page { encoded: chunk.as_ref().map(Encoded::whole), revision, next_after })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::heads_only::HeadsOnly;
    use consent_core::chain::Chain;
    use consent_core::confirm::Place;
    use consent_core::digest::Digest;
    use consent_core::words::{Epoch, Timestamp};

    const HEADS: u128 = 10 * PAGE as u128;

    fn now() -> Moment {
        Moment { boot: 1, raw: 1 }
    }

    fn at(number: u64) -> Revision {
        Revision::new(number).expect("a revision")
    }

    fn ledger(epoch: u8, revision: u64) -> Newest {
        let (chain, digest) = (Chain::new([epoch; 32]), Digest::EMPTY);
        let place = Place { epoch: Epoch::new([epoch; 16]), revision: at(revision), chain, digest };
        Newest { place, recorded_at: Timestamp::from_millis(0) }
    }

    /// Takes every page, and gives how many bytes they were.
    async fn all(pages: &Pages, reader: &HeadsOnly, since: u64) -> usize {
        let (mut after, mut bytes) = (None, 0);
        loop {
            let page = pages.after(reader, after, at(since)).await.expect("a page");
            assert!(page.revision >= at(since), "no page is older than the place where the frames begin");
            bytes += page.encoded.map_or(0, |encoded| encoded.len());
            if page.next_after.is_none() {
                return bytes;
            }
            after = page.next_after;
        }
    }

    #[tokio::test]
    async fn a_fleet_reads_each_page_once() {
        let (pages, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        let takers = (0..50).map(|_| all(&pages, &reader, 7));
        let mut takers: Vec<_> = takers.map(Box::pin).collect();
        // All at once, in step.
        let bytes = std::future::poll_fn(|context| {
            let mut bytes = None;
            takers.retain_mut(|taker| match taker.as_mut().poll(context) {
                std::task::Poll::Ready(taken) => {
                    assert_eq!(*bytes.get_or_insert(taken), taken);
                    false
                }
                std::task::Poll::Pending => true,
            });
            if takers.is_empty() { std::task::Poll::Ready(bytes) } else { std::task::Poll::Pending }
        });
        let bytes = bytes.await.expect("somebody was the last");
        // And one behind the other. The last page is empty: the one before it was full.
        assert_eq!(all(&pages, &reader, 3).await, bytes);
        assert_eq!(reader.reads(), 11);
    }

    #[tokio::test]
    async fn a_page_from_before_a_snapshot_begins_is_read_again() {
        let (pages, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        all(&pages, &reader, 7).await;
        reader.goes_on_to(9);
        all(&pages, &reader, 8).await;
        assert_eq!(reader.reads(), 22);
        // Newer ones are right for whoever began earlier.
        all(&pages, &reader, 7).await;
        assert_eq!(reader.reads(), 22);
    }

    #[tokio::test]
    async fn a_primary_that_is_behind_gives_no_page() {
        let (pages, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        let behind = pages.after(&reader, None, at(8)).await;
        assert!(matches!(behind, Err(StoreError::Unavailable(_))));
        assert_eq!(reader.reads(), READS_MAX);
    }

    #[tokio::test]
    async fn snapshots_begin_at_one_place_for_as_long_as_the_frames_since_then_are_few() {
        let pages = Pages::new(usize::MAX);
        let first = ledger(1, 7);
        assert_eq!(pages.begin(first, now()), first);
        assert_eq!(pages.begin(ledger(1, 7 + BEHIND_MAX), now()), first);
        let later = ledger(1, 8 + BEHIND_MAX);
        assert_eq!(pages.begin(later, now()), later);
    }

    #[tokio::test]
    async fn pages_are_read_again_after_a_while_though_nothing_changes() {
        let (pages, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        let after = |span: Span| now().after(span);
        let first = ledger(1, 7);
        pages.begin(first, now());
        all(&pages, &reader, 7).await;
        assert_eq!(pages.begin(first, after(SHARED_FOR)), first);
        all(&pages, &reader, 7).await;
        assert_eq!(reader.reads(), 11);
        pages.begin(first, after(SHARED_FOR).after(Span::from_millis(1)));
        all(&pages, &reader, 7).await;
        assert_eq!(reader.reads(), 22);
    }

    #[tokio::test]
    async fn pages_of_another_epoch_are_not_taken_for_new_ones() {
        let (pages, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        pages.begin(ledger(1, 7), now());
        all(&pages, &reader, 7).await;
        // The new epoch's ledger is shorter.
        let other = ledger(2, 3);
        assert_eq!(pages.begin(other, now()), other);
        reader.goes_on_to(3);
        assert_eq!(pages.after(&reader, None, at(3)).await.expect("a page").revision, at(3));
    }

    #[tokio::test]
    async fn at_the_bound_the_first_pages_stay_and_of_the_others_the_latest() {
        let (unbounded, reader) = (Pages::new(usize::MAX), HeadsOnly::new(HEADS, 7));
        all(&unbounded, &reader, 7).await;
        let page = unbounded.kept().bytes / 10;
        let (pages, reader) = (Pages::new(4 * page + page / 2), HeadsOnly::new(HEADS, 7));
        for round in 1..=3 {
            all(&pages, &reader, 7).await;
            let kept = pages.kept();
            assert!(kept.bytes <= pages.bytes_max);
            assert!(kept.slots.values().all(|slot| slot.bytes > 0));
            // The first three stay.
            assert_eq!(reader.reads(), 11 + 8 * (round - 1));
        }
    }
}
