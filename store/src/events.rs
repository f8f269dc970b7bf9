//! Who hears of changes: one event for each outermost transaction and for each patch.
//!
//! Handlers may edit the store. What they change is told to all in events of its own, one after the
//! other, once the event at hand has been delivered; so there is no recursion. Handlers that answer
//! each other without end are stopped by an error: after [`EVENTS_AT_ONCE_MAX`] events that come of one, edits
//! made in handlers fail, so that no change goes untold. However many have waited, each may have its answers.
//!
//! Cost: nothing while nobody listens; otherwise what has changed, and a call for each handler.
//! Not here: what is in a change set (`change_set`).

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sds_engine::{EntryId, Replica};

use crate::change_set::{ChangeSet, Property};
use crate::error::StoreError;
use crate::limits::EVENTS_AT_ONCE_MAX;
use crate::store::DataStore;
use crate::undo::StepNumber;

/// Who has made a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An edit of this store, undoing and redoing included.
    Internal,
    /// A patch from elsewhere.
    External,
}

/// What handlers are told. All are told the same.
#[non_exhaustive]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangeEvent {
    /// Who has made the change.
    pub origin: Origin,
    /// What has changed; never nothing.
    pub changes: ChangeSet,
}

/// What an edit answers to: the cause of the event in whose handler it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A transaction, an undoing or a redoing that the step of this number tells of.
    Step(StepNumber),
    /// One of which no step tells, such as a purge.
    Unnoted,
    /// A patch.
    Patch,
}

type Call = Box<dyn FnMut(&mut DataStore, &ChangeEvent) + Send + Sync>;

struct Handler {
    number: u64,
    is_active: Arc<AtomicBool>,
    /// Out while it is called.
    call: Option<Call>,
}

/// What somebody who listens holds. Dropping it unsubscribes, unless [`Subscription::detach`] was
/// called.
#[must_use = "dropping a subscription ends it; detach it to listen as long as the store lives"]
#[derive(Debug)]
pub struct Subscription {
    is_active: Arc<AtomicBool>,
    is_detached: bool,
}

impl Subscription {
    /// Ends the subscription: the handler is not called any more, not even for an event that is being
    /// delivered. Doing it again changes nothing, and the store need not live any more.
    ///
    /// The store drops the handler with what it holds at its next edit or patch.
    pub fn unsubscribe(&self) {
        self.is_active.store(false, Ordering::Relaxed);
    }

    /// Listens on as long as the store lives.
    pub fn detach(mut self) {
        self.is_detached = true;
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        if !self.is_detached {
            self.unsubscribe();
        }
    }
}

/// An event that waits to be delivered.
#[derive(Debug)]
struct Waiting {
    event: ChangeEvent,
    cause: Cause,
    /// The event that answers none, of which this one comes.
    first: FirstNumber,
    /// Handlers from this number on came too late to hear of it.
    heard_below: u64,
}

/// Names an event that answers none, for all that comes of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct FirstNumber(u64);

/// The handlers, and what they have not been told yet.
#[derive(Default)]
pub(crate) struct Events {
    handlers: Vec<Handler>,
    next_number: u64,
    /// Properties that the transaction under way has set to what they were.
    set_again: Vec<(EntryId, Property)>,
    /// Whether anybody listens to the transaction under way; handlers that were here when it began.
    is_heard: bool,
    heard_below: u64,
    waiting: VecDeque<Waiting>,
    /// The cause of the event that is being delivered, and what it comes of; the newest, if none is.
    delivering: Option<Cause>,
    first: FirstNumber,
    /// How many events have come of each as answers, since somebody began to deliver.
    answers: HashMap<FirstNumber, usize>,
    /// How many callers want events to wait.
    holds: usize,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { handlers, waiting, .. } = self;
        f.debug_struct("Events")
            .field("handlers", &handlers.len())
            .field("waiting", waiting)
            .finish_non_exhaustive()
    }
}

impl Events {
    /// Gets ready for a transaction or a patch.
    pub(crate) fn begin(&mut self, replica: &mut Replica) -> Result<(), StoreError> {
        let answers = self.answers.get(&self.first).copied().unwrap_or_default();
        if self.delivering.is_some() && 1 + answers >= EVENTS_AT_ONCE_MAX {
            return Err(StoreError::TooManyEvents { max: EVENTS_AT_ONCE_MAX });
        }
        self.drop_inactive();
        self.is_heard = !self.handlers.is_empty();
        self.heard_below = self.next_number;
        replica.record_deltas(self.is_heard);
        Ok(())
    }

