//! Undoing and redoing one's own transactions, while others edit.
//!
//! Off until [`DataStore::enable_undo`]. From then on each outermost transaction, and each edit outside
//! of one, is a step; steps can be joined, by hand or by time. What undoing takes back and what it
//! leaves alone is the engine's to decide ([`Reversal`]); it never fights others:
//!
//! - A label, type, value or metadata that somebody has set since stays, and what others have typed into
//!   a text that was set; of typed characters those go that are still there, and deleted ones come back
//!   where they were.
//! - An entry that somebody has moved since stays where it is, but not one that was only reordered in the
//!   container that the step put it into; so does one whose old container is gone or is inside of it by
//!   now.
//! - What was created goes to Trash with all that is in it, and is never purged. What was deleted comes
//!   back. What was purged does not.
//!
//! Undoing is an ordinary transaction: one change, one event. Patches never become steps.
//!
//! Edits that a handler makes when it answers a transaction, an undoing or a redoing are undone with
//! it, also where events were held back and other steps have been made meanwhile, which become one with
//! it where both edit the same; those that answer a patch are no steps. What answers something that can no
//! longer be undone is a step of its own.
//!
//! Cost: nothing unless enabled; then what a transaction did, on top of it. The number of steps is
//! bounded, and so are the bytes of what they replaced.

mod history;

use sds_engine::Timestamp;

use crate::error::StoreError;
use crate::events::{Cause, Origin};
use crate::limits::{UNDO_BYTES, UNDO_STEPS};
use crate::store::{DataStore, UndoParts};
use history::Way;
pub(crate) use history::{StepNumber, Undo, UndoHistory};

/// How much can be undone, and what goes together.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UndoOptions {
    /// So many steps are kept; older ones cannot be undone any more.
    pub steps: usize,
    /// So many bytes of what they replaced are kept, about, and the newest step whatever it takes.
    pub bytes: usize,
    /// Transactions made with [`DataStore::transact_at`] belong to one step while each follows the one
    /// before within so many milliseconds.
    pub group_millis: i64,
}

impl Default for UndoOptions {
    /// A hundred steps, 64 MiB, and half a second.
    fn default() -> Self {
        Self { steps: UNDO_STEPS, bytes: UNDO_BYTES, group_millis: 500 }
    }
}

impl UndoOptions {
    /// The same, but for the number of steps.
    #[must_use]
    pub const fn with_steps(self, steps: usize) -> Self {
        Self { steps, ..self }
    }

    /// The same, but for the number of bytes.
    #[must_use]
    pub const fn with_bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// The same, but for the milliseconds within which transactions belong together.
    #[must_use]
    pub const fn with_group_millis(self, group_millis: i64) -> Self {
        Self { group_millis, ..self }
    }
}

impl DataStore {
    /// From now on notes what own transactions do, so that they can be undone. If that is going on
    /// already, what was noted stays, as far as the options allow.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, StoreError, Timestamp, UndoOptions};
    ///
    /// # fn main() -> Result<(), StoreError> {
    /// # let (one, two) = (ReplicaId::new(1).unwrap(), ReplicaId::new(2).unwrap());
    /// # let now = Timestamp::from_millis(1_700_000_000_000);
    /// let mut desk = DataStore::new(one);
    /// desk.enable_undo(UndoOptions::default());
    /// let note = desk.new_item_at(None, EntryId::ROOT, None)?;
    /// desk.write_value(note, "milk")?;
    /// desk.change_value(note, 4..4, ", bread")?;
    ///
    /// // Somebody else types as well, and that stays.
    /// let mut phone = DataStore::new(two);
    /// phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
    /// phone.change_value(note, 0..0, "oat ")?;
    /// desk.apply_remote_patch(&phone.export_patch(desk.version()))?;
    ///
    /// let text = |desk: &DataStore| desk.entry_with_id(note).unwrap().value();
    /// assert!(desk.undo(now)?);
    /// assert_eq!(text(&desk), sds_store::ItemValue::Text("oat milk".into()));
    /// assert!(desk.redo(now)?);
    /// assert_eq!(text(&desk), sds_store::ItemValue::Text("oat milk, bread".into()));
    ///
    /// // Undoing a creation moves to Trash, with all that others have written.
    /// while desk.undo(now)? {}
    /// assert_eq!(desk.entry_with_id(note).unwrap().outer_item_id(), Some(EntryId::TRASH));
    /// assert_eq!(text(&desk), sds_store::ItemValue::Text("oat ".into()));
    /// # Ok(())
    /// # }
    /// ```
    pub fn enable_undo(&mut self, options: UndoOptions) {
        self.undo_mut().turn_on(options);
    }

