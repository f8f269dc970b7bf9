//! The splices of one text, in the order in which they were made.
//!
//! One that goes on where the last one was becomes a part of it, as in typing: so their number follows
//! how often somebody begins elsewhere.

use std::ops::Range;

use super::FieldEdit;
use crate::id::{OpId, ReplicaId, Stamp};
use crate::text::{Lengths, Text, TextUnit};
use crate::value::char_count;

/// An edit of a text: some characters in the place of some others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextSplice {
    /// How much of the text is before it.
    at: Lengths,
    deleted: String,
    inserted: String,
}

/// So many bytes of a splice are moved at most to put something before them.
const MOVED_BYTES_MAX: usize = if cfg!(any(test, feature = "small-nodes")) { 4 } else { 1_024 };

impl TextSplice {
    /// The positions of what is replaced in the text before this splice; that of an insertion twice.
    #[must_use]
    pub fn range(&self, unit: TextUnit) -> Range<usize> {
        let end = self.at + Lengths::of(&self.deleted);
        self.at.in_unit(unit)..end.in_unit(unit)
    }

    /// What is taken out.
    #[must_use]
    pub fn deleted(&self) -> &str {
        &self.deleted
    }

    /// What comes into its place.
    #[must_use]
    pub fn inserted(&self) -> &str {
        &self.inserted
    }

    /// The splice that makes one text of another, if they are not the same.
    pub(super) fn between(before: &str, after: &str) -> Option<Self> {
        let (deleted, inserted) = (before.to_owned(), after.to_owned());
        Self { at: Lengths::ZERO, deleted, inserted }.trimmed()
    }

    /// The same without what it takes out and puts in again at either end; none if nothing is left.
    fn trimmed(mut self) -> Option<Self> {
        let pairs = || self.deleted.chars().zip(self.inserted.chars());
        let same = pairs().take_while(|(old, new)| old == new);
        let start: usize = same.map(|(old, _)| old.len_utf8()).sum();
        self.at += Lengths::of(&self.deleted[..start]);
        self.deleted.drain(..start);
        self.inserted.drain(..start);
        let pairs = || self.deleted.chars().rev().zip(self.inserted.chars().rev());
        let same = pairs().take_while(|(old, new)| old == new);
        let end: usize = same.map(|(old, _)| old.len_utf8()).sum();
        self.deleted.truncate(self.deleted.len() - end);
        self.inserted.truncate(self.inserted.len() - end);
        (!self.is_void()).then_some(self)
    }

    const fn is_void(&self) -> bool {
        self.deleted.is_empty() && self.inserted.is_empty()
    }

    /// Takes in a splice that follows, if it is at an end of this one. Whether it was.
    fn take_in(&mut self, at: Lengths, deleted: &str, inserted: &str) -> bool {
        let mine = self.at.bytes..self.at.bytes + self.inserted.len();
        let theirs = at.bytes..at.bytes + deleted.len();
        if theirs.start == mine.end {
            self.deleted.push_str(deleted);
        } else if theirs.end == mine.end && theirs.start >= mine.start {
            self.inserted.truncate(theirs.start - mine.start);
        } else if theirs.end == mine.end && self.deleted.len() <= MOVED_BYTES_MAX {
            self.deleted.insert_str(0, &deleted[..mine.start - theirs.start]);
            self.inserted.clear();
            self.at = at;
        } else if theirs.end == mine.start
            && (deleted.is_empty() || self.deleted.len() <= MOVED_BYTES_MAX)
            && (inserted.is_empty() || self.inserted.len() <= MOVED_BYTES_MAX)
        {
            self.deleted.insert_str(0, deleted);
            self.inserted.insert_str(0, inserted);
            self.at = at;
            return true;
        } else {
            return false;
        }
        self.inserted.push_str(inserted);
        true
    }
}

/// Splices that apply one after the other.
#[derive(Clone, Debug, Default)]
pub(crate) struct Splices(Vec<TextSplice>);

impl Splices {
    /// Adds what was done after all others.
    pub(super) fn push(&mut self, at: Lengths, deleted: &str, inserted: &str) {
        if let Some(last) = self.0.last_mut()
            && last.take_in(at, deleted, inserted)
        {
            if last.is_void() {
                self.0.pop();
            }
            return;
        }
        let (deleted, inserted) = (deleted.to_owned(), inserted.to_owned());
        self.0.push(TextSplice { at, deleted, inserted });
    }

    /// The splices for a delta, if the text is another than before. O(n log n) of them, on top of the
    /// length of the text if they put in just the characters that they take out.
    pub(super) fn into_edit(self, after: impl FnOnce() -> String) -> Option<FieldEdit> {
        let splices = Self(self.0.into_iter().filter_map(TextSplice::trimmed).collect());
        if splices.0.is_empty() {
            return None;
        }
        if splices.only_moves_characters() {
            let after = after();
            if splices.undone(after.clone()) == after {
                return None;
            }
        }
        Some(FieldEdit::Spliced(splices.0))
    }

    /// Whether the characters put in are those taken out, in any order.
    fn only_moves_characters(&self) -> bool {
        let len = |text: fn(&TextSplice) -> &str| self.0.iter().map(|one| text(one).len()).sum();
        let (deleted, inserted): (usize, usize) =
            (len(TextSplice::deleted), len(TextSplice::inserted));
        let sorted = |text: fn(&TextSplice) -> &str| {
            let mut chars: Vec<char> = self.0.iter().flat_map(|one| text(one).chars()).collect();
            chars.sort_unstable();
            chars
        };
        deleted == inserted && sorted(TextSplice::deleted) == sorted(TextSplice::inserted)
    }

    /// What the text was before them. O(log n) for each, on top of the length of the text.
    pub(super) fn undone(&self, after: String) -> String {
        if self.0.is_empty() {
            return after;
        }
        // Ids of its own, of which a greater one is newer.
        let id = |counter| OpId { replica: ReplicaId::MAX, counter };
        let stamp =
            |id: OpId| Stamp { lamport: id.counter, replica: id.replica, counter: id.counter };
        let mut next = char_count(&after);
        let mut text = Text::new(id(0), &after);
        for splice in self.0.iter().rev() {
            let (start, is_back) = (splice.at.bytes, !splice.deleted.is_empty());
            let range = start..start + splice.inserted.len();
            let Some(found) = text.resolve(&range, TextUnit::Utf8, is_back) else { continue };
            found.deleted.iter().for_each(|chars| text.delete(*chars, false, |_| {}));
            if is_back {
                text.insert(found.origin, stamp(id(next)), &splice.deleted, &stamp);
                next += char_count(&splice.deleted);
            }
        }
        text.visible()
    }
}
