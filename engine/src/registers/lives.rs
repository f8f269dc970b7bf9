//! Which lives of an entry somebody touched, and what it was created as in each.
//!
//! Only the current life and later ones count; which it is stands beside them, where there is room.
//! Nearly every entry was created as an item in its current life and touched in no other: of which item
//! won there is nothing to know.
//!
//! Invariants, checked by `assert_invariants`:
//! - R1. No life before the current one is kept.
//! - R2. Lives are in order, each at most once; what needs no list has none.
//!
//! Cost: a touch is O(log n) in the lives that are kept, of which anybody can make many.

use std::collections::BTreeMap;

use smallvec::{SmallVec, smallvec};

use crate::id::{Life, Stamp};
use crate::op::NewEntry;
use crate::state::{self, LifeRecord};

/// One life in which somebody touched the entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TouchedLife {
    life: Life,
    /// The creation that counts: an item before any link, then the newest.
    creation: Option<Creation>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Creation {
    kind: NewEntry,
    stamp: Stamp,
}

/// Touched lives, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TouchedLives {
    first: TouchedLife,
    /// Those after the first, if there are any, which is rare.
    later: Option<Box<LaterLives>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LaterLives(BTreeMap<Life, Option<Creation>>);

/// The current life, and the lives that somebody touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lives {
    /// No op has named the entry as what it is about, so that it is in its first life.
    #[default]
    Unknown,
    /// Nobody touched the current life.
    None(Life),
    /// The current one; nobody created the entry in it.
    Touched(Life),
    /// The current one, in which the entry was created as an item.
    Item(Life),
    /// Any others.
    Listed(Life, Box<TouchedLives>),
}

/// What an op says about the life it names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Touch {
    pub(crate) life: Life,
    /// What the op creates the entry as, if it does.
    pub(crate) creates: Option<NewEntry>,
    pub(crate) stamp: Stamp,
}

impl Lives {
    pub(crate) const fn is_known(&self) -> bool {
        !matches!(self, Self::Unknown)
    }

    /// The current life.
    pub(crate) const fn current(&self) -> Life {
        match self {
            Self::Unknown => Life::FIRST,
            Self::None(life) | Self::Touched(life) | Self::Item(life) | Self::Listed(life, _) => {
                *life
            }
        }
    }

    /// Whether a touch would change anything.
    #[inline]
    pub(crate) fn is_changed_by(&self, touch: &Touch) -> bool {
        let current = self.current();
        if touch.life < current {
            return false;
        }
        match self {
            Self::Item(_) => touch.life > current,
            Self::Touched(_) => touch.life > current || touch.creates.is_some(),
            Self::Unknown | Self::None(_) => true,
            Self::Listed(_, list) => list.is_changed_by(touch),
        }
    }

    /// Records a touch of the current life or of a later one.
    pub(crate) fn touch(&mut self, touch: &Touch) {
        let current = self.current();
        let item = Creation { kind: NewEntry::Item, stamp: touch.stamp };
        match (&mut *self, touch.creates) {
            (Self::Unknown | Self::None(_) | Self::Touched(_), Some(NewEntry::Item))
                if touch.life == current =>
            {
                *self = Self::Item(current);
            }
            (Self::Unknown | Self::None(_), None) if touch.life == current => {
                *self = Self::Touched(current);
            }
            (Self::Unknown | Self::None(_), _) => self.list(touch.life, None, touch),
            (Self::Touched(_), _) => self.list(current, None, touch),
            // An item's stamp decides nothing, so any will do.
            (Self::Item(_), _) => self.list(current, Some(item), touch),
            (Self::Listed(_, list), _) => list.touch(touch),
        }
        self.simplify();
    }

    /// Forgets the lives before `next`, which becomes the current one.
    pub(crate) fn begin(&mut self, next: Life) {
        let is_left = if let Self::Listed(current, list) = self {
            *current = next;
            list.begin(next)
        } else {
            false
        };
        if is_left {
            self.simplify();
        } else {
            *self = Self::None(next);
        }
    }

