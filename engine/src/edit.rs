//! Local edits: they become ops, take effect at once, and leave as one change for each transaction.
//!
//! Edits are checked against what is shown, not against the hidden tree of moves. Where the two
//! differ, the same change first makes explicit what is shown (MERGING, "What is shown").

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use crate::change::Change;
use crate::display::Sibling;
use crate::error::{DecodeError, EditError};
use crate::id::{EntryId, Life, OpId, ReplicaId, Stamp, Timestamp};
use crate::limits::{CHANGE_BYTES_MAX, COUNTER_MAX, INFO_KEY_BYTES_MAX};
use crate::op::{NewEntry, Op};
use crate::registers::EntryState;
use crate::replica::{Pending, Replica};
use crate::tree::OrderKey;
use crate::value::{Field, Value};

/// A transaction under way: its ops have taken effect and can be taken back.
#[derive(Debug)]
pub(crate) struct OpenChange {
    start: u64,
    next: u64,
    lamport: u64,
    ops: Vec<Op>,
    /// What entries were before, oldest first.
    journal: Vec<(EntryId, Option<EntryState>)>,
    /// Where in the journal an entry was noted last.
    noted: HashMap<EntryId, usize>,
    /// Where in the journal the transactions under way begin, outermost first.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    ops: usize,
    next: u64,
    journal: usize,
}

/// A transaction that has begun: to be given back to [`Replica::commit`] or [`Replica::roll_back`].
#[must_use = "a transaction that is not ended stays open"]
#[derive(Debug)]
pub struct Transaction {
    /// How many transactions are under way, this one included.
    depth: usize,
}

/// Takes a transaction back when the closure that makes it fails or panics.
struct Scope<'a> {
    replica: &'a mut Replica,
    transaction: Option<Transaction>,
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        if let Some(transaction) = self.transaction.take() {
            self.replica.roll_back(transaction);
        }
    }
}

impl Replica {
    /// Runs several edits as one change: all of them happen, or none. Inside another transaction it
    /// is a part of that one which can fail by itself.
    ///
    /// # Errors
    /// What `edits` returns, or [`EditError::ChangeTooLarge`] for the whole. Either way the replica
    /// is as before.
    pub fn transact<T, E: From<EditError>>(
        &mut self,
        edits: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let transaction = self.begin();
        let mut scope = Scope { replica: self, transaction: Some(transaction) };
        let result = edits(scope.replica)?;
        if let Some(transaction) = scope.transaction.take() {
            scope.replica.commit(transaction)?;
        }
        Ok(result)
    }

    /// Begins a transaction, inside of the one under way if there is one. For callers that cannot
    /// put their edits into a closure; [`Replica::transact`] cannot be left open by accident.
    pub fn begin(&mut self) -> Transaction {
        let start = self.version().next(self.id);
        let lamport = self.history.next_lamport(self.id);
        let skipped = &mut self.skipped;
        let open = self.open.get_or_insert_with(|| {
            let count = std::mem::take(skipped);
            let ops = if count > 0 { vec![Op::Skip { count }] } else { Vec::new() };
            let (journal, noted, marks) = (Vec::new(), HashMap::new(), Vec::new());
            OpenChange { start, next: start + count, lamport, ops, journal, noted, marks }
        });
        let mark = Mark { ops: open.ops.len(), next: open.next, journal: open.journal.len() };
        open.marks.push(mark);
        Transaction { depth: open.marks.len() }
    }

    /// Ends a transaction; the outermost becomes a change. Any that was begun inside it and not
    /// ended is taken back.
    ///
    /// # Errors
    /// [`EditError::ChangeTooLarge`] for the outermost, which is taken back then.
    pub fn commit(&mut self, transaction: Transaction) -> Result<(), EditError> {
        while self.depth() > transaction.depth {
            self.roll_back_innermost();
        }
        if self.depth() < transaction.depth {
            return Ok(());
        }
        if transaction.depth == 1 {
            return self.commit_change();
        }
        if let Some(open) = &mut self.open {
            open.marks.pop();
        }
        Ok(())
    }

    /// Takes back a transaction and any that was begun inside it. Ids that they gave out are never
    /// given out again.
    pub fn roll_back(&mut self, transaction: Transaction) {
        while self.depth() >= transaction.depth {
            self.roll_back_innermost();
        }
    }

    /// Whether a transaction is under way.
    #[must_use]
    pub const fn is_in_transaction(&self) -> bool {
        self.open.is_some()
    }

