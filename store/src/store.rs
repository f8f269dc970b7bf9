//! The store itself: made new or from bytes, edited in transactions, kept equal by patches.

use std::sync::Arc;

use sds_engine::{
    Digest, EditError, EntryId, Field, IntegrateError, Integrated, Patch, Replica, ReplicaId,
    Transaction, Value, Version,
};

use crate::blob::Blobs;
use crate::change_set::{Property, reads_alike};
use crate::entry::Entry;
use crate::error::StoreError;
use crate::events::{Cause, Events, Origin};
use crate::options::StoreOptions;
use crate::undo::{Undo, UndoHistory};

/// A tree of items and links. See the crate's documentation for a first example.
#[derive(Debug)]
pub struct DataStore {
    replica: Replica,
    pub(crate) blobs: Blobs,
    options: StoreOptions,
    events: Events,
    undo: Undo,
}

impl DataStore {
    /// A store with nothing but Root, Trash and Lost and Found.
    ///
    /// `replica` names this copy as an author; no two copies may ever use one id at a time.
    #[must_use]
    pub fn new(replica: ReplicaId) -> Self {
        Self::from_replica(Replica::new(replica))
    }

    /// The store in a snapshot that [`DataStore::as_binary`] gave, to be edited as `replica`. Only for
    /// snapshots from where patches would be taken from: one of a few megabytes may unfold to gigabytes
    /// ([`SNAPSHOT_BYTES_MAX`](sds_engine::limits::SNAPSHOT_BYTES_MAX)) before it turns out to be none.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if the bytes are no snapshot, are damaged, or are newer.
    pub fn from_binary(replica: ReplicaId, snapshot: &[u8]) -> Result<Self, StoreError> {
        Ok(Self::from_replica(Replica::from_snapshot(replica, snapshot)?))
    }

    fn from_replica(mut replica: Replica) -> Self {
        let (blobs, events) = (Blobs::of(&mut replica), Events::default());
        Self { replica, blobs, options: StoreOptions::default(), events, undo: Undo::OFF }
    }

    /// Gives the store other options than the usual ones.
    #[must_use]
    pub fn with_options(mut self, options: StoreOptions) -> Self {
        self.options = options;
        self
    }

    /// Gives the store other options, for edits from now on.
    pub fn set_options(&mut self, options: StoreOptions) {
        self.options = options;
    }

    /// The options of this copy.
    #[must_use]
    pub const fn options(&self) -> &StoreOptions {
        &self.options
    }

    /// Runs several edits as one: all of them happen, or none. They become one change and one event.
    ///
    /// Inside another transaction it is a part of that one which can fail by itself: if `edits` fails
    /// or panics and the outer one survives that, only the part is taken back.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, StoreError};
    ///
    /// # fn main() -> Result<(), StoreError> {
    /// # let one = ReplicaId::new(1).unwrap();
    /// let mut desk = DataStore::new(one);
    /// desk.transact(|store| {
    ///     let list = store.new_item_at(None, EntryId::ROOT, None)?;
    ///     let failed = store.transact(|store| {
    ///         store.set_label(list, "half done")?;
    ///         store.set_mime_type(list, "")
    ///     });
    ///     assert_eq!(failed.unwrap_err().code(), "invalid-argument");
    ///     assert_eq!(store.entry_with_id(list).unwrap().label(), "");
    ///     Ok::<_, StoreError>(())
    /// })?;
    /// assert_eq!(desk.entry_count(), 4, "the item, Root, Trash, Lost and Found");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// What `edits` returns; [`StoreError::TransactionTooLarge`] for the whole;
    /// [`StoreError::TooManyEvents`] where handlers answer each other without end. Nothing has
    /// changed then.
    pub fn transact<T, E: From<StoreError>>(
        &mut self,
        edits: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let is_outermost = !self.replica.is_in_transaction();
        if is_outermost && let Err(error) = self.events.begin(&mut self.replica) {
            self.undo.history_mut().into_iter().for_each(UndoHistory::abandon);
            return Err(error.into());
        }
        // The engine's transactions want the engine alone; blobs may stay, nobody refers to them.
        let transaction = Some(self.replica.begin());
        let noted = self.events.noted();
        let scope = Scope { store: self, transaction, is_outermost, noted };
        let result = edits(scope.store)?;
        scope.commit()?;
        Ok(result)
    }

    /// Makes one edit, which is a transaction by itself outside of one. Every edit comes through here
    /// or [`DataStore::transact`].
    pub(crate) fn edit<T>(
        &mut self,
        edit: impl FnOnce(&mut Replica) -> Result<T, EditError>,
    ) -> Result<T, StoreError> {
        if self.is_unwatched() || self.replica.is_in_transaction() {
            let done = edit(&mut self.replica)?;
            self.blobs.follow(&mut self.replica);
            return Ok(done);
        }
        self.transact(|store| Ok(edit(&mut store.replica)?))
    }

