//! The displayed tree: live entries, those that lost their place, and placeholders.

use std::collections::{BTreeMap, BTreeSet};

use sds_engine::EntryId;

use super::lives::{Kind, Lives};
use super::tree::Placement;

/// First byte of the key under which an entry shows in Lost and Found that was not put there.
const RESCUED: u8 = 0xfe;

/// Every displayed entry but Root, with its displayed parent and the key that it sorts by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shown {
    places: BTreeMap<EntryId, (EntryId, Vec<u8>)>,
}

impl Shown {
    pub(crate) fn of(lives: &Lives, placements: &BTreeMap<EntryId, Placement>) -> Self {
        let mut shown = Self::default();
        for entry in lives.alive() {
            if *entry != EntryId::ROOT {
                let place = place_of_live(*entry, lives, placements);
                shown.places.insert(*entry, place);
            }
        }
        for target in shown.missing_targets(lives) {
            shown.places.insert(target, rescued(target));
        }
        shown
    }

    pub(crate) fn contains(&self, entry: EntryId) -> bool {
        entry == EntryId::ROOT || self.places.contains_key(&entry)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = EntryId> + '_ {
        std::iter::once(EntryId::ROOT).chain(self.places.keys().copied())
    }

    pub(crate) fn parent(&self, entry: EntryId) -> Option<EntryId> {
        self.places.get(&entry).map(|(parent, _)| *parent)
    }

    pub(crate) fn children(&self, of: EntryId) -> Vec<EntryId> {
        let inside = self.places.iter().filter(|(_, (parent, _))| *parent == of);
        let sorted: BTreeSet<_> = inside.map(|(entry, (_, key))| (key, *entry)).collect();
        sorted.into_iter().map(|(_, entry)| entry).collect()
    }

    /// Targets of live links outside Trash that do not live themselves.
    fn missing_targets(&self, lives: &Lives) -> BTreeSet<EntryId> {
        let links = lives.alive().iter().filter(|entry| !self.is_below_trash(**entry));
        let targets = links.filter_map(|entry| match lives.kind(*entry) {
            Some(Kind::Link(target)) => Some(target),
            _ => None,
        });
        targets.filter(|target| !lives.is_alive(*target)).collect()
    }

    fn is_below_trash(&self, entry: EntryId) -> bool {
        let mut at = self.parent(entry);
        while let Some(parent) = at {
            if parent == EntryId::TRASH {
                return true;
            }
            at = self.parent(parent);
        }
        false
    }
}

fn place_of_live(
    entry: EntryId,
    lives: &Lives,
    placements: &BTreeMap<EntryId, Placement>,
) -> (EntryId, Vec<u8>) {
    match placements.get(&entry) {
        Some(placement)
            if placement.life == lives.life(entry) && lives.is_live_item(placement.parent) =>
        {
            (placement.parent, placement.key.clone())
        }
        _ => rescued(entry),
    }
}

fn rescued(entry: EntryId) -> (EntryId, Vec<u8>) {
    let mut key = vec![RESCUED];
    key.extend_from_slice(entry.as_bytes());
    (EntryId::LOST_AND_FOUND, key)
}
