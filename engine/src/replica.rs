//! A replica: one copy of the tree, which integrates changes and can be edited.
//!
//! The state is a pure function of the set of integrated changes; in which order they arrive makes
//! no difference. Taking changes in and giving them away is here, reading in `reading`, editing in
//! `edit`.

mod reading;

use std::sync::Arc;

use smallvec::SmallVec;

use crate::backlog::{Backlog, Place};
use crate::batch::{Batch, Deps, OpWalk, Span, to_usize};
use crate::change::Change;
use crate::codec::{Kind, LogHead, Patch, pack, pack_changes, pack_sections};
use crate::delta::Watch;
use crate::digest::{Digest, DigestSum, hash_entry};
use crate::display::{Display, Facts};
use crate::entries::{Entries, EntryIx};
use crate::error::{DecodeError, IntegrateError};
use crate::history::{History, LastDated};
use crate::id::{EntryId, Life, OpId, ReplicaId, Stamp};
use crate::integration::{Arrival, Plan, Step, plan};
use crate::keystroke::Keyboard;
use crate::op::{NewEntry, Op, OpParts, OpView, Target, TextEdit, TextOp};
use crate::registers::{Applying, EntryState, Journal, RegisterView, TextPlace, Touch, Traces};
use crate::transaction::OpenChange;
use crate::tree::{MoveIx, MoveKind, MoveOp, MoveTree, OrderKey};
use crate::value::Field;
use crate::version::Version;

/// What became of the changes of a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integrated {
    /// Changes that took effect, those that had waited for them included. What came as a part of a
    /// state is not counted ([`Patch::has_state`]).
    pub applied: usize,
    /// Changes that were here already.
    pub known: usize,
    /// Changes that wait for others after this patch, those of earlier patches included.
    pub waiting: usize,
    /// Parts of the patch with ops of a newer program, which were passed over: their authors stand
    /// still here until a newer program asks for them again. See [`Patch::newer`].
    pub newer: usize,
}

/// One copy of the tree. See the crate's documentation for how to use it.
#[derive(Debug)]
pub struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) history: History,
    pub(crate) backlog: Backlog,
    pub(crate) entries: Entries,
    pub(crate) tree: MoveTree,
    pub(crate) display: Display,
    pub(crate) digest: DigestSum,
    /// What is noted for the next delta.
    pub(crate) watch: Watch,
    /// The transaction under way.
    pub(crate) open: Option<OpenChange>,
    /// Counters given out by transactions that were rolled back since the last change.
    pub(crate) skipped: u64,
    /// Where the last keystroke went.
    pub(crate) keyboard: Option<Keyboard>,
}

/// What ops of a batch leave to be done once for all of them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) moves: SmallVec<[MoveIx; 4]>,
    /// Entries whose life or kind may have changed.
    pub(crate) changed: SmallVec<[EntryIx; 8]>,
    pub(crate) journal: Journal,
    /// The text that was edited by the op before, and its entry and life.
    pub(crate) text: Option<(EntryId, Life, TextPlace)>,
    /// The change of the op that a joining state named last.
    pub(crate) dated: LastDated,
    /// Texts that expect many edits.
    pub(crate) woven: SmallVec<[TextPlace; 1]>,
}

impl Replica {
    /// An empty tree, to be edited under this id. No two copies may ever use one id at a time.
    #[must_use]
    pub fn new(id: ReplicaId) -> Self {
        let (entries, tree) = (Entries::new(), MoveTree::new());
        let display = Display::new(Facts { entries: &entries, tree: &tree });
        Self {
            id,
            history: History::default(),
            backlog: Backlog::default(),
            entries,
            tree,
            display,
            digest: DigestSum::default(),
            watch: Watch::default(),
            open: None,
            skipped: 0,
            keyboard: None,
        }
    }

    /// The tree in a snapshot, to be edited under this id. Costs the state; the log stays packed
    /// until somebody asks for history.
    ///
    /// # Errors
    /// If the bytes are no snapshot, are damaged, of a newer format, or unfold past
    /// [`SNAPSHOT_BYTES_MAX`](crate::limits::SNAPSHOT_BYTES_MAX).
    pub fn from_snapshot(id: ReplicaId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let (mut replica, head, log) = Self::read_snapshot(id, bytes)?;
        match head {
            Some(head) if head.fits(log) => replica.attach_log(&head.floors, bytes),
            None if log.is_empty() => {}
            _ => return Err(DecodeError::WrongChecksum),
        }
        Ok(replica)
    }

