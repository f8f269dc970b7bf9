//! The move tree: every creation, move and reorder replayed in stamp order.

use std::collections::BTreeMap;

use sds_engine::{EntryId, Op, OrderKey, Stamp, Timestamp};

/// Where the last effective op put an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// The container.
    pub parent: EntryId,
    /// The place in it.
    pub key: Vec<u8>,
    /// The entry's life in the op.
    pub life: u32,
    /// The op; none for the places that system entries have from the start.
    pub stamp: Option<Stamp>,
    /// When the entry was deleted, if that is what the op did.
    pub trashed_at: Option<Timestamp>,
}

type Placements = BTreeMap<EntryId, Placement>;

pub(crate) fn replay(ops: &[(Stamp, Op)]) -> Placements {
    let mut placements = initial();
    for (stamp, op) in ops {
        match op {
            Op::Create { entry, life, parent, key, .. } => {
                let placement = placed(*parent, key, life.number(), *stamp, None);
                move_to(&mut placements, *entry, placement);
            }
            Op::Move { entry, life, parent, key, trashed_at } => {
                let placement = placed(*parent, key, life.number(), *stamp, *trashed_at);
                move_to(&mut placements, *entry, placement);
            }
            Op::Reorder { entry, life, parent, key } => {
                if let Some(placement) = placements.get_mut(entry)
                    && placement.parent == *parent
                    && placement.life == life.number()
                {
                    placement.key = key.as_bytes().to_vec();
                    placement.stamp = Some(*stamp);
                }
            }
            _ => {}
        }
    }
    placements
}

fn initial() -> Placements {
    let in_root = |key| Placement {
        parent: EntryId::ROOT,
        key: vec![key],
        life: 0,
        stamp: None,
        trashed_at: None,
    };
    Placements::from([(EntryId::TRASH, in_root(0x41)), (EntryId::LOST_AND_FOUND, in_root(0x42))])
}

fn placed(
    parent: EntryId,
    key: &OrderKey,
    life: u32,
    stamp: Stamp,
    trashed_at: Option<Timestamp>,
) -> Placement {
    Placement { parent, key: key.as_bytes().to_vec(), life, stamp: Some(stamp), trashed_at }
}

fn move_to(placements: &mut Placements, entry: EntryId, placement: Placement) {
    let outlived = placements.get(&entry).is_some_and(|now| placement.life < now.life);
    if !outlived && !is_same_or_above(placements, entry, placement.parent) {
        placements.insert(entry, placement);
    }
}

/// Whether `entry` is `of` or an ancestor of it in the move tree.
fn is_same_or_above(placements: &Placements, entry: EntryId, of: EntryId) -> bool {
    let mut at = Some(of);
    while let Some(node) = at {
        if node == entry {
            return true;
        }
        at = placements.get(&node).map(|placement| placement.parent);
    }
    false
}