    /// Ends the outermost transaction. Returns as what the event of it counts.
    fn end(&mut self, transaction: Transaction) -> Result<Cause, EditError> {
        let answering = self.events.answering();
        let Some(undo) = self.undo.history_mut() else {
            self.replica.commit(transaction)?;
            return Ok(answering.unwrap_or(Cause::Unnoted));
        };
        let next = |replica: &Replica| replica.version().next(replica.id());
        let before = next(&self.replica);
        let reversal = self.replica.commit_reversibly(transaction, undo.stand_ins())?;
        let step = if next(&self.replica) > before {
            undo.note(reversal, answering)
        } else {
            undo.abandon();
            None
        };
        let Some(step) = step else { return Ok(answering.unwrap_or(Cause::Unnoted)) };
        self.events.answer_with_step(step);
        Ok(Cause::Step(step))
    }

    /// Forgets what was noted of the outermost transaction, which was taken back.
    fn abandon(&mut self) {
        self.events.abandon(&mut self.replica);
        if let Some(undo) = self.undo.history_mut() {
            undo.abandon();
        }
    }

    /// Whether nobody wants to know what an edit does.
    fn is_unwatched(&self) -> bool {
        self.events.is_idle() && !self.undo.is_on()
    }

    /// Sets a field.
    pub(crate) fn set(
        &mut self,
        entry: EntryId,
        field: Field,
        value: Value,
    ) -> Result<(), StoreError> {
        if self.is_unwatched() {
            return self.edit(|replica| replica.set(entry, field, value));
        }
        self.transact(|store| {
            let before = store.replica.value(entry, &field);
            let is_same = store.events.is_heard() && reads_alike(entry, &field, &before, &value);
            let property = Property::from(&field);
            store.replica.set(entry, field, value)?;
            if is_same {
                store.events.note_set_again(entry, property);
            }
            Ok(())
        })
    }

    /// Takes in a patch from elsewhere. Empty bytes are an empty patch.
    ///
    /// # Errors
    /// If the patch is not readable or contradicts what is here, or if a transaction is under way.
    /// Nothing has changed then.
    pub fn apply_remote_patch(&mut self, patch: &[u8]) -> Result<Integrated, StoreError> {
        let patch = Patch::decode(patch)?;
        if self.replica.is_in_transaction() {
            return Err(IntegrateError::TransactionOpen.into());
        }
        self.events.begin(&mut self.replica)?;
        let integrated = self.replica.integrate(patch)?;
        self.blobs.follow(&mut self.replica);
        self.events.record(&mut self.replica, Origin::External, Cause::Patch);
        self.deliver_events();
        Ok(integrated)
    }

    /// Takes in a snapshot that another copy of the store gave ([`DataStore::as_binary`]), as if it
    /// were a patch: nothing of what is here is lost. Costs the snapshot. Only for snapshots from where
    /// patches would be taken from, as for [`DataStore::from_binary`].
    ///
    /// # Errors
    /// As for [`DataStore::from_binary`] and [`DataStore::apply_remote_patch`].
    pub fn merge_binary(&mut self, snapshot: &[u8]) -> Result<Integrated, StoreError> {
        let other = Replica::from_snapshot(self.replica.id(), snapshot)?;
        self.apply_remote_patch(&other.export(self.version()))
    }

    /// The id under which this copy is edited.
    #[must_use]
    pub const fn replica_id(&self) -> ReplicaId {
        self.replica.id()
    }