    /// Creates an item in `parent`, to stand at `index` there, or last if there are fewer.
    ///
    /// # Errors
    /// If `parent` is not a shown item.
    pub fn create_item(&mut self, parent: EntryId, index: usize) -> Result<EntryId, EditError> {
        self.create(None, NewEntry::Item, parent, index)
    }

    /// Creates a link to `target` in `parent`, to stand at `index` there, or last.
    ///
    /// # Errors
    /// If `target` or `parent` is not a shown item.
    pub fn create_link(
        &mut self,
        target: EntryId,
        parent: EntryId,
        index: usize,
    ) -> Result<EntryId, EditError> {
        self.require_item(target)?;
        self.create(None, NewEntry::Link { target }, parent, index)
    }

    /// Creates an entry with an id that came from elsewhere, as imports do.
    ///
    /// # Errors
    /// If the id is in use, or `parent` is not a shown item.
    pub fn create_with_id(
        &mut self,
        entry: EntryId,
        kind: NewEntry,
        parent: EntryId,
        index: usize,
    ) -> Result<(), EditError> {
        if self.is_alive(entry) {
            return Err(EditError::AlreadyExists(entry));
        }
        self.create(Some(entry), kind, parent, index).map(drop)
    }

    fn create(
        &mut self,
        entry: Option<EntryId>,
        kind: NewEntry,
        parent: EntryId,
        index: usize,
    ) -> Result<EntryId, EditError> {
        self.transact(|replica| {
            replica.enter(entry, parent)?;
            let key = replica.make_place(parent, index, entry)?;
            let entry = match entry {
                Some(entry) => entry,
                None if replica.next_id().counter > COUNTER_MAX => return Err(EditError::OutOfIds),
                None => EntryId::created_by(replica.next_id()),
            };
            let life = replica.life(entry);
            replica.push(Op::Create { entry, life, kind, parent, key })?;
            Ok(entry)
        })
    }

    /// Puts the entry into `parent`, to stand at `index` there afterwards, or last.
    ///
    /// # Errors
    /// If either does not show, `parent` is no item, the entry would become its own ancestor, or it
    /// is a system entry that would leave Root.
    pub fn move_to(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        index: usize,
    ) -> Result<(), EditError> {
        self.check_move(entry, parent)?;
        self.relocate(entry, parent, index, None)
    }

    /// Whether [`Replica::move_to`] would move `entry` into `parent`.
    ///
    /// # Errors
    /// What it would say.
    pub fn check_move(&self, entry: EntryId, parent: EntryId) -> Result<(), EditError> {
        self.require_shown(entry)?;
        self.require_item(parent)?;
        if entry == EntryId::ROOT || (entry.is_well_known() && parent != EntryId::ROOT) {
            return Err(EditError::WellKnown(entry));
        }
        if self.display.is_at_or_above(entry, parent) {
            return Err(EditError::WouldCycle { entry, target: parent });
        }
        Ok(())
    }

