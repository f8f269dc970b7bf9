//! Taking changes in: what is new, whose it is, and what it builds on.
//!
//! A replica belongs to the subject that first wrote with it and had said that it would
//! ([`Author::seats`]); nobody else's changes of it are taken from then on. Whoever only carries
//! the changes of others becomes nobody's owner.
//!
//! What one transaction appends to a store becomes one page, however many clients sent it, so that
//! the rows to write follow the commits and not the changes.

use std::cell::RefCell;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use redb::{ReadableTable, Table, WriteTransaction};
use sds_engine::{ChangeHeader, ReplicaId, Version};
use sds_sync::database::Failure;
use sds_sync::{Chain, Checked, RefusalCode, StoreId};

use super::page::{self, PagesTable};
use super::tables::{
    NoStore, OWNERS, PAGES, STARTS, STATES, State, StoreQuota, VERSIONS, milliseconds, number_for,
    state,
};
use crate::limits::{DEP_BYTES, EFFORT_BYTES_MAX, Limit, STEP_CHANGES_MAX};

/// How many pages are kept at hand to compare changes with.
const PAGES_AT_HAND: usize = 4;

/// Of how many stores it is remembered how many replicas they have.
const COUNTED_STORES_MAX: usize = 4_096;

/// Who sends changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Author {
    /// The subject of the token.
    pub subject: String,
    /// The replicas that the session has said to write with.
    pub seats: Vec<ReplicaId>,
    /// Whether it may bring changes of anybody, as whoever can give out tokens could anyway.
    pub speaks_for_all: bool,
}

/// What became of changes that a client sent. Not yet durable until the transaction is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Appended {
    /// The position of the first new change.
    pub from: u64,
    /// How many changes the log has with those.
    pub end: u64,
    /// The new changes, in order.
    pub new: Vec<Arc<[u8]>>,
    /// What of the client's is in the log now: for each replica that it sent changes of.
    pub stored: Version,
    /// Whose changes were passed over because the replica belongs to another subject, and up to
    /// which counter the log has theirs; in the order in which they came.
    pub foreign: Vec<(ReplicaId, u64)>,
    /// Why the rest was not taken, if something was wrong.
    pub refused: Option<RefusalCode>,
    /// The limit that was met, if that is why.
    pub limit: Option<Limit>,
    /// How many of the last ones were not looked at, so that others get their turn: they repeat
    /// much that is in the log, or name many deps. They are to be appended again.
    pub left: usize,
    /// What is known of the deps of the first of those.
    pub found: FoundDeps,
}

/// How many deps of a change were found to be in the log of a store: the first ones. What is there
/// stays there, so nobody need look for them again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FoundDeps {
    /// The number of the store, which one that is begun anew does not get.
    store: u64,
    count: usize,
}

/// Appends to stores in one transaction. Nothing is written before [`finish`](Self::finish).
pub struct Appender<'a> {
    write: &'a WriteTransaction,
    pages: PagesTable<'a>,
    starts: Table<'a, (u64, u64, u64), u64>,
    versions: Table<'a, (u64, u64), (u64, &'static [u8; 32])>,
    owners: Table<'a, (u64, u64), &'static str>,
    now_ms: u64,
    quota: StoreQuota,
    counts: Option<&'a RefCell<ReplicaCounts>>,
    stores: BTreeMap<u64, Pending>,
    /// What was done for each subject, as bytes that were unpacked.
    efforts: HashMap<String, usize>,
}

/// How many replicas stores have, as far as somebody had to know; by number, which no other store
/// ever gets. True as long as whoever appends forgets it when a transaction fails.
#[derive(Debug, Default)]
pub struct ReplicaCounts(HashMap<u64, u64>);

