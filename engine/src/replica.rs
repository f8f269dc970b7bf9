//! A replica: one copy of the tree, which integrates changes and can be edited.
//!
//! The state is a pure function of the set of integrated changes; in which order they arrive makes
//! no difference. Reading is here; editing is in `edit`.

use std::collections::BTreeMap;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::backlog::{Backlog, Place, overlapping};
use crate::change::Change;
use crate::codec::{Patch, pack_snapshot, unpack_snapshot};
use crate::digest::{Digest, DigestSum, hash_entry};
use crate::display::{Display, Facts};
use crate::entries::{Entries, EntryIx};
use crate::error::{DecodeError, IntegrateError};
use crate::history::{History, Standing};
use crate::id::{EntryId, Life, OpId, ReplicaId, Stamp, Timestamp};
use crate::op::{NewEntry, Op};
use crate::registers::{Applying, EntryState, Journal, Register};
use crate::transaction::OpenChange;
use crate::tree::{MoveIx, MoveKind, MoveOp, MoveTree, OrderKey};
use crate::value::{Field, Value};
use crate::version::Version;

/// What became of the changes of a patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Integrated {
    /// Changes that took effect, those that had waited for them included.
    pub applied: usize,
    /// Changes that were here already.
    pub known: usize,
    /// Changes that wait for others after this patch.
    pub waiting: usize,
}

/// One copy of the tree. See the crate's documentation for how to use it.
#[derive(Debug)]
pub struct Replica {
    pub(crate) id: ReplicaId,
    pub(crate) history: History,
    backlog: Backlog,
    pub(crate) entries: Entries,
    pub(crate) tree: MoveTree,
    pub(crate) display: Display,
    pub(crate) digest: DigestSum,
    /// The transaction under way.
    pub(crate) open: Option<OpenChange>,
    /// The entry that was given a place here last.
    pub(crate) placed_last: Option<EntryIx>,
    /// Counters given out by transactions that were rolled back since the last change.
    pub(crate) skipped: u64,
}