    /// Takes in changes made elsewhere. Each is applied whole, once everything that it builds on is
    /// here; until then it waits. Order and repetition make no difference. Costs what
    /// the patch brings; more where folders move late or containers come and go, as told in the
    /// crate's documentation.
    ///
    /// # Errors
    /// [`IntegrateError::Forked`] if a change contradicts one that is here, waits here or is in the
    /// patch too; [`IntegrateError::BacklogFull`] if too many would have to wait;
    /// [`IntegrateError::TransactionOpen`]. Nothing of the patch is taken in then.
    pub fn integrate(&mut self, patch: Patch) -> Result<Integrated, IntegrateError> {
        if self.open.is_some() {
            return Err(IntegrateError::TransactionOpen);
        }
        let patch = match self.lone_and_ready(patch) {
            Ok(arrival) => return Ok(self.integrate_alone(arrival)),
            Err(patch) => patch,
        };
        let Plan { states, arrivals, steps, mut fresh, arrangement, known, newer } =
            plan(patch, &self.history, &self.backlog)?;
        let mut applied: u64 = arrivals.iter().map(|arrival| arrival.batch.change_count()).sum();
        applied += arrangement.ready.len() as u64;
        for place in &arrangement.obsolete {
            drop(self.backlog.remove(*place));
        }
        let mut pending = Pending::default();
        states.iter().for_each(|state| self.join_state(state, &mut pending));
        self.apply_arrivals(arrivals, &steps, &mut pending);
        let mut take = |place: &Place| fresh.remove(place).or_else(|| self.backlog.remove(*place));
        let ready: Vec<Change> = arrangement.ready.iter().filter_map(&mut take).collect();
        for (place, missing) in &arrangement.blocked {
            if let Some(change) = fresh.remove(place).or_else(|| self.backlog.remove(*place)) {
                self.backlog.insert(change, *missing);
            }
        }
        for change in ready {
            let batch = Batch::of_change(change);
            let to = batch.end();
            let arrival = Arrival { batch, block: None };
            self.apply_arrivals(vec![arrival], &[Step { arrival: 0, to }], &mut pending);
        }
        self.settle(pending);
        let waiting = self.backlog.changes().len();
        Ok(Integrated { applied: to_usize(applied), known: to_usize(known), waiting, newer })
    }

    /// The changes of a patch, if they are in one piece and nothing stands in their way, as is mostly
    /// so; else the patch.
    fn lone_and_ready(&self, patch: Patch) -> Result<Arrival, Patch> {
        if !self.backlog.changes().is_empty() || !patch.is_lone_and_next(self.history.version()) {
            return Err(patch);
        }
        patch.into_lone_batch().map(|(batch, block)| Arrival { batch, block })
    }

    fn integrate_alone(&mut self, arrival: Arrival) -> Integrated {
        let mut pending = Pending::default();
        let Arrival { batch, .. } = &arrival;
        let applied = to_usize(batch.change_count());
        BatchReader::new(batch).apply_until(batch.end(), self, &mut pending);
        self.keep(arrival);
        self.settle(pending);
        Integrated { applied, ..Integrated::default() }
    }

    /// Adds changes to the log that have taken effect.
    fn keep(&mut self, Arrival { batch, block }: Arrival) {
        let (author, range) = (batch.author, (batch.start, batch.end()));
        match block {
            Some(block) if History::keeps(&block) => self.history.push_block(author, range, block),
            _ => self.history.push_ops(author, batch.ops),
        }
        if range.0 < range.1 {
            self.history.seal_if_long(author);
        }
    }

    /// Lets changes take effect, step by step, and adds them to the log.
    fn apply_arrivals(&mut self, arrivals: Vec<Arrival>, steps: &[Step], pending: &mut Pending) {
        let mut readers: Vec<_> =
            arrivals.iter().map(|arrival| BatchReader::new(&arrival.batch)).collect();
        for step in steps {
            readers[step.arrival].apply_until(step.to, self, pending);
        }
        arrivals.into_iter().for_each(|arrival| self.keep(arrival));
    }

    /// Lets one op take effect, but for its move and for what shows, which wait in `pending`.
    #[inline]
    pub(crate) fn apply_op(&mut self, stamp: Stamp, op: &OpView<'_>, pending: &mut Pending) {
        match op {
            OpView::Text(edit) => self.apply_edit(stamp, edit, pending),
            OpView::Other(op) => self.apply_other(stamp, op, pending),
        }
    }