    /// Whether somebody touched the current life.
    pub(crate) fn is_touched(&self) -> bool {
        match self {
            Self::Unknown | Self::None(_) => false,
            Self::Touched(_) | Self::Item(_) => true,
            Self::Listed(current, list) => list.first.life == *current,
        }
    }

    /// What the entry is in its current life; an item if nobody created it in that life.
    pub(crate) fn kind(&self) -> NewEntry {
        let Self::Listed(current, list) = self else { return NewEntry::Item };
        let first = Some(list.first).filter(|first| first.life == *current);
        first.and_then(|first| first.creation).map_or(NewEntry::Item, |creation| creation.kind)
    }

    /// The lives that somebody touched, as records.
    pub(super) fn records(&self) -> SmallVec<[LifeRecord; 1]> {
        let record = |life: &Life, creation| smallvec![LifeRecord { life: *life, creation }];
        match self {
            Self::Unknown | Self::None(_) => SmallVec::new(),
            Self::Touched(life) => record(life, state::Creation::None),
            Self::Item(life) => record(life, state::Creation::Item),
            Self::Listed(_, list) => list.iter().map(|one| one.record()).collect(),
        }
    }

    /// Makes a list of a life and a touch.
    fn list(&mut self, life: Life, creation: Option<Creation>, touch: &Touch) {
        let mut list = TouchedLives { first: TouchedLife { life, creation }, later: None };
        list.touch(touch);
        *self = Self::Listed(self.current(), Box::new(list));
    }

    /// Gives up a list that is not needed.
    fn simplify(&mut self) {
        let Self::Listed(current, list) = self else { return };
        let TouchedLives { first, later: None } = **list else { return };
        if first.life == *current {
            match first.creation.map(|creation| creation.kind) {
                None => *self = Self::Touched(first.life),
                Some(NewEntry::Item) => *self = Self::Item(first.life),
                Some(NewEntry::Link { .. }) => {}
            }
        }
    }

    /// Panics if R1 or R2 does not hold.
    pub(crate) fn assert_invariants(&self) {
        let Self::Listed(current, list) = self else { return };
        assert!(list.iter().all(|one| one.life >= *current), "R1");
        assert!(list.iter().is_sorted_by(|a, b| a.life < b.life), "R2");
        assert!(list.later.as_ref().is_none_or(|later| !later.0.is_empty()), "R2");
        let mut simple = self.clone();
        simple.simplify();
        assert_eq!(simple, *self, "R2: needs no list");
    }
}

impl TouchedLives {
    fn iter(&self) -> impl Iterator<Item = TouchedLife> + '_ {
        let later = self.later.iter().flat_map(|later| &later.0);
        let later = later.map(|(life, creation)| TouchedLife { life: *life, creation: *creation });
        std::iter::once(self.first).chain(later)
    }

    fn creation(&self, life: Life) -> Option<&Option<Creation>> {
        if life == self.first.life {
            return Some(&self.first.creation);
        }
        self.later.as_ref()?.0.get(&life)
    }

    fn is_changed_by(&self, touch: &Touch) -> bool {
        let new = touch.creation();
        self.creation(touch.life).is_none_or(|known| new.is_some_and(|new| beats(&new, known)))
    }

    fn touch(&mut self, touch: &Touch) {
        if touch.life < self.first.life {
            let new = TouchedLife { life: touch.life, creation: None };
            let TouchedLife { life, creation } = std::mem::replace(&mut self.first, new);
            self.later.get_or_insert_default().0.insert(life, creation);
        }
        let known = if touch.life == self.first.life {
            &mut self.first.creation
        } else {
            self.later.get_or_insert_default().0.entry(touch.life).or_default()
        };
        if let Some(new) = touch.creation()
            && beats(&new, known)
        {
            *known = Some(new);
        }
    }

    /// Forgets the lives before `next`. Whether any is left.
    fn begin(&mut self, next: Life) -> bool {
        while self.first.life < next {
            let first = self.later.as_mut().and_then(|later| later.0.pop_first());
            let Some((life, creation)) = first else { return false };
            self.first = TouchedLife { life, creation };
        }
        self.later.take_if(|later| later.0.is_empty());
        true
    }
}

