//! What a sidecar knows of its own table: which places it went through, and which older answers may still be valid.
//!
//! Keeps I4 and I5: one chain without a gap, each place with its digest, and within an epoch never back. Keeps the
//! first half of R6: a revision is ripe for its ack only when the answer hold has passed, by both clocks, since it
//! became visible to every reader.

use super::io::Cause;
use crate::chain::Chain;
use crate::confirm::message::{Frame, Place};
use crate::digest::Digest;
use crate::words::{Epoch, Moment, Revision, Span};
use std::collections::VecDeque;

/// So many places are remembered, to judge a grant for a place that is already passed. A grant for an older one
/// is dropped: the next keepalive brings another.
const RECENT: usize = 4096;
/// So many frames may wait for being applied. At the bound the sidecar starts over.
const APPLYING: usize = 4096;
/// So many revisions may wait for their ack one by one. At the bound the newest two become one, which is acked
/// later than the first of them could be.
const UNRIPE: usize = 1024;
/// In so many epochs the furthest place is remembered.
const EPOCHS: usize = 8;

/// A place within the table's own epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) revision: Revision,
    pub(super) chain: Chain,
    pub(super) digest: Digest,
}

impl From<Place> for Mark {
    fn from(place: Place) -> Mark {
        Mark { revision: place.revision, chain: place.chain, digest: place.digest }
    }
}

impl Mark {
    fn within(self, epoch: Epoch) -> Place {
        Place { epoch, revision: self.revision, chain: self.chain, digest: self.digest }
    }
}

/// How a grant's place compares with the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// The table went through it.
    Reached,
    /// The table is not there yet.
    Ahead,
    /// Too long ago to say.
    Forgotten,
    /// The table went another way, or holds something else.
    Differs(Cause),
}

/// The table's way so far.
#[derive(Debug, Clone)]
pub(super) struct Table {
    epoch: Epoch,
    /// Applies that were ordered and are not reported yet, oldest first.
    applying: VecDeque<Mark>,
    /// Where the table was, oldest first; the last is where it is. Never empty.
    recent: VecDeque<Mark>,
    /// What is visible, but for less than the hold.
    unripe: VecDeque<(Mark, Moment)>,
    /// What has been visible for the hold: no answer from before it is valid.
    ripe: Option<Mark>,
    /// Has an authority given it, or found it on its chain? A copy of one's own may say anything.
    accepted: bool,
}

impl Table {
    /// A table just loaded: every revision in it became visible now (R6).
    pub(super) fn loaded(place: Place, now: Moment) -> Table {
        let (mark, epoch) = (Mark::from(place), place.epoch);
        let (applying, unripe) = (VecDeque::new(), VecDeque::from([(mark, now)]));
        Table { epoch, applying, recent: [mark].into(), unripe, ripe: None, accepted: true }
    }

    /// A table from the node's own copy, of which no authority has said anything yet.
    pub(super) fn copied(place: Place, now: Moment) -> Table {
        Table { accepted: false, ..Table::loaded(place, now) }
    }

    /// An authority goes on from it. Readers see a copy only now, so its revisions are visible from now on (R6).
    pub(super) fn accept(&mut self, now: Moment) {
        if !std::mem::replace(&mut self.accepted, true) {
            self.hold_anew(now);
        }
    }

    /// Where it stands, if an authority has said that there is such a place.
    pub(super) fn reached(&self) -> Option<Place> {
        self.applied().filter(|_| self.accepted)
    }

    pub(super) fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Where the table stands.
    pub(super) fn applied(&self) -> Option<Place> {
        self.recent.back().map(|mark| mark.within(self.epoch))
    }

    /// Where it will stand when every apply is done.
    pub(super) fn ordered(&self) -> Option<Place> {
        self.applying.back().or(self.recent.back()).map(|mark| mark.within(self.epoch))
    }

    /// R6: takes the next revision of this chain in this epoch. `false`: it was here before.
    pub(super) fn order(&mut self, frame: &Frame) -> Result<bool, Cause> {
        let Some(last) = self.ordered() else { return Err(Cause::Gap) };
        if frame.epoch != self.epoch {
            return Err(Cause::Epoch);
        }
        if frame.revision <= last.revision {
            let same = self.find(frame.revision).is_none_or(|mark| mark.chain == frame.chain);
            return if same { Ok(false) } else { Err(Cause::Chain) };
        }
        if !frame.revision.follows(last.revision) {
            return Err(Cause::Gap);
        }
        if last.chain.then(frame.link) != frame.chain {
            return Err(Cause::Chain);
        }
        if self.applying.len() >= APPLYING {
            return Err(Cause::Overrun);
        }
        self.applying.push_back(frame.place().into());
        Ok(true)
    }

