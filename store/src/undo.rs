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
//! it, also where events were held back and other steps have been made meanwhile; those that answer a
//! patch are no steps. What answers something that can no longer be undone is a step of its own.
//!
//! Cost: nothing unless enabled; then what a transaction did, on top of it. The number of steps is
//! bounded, and so are the bytes of what they replaced.

use std::collections::VecDeque;

use sds_engine::{BlobRef, Mentioned, Replica, Reversal, StandIns, Timestamp};

use crate::blob::Blobs;
use crate::error::StoreError;
use crate::events::{Cause, Origin};
use crate::limits::{UNDO_BYTES, UNDO_STEP_BYTES_MAX, UNDO_STEPS};
use crate::store::{DataStore, UndoParts};

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

/// Names a step, whether it is to be undone or to be redone; later ones have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepNumber(u64);

/// What is undone at once.
#[derive(Debug)]
struct Step {
    number: StepNumber,
    done: Vec<Reversal>,
    size: usize,
    /// When its last transaction was made, if that was told.
    time: Option<Timestamp>,
}

impl Step {
    const fn new(number: StepNumber) -> Self {
        Self { number, done: Vec::new(), size: 0, time: None }
    }

    /// Takes in what was done later. Returns how many bytes that takes.
    fn push(&mut self, reversal: Reversal) -> usize {
        let size = reversal.size();
        self.size += size;
        let rest = match self.done.last_mut() {
            Some(last) => last.absorb(reversal).err(),
            None => Some(reversal),
        };
        self.done.extend(rest);
        size
    }
}

/// Which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Back,
    Forth,
}

/// The steps that can be undone, and those that can be done again; the newest last, and among each
/// their numbers rise.
#[derive(Debug)]
pub(crate) struct UndoHistory {
    options: UndoOptions,
    /// The number of the next step.
    next: StepNumber,
    back: VecDeque<Step>,
    forth: VecDeque<Step>,
    /// How many bytes all steps take.
    size: usize,
    stand_ins: StandIns,
    /// How many stand-ins were left when those that nobody speaks of were last forgotten.
    kept: usize,
    /// Whether the newest step takes in what follows in time.
    is_open: bool,
    /// How many groups somebody has begun and not ended, and whether the newest step is of them.
    groups: usize,
    is_in_group: bool,
    /// When the transaction under way is made, if that was told.
    time: Option<Timestamp>,
}

impl UndoHistory {
    fn new(options: UndoOptions) -> Self {
        Self {
            options,
            next: StepNumber(0),
            back: VecDeque::new(),
            forth: VecDeque::new(),
            size: 0,
            stand_ins: StandIns::default(),
            kept: 0,
            is_open: false,
            groups: 0,
            is_in_group: false,
            time: None,
        }
    }

    /// What knows the ids of what transactions do.
    pub(crate) const fn stand_ins(&self) -> &StandIns {
        &self.stand_ins
    }

    /// Forgets when the transaction under way is made, since it was taken back.
    pub(crate) fn abandon(&mut self) {
        self.time = None;
    }

    /// Takes in a transaction that answers an event of this cause, or none. Returns the step that tells
    /// of it, if one does.
    pub(crate) fn note(
        &mut self,
        reversal: Reversal,
        answering: Option<Cause>,
    ) -> Option<StepNumber> {
        let time = self.time.take();
        let answered = match answering {
            Some(Cause::Patch) => return None,
            Some(Cause::Step(number)) => self.step_mut(number).map(|step| step.number),
            Some(Cause::Unnoted) | None => None,
        };
        if answered.is_none() {
            self.size -= self.forth.drain(..).map(|step| step.size).sum::<usize>();
        }
        if reversal.is_empty() {
            return None;
        }
        let number = answered.unwrap_or_else(|| self.newest(time));
        let step = self.step_mut(number)?;
        step.time = time.or(step.time);
        self.size += step.push(reversal);
        self.trim();
        Some(number)
    }

    /// The step that a transaction made at this time belongs to, which may be a new one.
    fn newest(&mut self, time: Option<Timestamp>) -> StepNumber {
        let goes_on = self.goes_on(time);
        (self.is_open, self.is_in_group) = (true, self.groups > 0);
        match self.back.back() {
            Some(step) if goes_on => step.number,
            _ => {
                let number = self.number();
                self.back.push_back(Step::new(number));
                number
            }
        }
    }

    /// A number for a new step.
    const fn number(&mut self) -> StepNumber {
        let number = self.next;
        self.next.0 += 1;
        number
    }

    /// The step of this number, if it can still be undone or redone.
    fn step_mut(&mut self, number: StepNumber) -> Option<&mut Step> {
        let Self { back, forth, .. } = self;
        [back, forth].into_iter().find_map(|steps| {
            let at = steps.binary_search_by_key(&number, |step| step.number).ok()?;
            steps.get_mut(at)
        })
    }

    /// Whether a transaction made at this time belongs to the newest step.
    fn goes_on(&self, time: Option<Timestamp>) -> bool {
        let Some(step) = self.back.back().filter(|_| self.is_open) else { return false };
        let is_soon = match (step.time, time) {
            (Some(before), Some(now)) => {
                let passed = now.as_millis().saturating_sub(before.as_millis());
                (0..=self.options.group_millis).contains(&passed)
            }
            _ => false,
        };
        let is_grouped = self.groups > 0;
        let goes_on = if is_grouped { self.is_in_group } else { is_soon };
        goes_on && step.size < UNDO_STEP_BYTES_MAX
    }