    /// Deletes the entry: puts it, with all inside, at the end of Trash, noting the time.
    ///
    /// # Errors
    /// If it does not show or is a system entry.
    pub fn trash(&mut self, entry: EntryId, now: Timestamp) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        self.relocate(entry, EntryId::TRASH, usize::MAX, Some(now))
    }

    /// Ends the life of the entry and of all that shows inside it, for good and against every
    /// concurrent edit.
    ///
    /// # Errors
    /// If it does not show, is a system entry, or is a placeholder, which has no life to end.
    pub fn purge(&mut self, entry: EntryId) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if entry.is_well_known() {
            return Err(EditError::WellKnown(entry));
        }
        if !self.is_alive(entry) {
            return Err(EditError::NotFound(entry));
        }
        let mut entries = Vec::new();
        let mut inside = vec![entry];
        while let Some(entry) = inside.pop() {
            let life = self.life(entry);
            life.next().ok_or(EditError::OutOfIds)?;
            entries.push((entry, life));
            inside.extend(self.children(entry).rev());
        }
        self.transact(|replica| replica.push(Op::Purge { entries }))
    }

    /// Sets a field; the value before is gone, and of concurrent settings the newest wins.
    ///
    /// # Errors
    /// If the entry does not show, or the key of an info field is empty or too long.
    pub fn set(&mut self, entry: EntryId, field: Field, value: Value) -> Result<(), EditError> {
        self.require_shown(entry)?;
        if matches!(&field, Field::Info(key) if key.is_empty() || key.len() > INFO_KEY_BYTES_MAX) {
            return Err(EditError::TooLong("the info key"));
        }
        let life = self.life(entry);
        self.transact(|replica| replica.push(Op::Set { entry, life, field, value }))
    }

    /// Replaces a range of UTF-16 units of the text in a field. Concurrent splices of one text merge.
    ///
    /// # Errors
    /// If the entry does not show, the field holds no text, or the range does not lie on character
    /// boundaries inside it.
    pub fn splice(
        &mut self,
        entry: EntryId,
        field: Field,
        range: Range<usize>,
        text: &str,
    ) -> Result<(), EditError> {
        self.require_shown(entry)?;
        let state = self.live_state(entry).ok_or(EditError::NotText(entry))?;
        let register = state.register(&field).ok_or(EditError::NotText(entry))?;
        let set = register.stamp.op();
        let Some(splice) = register.resolve(&range).ok_or(EditError::NotText(entry))? else {
            let len = match register.value() {
                Value::Text(text) => text.encode_utf16().count(),
                _ => 0,
            };
            return Err(EditError::OutOfRange { from: range.start, to: range.end, len });
        };
        let life = self.life(entry);
        self.transact(|replica| {
            if !splice.deleted.is_empty() {
                let (field, ranges) = (field.clone(), splice.deleted);
                replica.push(Op::Delete { entry, life, field, set, ranges })?;
            }
            if !text.is_empty() {
                let (origin, text) = (splice.origin, text.to_owned());
                replica.push(Op::Insert { entry, life, field, set, origin, text })?;
            }
            Ok(())
        })
    }

    /// Puts a shown entry into a shown item that is not inside it.
    fn relocate(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        index: usize,
        trashed_at: Option<Timestamp>,
    ) -> Result<(), EditError> {
        self.transact(|replica| {
            replica.enter(Some(entry), parent)?;
            let key = replica.make_place(parent, index, Some(entry))?;
            let op = if trashed_at.is_none() && replica.is_placed_in(entry, parent) {
                Op::Reorder { entry, life: replica.life(entry), parent, key }
            } else {
                Op::Move { entry, life: replica.life(entry), parent, key, trashed_at }
            };
            replica.push(op)
        })
    }

    /// Makes sure that `parent` can take entries, and that `entry` can go there.
    fn enter(&mut self, entry: Option<EntryId>, parent: EntryId) -> Result<(), EditError> {
        self.require_item(parent)?;
        if !self.is_alive(parent) {
            self.push(Op::Revive { entry: parent, life: self.life(parent) })?;
        }
        let Some(entry) = entry.filter(|entry| self.tree.is_at_or_above(*entry, parent)) else {
            return Ok(());
        };
        // Not inside it as shown: on the way up, something shows in Lost and Found without having
        // been put there. Putting it there for good breaks the hidden chain.
        let mut rescued = parent;
        while let Some(above) = self.parent(rescued).filter(|up| *up != EntryId::LOST_AND_FOUND) {
            rescued = above;
        }
        if self.parent(rescued).is_none() || rescued == entry {
            return Err(EditError::WouldCycle { entry, target: parent });
        }
        self.pin(rescued)
    }

    /// Moves an entry that only shows in Lost and Found into it, at the index where it shows.
    fn pin(&mut self, entry: EntryId) -> Result<(), EditError> {
        let parent = EntryId::LOST_AND_FOUND;
        let index = self.children(parent).take_while(|child| *child != entry).count();
        let key = self.make_place(parent, index, Some(entry))?;
        let life = self.life(entry);
        self.push(Op::Move { entry, life, parent, key, trashed_at: None })
    }

    /// A key for an entry that is to stand at `index` among the children of `parent`, not counting
    /// `moving`. Where there is no room, neighbours get new keys in the same change.
    fn make_place(
        &mut self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> Result<OrderKey, EditError> {
        let (lo, hi) = self.neighbours(parent, index, moving);
        let (lo_key, hi_key) = (lo.as_ref().map(|(key, _)| key), hi.as_ref().map(|(key, _)| key));
        if let Some((key, child)) = &lo
            && self.is_own_place(*child)
            && let Some(next) = key.following(hi_key)
        {
            return Ok(next);
        }
        match OrderKey::between(lo_key, hi_key, self.next_id()) {
            Some(key) => Ok(key),
            None => self.make_room(parent, index, moving),
        }
    }

    /// The children of `parent` between which an entry is to go, with their keys.
    fn neighbours(
        &self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> (Option<Sibling>, Option<Sibling>) {
        let mut others =
            self.display.children(parent).filter(|(_, child)| Some(*child) != moving).cloned();
        if index >= self.child_count(parent) {
            return (others.next_back(), None);
        }
        let lo = index.checked_sub(1).and_then(|before| others.nth(before));
        (lo, others.next())
    }

    /// Gives new keys to as few neighbours of a full gap as it takes, and returns one for the gap.
    fn make_room(
        &mut self,
        parent: EntryId,
        index: usize,
        moving: Option<EntryId>,
    ) -> Result<OrderKey, EditError> {
        let others: Vec<Sibling> = self
            .display
            .children(parent)
            .filter(|(_, child)| Some(*child) != moving)
            .cloned()
            .collect();
        let index = index.min(others.len());
        let mut width = 1;
        loop {
            let from = index.saturating_sub(width - 1);
            let to = (index + width).min(others.len());
            let lo = from.checked_sub(1).map(|before| &others[before].0);
            let hi = others.get(to).map(|(key, _)| key);
            let first = OrderKey::between(lo, hi, self.next_id());
            let keys: Vec<OrderKey> =
                std::iter::successors(first, |key| key.following(hi)).take(to - from + 1).collect();
            if keys.len() == to - from + 1 {
                let gap = index - from;
                let children = others[from..to].iter().map(|(_, child)| *child);
                let free = (0..).zip(&keys).filter(|(at, _)| *at != gap).map(|(_, key)| key);
                for (child, key) in children.zip(free) {
                    self.put_again(child, parent, key.clone())?;
                }
                return Ok(keys[gap].clone());
            }
            if lo.is_none() && hi.is_none() {
                // 2^24 siblings and more do not fit one run.
                return Err(EditError::OutOfIds);
            }
            width *= 2;
        }
    }

    /// Gives a child another key in the container where it shows.
    fn put_again(
        &mut self,
        entry: EntryId,
        parent: EntryId,
        key: OrderKey,
    ) -> Result<(), EditError> {
        let life = self.life(entry);
        self.push(if self.is_placed_in(entry, parent) {
            Op::Reorder { entry, life, parent, key }
        } else {
            Op::Move { entry, life, parent, key, trashed_at: None }
        })
    }

    /// Whether the entry was put into `parent` in its current life, rather than only showing there.
    fn is_placed_in(&self, entry: EntryId, parent: EntryId) -> bool {
        let place = self.tree.placement(entry);
        place.is_some_and(|place| place.parent == parent && place.life == self.life(entry))
    }

    /// Whether this replica made the key under which the entry shows.
    fn is_own_place(&self, entry: EntryId) -> bool {
        let place = self.tree.placement(entry);
        place.is_some_and(|place| {
            place.stamp.is_some_and(|stamp| stamp.replica == self.id)
                && self.display.place(entry).is_some_and(|shown| shown.key == place.key)
        })
    }

    pub(crate) fn life(&self, entry: EntryId) -> Life {
        self.entries.get(&entry).map(EntryState::life).unwrap_or_default()
    }

    fn require_shown(&self, entry: EntryId) -> Result<(), EditError> {
        if self.is_shown(entry) { Ok(()) } else { Err(EditError::NotFound(entry)) }
    }

    fn require_item(&self, entry: EntryId) -> Result<(), EditError> {
        match self.kind(entry) {
            Some(NewEntry::Item) => Ok(()),
            Some(NewEntry::Link { .. }) => Err(EditError::NotAnItem(entry)),
            None => Err(EditError::NotFound(entry)),
        }
    }

    /// The id that the next op gets.
    fn next_id(&self) -> OpId {
        let after_log = self.version().next(self.id) + self.skipped;
        let counter = self.open.as_ref().map_or(after_log, |open| open.next);
        OpId { replica: self.id, counter }
    }

    fn depth(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.marks.len())
    }

    /// Adds an op to the transaction under way and lets it take effect.
    fn push(&mut self, op: Op) -> Result<(), EditError> {
        let mut pending = Pending::default();
        let Some(open) = &mut self.open else {
            return self.transact(|replica| replica.push(op));
        };
        let span = op.span();
        if open.next.checked_add(span).is_none_or(|next| next > COUNTER_MAX + 1) {
            return Err(EditError::OutOfIds);
        }
        let stamp = Stamp { lamport: open.lamport, replica: self.id, counter: open.next };
        let begins = open.marks.last().map_or(0, |mark| mark.journal);
        let purged = match &op {
            Op::Purge { entries } => entries.as_slice(),
            _ => &[],
        };
        for (entry, _) in op.subject().iter().chain(purged) {
            if open.noted.get(entry).is_none_or(|at| *at < begins) {
                open.noted.insert(*entry, open.journal.len());
                open.journal.push((*entry, self.entries.get(entry).cloned()));
            }
        }
        open.next += span;
        open.ops.push(op.clone());
        self.apply_op(stamp, &op, &mut pending);
        self.settle(pending);
        Ok(())
    }

    fn roll_back_innermost(&mut self) {
        let Some(open) = &mut self.open else { return };
        let Some(mark) = open.marks.pop() else { return };
        let first = Stamp { lamport: open.lamport, replica: self.id, counter: mark.next };
        let mut touched = self.tree.remove_from(first);
        for (entry, before) in open.journal.drain(mark.journal..).rev() {
            open.noted.remove(&entry);
            touched.insert(entry);
            match before {
                Some(state) => self.entries.insert(entry, state),
                None => self.entries.remove(&entry),
            };
        }
        open.ops.truncate(mark.ops);
        let count = open.next - mark.next;
        if count > 0 {
            open.ops.push(Op::Skip { count });
        }
        if open.marks.is_empty() {
            self.skipped = open.next - open.start;
            self.open = None;
        }
        self.refresh(touched);
    }

    /// Makes a change of the outermost transaction.
    fn commit_change(&mut self) -> Result<(), EditError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if open.ops.iter().all(|op| matches!(op, Op::Skip { .. })) {
            self.skipped = open.next - open.start;
            self.open = None;
            return Ok(());
        }
        let deps = self.history.deps_of(self.id);
        let deps = with_references(deps, &open.ops, self.id, |op| self.history.version().has(op));
        match Change::new(self.id, open.start, deps, &open.ops) {
            Ok(change) => {
                self.history.append(&change);
                self.open = None;
                Ok(())
            }
            Err(DecodeError::TooLarge { .. }) => {
                let bytes = open.ops.iter().map(op_bytes).sum::<usize>().max(CHANGE_BYTES_MAX + 1);
                self.roll_back_innermost();
                Err(EditError::ChangeTooLarge { bytes, max: CHANGE_BYTES_MAX })
            }
            Err(_) => {
                self.roll_back_innermost();
                Err(EditError::TooLong("the transaction"))
            }
        }
    }
}

