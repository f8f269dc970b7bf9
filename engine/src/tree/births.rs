//! Creations as nearly all of them are, in little room: in the entry's first life, with a short key, and
//! the first that is known of the entry. A store mostly consists of them.
//!
//! Invariant, checked by `assert_invariants`:
//! - B1. Exactly the creations with the flag have links.

use hashbrown::HashMap;

use super::MoveIx;
use crate::entries::EntryIx;
use crate::id::{Life, Stamp};
use crate::index::{push_tightly, trim};
use crate::short_op::{Authors, ShortOp};
use crate::tree::moves::Move;
use crate::tree::{MoveKind, MoveOp};

/// The longest key of a birth. Nearly all keys are that short.
const KEY_MAX: usize = 11;
/// What is beside the length of the key.
const IS_EFFECTIVE: u8 = 0x80;
const HAS_LINKS: u8 = 0x40;
const LEN_MASK: u8 = 0x0f;

/// A creation.
#[derive(Clone, Copy, Debug)]
struct Birth {
    op: ShortOp,
    lamport: u32,
    entry: EntryIx,
    parent: EntryIx,
    key: [u8; KEY_MAX],
    /// The length of the key, and flags.
    head: u8,
}

// There is one for nearly each entry, for good.
const _: () = assert!(size_of::<Birth>() <= 32 && KEY_MAX <= LEN_MASK as usize);

/// Other moves of the entry, which are older than its creation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Links {
    replaced: Option<MoveIx>,
    older: Option<MoveIx>,
}

/// Creations, in the order in which they arrived. Only the newest can be taken out again.
#[derive(Clone, Debug, Default)]
pub(super) struct Births {
    births: Vec<Birth>,
    authors: Authors,
    links: HashMap<usize, Links>,
}

impl Births {
    pub(super) fn reserve(&mut self, births: usize) {
        self.births.reserve_exact(births);
    }

    pub(super) fn trim(&mut self) {
        trim(&mut self.births);
    }

    /// Adds a move that has not taken effect yet, if it is a creation like most. Returns whether it is.
    pub(super) fn push(&mut self, stamp: Stamp, op: &MoveOp<'_>) -> bool {
        let MoveOp { entry, life, parent, key, kind } = *op;
        if kind != MoveKind::Creation || life != Life::FIRST {
            return false;
        }
        let (bytes, mut key) = (key.as_bytes(), [0; KEY_MAX]);
        let (Some(room), Ok(lamport)) = (key.get_mut(..bytes.len()), u32::try_from(stamp.lamport))
        else {
            return false;
        };
        room.copy_from_slice(bytes);
        let Some(op) = self.authors.shorten(stamp.op()) else { return false };
        #[expect(clippy::cast_possible_truncation, reason = "as long as a key that fits")]
        let head = bytes.len() as u8;
        push_tightly(&mut self.births, Birth { op, lamport, entry, parent, key, head });
        true
    }

    /// Takes the newest arrival out.
    pub(super) fn pop(&mut self) {
        if self.births.pop().is_some_and(|birth| birth.head & HAS_LINKS != 0) {
            self.links.remove(&self.births.len());
        }
    }

    pub(super) fn set_effect(&mut self, at: usize, is_effective: bool, replaced: Option<MoveIx>) {
        let birth = &mut self.births[at];
        birth.head = birth.head & !IS_EFFECTIVE | if is_effective { IS_EFFECTIVE } else { 0 };
        if replaced.is_some() || birth.head & HAS_LINKS != 0 {
            self.link(at, Links { replaced, ..self.links(at) });
        }
    }

    pub(super) fn set_older(&mut self, at: usize, older: Option<MoveIx>) {
        if older.is_some() || self.births[at].head & HAS_LINKS != 0 {
            self.link(at, Links { older, ..self.links(at) });
        }
    }

    #[inline]
    pub(super) fn get(&self, at: usize) -> Move {
        let Links { replaced, older } = self.links(at);
        Move {
            stamp: self.stamp(at),
            entry: self.births[at].entry,
            parent: self.births[at].parent,
            life: Life::FIRST,
            replaced,
            older,
            is_within: false,
            is_effective: self.births[at].head & IS_EFFECTIVE != 0,
        }
    }

    #[inline]
    pub(super) fn stamp(&self, at: usize) -> Stamp {
        let Birth { op, lamport, .. } = self.births[at];
        let op = self.authors.op(op);
        Stamp { lamport: lamport.into(), replica: op.replica, counter: op.counter }
    }

    /// The entry and the container.
    #[inline]
    pub(super) fn pair(&self, at: usize) -> (EntryIx, EntryIx) {
        let Birth { entry, parent, .. } = self.births[at];
        (entry, parent)
    }

    pub(super) fn key(&self, at: usize) -> &[u8] {
        let birth = &self.births[at];
        &birth.key[..usize::from(birth.head & LEN_MASK)]
    }

    pub(super) const fn len(&self) -> usize {
        self.births.len()
    }

    fn links(&self, at: usize) -> Links {
        let links = if self.births[at].head & HAS_LINKS == 0 { None } else { self.links.get(&at) };
        links.copied().unwrap_or_default()
    }

    fn link(&mut self, at: usize, links: Links) {
        let birth = &mut self.births[at];
        if links == Links::default() {
            birth.head &= !HAS_LINKS;
            self.links.remove(&at);
        } else {
            birth.head |= HAS_LINKS;
            self.links.insert(at, links);
        }
    }

    /// Panics if B1 does not hold, or an invariant of a part.
    pub(super) fn assert_invariants(&self) {
        self.authors.assert_invariants();
        let flagged = self.births.iter().filter(|birth| birth.head & HAS_LINKS != 0);
        assert_eq!(flagged.count(), self.links.len(), "B1");
        for (at, links) in &self.links {
            assert_ne!(*links, Links::default(), "B1");
            assert_ne!(self.births[*at].head & HAS_LINKS, 0, "B1");
        }
    }
}
