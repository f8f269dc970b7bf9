//! The lives of all entries. Nearly all are told by one byte each.
//!
//! Invariant, checked by `assert_invariants`:
//! - A1. Lives that a byte can tell are told so, and nothing else is kept of them.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::lives::{Lives, Touch};
use crate::entries::EntryIx;
use crate::id::Life;
use crate::index::{push_tightly, trim};
use crate::op::NewEntry;
use crate::state::LifeRecord;

/// Lives in a byte: the number of the current one, and the kind in the low bits.
type Code = u8;

const KIND_BITS: u32 = 2;
const KIND_MASK: Code = (1 << KIND_BITS) - 1;
const UNKNOWN: Code = 0;
const NONE: Code = 1;
const TOUCHED: Code = 2;
const ITEM: Code = 3;
/// What a byte cannot tell: no number comes with this kind.
const LISTED: Code = 1 << KIND_BITS | UNKNOWN;

#[derive(Clone, Debug, Default)]
pub(super) struct AllLives {
    codes: Vec<Code>,
    listed: HashMap<EntryIx, Lives>,
}

impl AllLives {
    /// Adds an entry, of which nothing is known.
    pub(super) fn push(&mut self) {
        push_tightly(&mut self.codes, UNKNOWN);
    }

    pub(super) const fn len(&self) -> usize {
        self.codes.len()
    }

    /// Makes room for so many more entries at once.
    pub(super) fn reserve(&mut self, entries: usize) {
        self.codes.reserve_exact(entries);
    }

    /// Gives back room that was made for more.
    pub(super) fn trim(&mut self) {
        trim(&mut self.codes);
    }

    /// The current life of an entry.
    #[inline]
    pub(super) fn current(&self, entry: EntryIx) -> Life {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).current(),
            code => life_of(code),
        }
    }

    /// Whether any op has named an entry as what it is about.
    #[inline]
    pub(super) fn is_known(&self, entry: EntryIx) -> bool {
        self.codes[entry.at()] != UNKNOWN
    }

    /// Whether somebody touched the current life of an entry.
    #[inline]
    pub(super) fn is_touched(&self, entry: EntryIx) -> bool {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).is_touched(),
            code => matches!(code & KIND_MASK, TOUCHED | ITEM),
        }
    }

    /// What an entry is in its current life; an item if nobody created it in that life.
    #[inline]
    pub(super) fn kind(&self, entry: EntryIx) -> NewEntry {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).kind(),
            _ => NewEntry::Item,
        }
    }

    /// Whether a touch would change anything.
    #[inline]
    pub(super) fn is_changed_by(&self, entry: EntryIx, touch: &Touch) -> bool {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).is_changed_by(touch),
            code => decode(code).is_changed_by(touch),
        }
    }

    /// The lives of an entry, to keep.
    pub(super) fn get(&self, entry: EntryIx) -> Lives {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).clone(),
            code => decode(code),
        }
    }

    /// The lives of an entry that somebody touched, as records.
    pub(super) fn records(&self, entry: EntryIx) -> SmallVec<[LifeRecord; 1]> {
        match self.codes[entry.at()] {
            LISTED => self.listed(entry).records(),
            code => decode(code).records(),
        }
    }

    /// Changes the lives of an entry.
    #[inline]
    pub(super) fn change(&mut self, entry: EntryIx, change: impl FnOnce(&mut Lives)) {
        let code = &mut self.codes[entry.at()];
        let mut lives = match *code {
            LISTED => self.listed.remove(&entry).expect("A1: lives without a code are listed"),
            code => decode(code),
        };
        change(&mut lives);
        *code = encode(&lives);
        if *code == LISTED {
            self.listed.insert(entry, lives);
        }
    }

    #[cold]
    fn listed(&self, entry: EntryIx) -> &Lives {
        &self.listed[&entry]
    }

    /// Panics if A1 does not hold.
    pub(super) fn assert_invariants(&self) {
        let listed = self.codes.iter().filter(|code| **code == LISTED);
        assert_eq!(listed.count(), self.listed.len(), "A1");
        for (entry, lives) in &self.listed {
            assert_eq!((self.codes[entry.at()], encode(lives)), (LISTED, LISTED), "A1: {entry:?}");
        }
    }
}

#[inline]
fn decode(code: Code) -> Lives {
    let life = life_of(code);
    match code & KIND_MASK {
        NONE => Lives::None(life),
        TOUCHED => Lives::Touched(life),
        ITEM => Lives::Item(life),
        _ => Lives::Unknown,
    }
}

#[inline]
fn life_of(code: Code) -> Life {
    Life::new((code >> KIND_BITS).into()).expect("a small number is one of a life")
}

#[inline]
fn encode(lives: &Lives) -> Code {
    const NUMBER_MAX: u32 = (Code::MAX >> KIND_BITS) as u32;
    let (kind, life) = match lives {
        Lives::Unknown => return UNKNOWN,
        Lives::None(life) => (NONE, life),
        Lives::Touched(life) => (TOUCHED, life),
        Lives::Item(life) => (ITEM, life),
        Lives::Listed(..) => return LISTED,
    };
    match Code::try_from(life.number()) {
        Ok(number) if life.number() <= NUMBER_MAX => number << KIND_BITS | kind,
        _ => LISTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, Stamp};

    #[test]
    fn lives_come_back_as_they_were() {
        let mut all = AllLives::default();
        let life = |number| Life::new(number).unwrap();
        let mut of_link = Lives::None(Life::FIRST);
        let creates = Some(NewEntry::Link { target: EntryId::ROOT });
        of_link.touch(&Touch { life: life(3), creates, stamp: Stamp::ZERO });
        let mut lives = vec![Lives::Unknown, of_link];
        for number in [0, 1, 63, 64, 1 << 30] {
            let life = life(number);
            lives.extend([Lives::None(life), Lives::Touched(life), Lives::Item(life)]);
        }
        let entry = EntryIx::new(1);
        (0..2).for_each(|_| all.push());
        for one in lives.iter().chain(lives.iter().rev()) {
            all.change(entry, |lives| lives.clone_from(one));
            all.assert_invariants();
            assert_eq!(all.get(entry), *one);
            let found = (all.is_known(entry), all.is_touched(entry), all.current(entry));
            assert_eq!(found, (one.is_known(), one.is_touched(), one.current()));
            assert_eq!((all.kind(entry), all.get(EntryIx::new(0))), (one.kind(), Lives::Unknown));
            assert_eq!(all.records(entry), one.records());
        }
    }
}