    /// The contents that undoing or redoing may refer to again.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let steps = self.back.iter().chain(&self.forth);
        steps.flat_map(|step| &step.done).flat_map(Reversal::blobs)
    }

    fn close_step(&mut self) {
        (self.is_open, self.is_in_group) = (false, false);
    }

    fn pop(&mut self, way: Way) -> Option<Step> {
        let step = match way {
            Way::Back => self.back.pop_back(),
            Way::Forth => self.forth.pop_back(),
        };
        self.size -= step.as_ref().map_or(0, |step| step.size);
        step
    }

    fn push(&mut self, way: Way, step: Step) {
        self.size += step.size;
        match way {
            Way::Back => self.back.push_back(step),
            Way::Forth => self.forth.push_back(step),
        }
    }

    /// Undoes or redoes the newest step of which anything is left. Returns the step by which that is
    /// taken back again, if there was one to undo.
    fn go(
        &mut self,
        way: Way,
        (replica, kept): (&mut Replica, &Blobs),
        now: Timestamp,
    ) -> Result<Option<StepNumber>, StoreError> {
        self.close_step();
        while let Some(step) = self.pop(way) {
            let gone = step.done.iter().flat_map(Reversal::blobs).find(|blob| kept.is_gone(blob));
            if let Some(gone) = gone {
                self.push(way, step);
                return Err(StoreError::ContentGone(gone.hash));
            }
            let Self { back, forth, stand_ins, .. } = self;
            let mentioned = || mentioned(back.iter().chain(&*forth).chain([&step]));
            match replica.reverse(&step.done, stand_ins, mentioned, now) {
                Ok(None) => {}
                Ok(Some(reversal)) => {
                    let other = if way == Way::Back { Way::Forth } else { Way::Back };
                    let mut step = Step::new(self.number());
                    step.push(reversal);
                    let number = step.number;
                    self.push(other, step);
                    self.trim();
                    return Ok(Some(number));
                }
                Err(error) => {
                    self.push(way, step);
                    return Err(error.into());
                }
            }
        }
        self.trim();
        Ok(None)
    }

    /// Forgets what is more than it may be.
    fn trim(&mut self) {
        let UndoOptions { steps, bytes, .. } = self.options;
        for kept in [&mut self.back, &mut self.forth] {
            while kept.len() > steps || kept.len() > 1 && self.size > bytes {
                self.size -= kept.pop_front().map_or(0, |step| step.size);
            }
        }
        // Twice as many as there were pays for looking through all steps.
        if self.stand_ins.len() > 2 * self.kept + STAND_INS_FEW {
            self.stand_ins.retain(&mentioned(self.back.iter().chain(&self.forth)));
            self.kept = self.stand_ins.len();
        }
    }
}

/// So many stand-ins are no reason to look for ones that nobody speaks of.
const STAND_INS_FEW: usize = 64;

fn mentioned<'a>(steps: impl Iterator<Item = &'a Step>) -> Mentioned {
    let mut mentioned = Mentioned::default();
    steps.flat_map(|step| &step.done).for_each(|one| one.mention(&mut mentioned));
    mentioned
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
        let history = self.undo_mut().get_or_insert_with(|| Box::new(UndoHistory::new(options)));
        history.options = options;
        history.trim();
    }

    /// Ceases to note what transactions do, and forgets all steps.
    pub fn disable_undo(&mut self) {
        *self.undo_mut() = None;
    }

    /// Forgets all steps, and goes on noting.
    pub fn clear_undo(&mut self) {
        if let Some(history) = self.undo_mut() {
            let (groups, next) = (history.groups, history.next);
            **history = UndoHistory { groups, next, ..UndoHistory::new(history.options) };
        }
    }

    /// Undoes the newest own step of which anything can be undone still. `now` becomes the time of
    /// deletion of what it created. Returns whether anything was undone.
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
        self.undo_ref().is_some_and(|history| !history.back.is_empty())
    }

    /// Whether there are steps to do again. Others may have left nothing of them to be done.
    #[must_use]
    pub fn can_redo(&self) -> bool {
        self.undo_ref().is_some_and(|history| !history.forth.is_empty())
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
            && let Some(history) = self.undo_mut()
        {
            history.time = Some(now);
        }
        self.transact(edits)
    }

    /// Makes one step of all own transactions until [`DataStore::end_undo_group`], however much time
    /// passes. Groups may be inside each other; the outermost counts. Undoing ends the step, but not
    /// the group.
    pub fn begin_undo_group(&mut self) {
        if let Some(history) = self.undo_mut() {
            if history.groups == 0 {
                history.close_step();
            }
            history.groups += 1;
        }
    }

    /// Ends the group that was begun last. Without one, the next transaction begins a step.
    pub fn end_undo_group(&mut self) {
        if let Some(history) = self.undo_mut() {
            history.groups = history.groups.saturating_sub(1);
            if history.groups == 0 {
                history.close_step();
            }
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