    /// Everything up to `revision` is visible now, and the table's own digest is `digest`. A report of what was
    /// not ordered is an old one, from before the table was dropped.
    pub(super) fn visible(&mut self, now: Moment, revision: Revision, digest: Digest) -> Result<(), Cause> {
        if self.applying.front().is_none_or(|first| first.revision > revision) {
            return Ok(());
        }
        while self.applying.front().is_some_and(|mark| mark.revision <= revision) {
            // Before another comes: one more than fits would double its memory.
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.extend(self.applying.pop_front());
        }
        let Some(&mark) = self.recent.back() else { return Ok(()) };
        if mark.revision != revision || mark.digest != digest {
            return Err(Cause::Digest);
        }
        if self.unripe.len() >= UNRIPE {
            self.unripe.pop_back();
        }
        self.unripe.push_back((mark, now));
        Ok(())
    }

    /// R6: what has been visible for `hold` by both clocks is ripe.
    pub(super) fn ripen(&mut self, now: Moment, hold: Span) {
        while let Some(&(mark, since)) = self.unripe.front() {
            if now.shortest_since(since) < hold {
                return;
            }
            self.ripe = Some(mark);
            self.unripe.pop_front();
        }
    }

    /// What may be acked.
    pub(super) fn ripe(&self) -> Option<Mark> {
        self.ripe
    }

    /// When the next revision may be ripe.
    pub(super) fn ripe_at(&self, hold: Span) -> Option<Moment> {
        self.unripe.front().map(|(_, since)| since.after(hold))
    }

    /// The clocks of before cannot be believed: every hold starts again.
    pub(super) fn distrust_clocks(&mut self, now: Moment) {
        self.hold_anew(now);
    }

    fn hold_anew(&mut self, now: Moment) {
        self.ripe = None;
        self.unripe = self.recent.back().map(|&mark| (mark, now)).into_iter().collect();
    }

    /// R5: has the table gone through the place?
    pub(super) fn standing(&self, place: &Place) -> Standing {
        let (Some(first), Some(last)) = (self.recent.front(), self.recent.back()) else {
            return Standing::Forgotten;
        };
        if place.revision > last.revision {
            return Standing::Ahead;
        }
        if place.revision < first.revision {
            return Standing::Forgotten;
        }
        match self.find(place.revision) {
            None => Standing::Forgotten,
            Some(mark) if mark.chain != place.chain => Standing::Differs(Cause::Chain),
            Some(mark) if mark.digest != place.digest => Standing::Differs(Cause::Digest),
            Some(_) => Standing::Reached,
        }
    }

    /// Goes on as it is, in another epoch: an authority of that one has found all that was ordered on its chain.
    pub(super) fn enter(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    fn find(&self, revision: Revision) -> Option<&Mark> {
        let first = self.recent.front()?.revision.get();
        let at = usize::try_from(revision.get().checked_sub(first)?).ok()?;
        // Both lists are contiguous, so a place is found by counting; the check keeps that honest.
        let mark = self.recent.get(at).or_else(|| self.applying.get(at - self.recent.len()));
        mark.filter(|mark| mark.revision == revision)
    }
}

/// The furthest place of each of the last epochs, so that a table never falls within one (I5), whatever an
/// authority says.
#[derive(Debug, Clone, Default)]
pub(super) struct Summits(VecDeque<Place>);

impl Summits {
    /// The table stands at `place` now.
    pub(super) fn reach(&mut self, place: Place) {
        match self.0.iter_mut().find(|summit| summit.epoch == place.epoch) {
            Some(summit) => *summit = place,
            None => {
                if self.0.len() >= EPOCHS {
                    self.0.pop_front();
                }
                self.0.push_back(place);
            }
        }
    }

    /// I5: may the table go to `place`?
    pub(super) fn allow(&self, place: &Place) -> bool {
        self.0.iter().filter(|summit| summit.epoch == place.epoch).all(|summit| {
            place.revision > summit.revision
                || (place.revision == summit.revision && place.chain == summit.chain)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Link;

    #[test]
    fn it_remembers_no_more_places_than_there_is_room_for() {
        let now = Moment { boot: 0, raw: 0 };
        let start = Place {
            epoch: Epoch::new([1; 16]),
            revision: Revision::ZERO,
            chain: Chain::EMPTY,
            digest: Digest::EMPTY,
        };
        let (mut table, mut last) = (Table::loaded(start, now), start);
        let link = Link::new([7; 32]);
        for _ in 0..RECENT + 2 {
            let revision = last.revision.next().unwrap();
            let frame = Frame {
                epoch: last.epoch,
                revision,
                link,
                chain: last.chain.then(link),
                digest: Digest::EMPTY,
            };
            assert_eq!(table.order(&frame), Ok(true));
            assert_eq!(table.visible(now, revision, Digest::EMPTY), Ok(()));
            last = frame.place();
        }
        assert_eq!((table.recent.len(), table.recent.capacity()), (RECENT, RECENT));
        // The newest are those that are left.
        assert_eq!(table.applied(), Some(last));
        assert!(table.find(last.revision).is_some() && table.find(start.revision).is_none());
    }
}
