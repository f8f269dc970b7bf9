//! Which lives of an entry somebody touched, and what it was created as in each.
//!
//! Only the current life and later ones count. Nearly every entry was created as an item in its
//! current life and touched in no other: of which item won there is nothing to know.
//!
//! Invariants, checked by `assert_invariants`:
//! - R1. No life before the current one is kept.
//! - R2. Lives are in order, each at most once; what needs no list has none.

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

type TouchedLives = SmallVec<[TouchedLife; 1]>;

/// The lives that somebody touched. The current one is the caller's to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Lives {
    /// None.
    #[default]
    None,
    /// The current one; nobody created the entry in it.
    Touched,
    /// The current one, in which the entry was created as an item.
    Item,
    /// Any others.
    Listed(Box<TouchedLives>),
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
    /// Whether a touch would change anything.
    pub(crate) fn is_changed_by(&self, current: Life, touch: &Touch) -> bool {
        if touch.life < current {
            return false;
        }
        match self {
            Self::Item => touch.life > current,
            Self::Touched => touch.life > current || touch.creates.is_some(),
            Self::None => true,
            Self::Listed(list) => {
                let known = list.iter().find(|one| one.life == touch.life);
                known.is_none_or(|one| touch.creation().is_some_and(|new| one.is_beaten_by(&new)))
            }
        }
    }

    /// Records a touch of the current life or of a later one.
    pub(crate) fn touch(&mut self, current: Life, touch: &Touch) {
        *self = match (&*self, touch.creates) {
            (Self::None | Self::Touched, Some(NewEntry::Item)) if touch.life == current => {
                Self::Item
            }
            (Self::None, None) if touch.life == current => Self::Touched,
            _ => {
                let mut list = self.to_list(current, touch.stamp);
                list_touch(&mut list, touch);
                Self::of_list(list, current)
            }
        };
    }

    /// Forgets the lives before `next`, which follows `current`.
    pub(crate) fn begin(&mut self, next: Life) {
        *self = match std::mem::take(self) {
            Self::Listed(mut list) => {
                list.retain(|one| one.life >= next);
                Self::of_list(*list, next)
            }
            _ => Self::None,
        };
    }

    /// Whether somebody touched the current life.
    pub(crate) fn is_touched(&self, current: Life) -> bool {
        match self {
            Self::None => false,
            Self::Touched | Self::Item => true,
            Self::Listed(list) => list.iter().any(|one| one.life == current),
        }
    }

    /// What the entry is in its current life; an item if nobody created it in that life.
    pub(crate) fn kind(&self, current: Life) -> NewEntry {
        let Self::Listed(list) = self else { return NewEntry::Item };
        let one = list.iter().find(|one| one.life == current);
        one.and_then(|one| one.creation).map_or(NewEntry::Item, |creation| creation.kind)
    }

    /// The same as records.
    pub(super) fn records(&self, current: Life) -> SmallVec<[LifeRecord; 1]> {
        let record = |creation| smallvec![LifeRecord { life: current, creation }];
        match self {
            Self::None => SmallVec::new(),
            Self::Touched => record(state::Creation::None),
            Self::Item => record(state::Creation::Item),
            Self::Listed(list) => list.iter().map(TouchedLife::record).collect(),
        }
    }

    /// The same as a list. An item's stamp decides nothing, so any will do.
    fn to_list(&self, current: Life, stamp: Stamp) -> TouchedLives {
        let item = Creation { kind: NewEntry::Item, stamp };
        match self {
            Self::None => TouchedLives::new(),
            Self::Touched => smallvec![TouchedLife { life: current, creation: None }],
            Self::Item => smallvec![TouchedLife { life: current, creation: Some(item) }],
            Self::Listed(list) => (**list).clone(),
        }
    }

    fn of_list(list: TouchedLives, current: Life) -> Self {
        match list.as_slice() {
            [] => Self::None,
            [one] if one.life == current && one.creation.is_none() => Self::Touched,
            [one] if one.life == current && one.is_item() => Self::Item,
            _ => Self::Listed(Box::new(list)),
        }
    }

    /// Panics if R1 or R2 does not hold.
    pub(crate) fn assert_invariants(&self, current: Life) {
        let Self::Listed(list) = self else { return };
        assert!(list.iter().all(|one| one.life >= current), "R1");
        assert!(list.is_sorted_by(|a, b| a.life < b.life), "R2");
        assert_eq!(Self::of_list((**list).clone(), current), *self, "R2: needs no list");
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

    fn is_item(&self) -> bool {
        self.creation.is_some_and(|creation| creation.kind == NewEntry::Item)
    }

    /// Whether another creation counts rather than the one known.
    fn is_beaten_by(&self, new: &Creation) -> bool {
        let rank = |one: &Creation| (one.kind == NewEntry::Item, one.stamp);
        self.creation.is_none_or(|known| rank(&known) < rank(new))
    }
}

fn list_touch(list: &mut TouchedLives, touch: &Touch) {
    let at = list.partition_point(|one| one.life < touch.life);
    if list.get(at).is_none_or(|one| one.life != touch.life) {
        list.insert(at, TouchedLife { life: touch.life, creation: None });
    }
    if let Some(new) = touch.creation()
        && list[at].is_beaten_by(&new)
    {
        list[at].creation = Some(new);
    }
}
