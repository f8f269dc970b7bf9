//! Taking changes in: what is new, whose it is, and what it builds on.
//!
//! A replica belongs to the subject that first wrote with it and had said that it would
//! ([`Author::seats`]); nobody else's changes of it are taken from then on. Whoever only carries the
//! changes of others becomes nobody's owner.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use redb::{ReadableTable, Table, WriteTransaction};
use sds_engine::{Change, ReplicaId, Version};
use sds_sync::database::Failure;
use sds_sync::log_value::{seal, unseal};
use sds_sync::{Chain, RefusalCode, StoreId};

use super::{LOG, OWNERS, STARTS, VERSIONS, next_position, number_for};

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
    /// The new changes, in order.
    pub new: Vec<Arc<[u8]>>,
    /// What of the client's is in the log now: for each replica that it sent changes of.
    pub stored: Version,
    /// Whose changes were passed over because the replica belongs to another subject, and up to
    /// which counter the log has theirs; in the order in which they came.
    pub foreign: Vec<(ReplicaId, u64)>,
    /// Why the rest was not taken, if something was wrong.
    pub refused: Option<RefusalCode>,
}

/// Appends those of `changes` that are new, up to the first one that cannot be taken.
///
/// Changes of a replica that belongs to another subject are passed over. Those that lack what they
/// build on are refused; but if one was passed over before, or `skips_lacking`, they are passed over
/// too, and those behind them taken. Nothing that was passed over is in `stored`.
///
/// # Errors
/// If the file cannot be read or written.
pub fn append(
    write: &WriteTransaction,
    store: &StoreId,
    author: &Author,
    changes: &[Change],
    skips_lacking: bool,
) -> Result<Appended, Failure> {
    let mut appending = Appending::begin(write, number_for(write, store)?, author)?;
    appending.skips_lacking = skips_lacking;
    for change in changes {
        if let Some(code) = appending.take(change)? {
            appending.appended.refused = Some(code);
            break;
        }
    }
    appending.finish()
}

/// One call of [`append`].
struct Appending<'a> {
    author: &'a Author,
    skips_lacking: bool,
    number: u64,
    log: Table<'a, (u64, u64), &'static [u8]>,
    starts: Table<'a, (u64, u64, u64), u64>,
    versions: Table<'a, (u64, u64), (u64, &'static [u8; 32])>,
    owners: Table<'a, (u64, u64), &'static str>,
    position: u64,
    /// The replicas that were looked up.
    known: BTreeMap<ReplicaId, Known>,
    appended: Appended,
}

/// What is known of a replica.
#[derive(Clone, Copy)]
struct Known {
    chain: Chain,
    owner: Owner,
    /// Whether it has changes that are not written yet.
    has_new: bool,
    /// Whether it is among those that were passed over.
    is_told: bool,
}

/// To whom a replica belongs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Nobody,
    Sender,
    Other,
    /// Another subject, for which the sender may speak.
    OtherSpokenFor,
}

impl<'a> Appending<'a> {
    fn begin(
        write: &'a WriteTransaction,
        number: u64,
        author: &'a Author,
    ) -> Result<Self, Failure> {
        let log = write.open_table(LOG)?;
        let position = next_position(&log, number)?;
        Ok(Self {
            author,
            skips_lacking: false,
            number,
            log,
            starts: write.open_table(STARTS)?,
            versions: write.open_table(VERSIONS)?,
            owners: write.open_table(OWNERS)?,
            position,
            known: BTreeMap::new(),
            appended: Appended { from: position, ..Appended::default() },
        })
    }