impl Touch {
    fn creation(&self) -> Option<Creation> {
        self.creates.map(|kind| Creation { kind, stamp: self.stamp })
    }
}

impl TouchedLife {
    fn record(&self) -> LifeRecord {
        let creation = match self.creation {
            None => state::Creation::None,
            Some(Creation { kind: NewEntry::Item, .. }) => state::Creation::Item,
            Some(Creation { kind: NewEntry::Link { target }, stamp }) => {
                state::Creation::Link { target, op: stamp.op() }
            }
        };
        LifeRecord { life: self.life, creation }
    }
}

/// Whether a creation counts rather than the one known.
fn beats(new: &Creation, known: &Option<Creation>) -> bool {
    let rank = |one: &Creation| (one.kind == NewEntry::Item, one.stamp);
    known.as_ref().is_none_or(|known| rank(known) < rank(new))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{EntryId, ReplicaId};

    fn stamp(lamport: u64) -> Stamp {
        Stamp { lamport, replica: ReplicaId::new(1).unwrap(), counter: lamport }
    }

    fn touch(life: u32, creates: Option<NewEntry>, at: u64) -> Touch {
        Touch { life: Life::new(life).unwrap(), creates, stamp: stamp(at) }
    }

    /// Lives after these touches, each looked at before and after.
    fn touched(current: u32, touches: &[Touch]) -> Lives {
        let mut lives = Lives::None(Life::new(current).unwrap());
        for touch in touches {
            let before = lives.clone();
            if lives.is_changed_by(touch) {
                lives.touch(touch);
            }
            lives.assert_invariants();
            assert!(!lives.is_changed_by(touch), "{touch:?} of {before:?}");
        }
        lives
    }

    #[test]
    fn lives_are_the_same_in_whatever_order_they_were_touched() {
        let link = |last| Some(NewEntry::Link { target: EntryId::from_bytes([last; 16]) });
        let all = [
            touch(5, None, 9),
            touch(2, link(1), 4),
            touch(2, link(2), 6),
            touch(7, link(1), 3),
            touch(7, Some(NewEntry::Item), 2),
            touch(3, None, 1),
        ];
        let mut back = all;
        back.reverse();
        for current in [0, 2, 3] {
            let kept: Vec<_> = all.into_iter().filter(|one| one.life.number() >= current).collect();
            let back: Vec<_> =
                back.into_iter().filter(|one| one.life.number() >= current).collect();
            let (mut lives, other) = (touched(current, &kept), touched(current, &back));
            assert_eq!(lives.records(), other.records());
            for (next, kind) in [(2, link(2)), (3, None), (4, None), (7, None)] {
                let next = Life::new(next).unwrap();
                if next > lives.current() {
                    lives.begin(next);
                    lives.assert_invariants();
                }
                if next == lives.current() {
                    assert_eq!(lives.kind(), kind.unwrap_or(NewEntry::Item), "{next:?}");
                    assert_eq!(lives.is_touched(), next.number() != 4, "{next:?}");
                }
            }
            assert_eq!(lives, Lives::Item(Life::new(7).unwrap()));
            lives.begin(Life::new(8).unwrap());
            assert_eq!(lives, Lives::None(Life::new(8).unwrap()));
        }
    }

    /// Going through the lives that are known for each would be 10^11 steps.
    #[test]
    fn touching_a_life_costs_no_look_at_the_others() {
        const LIVES: u32 = 500_000;
        let up: Vec<_> = (1..=LIVES).map(|life| (life, u64::from(life))).collect();
        let down: Vec<_> = up.iter().rev().copied().collect();
        for order in [up, down] {
            let mut lives = Lives::None(Life::FIRST);
            for (life, at) in order {
                let touch = touch(life, None, at);
                assert!(lives.is_changed_by(&touch));
                lives.touch(&touch);
            }
            assert_eq!(lives.records().len(), LIVES as usize);
            for life in 1..=LIVES {
                lives.begin(Life::new(life).unwrap());
                assert!(lives.is_touched());
            }
            assert_eq!(lives, Lives::Touched(Life::new(LIVES).unwrap()));
        }
    }
}