    #[inline]
    fn apply_edit(&mut self, stamp: Stamp, edit: &TextEdit<'_>, pending: &mut Pending) {
        let Some(place) = self.text_place(stamp, edit, pending) else { return };
        let clock = clock(&self.history, stamp);
        let states = self.entries.states_mut();
        let traces = &mut Traces { journal: &mut pending.journal, watch: &mut self.watch };
        match edit.op {
            TextOp::Insert { origin, text } => {
                states.insert_text(&place, (origin, text), stamp, &clock, traces);
            }
            TextOp::Delete { range, .. } => states.delete_text(&place, range, traces),
        }
    }

    /// Says that about so many edits of a text follow, of which this is the first.
    fn expect_edits(
        &mut self,
        stamp: Stamp,
        edit: &TextEdit<'_>,
        edits: usize,
        pending: &mut Pending,
    ) {
        // Whoever wants to know of every splice has to be told where it was.
        let place = self.text_place(stamp, edit, pending).filter(|_| !self.watch.is_on());
        if let Some(place) = place {
            let clock = clock(&self.history, stamp);
            self.entries.states_mut().expect_edits(&place, edits, &clock);
            pending.woven.push(place);
        }
    }

    /// The place of the text that an edit is about, which touches its entry.
    fn text_place(
        &mut self,
        stamp: Stamp,
        edit: &TextEdit<'_>,
        pending: &mut Pending,
    ) -> Option<TextPlace> {
        let Target { entry, life, field, set } = edit.target;
        if let Some((same, same_life, place)) = pending.text
            && (same, same_life, place.set) == (entry, life, set)
            && self.entries.names().field(place.field) == field
        {
            return Some(place);
        }
        let known = self.entries.name(entry);
        let traces = &mut Traces { journal: &mut pending.journal, watch: &mut self.watch };
        if self.entries.states_mut().touch(known, &Touch { life, creates: None, stamp }, traces) {
            pending.changed.push(known);
        }
        self.digest.mark(known);
        let place = TextPlace { entry: known, field: self.entries.names().find(field)?, set };
        pending.text = Some((entry, life, place));
        Some(place)
    }

    fn apply_other(&mut self, stamp: Stamp, op: &Op, pending: &mut Pending) {
        pending.text = None;
        if let Op::Purge { entries } = op {
            for (entry, life) in entries {
                let entry = self.entries.name(*entry);
                let traces = &mut Traces { journal: &mut pending.journal, watch: &mut self.watch };
                self.entries.states_mut().purge(entry, *life, traces);
                pending.changed.push(entry);
            }
        }
        let Some((entry, _)) = op.subject() else { return };
        let entry = self.entries.name(entry);
        self.record_move(entry, stamp, op, pending);
        let applying = Applying { entry, op, stamp };
        let traces = &mut Traces { journal: &mut pending.journal, watch: &mut self.watch };
        if self.entries.states_mut().apply(applying, traces) {
            pending.changed.push(entry);
        }
        self.digest.mark(entry);
    }

    /// Takes in where an op puts its entry, if it does.
    fn record_move(&mut self, entry: EntryIx, stamp: Stamp, op: &Op, pending: &mut Pending) {
        if let Op::Create { kind: NewEntry::Link { target }, .. } = op {
            self.entries.name(*target);
        }
        if let Some((life, parent, key, kind)) = move_of(op) {
            let parent = self.entries.name(parent);
            let op = MoveOp { entry, life, parent, key, kind };
            pending.moves.push(self.tree.record(stamp, &op));
        }
    }

    /// Does what a batch of ops left to be done: replays moves, updates what shows.
    pub(crate) fn settle(&mut self, mut pending: Pending) {
        for place in &pending.woven {
            self.entries.states_mut().settle_text(place);
        }
        if !pending.moves.is_empty() {
            let Self { tree, display, watch, .. } = self;
            tree.integrate(&mut pending.moves, &mut pending.changed, |entry, trashed_at| {
                if watch.is_on() && display.parent(entry) == Some(EntryIx::TRASH) {
                    watch.note_time(entry, trashed_at);
                }
            });
        }
        self.refresh(pending.changed);
    }

    /// Brings display and digest up to date with entries whose life, kind or placement has changed.
    pub(crate) fn refresh(&mut self, changed: SmallVec<[EntryIx; 8]>) {
        let is_grown = self.entries.len() > self.display.len();
        if changed.is_empty() && !is_grown {
            return;
        }
        for entry in &changed {
            self.digest.mark(*entry);
        }
        let facts = Facts { entries: &self.entries, tree: &self.tree };
        self.display.update(changed, facts, &mut self.watch);
    }

