//! A bit for each entry: all of a large tree stay at hand.

use crate::entries::EntryIx;
use crate::index::fill_tightly;

const WORD: usize = u64::BITS as usize;

/// What is true of which entries; of those past the end, nothing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bits(Vec<u64>);

impl Bits {
    /// Makes room for so many entries.
    #[inline]
    pub(crate) fn grow(&mut self, entries: usize) {
        // Mostly there is.
        if self.0.len() * WORD < entries {
            fill_tightly(&mut self.0, entries.div_ceil(WORD));
        }
    }

    pub(crate) fn get(&self, entry: EntryIx) -> bool {
        let word = self.0.get(entry.at() / WORD);
        word.is_some_and(|word| word >> (entry.at() % WORD) & 1 == 1)
    }

    /// Sets a bit, and returns what it was.
    pub(crate) fn replace(&mut self, entry: EntryIx, is_set: bool) -> bool {
        let (word, mask) = (&mut self.0[entry.at() / WORD], 1 << (entry.at() % WORD));
        let was_set = *word & mask != 0;
        *word = if is_set { *word | mask } else { *word & !mask };
        was_set
    }
}