    /// Forgets what was recorded of a transaction that has been taken back.
    pub(crate) fn abandon(&mut self, replica: &mut Replica) {
        self.set_again.clear();
        if self.is_heard {
            drop(replica.take_delta());
        }
    }

    /// Makes an event of what has been recorded since `begin`.
    pub(crate) fn record(&mut self, replica: &mut Replica, origin: Origin, cause: Cause) {
        if !self.is_heard {
            return;
        }
        let set_again = std::mem::take(&mut self.set_again);
        let changes = ChangeSet::new(&replica.take_delta(), set_again);
        self.push(ChangeEvent { origin, changes }, cause);
    }

    /// Makes an event of what reads differently in a replica that comes into the place of another one.
    pub(crate) fn record_replaced(&mut self, before: &Replica, after: &Replica) {
        self.drop_inactive();
        if self.handlers.is_empty() {
            return;
        }
        self.heard_below = self.next_number;
        let changes = ChangeSet::new(&before.delta_to(after), Vec::new());
        self.push(ChangeEvent { origin: Origin::External, changes }, Cause::Patch);
    }

    fn push(&mut self, event: ChangeEvent, cause: Cause) {
        if event.changes.is_empty() {
            return;
        }
        match self.delivering {
            Some(_) => *self.answers.entry(self.first).or_default() += 1,
            None => self.first.0 += 1,
        }
        let (first, heard_below) = (self.first, self.heard_below);
        self.waiting.push_back(Waiting { event, cause, first, heard_below });
    }

    fn drop_inactive(&mut self) {
        if self.delivering.is_none() {
            let is_inactive = |handler: &mut Handler| !handler.is_active.load(Ordering::Relaxed);
            self.handlers.extract_if(.., is_inactive).for_each(discard);
        }
    }

    /// Whether somebody listens to the transaction under way.
    pub(crate) const fn is_heard(&self) -> bool {
        self.is_heard
    }

    /// Whether anybody may want to hear of an edit.
    pub(crate) fn is_idle(&self) -> bool {
        self.handlers.is_empty() && self.delivering.is_none()
    }

    /// Notes that a property was set to what it was.
    pub(crate) fn note_set_again(&mut self, entry: EntryId, property: Property) {
        self.set_again.push((entry, property));
    }

    /// How many such notes there are, to go back to.
    pub(crate) const fn noted(&self) -> usize {
        self.set_again.len()
    }

    /// Forgets the notes made since there were so many.
    pub(crate) fn forget_from(&mut self, noted: usize) {
        self.set_again.truncate(noted);
    }

    /// Notes in which step the transaction under way is; if it answers the event that is being
    /// delivered, other answers go there too.
    pub(crate) const fn answer_with_step(&mut self, step: StepNumber) {
        if self.delivering.is_some() {
            self.delivering = Some(Cause::Step(step));
        }
    }

    /// Drops all handlers with what they have not been told, also of the transaction under way.
    fn clear(&mut self, replica: &mut Replica) {
        self.waiting.clear();
        self.set_again.clear();
        self.is_heard = false;
        replica.record_deltas(false);
        std::mem::take(&mut self.handlers).into_iter().for_each(discard);
    }

    /// The cause of the event that is being delivered.
    pub(crate) const fn answering(&self) -> Option<Cause> {
        self.delivering
    }

    /// Takes out the next handler after the one with this number that is to hear of an event.
    fn take_call(&mut self, after: Option<u64>, heard_below: u64) -> Option<(u64, Call)> {
        let handler = self.handlers.iter_mut().find(|handler| {
            after.is_none_or(|after| handler.number > after)
                && handler.number < heard_below
                && handler.is_active.load(Ordering::Relaxed)
                && handler.call.is_some()
        })?;
        Some((handler.number, handler.call.take()?))
    }

    fn put_back(&mut self, number: u64, call: Call) {
        match self.handlers.iter_mut().find(|handler| handler.number == number) {
            Some(handler) => handler.call = Some(call),
            None => discard(call),
        }
    }
}

/// Drops what is somebody else's. Where that panics, it harms nobody here: what is dropped is left as it is
/// then.
fn discard<T>(value: T) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(value))) {
        // This might panic as well, and so on.
        std::mem::forget(panic);
    }
}