    /// Takes a change or passes it over; says why if neither.
    fn take(&mut self, change: &Change) -> Result<Option<RefusalCode>, Failure> {
        let header = change.header();
        let known = self.known(header.replica)?;
        let next = known.chain.counter;
        let is_foreign = known.owner == Owner::Other;
        if header.start < next {
            match self.is_known(change)? {
                Presence::Same => self.appended.stored.advance(header.replica, header.end()),
                Presence::Damaged => return Ok(Some(RefusalCode::StorageFailed)),
                Presence::Another if is_foreign => self.pass_over_foreign(header.replica, next),
                Presence::Another => return Ok(Some(RefusalCode::Forked)),
            }
            return Ok(None);
        }
        if is_foreign {
            self.pass_over_foreign(header.replica, next);
            return Ok(None);
        }
        let mut lacks = header.start > next;
        for dep in &header.deps {
            lacks |= self.known(dep.replica)?.chain.counter <= dep.counter;
        }
        if lacks {
            let skips = self.skips_lacking || !self.appended.foreign.is_empty();
            return Ok((!skips).then_some(RefusalCode::MissingDependency));
        }
        self.add(change)?;
        Ok(None)
    }

    /// What is known of `replica`, from the tables at the first time.
    fn known(&mut self, replica: ReplicaId) -> Result<Known, Failure> {
        let place = match self.known.entry(replica) {
            Entry::Occupied(known) => return Ok(*known.get()),
            Entry::Vacant(place) => place,
        };
        let key = (self.number, replica.as_u64());
        let chain = self.versions.get(key)?.map_or_else(Chain::default, |known| {
            let (counter, hash) = known.value();
            Chain { counter, hash: *hash }
        });
        let owner = match self.owners.get(key)? {
            None => Owner::Nobody,
            Some(subject) if subject.value() == self.author.subject => Owner::Sender,
            Some(_) if self.author.speaks_for_all => Owner::OtherSpokenFor,
            Some(_) => Owner::Other,
        };
        Ok(*place.insert(Known { chain, owner, has_new: false, is_told: false }))
    }

    fn is_known(&self, change: &Change) -> Result<Presence, Failure> {
        let header = change.header();
        let start = (self.number, header.replica.as_u64(), header.start);
        let Some(position) = self.starts.get(start)?.map(|known| known.value()) else {
            return Ok(Presence::Another);
        };
        let known = self.log.get((self.number, position))?;
        Ok(match known.as_ref().map(|known| unseal(known.value())) {
            Some(Ok(known)) if known == &**change.bytes() => Presence::Same,
            // Damage is no reason to fail the others of this transaction, nor a fork.
            Some(Err(_)) => Presence::Damaged,
            _ => Presence::Another,
        })
    }

    fn pass_over_foreign(&mut self, replica: ReplicaId, next: u64) {
        if let Some(known) = self.known.get_mut(&replica)
            && !known.is_told
        {
            known.is_told = true;
            self.appended.foreign.push((replica, next));
        }
    }

    /// Adds the next change of its replica.
    fn add(&mut self, change: &Change) -> Result<(), Failure> {
        let header = change.header();
        let author = header.replica.as_u64();
        self.log.insert((self.number, self.position), seal(change.bytes()).as_slice())?;
        self.starts.insert((self.number, author, header.start), self.position)?;
        if let Some(known) = self.known.get_mut(&header.replica) {
            known.chain.extend(header.end(), change.bytes());
            known.has_new = true;
            if known.owner == Owner::Nobody && self.author.seats.contains(&header.replica) {
                known.owner = Owner::Sender;
                self.owners.insert((self.number, author), self.author.subject.as_str())?;
            }
        }
        self.appended.new.push(Arc::clone(change.bytes()));
        self.appended.stored.advance(header.replica, header.end());
        self.position += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Appended, Failure> {
        for (replica, known) in self.known.iter().filter(|(_, known)| known.has_new) {
            let Chain { counter, hash } = known.chain;
            self.versions.insert((self.number, replica.as_u64()), (counter, &hash))?;
        }
        Ok(self.appended)
    }
}

/// Whether the log has a change.
enum Presence {
    Same,
    /// Another one at the same counter.
    Another,
    /// It cannot be read.
    Damaged,
}