    /// The id under which this copy is edited.
    #[must_use]
    pub const fn id(&self) -> ReplicaId {
        self.id
    }

    /// Which ops this replica has.
    #[must_use]
    pub const fn version(&self) -> &Version {
        self.history.version()
    }

    /// Whether a change of `author` ends before a counter; nothing if some of its changes are gone. Costs
    /// the logarithm of their number.
    #[must_use]
    pub fn ends_change(&self, author: ReplicaId, counter: u64) -> Option<bool> {
        self.history.ends_change(author, counter)
    }

    /// The changes that `since` lacks, encoded, in an order in which each can be integrated at once;
    /// nothing if some of them are gone ([`Replica::compact`]). Costs what it returns.
    #[must_use]
    pub fn changes_since(&self, since: &Version) -> Option<Vec<Arc<[u8]>>> {
        let changes = self.decoded_changes_since(since)?;
        Some(changes.iter().map(|change| change.bytes().clone()).collect())
    }

    /// [`changes_since`](Self::changes_since) for who also wants to know what is in them.
    #[must_use]
    pub fn decoded_changes_since(&self, since: &Version) -> Option<Vec<Change>> {
        self.history.since(since)
    }

    /// The first of the changes that `since` lacks and `upto` has, decoded, in the order of
    /// [`changes_since`](Self::changes_since): `count` of them, or all if there are no more; nothing if
    /// some of them are gone. For who sends a long log in parts. Costs what it returns, the blocks of the log
    /// that it ends in, and a logarithm for each author that `since` lacks something of.
    #[must_use]
    pub fn first_changes_since(
        &self,
        since: &Version,
        upto: &Version,
        count: usize,
    ) -> Option<Vec<Change>> {
        self.history.first_since(since, upto, count)
    }

    /// A patch with exactly the changes that `since` lacks: by themselves if they are few, otherwise
    /// in blocks.
    ///
    /// Where such changes are gone ([`Replica::compact`]), it has the state in their place. The
    /// edits of a transaction under way are not in it. Costs what it returns.
    #[must_use]
    pub fn export(&self, since: &Version) -> Vec<u8> {
        let newer = self.history.newer_than(since);
        if let [(author, from)] = newer[..]
            && let Some((header, ops)) = self.history.lone_change(author, from)
        {
            return Patch::pack_lone(&header, &ops);
        }
        let count = |(author, from): &(ReplicaId, u64)| self.history.change_count(*author, *from);
        // A state may claim as many changes of each author as there are counters.
        let is_little = newer.iter().map(count).fold(0, u64::saturating_add) < BLOCK_CHANGES_MIN;
        if is_little {
            if let [(author, from)] = newer[..]
                && let Some(batch) = self.history.batch(author, from, self.version().next(author))
                && batch.change_count() > 1
            {
                return pack_changes(&batch);
            }
            if let Some(changes) = self.history.since(since) {
                return Patch::pack(changes.iter().map(|change| &**change.bytes()));
            }
        }
        let blocks = newer.iter().map(|(author, from)| self.history.blocks(*author, *from));
        let Some(blocks) = blocks.collect::<Option<Vec<_>>>() else {
            let committed = self.without_transaction();
            let state = committed.as_ref().unwrap_or(self).encode_state();
            return pack_sections([(Kind::State, state.bytes.as_slice())]);
        };
        pack_sections(blocks.iter().flatten().map(|block| (Kind::Block, &**block)))
    }