impl DataStore {
    /// Has `handler` called after each change of the store: once for each outermost transaction, each
    /// edit outside of one, and each patch, unless nothing has changed. It hears of what begins after
    /// this call.
    ///
    /// The handler may edit the store; what it changes comes as an event of its own, after this one
    /// has been told to all. A handler that panics harms nobody: what it was about to change is taken
    /// back, the others are told, and it is called again the next time. (Where panics abort, they do.)
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use sds_store::{DataStore, EntryId, Origin, Property, ReplicaId, StoreError};
    ///
    /// # fn main() -> Result<(), StoreError> {
    /// # let (one, two) = (ReplicaId::new(1).unwrap(), ReplicaId::new(2).unwrap());
    /// let mut desk = DataStore::new(one);
    /// let note = desk.new_item_at(None, EntryId::ROOT, None)?;
    /// desk.write_value(note, "milk")?;
    ///
    /// let (sender, events) = mpsc::channel();
    /// let subscription = desk.on_change(move |_store, event| drop(sender.send(event.clone())));
    /// desk.change_value(note, 4..4, ", bread")?;
    /// let event = events.try_recv().expect("one event");
    /// assert_eq!(event.origin, Origin::Internal);
    /// let edits = &event.changes.of(note).expect("the note").texts[&Property::Value];
    /// assert_eq!((edits[0].range.clone(), edits[0].inserted.as_str()), (4..4, ", bread"));
    ///
    /// // What comes from elsewhere is told in the same way.
    /// let mut phone = DataStore::new(two);
    /// phone.apply_remote_patch(&desk.export_patch(phone.version()))?;
    /// phone.set_label(note, "Shopping")?;
    /// desk.apply_remote_patch(&phone.export_patch(desk.version()))?;
    /// let event = events.try_recv().expect("one event");
    /// assert_eq!(event.origin, Origin::External);
    /// assert!(event.changes.contains(note, &Property::Label));
    /// assert_eq!(event.changes.len(), 1);
    ///
    /// subscription.unsubscribe();
    /// desk.set_label(note, "To buy")?;
    /// assert!(events.try_recv().is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn on_change(
        &mut self,
        handler: impl FnMut(&mut Self, &ChangeEvent) + Send + Sync + 'static,
    ) -> Subscription {
        let is_active = Arc::new(AtomicBool::new(true));
        let (events, call) = (self.events_mut(), Some(Box::new(handler) as Call));
        let number = events.next_number;
        events.next_number += 1;
        events.handlers.push(Handler { number, is_active: Arc::clone(&is_active), call });
        Subscription { is_active, is_detached: false }
    }

    /// Drops all handlers, and what they have not been told. Doing it again changes nothing.
    pub fn dispose(&mut self) {
        let (events, replica) = self.events_parts_mut();
        events.clear(replica);
    }

    /// Keeps events back until `work` is done, and delivers them then. For whoever has to look at the
    /// store between a change and what handlers make of it.
    pub fn hold_events<T>(&mut self, work: impl FnOnce(&mut Self) -> T) -> T {
        let held = Held::new(self);
        work(held.0)
    }

    /// Tells the handlers what they have not been told, unless that is going on already.
    pub(crate) fn deliver_events(&mut self) {
        let events = self.events_mut();
        if events.delivering.is_some() || events.holds > 0 {
            return;
        }
        while let Some(waiting) = self.events_mut().waiting.pop_front() {
            let Waiting { event, cause, first, heard_below } = waiting;
            let events = self.events_mut();
            (events.delivering, events.first) = (Some(cause), first);
            let mut last = None;
            while let Some((number, mut call)) = self.events_mut().take_call(last, heard_below) {
                // Its transactions take themselves back; what else it has is its own.
                let told = catch_unwind(AssertUnwindSafe(|| call(self, &event)));
                discard(told);
                self.events_mut().put_back(number, call);
                last = Some(number);
            }
        }
        let events = self.events_mut();
        events.delivering = None;
        events.answers.clear();
    }
}

/// Holds events back, also when the closure panics.
struct Held<'a>(&'a mut DataStore);

impl<'a> Held<'a> {
    fn new(store: &'a mut DataStore) -> Self {
        store.events_mut().holds += 1;
        Self(store)
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.events_mut().holds -= 1;
        self.0.deliver_events();
    }
}