/// The deps of a change, as its header promises them: the heads, and an op at or after every foreign
/// one that the ops refer to. Entries count where they are known by their op: that makes their names
/// short.
fn with_references(
    mut deps: BTreeMap<ReplicaId, u64>,
    ops: &[Op],
    author: ReplicaId,
    has: impl Fn(OpId) -> bool,
) -> Vec<OpId> {
    let mut refer = |op: OpId| {
        if op.replica != author && has(op) {
            let known = deps.entry(op.replica).or_insert(op.counter);
            *known = op.counter.max(*known);
        }
    };
    for op in ops {
        match op {
            Op::Insert { set, origin, .. } => {
                refer(*set);
                origin.iter().for_each(|origin| refer(*origin));
            }
            Op::Delete { set, ranges, .. } => {
                refer(*set);
                ranges.iter().for_each(|range| refer(range.first.plus(range.len - 1)));
            }
            _ => {}
        }
        named_entries(op, |entry| entry.creator().into_iter().for_each(&mut refer));
    }
    deps.into_iter().map(|(replica, counter)| OpId { replica, counter }).collect()
}

fn named_entries(op: &Op, mut name: impl FnMut(EntryId)) {
    if let Some((entry, _)) = op.subject() {
        name(entry);
    }
    match op {
        Op::Create { parent, kind, .. } => {
            name(*parent);
            if let NewEntry::Link { target } = kind {
                name(*target);
            }
        }
        Op::Move { parent, .. } | Op::Reorder { parent, .. } => name(*parent),
        Op::Purge { entries } => entries.iter().for_each(|(entry, _)| name(*entry)),
        _ => {}
    }
}

/// Roughly how many bytes an op takes, for the message that says it is too many.
fn op_bytes(op: &Op) -> usize {
    match op {
        Op::Set { value: Value::Text(text) | Value::Json(text), .. } => text.len(),
        Op::Set { value: Value::Bytes(bytes), .. } => bytes.len(),
        Op::Insert { text, .. } => text.len(),
        _ => 32,
    }
}
