//! The packed registers of a few entries whose indexes follow each other, in one piece of memory: what
//! most entries hold takes less than a pointer to it would.
//!
//! What an entry has here is a slot of bytes, of which a page knows nothing but where it ends.
//!
//! Invariant, checked by `assert_invariants`:
//! - P1. The ends are in order, and none is past the bytes.
//!
//! Cost: a change of a slot moves what is behind it in the page.

use std::ops::Range;

use crate::entries::EntryIx;
use crate::id::Stamp;
use crate::short_op::{Authors, ShortOp};

/// So many entries share a page. Few make tests see many pages.
pub(super) const PAGE: usize = if cfg!(any(test, feature = "small-nodes")) { 3 } else { 16 };
/// The most bytes of a slot.
pub(super) const SLOT_MAX: usize = if cfg!(any(test, feature = "small-nodes")) { 40 } else { 160 };
/// What a page that grows has to spare, beside an eighth.
const SPARE: usize = 32;

#[derive(Clone, Debug, Default)]
pub(super) struct Page {
    /// The slots, one behind the other, and room for more.
    bytes: Box<[u8]>,
    /// Where each slot ends.
    ends: [u16; PAGE],
    /// Time and op of a stamp that those in the page are likely to be near to.
    lamport: u64,
    op: ShortOp,
}

// There is one for a few entries, and their slots can be counted in two bytes.
const _: () = assert!(size_of::<Page>() <= 64 && PAGE * SLOT_MAX <= u16::MAX as usize);

/// In which page the slot of an entry is, and where in it.
pub(super) const fn place(entry: EntryIx) -> (usize, usize) {
    (entry.at() / PAGE, entry.at() % PAGE)
}

impl Page {
    #[inline]
    pub(super) fn slot(&self, at: usize) -> &[u8] {
        &self.bytes[self.range(at)]
    }

    /// Replaces some bytes of a slot. A page that has become half empty gives back the rest.
    pub(super) fn splice(&mut self, at: usize, range: Range<usize>, new: &[u8]) {
        let start = self.range(at).start;
        let (from, to, used) = (start + range.start, start + range.end, self.used());
        let behind = from + new.len();
        let len = behind + (used - to);
        if len > self.bytes.len() {
            self.resize(len + len / 8 + SPARE);
        }
        if behind != to {
            self.bytes.copy_within(to..used, behind);
            for end in &mut self.ends[at..] {
                let moved = usize::from(*end) + behind - to;
                *end = u16::try_from(moved).expect("a page of full slots is counted in two bytes");
            }
        }
        self.bytes[from..behind].copy_from_slice(new);
        if new.len() < range.len() && 2 * len < self.bytes.len() {
            self.resize(len);
        }
    }

    /// Makes room for so many bytes in a page that has none.
    pub(super) fn reserve(&mut self, bytes: usize) {
        if self.bytes.is_empty() {
            self.resize(bytes);
        }
    }

    /// Gives back what is to spare.
    pub(super) fn trim(&mut self) {
        if self.used() < self.bytes.len() {
            self.resize(self.used());
        }
    }

    /// Says that stamps in an empty page are likely to be near to this one.
    pub(super) fn expect(&mut self, stamp: Stamp, authors: &mut Authors) {
        if self.used() == 0 {
            self.lamport = stamp.lamport;
            self.op = authors.shorten(stamp.op()).unwrap_or_default();
        }
    }

    /// The stamp that those in the page are likely to be near to.
    pub(super) fn expected(&self, authors: &Authors) -> Stamp {
        let Some(replica) = authors.author(self.op.author()) else { return Stamp::ZERO };
        Stamp { lamport: self.lamport, replica, counter: self.op.counter() }
    }

    #[inline]
    fn range(&self, at: usize) -> Range<usize> {
        let start = if at == 0 { 0 } else { self.ends[at - 1] };
        start.into()..self.ends[at].into()
    }

    fn used(&self) -> usize {
        self.ends[PAGE - 1].into()
    }

    fn resize(&mut self, len: usize) {
        let mut bytes = std::mem::take(&mut self.bytes).into_vec();
        bytes.reserve_exact(len.saturating_sub(bytes.len()));
        bytes.resize(len, 0);
        self.bytes = bytes.into_boxed_slice();
    }

    /// Panics if P1 does not hold.
    pub(super) fn assert_invariants(&self) {
        assert!(self.ends.is_sorted(), "P1");
        assert!(self.used() <= self.bytes.len(), "P1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_keep_their_bytes_whatever_becomes_of_the_others() {
        let mut page = Page::default();
        let mut slots: [Vec<u8>; PAGE] = std::array::from_fn(|_| Vec::new());
        let mut splice = |page: &mut Page, at: usize, range: Range<usize>, new: &[u8]| {
            page.splice(at, range.clone(), new);
            slots[at].splice(range, new.iter().copied());
            page.assert_invariants();
            for (at, slot) in slots.iter().enumerate() {
                assert_eq!(page.slot(at), slot);
            }
        };
        let full = [7; SLOT_MAX];
        splice(&mut page, 1, 0..0, b"in the middle");
        splice(&mut page, 0, 0..0, b"before");
        splice(&mut page, PAGE - 1, 0..0, b"at the end");
        splice(&mut page, 1, 3..6, b"at");
        page.trim();
        splice(&mut page, 1, 3..5, b"is");
        (0..PAGE).for_each(|at| splice(&mut page, at, 0..1, &full[1..]));
        (0..PAGE).for_each(|at| splice(&mut page, at, 2..5, b""));
    }
    #[test]
    fn a_page_gives_back_the_room_of_what_has_gone() {
        let mut page = Page::default();
        (0..PAGE).for_each(|at| page.splice(at, 0..0, &[7; SLOT_MAX]));
        for at in 0..PAGE {
            page.splice(at, 0..SLOT_MAX, &[]);
            page.assert_invariants();
            assert!(
                page.bytes.len() <= 2 * page.used(),
                "{} for {}",
                page.bytes.len(),
                page.used()
            );
        }
    }
}