    /// Everything, compressed, for [`Replica::from_snapshot`]: the state, and the history that was not
    /// dropped. What waits for missing changes is not in it, nor is it in the version.
    ///
    /// The edits of a transaction under way are not in it either. Costs the state and the log, and
    /// during a transaction a copy of both.
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        if let Some(committed) = self.without_transaction() {
            return committed.snapshot();
        }
        let (floors, log) = self.pack_log();
        let head = LogHead::of(floors, &log);
        let mut snapshot = pack(&[(Kind::State, self.encode_state())], Some(&head));
        snapshot.extend(log);
        snapshot
    }

    /// The ops that changes in the backlog wait for, by author and counter.
    #[must_use]
    pub fn missing(&self) -> Vec<OpId> {
        self.backlog.missing().collect()
    }

    /// One hash over the merged state, the edits of a transaction under way included. Costs the
    /// entries that changed since the last call, with their fields.
    pub fn digest(&mut self) -> Digest {
        let facts = Facts { entries: &self.entries, tree: &self.tree };
        self.digest.digest(facts.entries.len(), |entry| hash_entry(entry, facts))
    }

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { entries: &self.entries, tree: &self.tree }
    }

    /// What a field of a live entry holds.
    pub(crate) fn register(&self, entry: EntryId, field: &Field) -> Option<RegisterView<'_>> {
        let field = self.entries.names().find(field)?;
        self.live_state(entry)?.register(field)
    }

    fn live_state(&self, entry: EntryId) -> Option<EntryState<'_>> {
        let entry = self.entries.find(entry)?;
        self.facts().is_alive(entry).then(|| self.entries.state(entry))
    }

    /// Panics if an invariant of the replica or of one of its parts does not hold. Costs a replay of
    /// the whole history; for tests.
    pub fn assert_invariants(&self) {
        self.history.assert_invariants();
        self.backlog.assert_invariants();
        let (lamport, replica) = (self.history.next_lamport(), self.id);
        let clock = clock(&self.history, Stamp { lamport, replica, counter: 0 });
        self.entries.assert_invariants(&clock);
        self.tree.assert_invariants(&self.entries);
        self.display.assert_invariants(self.facts());
        self.watch.assert_invariants();
        if let Some(open) = &self.open {
            open.assert_invariants(self);
        }
    }
}

/// The fewest changes that are sent in blocks.
const BLOCK_CHANGES_MIN: u64 = 3;

/// Goes through a batch as its changes take effect.
struct BatchReader<'a> {
    batch: &'a Batch,
    /// The next span, and its first counter.
    span: usize,
    span_start: u64,
    /// How far the changes have taken effect.
    at: u64,
    ops: OpParts<'a>,
    walk: OpWalk<'a>,
    /// How many edits of one and the same text there are, until the first has taken effect.
    edits: Option<usize>,
}

impl<'a> BatchReader<'a> {
    fn new(batch: &'a Batch) -> Self {
        let at = batch.start;
        let (ops, walk) = (OpParts::new(&batch.ops, batch.id(at)), OpWalk::new(batch));
        Self { batch, span: 0, span_start: at, at, ops, walk, edits: batch.ops.edits_of_one_text() }
    }

    /// Lets the changes before the counter `to` take effect.
    fn apply_until(&mut self, to: u64, replica: &mut Replica, pending: &mut Pending) {
        while let Some(span) = self.batch.spans.get(self.span).filter(|_| self.span_start < to) {
            let (from, span_end) = (self.span_start, self.span_start + span.total());
            let end = to.min(span_end);
            let deps = if self.at == from { span.deps.clone() } else { Deps::new() };
            let count = (end - self.at) / span.len;
            let part = Span { len: span.len, count, deps };
            replica.history.append(self.batch.author, self.at, &part, &mut self.walk);
            while let Some((id, op)) = self.ops.next_until(end) {
                let stamp = replica.history.stamp(id);
                if let OpView::Text(edit) = &op
                    && let Some(edits) = self.edits.take()
                {
                    replica.expect_edits(stamp, edit, edits, pending);
                }
                replica.apply_op(stamp, &op, pending);
            }
            self.at = end;
            if end < span_end {
                return;
            }
            (self.span, self.span_start) = (self.span + 1, end);
        }
    }
}

/// What knows the stamp of each character that is here: those in the log, and those of the change at
/// `now`, whether it is in the log yet or not.
pub(crate) fn clock(history: &History, now: Stamp) -> impl Fn(OpId) -> Stamp {
    move |id| {
        if id.replica == now.replica && !history.version().has(id) {
            return Stamp { counter: id.counter, ..now };
        }
        history.stamp(id)
    }
}

/// Where an op puts its entry, if it does.
fn move_of(op: &Op) -> Option<(Life, EntryId, &OrderKey, MoveKind)> {
    match op {
        Op::Create { life, parent, key, .. } => Some((*life, *parent, key, MoveKind::Creation)),
        Op::Move { life, parent, key, trashed_at, .. } => {
            let kind = MoveKind::Into { trashed_at: *trashed_at };
            Some((*life, *parent, key, kind))
        }
        Op::Reorder { life, parent, key, .. } => Some((*life, *parent, key, MoveKind::Within)),
        _ => None,
    }
}