/// What ops of a batch leave to be done once for all of them.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    pub(crate) moves: SmallVec<[MoveIx; 4]>,
    /// Entries whose life or kind may have changed.
    pub(crate) changed: SmallVec<[EntryIx; 8]>,
    pub(crate) journal: Journal,
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
            open: None,
            placed_last: None,
            skipped: 0,
        }
    }

    /// The tree in a snapshot, to be edited under this id.
    ///
    /// # Errors
    /// If the bytes are no snapshot or are damaged.
    pub fn from_snapshot(id: ReplicaId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let patch = Patch::decode(&unpack_snapshot(bytes)?)?;
        let mut replica = Self::new(id);
        match replica.integrate(patch) {
            Ok(done) if done.waiting == 0 => Ok(replica),
            _ => Err(DecodeError::Malformed { at: 0, what: "snapshot with gaps or two histories" }),
        }
    }

    /// Takes in changes made elsewhere. Each is applied whole, once everything that it builds on is
    /// here; until then it waits. Order and repetition make no difference.
    ///
    /// # Errors
    /// If a change contradicts one that is here, or too many would have to wait. Nothing of the
    /// patch is taken in then.
    pub fn integrate(&mut self, patch: Patch) -> Result<Integrated, IntegrateError> {
        if self.open.is_some() {
            return Err(IntegrateError::TransactionOpen);
        }
        let arrived = patch.changes().len();
        let mut fresh = self.unknown_changes(patch)?;
        let known = arrived - fresh.len();
        let arrangement = self.backlog.arrange(&fresh, self.version())?;
        let applied = arrangement.ready.len();
        let mut pending = Pending::default();
        let mut take = |place: &Place| fresh.remove(place).or_else(|| self.backlog.remove(*place));
        let ready: Vec<Change> = arrangement.ready.iter().filter_map(&mut take).collect();
        for (place, missing) in &arrangement.blocked {
            if let Some(change) = fresh.remove(place).or_else(|| self.backlog.remove(*place)) {
                self.backlog.insert(change, *missing);
            }
        }
        for change in &ready {
            self.apply(change, &mut pending);
        }
        self.settle(pending);
        Ok(Integrated { applied, known, waiting: self.backlog.changes().len() })
    }

    /// The changes of a patch that are not here, neither integrated nor waiting; refuses a patch
    /// that contradicts what is here or itself.
    fn unknown_changes(&self, patch: Patch) -> Result<BTreeMap<Place, Change>, IntegrateError> {
        let mut fresh = BTreeMap::new();
        for change in patch.into_changes() {
            let forked = IntegrateError::Forked { at: change.header().last() };
            let rivals =
                [overlapping(self.backlog.changes(), &change), overlapping(&fresh, &change)];
            if rivals.iter().flatten().any(|rival| rival.bytes() != change.bytes()) {
                return Err(forked);
            }
            match self.history.standing(&change) {
                Standing::Forked => return Err(forked),
                Standing::New if rivals.iter().all(Option::is_none) => {
                    fresh.insert((change.header().replica, change.header().start), change);
                }
                Standing::New | Standing::Known => {}
            }
        }
        Ok(fresh)
    }

    fn apply(&mut self, change: &Change, pending: &mut Pending) {
        let lamport = self.history.append(change);
        for (id, op) in change.numbered_ops() {
            let stamp = Stamp { lamport, replica: id.replica, counter: id.counter };
            self.apply_op(stamp, op, pending);
        }
    }

    /// Lets one op take effect, but for its move and for what shows, which wait in `pending`.
    pub(crate) fn apply_op(&mut self, stamp: Stamp, op: &Op, pending: &mut Pending) {
        if let Op::Purge { entries } = op {
            for (entry, life) in entries {
                let entry = self.entries.name(*entry);
                let (state, _) = self.entries.state_mut(entry);
                state.purge(entry, *life, &mut pending.journal);
                pending.changed.push(entry);
            }
        }
        let Some((entry, _)) = op.subject() else { return };
        let entry = self.entries.name(entry);
        self.record_move(entry, stamp, op, pending);
        let clock = clock(&self.history, stamp);
        let (state, names) = self.entries.state_mut(entry);
        let applying = Applying { entry, op, stamp };
        if state.apply(applying, names, &clock, &mut pending.journal) {
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
        if !pending.moves.is_empty() {
            self.tree.integrate(&mut pending.moves, &mut pending.changed);
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
        self.display.update(changed, Facts { entries: &self.entries, tree: &self.tree });
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

    /// The changes that `since` lacks, encoded, in an order in which each can be integrated at once.
    #[must_use]
    pub fn changes_since(&self, since: &Version) -> Vec<Arc<[u8]>> {
        self.history.since(since).into_iter().cloned().collect()
    }

    /// A patch with exactly the changes that `since` lacks.
    #[must_use]
    pub fn export(&self, since: &Version) -> Vec<u8> {
        Patch::pack(self.history.since(since).into_iter().map(|bytes| &**bytes))
    }

    /// Everything, compressed, for [`Replica::from_snapshot`].
    #[must_use]
    pub fn snapshot(&self) -> Vec<u8> {
        pack_snapshot(&self.export(&Version::new()))
    }

    /// The ops that changes in the backlog wait for.
    #[must_use]
    pub fn missing(&self) -> Vec<OpId> {
        self.backlog.missing().collect()
    }

    /// One hash over the merged state. Costs the entries that changed since the last call.
    pub fn digest(&mut self) -> Digest {
        let facts = Facts { entries: &self.entries, tree: &self.tree };
        self.digest.digest(facts.entries.len(), |entry| hash_entry(entry, facts))
    }

    /// Whether the entry shows: it is alive, or a placeholder for the target of a link.
    #[must_use]
    pub fn is_shown(&self, entry: EntryId) -> bool {
        self.find_shown(entry).is_some()
    }

    /// The index of an entry that shows.
    pub(crate) fn find_shown(&self, entry: EntryId) -> Option<EntryIx> {
        // Whatever is alive shows.
        let is_shown =
            |ix: &EntryIx| self.facts().is_alive(*ix) || self.display.place(*ix).is_some();
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

    /// The entries shown in `parent`, in order.
    pub fn children(
        &self,
        parent: EntryId,
    ) -> impl DoubleEndedIterator<Item = EntryId> + Clone + '_ {
        let children = self.entries.find(parent).map(|parent| self.display.children(parent));
        children.into_iter().flatten().map(|entry| self.entries.id(entry))
    }

    /// How many entries show in `parent`.
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

    /// The value of a field; [`Value::None`] if it holds nothing.
    #[must_use]
    pub fn value(&self, entry: EntryId, field: &Field) -> Value {
        let field = self.entries.names().find(field);
        let state = self.live_state(entry);
        let register = state.zip(field).and_then(|(state, field)| state.register(field));
        register.map_or(Value::None, Register::value)
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

    pub(crate) fn facts(&self) -> Facts<'_> {
        Facts { entries: &self.entries, tree: &self.tree }
    }

    fn live_state(&self, entry: EntryId) -> Option<&EntryState> {
        let entry = self.entries.find(entry)?;
        self.facts().is_alive(entry).then(|| self.entries.state(entry))
    }

    /// Panics if an invariant of the replica or of one of its parts does not hold. Costs a replay of
    /// the whole history; for tests.
    pub fn assert_invariants(&self) {
        self.history.assert_invariants();
        self.backlog.assert_invariants();
        self.entries.assert_invariants();
        self.tree.assert_invariants(&self.entries);
        self.display.assert_invariants(self.facts());
        for entry in self.entries.indexes() {
            self.entries.state(entry).assert_invariants(&|id| self.history.stamp(id));
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
    let into = |trashed_at| MoveKind::Into { trashed_at };
    match op {
        Op::Create { life, parent, key, .. } => Some((*life, *parent, key, into(None))),
        Op::Move { life, parent, key, trashed_at, .. } => {
            Some((*life, *parent, key, into(*trashed_at)))
        }
        Op::Reorder { life, parent, key, .. } => Some((*life, *parent, key, MoveKind::Within)),
        _ => None,
    }
}