    /// Ceases to note what transactions do, and forgets all steps.
    pub fn disable_undo(&mut self) {
        self.undo_mut().turn_off();
    }

    /// Forgets all steps, and goes on noting.
    pub fn clear_undo(&mut self) {
        if let Some(history) = self.undo_mut().history_mut() {
            history.clear();
        }
    }

    /// Undoes the newest own step of which anything can be undone still. `now` becomes the time of
    /// deletion of what it created. Returns whether anything was undone.
    ///
    /// Limits of edits do not bind it: what comes back beside what others have written may be longer than
    /// either may be set, as what was merged may.
    ///
    /// # Errors
    /// [`StoreError::TransactionOpen`] inside a transaction; [`StoreError::TransactionTooLarge`] if
    /// bringing back what was deleted does not fit one change; [`StoreError::ContentGone`] if a large
    /// value was kept elsewhere and is gone; [`StoreError::TooManyEvents`]. Nothing has changed then.
    pub fn undo(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.go(Way::Back, now)
    }

    /// Does the step again that was undone last, as far as that is possible still. Own edits since then
    /// leave nothing to be done again. Returns whether anything was.
    ///
    /// # Errors
    /// As for [`DataStore::undo`].
    pub fn redo(&mut self, now: Timestamp) -> Result<bool, StoreError> {
        self.go(Way::Forth, now)
    }

    /// Whether there are steps to undo. Others may have left nothing of them to be undone.
    #[must_use]
    pub fn can_undo(&self) -> bool {
        self.undo_ref().is_some_and(|history| history.can_go(Way::Back))
    }

    /// Whether there are steps to do again. Others may have left nothing of them to be done.
    #[must_use]
    pub fn can_redo(&self) -> bool {
        self.undo_ref().is_some_and(|history| history.can_go(Way::Forth))
    }

    /// Runs several edits as one, as [`DataStore::transact`] does, and says when: so transactions that
    /// follow each other soon are undone together ([`UndoOptions::group_millis`]), as in typing. The
    /// time is used for nothing else. Inside another transaction it is that one's time which counts.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId, StoreError, Timestamp, UndoOptions};
    ///
    /// # fn main() -> Result<(), StoreError> {
    /// # let one = ReplicaId::new(1).unwrap();
    /// let mut desk = DataStore::new(one);
    /// desk.write_value(EntryId::ROOT, "")?;
    /// desk.enable_undo(UndoOptions::default().with_group_millis(300));
    /// for (at, (millis, key)) in [(0, "h"), (100, "i"), (900, "!")].into_iter().enumerate() {
    ///     let time = Timestamp::from_millis(millis);
    ///     desk.transact_at(time, |store| store.change_value(EntryId::ROOT, at..at, key))?;
    /// }
    /// let text = |desk: &DataStore| desk.root_item().value();
    /// desk.undo(Timestamp::from_millis(1_000))?;
    /// assert_eq!(text(&desk), sds_store::ItemValue::Text("hi".into()));
    /// desk.undo(Timestamp::from_millis(1_000))?;
    /// assert_eq!(text(&desk), sds_store::ItemValue::Text("".into()));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As for [`DataStore::transact`].
    pub fn transact_at<T, E: From<StoreError>>(
        &mut self,
        now: Timestamp,
        edits: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        if !self.replica().is_in_transaction()
            && let Some(history) = self.undo_mut().history_mut()
        {
            history.expect_at(now);
        }
        self.transact(edits)
    }

    /// Makes one step of all own transactions until [`DataStore::end_undo_group`], however much time
    /// passes. Groups may be inside each other; the outermost counts. Undoing ends the step, but not
    /// the group.
    pub fn begin_undo_group(&mut self) {
        if let Some(history) = self.undo_mut().history_mut() {
            history.begin_group();
        }
    }

    /// Ends the group that was begun last. Without one, the next transaction begins a step.
    pub fn end_undo_group(&mut self) {
        if let Some(history) = self.undo_mut().history_mut() {
            history.end_group();
        }
    }

    fn go(&mut self, way: Way, now: Timestamp) -> Result<bool, StoreError> {
        if self.replica().is_in_transaction() {
            return Err(StoreError::TransactionOpen);
        }
        let Some(UndoParts { replica, blobs, events, history }) = self.undo_parts_mut() else {
            return Ok(false);
        };
        events.begin(replica)?;
        let done = history.go(way, (replica, blobs), now);
        blobs.follow(replica);
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                events.abandon(replica);
                return Err(error);
            }
        };
        let cause = done.map_or(Cause::Unnoted, Cause::Step);
        events.record(replica, Origin::Internal, cause);
        self.deliver_events();
        Ok(done.is_some())
    }
}
