//! What a replica shows: entries and their places, kinds, values.

use crate::entries::EntryIx;
use crate::id::{EntryId, Timestamp};
use crate::op::NewEntry;
use crate::registers::RegisterView;
use crate::replica::Replica;
use crate::value::{Field, Value};

impl Replica {
    /// Whether the entry shows: it is alive, or a placeholder for the target of a link.
    #[must_use]
    pub fn is_shown(&self, entry: EntryId) -> bool {
        self.find_shown(entry).is_some()
    }

    /// The index of an entry that shows.
    pub(crate) fn find_shown(&self, entry: EntryId) -> Option<EntryIx> {
        // Whatever is alive shows.
        let is_shown =
            |ix: &EntryIx| self.facts().is_alive(*ix) || self.display.parent(*ix).is_some();
        self.entries.find(entry).filter(is_shown)
    }

    /// Whether the entry is alive. System entries always are.
    #[must_use]
    pub fn is_alive(&self, entry: EntryId) -> bool {
        self.entries.find(entry).is_some_and(|entry| self.facts().is_alive(entry))
    }

    /// What a shown entry is; a placeholder is an item.
    #[must_use]
    pub fn kind(&self, entry: EntryId) -> Option<NewEntry> {
        let shown = self.find_shown(entry)?;
        Some(self.facts().kind(shown).unwrap_or(NewEntry::Item))
    }

    /// The container in which the entry shows; none for Root and for what does not show.
    #[must_use]
    pub fn parent(&self, entry: EntryId) -> Option<EntryId> {
        let parent = self.display.parent(self.entries.find(entry)?)?;
        Some(self.entries.id(parent))
    }

    /// The entries shown in `parent`, in order; none if it does not show.
    pub fn children(
        &self,
        parent: EntryId,
    ) -> impl DoubleEndedIterator<Item = EntryId> + Clone + '_ {
        let children = self.entries.find(parent).map(|parent| self.display.children(parent));
        children.into_iter().flatten().map(|entry| self.entries.id(entry))
    }

    /// How many entries show in `parent`; in Root also Trash and Lost and Found. O(1).
    #[must_use]
    pub fn child_count(&self, parent: EntryId) -> usize {
        self.entries.find(parent).map_or(0, |parent| self.display.child_count(parent))
    }

    /// The entry shown at `index` in `parent`. O(log n).
    #[must_use]
    pub fn child_at(&self, parent: EntryId, index: usize) -> Option<EntryId> {
        let child = self.display.child_at(self.entries.find(parent)?, index)?;
        Some(self.entries.id(child.entry))
    }

    /// Where the entry shows among its siblings; none for Root and for what does not show. O(log n).
    #[must_use]
    pub fn index_of(&self, entry: EntryId) -> Option<usize> {
        self.display.index_of(self.entries.find(entry)?)
    }

    /// The live links whose target is `target`, in order of id.
    pub fn links_to(&self, target: EntryId) -> impl Iterator<Item = EntryId> {
        let target = self.entries.find(target);
        target.into_iter().flat_map(|target| self.display.links_to(target))
    }

    /// When the entry was deleted, if it shows directly in Trash and was put there by a deletion.
    #[must_use]
    pub fn trashed_at(&self, entry: EntryId) -> Option<Timestamp> {
        let entry = self.entries.find(entry)?;
        if self.display.parent(entry) != Some(EntryIx::TRASH) {
            return None;
        }
        self.tree.placement(entry)?.trashed_at
    }

    /// The value of a field; [`Value::None`] if it holds nothing or the entry is not alive. Costs
    /// its length, since it is copied; [`Replica::text_slice`] reads without a copy.
    #[must_use]
    pub fn value(&self, entry: EntryId, field: &Field) -> Value {
        self.register(entry, field).map_or(Value::None, RegisterView::value)
    }

    /// The fields of an entry that hold something, in order.
    pub fn fields(&self, entry: EntryId) -> impl Iterator<Item = &Field> {
        let state = self.live_state(entry).into_iter();
        let registers = state.flat_map(|state| state.registers(self.entries.names()));
        registers.map(|(field, _)| field)
    }

    /// Every entry that shows, Root included, in no particular order.
    pub fn shown_entries(&self) -> impl Iterator<Item = EntryId> {
        self.display.shown_entries().chain([EntryIx::ROOT]).map(|entry| self.entries.id(entry))
    }
}