    /// The item that holds everything.
    #[must_use]
    pub const fn root_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::ROOT)
    }

    /// The item in which deleted entries wait.
    #[must_use]
    pub const fn trash_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::TRASH)
    }

    /// The item in which entries show that have lost their place.
    #[must_use]
    pub const fn lost_and_found_item(&self) -> Entry<'_> {
        Entry::new(self, EntryId::LOST_AND_FOUND)
    }

    /// The entry with this id, if it shows.
    #[must_use]
    pub fn entry_with_id(&self, id: EntryId) -> Option<Entry<'_>> {
        self.replica.is_shown(id).then(|| Entry::new(self, id))
    }

    /// The entry with this id.
    ///
    /// # Errors
    /// `not-found` if it does not show: it never was here, or was purged.
    pub fn entry(&self, id: EntryId) -> Result<Entry<'_>, StoreError> {
        self.entry_with_id(id).ok_or(StoreError::NotFound(id))
    }

    /// How many entries show, the three system items included.
    #[must_use]
    pub fn entry_count(&self) -> usize {
        self.replica.shown_entries().count()
    }

    /// Which ops this copy has: what to send to another copy, so that it exports what is missing.
    #[must_use]
    pub const fn version(&self) -> &Version {
        self.replica.version()
    }

    /// The version as opaque bytes.
    #[must_use]
    pub fn current_cursor(&self) -> Vec<u8> {
        self.version().encode()
    }

    /// A patch with exactly the changes that `since` lacks.
    #[must_use]
    pub fn export_patch(&self, since: &Version) -> Vec<u8> {
        self.replica.export(since)
    }

    /// The same for a cursor that [`DataStore::current_cursor`] gave, here or on another copy; an empty
    /// one knows nothing.
    ///
    /// # Errors
    /// [`StoreError::Unreadable`] if it is no cursor.
    pub fn export_patch_since(&self, cursor: &[u8]) -> Result<Vec<u8>, StoreError> {
        Ok(self.export_patch(&Version::decode(cursor)?))
    }

    /// The changes that `since` lacks, encoded, each after what it builds on; nothing if some came as
    /// a state, without their bytes.
    #[must_use]
    pub fn changes_since(&self, since: &Version) -> Option<Vec<Arc<[u8]>>> {
        self.replica.changes_since(since)
    }

    /// Whether a change of `author` ends before a counter; nothing if some of its changes are gone. Costs
    /// the logarithm of their number.
    #[must_use]
    pub fn ends_change(&self, author: ReplicaId, counter: u64) -> Option<bool> {
        self.replica.ends_change(author, counter)
    }

    /// [`changes_since`](Self::changes_since) for who also wants to know what is in them.
    #[must_use]
    pub fn decoded_changes_since(&self, since: &Version) -> Option<Vec<sds_engine::Change>> {
        self.replica.decoded_changes_since(since)
    }

    /// The first of the changes that `since` lacks and `upto` has, decoded, in the same order: `count` of them,
    /// or all if there are no more. For who sends a long log in parts.
    #[must_use]
    pub fn first_changes_since(
        &self,
        since: &Version,
        upto: &Version,
        count: usize,
    ) -> Option<Vec<sds_engine::Change>> {
        self.replica.first_changes_since(since, upto, count)
    }

    /// Everything but the blobs, as a snapshot (gzip).
    #[must_use]
    pub fn as_binary(&self) -> Vec<u8> {
        self.replica.snapshot()
    }

    /// One hash over the merged state: copies with the same changes have the same.
    pub fn digest(&mut self) -> Digest {
        self.replica.digest()
    }

    pub(crate) const fn replica(&self) -> &Replica {
        &self.replica
    }

    pub(crate) const fn replica_mut(&mut self) -> &mut Replica {
        &mut self.replica
    }

    /// Goes on with another replica, which reads the same. Steps to undo are forgotten: they name ids of the
    /// former one.
    pub(crate) fn set_replica(&mut self, mut replica: Replica) {
        self.blobs.look_anew(&mut replica);
        self.replica = replica;
        self.clear_undo();
    }

    /// Goes on with another replica in the same way, which may read differently: whoever listens is told how, as of
    /// a patch.
    pub(crate) fn replace_replica(&mut self, replica: Replica) {
        let Self { events, replica: former, .. } = self;
        events.record_replaced(former, &replica);
        self.set_replica(replica);
        self.deliver_events();
    }

    pub(crate) const fn events_mut(&mut self) -> &mut Events {
        &mut self.events
    }

    pub(crate) const fn events_parts_mut(&mut self) -> (&mut Events, &mut Replica) {
        (&mut self.events, &mut self.replica)
    }

    pub(crate) fn undo_ref(&self) -> Option<&UndoHistory> {
        self.undo.history()
    }

    pub(crate) const fn undo_mut(&mut self) -> &mut Undo {
        &mut self.undo
    }

    /// What undoing needs at once.
    pub(crate) fn undo_parts_mut(&mut self) -> Option<UndoParts<'_>> {
        let Self { replica, blobs, events, undo, .. } = self;
        Some(UndoParts { replica, blobs, events, history: undo.history_mut()? })
    }

    /// Panics if an invariant of the engine does not hold, or of the steps to undo; for tests.
    pub fn assert_invariants(&self) {
        self.replica.assert_invariants();
        self.undo_ref().into_iter().for_each(UndoHistory::assert_invariants);
    }
}

/// The parts of a store that undoing needs at once.
pub(crate) struct UndoParts<'a> {
    pub(crate) replica: &'a mut Replica,
    pub(crate) blobs: &'a mut Blobs,
    pub(crate) events: &'a mut Events,
    pub(crate) history: &'a mut UndoHistory,
}

/// Takes the transaction back when the closure fails or panics.
struct Scope<'a> {
    store: &'a mut DataStore,
    transaction: Option<Transaction>,
    is_outermost: bool,
    /// How many notes about properties set again there were before.
    noted: usize,
}

impl Scope<'_> {
    fn commit(mut self) -> Result<(), StoreError> {
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        let store = &mut *self.store;
        store.blobs.follow(&mut store.replica);
        if !self.is_outermost {
            return Ok(store.replica.commit(transaction)?);
        }
        let ended = store.end(transaction);
        store.blobs.follow(&mut store.replica);
        let cause = match ended {
            Ok(cause) => cause,
            Err(error) => {
                store.abandon();
                return Err(error.into());
            }
        };
        store.events.record(&mut store.replica, Origin::Internal, cause);
        store.deliver_events();
        Ok(())
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            let DataStore { replica, events, blobs, .. } = &mut *self.store;
            replica.roll_back(transaction);
            blobs.follow(replica);
            events.forget_from(self.noted);
            if self.is_outermost {
                self.store.abandon();
            }
        }
    }
}