impl ReplicaCounts {
    /// Forgets what it counted.
    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// What is to be written to a store.
struct Pending {
    store: StoreId,
    state: State,
    /// The replicas of which there were changes.
    known: BTreeMap<ReplicaId, Known>,
    new: Vec<(ReplicaId, u64, Arc<[u8]>)>,
    /// Where in `new` the change is that begins at a counter of a replica.
    new_at: HashMap<(ReplicaId, u64), usize>,
    at_hand: VecDeque<AtHand>,
    /// How many replicas there are, with those in `new`; once there is a new one.
    replicas: Option<u64>,
}

/// What is known of a replica.
#[derive(Clone, Default)]
struct Known {
    chain: Chain,
    owner: Option<Arc<str>>,
    has_new: bool,
    has_new_owner: bool,
}

/// Changes by replica and first counter.
type ByStart = HashMap<(ReplicaId, u64), Arc<[u8]>>;

/// A page to compare with.
struct AtHand {
    position: u64,
    /// None if it is damaged.
    changes: Option<ByStart>,
}

/// Whether the log has a change.
enum Logged {
    Same,
    /// Another one, or none that begins there.
    Another,
    /// It cannot be read.
    Damaged,
}

/// What becomes of one change.
enum Verdict {
    Taken,
    PassedOver,
    Foreign(u64),
    Refused(RefusalCode),
    TooMany(Limit),
    /// So many of its deps are there, and whether the others are has to wait.
    Unfinished(usize),
}

/// Whether the deps of a change are in the log.
enum Deps {
    Present,
    Lacking,
    /// So many are; the others were not looked for.
    Unfinished(usize),
}

impl<'a> Appender<'a> {
    /// Begins; `now` is when.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn begin(write: &'a WriteTransaction, now: SystemTime) -> Result<Self, Failure> {
        Ok(Self {
            write,
            pages: write.open_table(PAGES)?,
            starts: write.open_table(STARTS)?,
            versions: write.open_table(VERSIONS)?,
            owners: write.open_table(OWNERS)?,
            now_ms: milliseconds(now),
            quota: StoreQuota::UNLIMITED,
            counts: None,
            stores: BTreeMap::new(),
            efforts: HashMap::new(),
        })
    }

    /// Lets only so many stores begin, and replicas in each; `counts` saves counting those again.
    #[must_use]
    pub fn within(self, quota: StoreQuota, counts: &'a RefCell<ReplicaCounts>) -> Self {
        Self { quota, counts: Some(counts), ..self }
    }

    /// Appends those of `changes` that are new, up to the first one that cannot be taken.
    ///
    /// Changes of a replica that belongs to another subject are passed over. Those that lack what
    /// they build on are refused; but if one was passed over before, or `skips_lacking`, they are
    /// passed over too, and those behind them taken. Nothing that was passed over is in `stored`. A
    /// store that was deleted takes nothing: [`RefusalCode::Forbidden`].
    ///
    /// What takes long, for one subject in one transaction, is left for a later one.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn append(
        &mut self,
        store: &StoreId,
        author: &Author,
        changes: &[impl Checked],
        skips_lacking: bool,
    ) -> Result<Appended, Failure> {
        self.go_on(store, author, changes, skips_lacking, FoundDeps::default())
    }

    /// Appends what [`append`](Self::append) has left in an earlier transaction, of whose first
    /// change these deps were `found` then.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn go_on(
        &mut self,
        store: &StoreId,
        author: &Author,
        changes: &[impl Checked],
        skips_lacking: bool,
        found: FoundDeps,
    ) -> Result<Appended, Failure> {
        let number = match number_for(self.write, store, &author.subject, self.quota)? {
            Ok(number) => number,
            Err(NoStore::Deleted) => {
                let refused = Some(RefusalCode::Forbidden);
                return Ok(Appended { refused, ..Appended::default() });
            }
            Err(NoStore::Full(limit)) => {
                let (refused, limit) = (Some(RefusalCode::Busy), Some(limit));
                return Ok(Appended { refused, limit, ..Appended::default() });
            }
        };
        let mut pending = match self.stores.remove(&number) {
            Some(pending) => pending,
            None => {
                let state = state(&self.write.open_table(STATES)?, number)?;
                Pending::new(store.clone(), state)
            }
        };
        let mut appended = Appended { from: pending.end(), ..Appended::default() };
        let mut told = BTreeSet::new();
        let mut effort = self.efforts.remove(&author.subject).unwrap_or(0);
        for (at, change) in changes.iter().enumerate() {
            let is_first = at == 0 && found.store == number;
            let found = if is_first { found.count } else { 0 };
            if effort > EFFORT_BYTES_MAX {
                appended.left = changes.len() - at;
                appended.found = FoundDeps { store: number, count: found };
                break;
            }
            let header = change.header();
            let skips = skips_lacking || !told.is_empty();
            match self.judge(number, &mut pending, author, (change, found), &mut effort)? {
                Verdict::Taken => appended.stored.advance(header.replica, header.end()),
                Verdict::Foreign(next) if told.insert(header.replica) => {
                    appended.foreign.push((header.replica, next));
                }
                Verdict::PassedOver if !skips => {
                    appended.refused = Some(RefusalCode::MissingDependency);
                    break;
                }
                Verdict::Foreign(_) | Verdict::PassedOver => {}
                Verdict::Refused(code) => {
                    appended.refused = Some(code);
                    break;
                }
                Verdict::TooMany(limit) => {
                    appended.refused = Some(RefusalCode::TooLarge);
                    appended.limit = Some(limit);
                    break;
                }
                Verdict::Unfinished(count) => {
                    appended.left = changes.len() - at;
                    appended.found = FoundDeps { store: number, count };
                    break;
                }
            }
        }
        self.efforts.insert(author.subject.clone(), effort);
        let before = usize::try_from(appended.from - pending.state.end).unwrap_or(usize::MAX);
        let new = pending.new.iter().skip(before);
        appended.new = new.map(|(_, _, change)| Arc::clone(change)).collect();
        appended.end = pending.end();
        self.stores.insert(number, pending);
        Ok(appended)
    }

    /// Writes what was appended, and says before each store that it is its turn.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self, mut note: impl FnMut(&StoreId)) -> Result<(), Failure> {
        for (number, pending) in std::mem::take(&mut self.stores) {
            if let Some((counts, replicas)) = self.counts.zip(pending.replicas) {
                let known = &mut counts.borrow_mut().0;
                if known.len() >= COUNTED_STORES_MAX {
                    known.clear();
                }
                known.insert(number, replicas);
            }
            if !pending.new.is_empty() {
                note(&pending.store);
                self.write_store(number, pending)?;
            }
        }
        Ok(())
    }

    /// Takes a change, or says why not; of its deps so many were found before.
    fn judge(
        &self,
        number: u64,
        pending: &mut Pending,
        author: &Author,
        (change, found): (&impl Checked, usize),
        effort: &mut usize,
    ) -> Result<Verdict, Failure> {
        let header = change.header();
        let known = self.known(number, pending, header.replica)?;
        let next = known.chain.counter;
        let is_others = known.owner.as_ref().is_some_and(|owner| **owner != *author.subject);
        let is_foreign = is_others && !author.speaks_for_all;
        if header.start < next {
            return Ok(match self.logged(number, pending, change, effort)? {
                Logged::Same => Verdict::Taken,
                Logged::Damaged => Verdict::Refused(RefusalCode::StorageFailed),
                Logged::Another if is_foreign => Verdict::Foreign(next),
                Logged::Another => Verdict::Refused(RefusalCode::Forked),
            });
        }
        if is_foreign {
            return Ok(Verdict::Foreign(next));
        }
        if header.start > next {
            return Ok(Verdict::PassedOver);
        }
        match self.look_for_deps(number, pending, header, found, effort)? {
            Deps::Present => {}
            Deps::Lacking => return Ok(Verdict::PassedOver),
            Deps::Unfinished(found) => return Ok(Verdict::Unfinished(found)),
        }
        if next == 0 && !self.has_room_for_replica(number, pending)? {
            return Ok(Verdict::TooMany(Limit::ReplicasPerStore));
        }
        let is_own = author.seats.contains(&header.replica);
        let known = self.known(number, pending, header.replica)?;
        known.chain.extend(header.end(), change.bytes());
        known.has_new = true;
        if is_own && known.owner.is_none() {
            known.owner = Some(author.subject.as_str().into());
            known.has_new_owner = true;
        }
        let bytes = Arc::clone(change.bytes());
        pending.new_at.insert((header.replica, header.start), pending.new.len());
        pending.new.push((header.replica, header.start, bytes));
        Ok(Verdict::Taken)
    }

    /// Whether the deps are there, of which the first so many were found before. There may be as
    /// many as the store has replicas, so none is remembered, and each is an effort.
    fn look_for_deps(
        &self,
        number: u64,
        pending: &Pending,
        header: &ChangeHeader,
        found: usize,
        effort: &mut usize,
    ) -> Result<Deps, Failure> {
        for (at, dep) in header.deps.iter().enumerate().skip(found) {
            if *effort > EFFORT_BYTES_MAX {
                return Ok(Deps::Unfinished(at));
            }
            *effort += DEP_BYTES;
            let next = match pending.known.get(&dep.replica) {
                Some(known) => known.chain.counter,
                None => {
                    let version = self.versions.get((number, dep.replica.as_u64()))?;
                    version.map_or(0, |version| version.value().0)
                }
            };
            if next <= dep.counter {
                return Ok(Deps::Lacking);
            }
        }
        Ok(Deps::Present)
    }

    /// Counts one more replica, if there may be one more.
    fn has_room_for_replica(&self, number: u64, pending: &mut Pending) -> Result<bool, Failure> {
        let Some(counts) = self.counts else { return Ok(true) };
        let count = match pending.replicas.or_else(|| counts.borrow().0.get(&number).copied()) {
            Some(count) => count,
            None => {
                // What a version of it costs, once.
                let rows = self.versions.range((number, 0)..=(number, u64::MAX))?;
                rows.fold(0, |count, _| count + 1)
            }
        };
        let has_room = count < self.quota.replicas;
        pending.replicas = Some(if has_room { count + 1 } else { count });
        Ok(has_room)
    }

    /// What is known of `replica`, from the tables at the first time.
    fn known<'p>(
        &self,
        number: u64,
        pending: &'p mut Pending,
        replica: ReplicaId,
    ) -> Result<&'p mut Known, Failure> {
        let place = match pending.known.entry(replica) {
            Entry::Occupied(known) => return Ok(known.into_mut()),
            Entry::Vacant(place) => place,
        };
        let key = (number, replica.as_u64());
        let Some(version) = self.versions.get(key)? else {
            // G4: what has no changes has no owner.
            return Ok(place.insert(Known::default()));
        };
        let (counter, hash) = version.value();
        let chain = Chain { counter, hash: *hash };
        let owner = self.owners.get(key)?.map(|owner| owner.value().into());
        Ok(place.insert(Known { chain, owner, ..Known::default() }))
    }

    /// Whether the log has `change`, which begins before the end of its replica's changes. What it
    /// had to unpack to find out is an effort.
    fn logged(
        &self,
        number: u64,
        pending: &mut Pending,
        change: &impl Checked,
        effort: &mut usize,
    ) -> Result<Logged, Failure> {
        let header = change.header();
        let key = (header.replica, header.start);
        if let Some(at) = pending.new_at.get(&key) {
            let known = pending.new.get(*at).map(|(_, _, known)| known);
            return Ok(Logged::of(known, change));
        }
        let author = header.replica.as_u64();
        let mut starts = self.starts.range((number, author, 0)..=(number, author, header.start))?;
        let Some((_, position)) = starts.next_back().transpose()? else {
            return Ok(Logged::Another);
        };
        let position = position.value();
        let at_hand = pending.at_hand.iter().position(|page| page.position == position);
        let page = match at_hand.and_then(|at| pending.at_hand.remove(at)) {
            Some(page) => page,
            None => self.fetch(number, position, effort)?,
        };
        let logged = match &page.changes {
            Some(changes) => Logged::of(changes.get(&key), change),
            // Damage is no reason to fail the others of this transaction, nor a fork.
            None => Logged::Damaged,
        };
        pending.at_hand.push_front(page);
        pending.at_hand.truncate(PAGES_AT_HAND);
        Ok(logged)
    }

    fn fetch(&self, number: u64, position: u64, effort: &mut usize) -> Result<AtHand, Failure> {
        let bytes = match page::read(&self.pages, number, position) {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(Failure::Corrupt(_)) => return Ok(AtHand { position, changes: None }),
            Err(failure) => return Err(failure),
        };
        let Ok(changes) = page::decode(&bytes) else {
            return Ok(AtHand { position, changes: None });
        };
        *effort += changes.iter().map(|change| change.len()).sum::<usize>();
        let keyed = changes.iter().filter_map(|change| {
            let header = ChangeHeader::decode(change).ok()?;
            Some(((header.replica, header.start), Arc::clone(change)))
        });
        Ok(AtHand { position, changes: Some(keyed.collect()) })
    }

    fn write_store(&mut self, number: u64, pending: Pending) -> Result<(), Failure> {
        let mut state = pending.state;
        let bytes: Vec<_> = pending.new.iter().map(|(_, _, change)| Arc::clone(change)).collect();
        let mut heads = pending.new.iter().map(|(replica, start, _)| (*replica, *start));
        for run in page::cut(&bytes, STEP_CHANGES_MAX) {
            page::write(&mut self.pages, number, state.end, &page::encode(run, false)?)?;
            for (replica, start) in first_starts(heads.by_ref().take(run.len())) {
                self.starts.insert((number, replica.as_u64(), start), state.end)?;
            }
            let size: usize = run.iter().map(|change| change.len()).sum();
            state.end += run.len() as u64;
            state.bytes += size as u64;
            state.loose_pages += 1;
            state.loose_bytes += size as u64;
        }
        state.active_ms = self.now_ms;
        self.write.open_table(STATES)?.insert(number, state.to_row())?;
        for (replica, known) in pending.known.iter().filter(|(_, known)| known.has_new) {
            let key = (number, replica.as_u64());
            self.versions.insert(key, (known.chain.counter, &known.chain.hash))?;
            if let Some(owner) = known.owner.as_deref().filter(|_| known.has_new_owner) {
                self.owners.insert(key, owner)?;
            }
        }
        Ok(())
    }
}

impl Pending {
    fn new(store: StoreId, state: State) -> Self {
        Self {
            store,
            state,
            known: BTreeMap::new(),
            new: Vec::new(),
            new_at: HashMap::new(),
            at_hand: VecDeque::new(),
            replicas: None,
        }
    }

    /// The position of the next change.
    fn end(&self) -> u64 {
        self.state.end + self.new.len() as u64
    }
}

impl Logged {
    fn of(known: Option<&Arc<[u8]>>, change: &impl Checked) -> Self {
        if known.is_some_and(|known| known == change.bytes()) { Self::Same } else { Self::Another }
    }
}

impl fmt::Debug for Appender<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Appender").field("stores", &self.stores.len()).finish_non_exhaustive()
    }
}

/// Of each replica the first counter.
pub(super) fn first_starts(
    changes: impl Iterator<Item = (ReplicaId, u64)>,
) -> BTreeMap<ReplicaId, u64> {
    let mut starts = BTreeMap::new();
    for (replica, start) in changes {
        starts.entry(replica).or_insert(start);
    }
    starts
}
