//! A relay's log does what the plainest list of changes would do.
//!
//! Goal: what is taken, acknowledged, passed over and refused follows from the rules alone, and what
//! was taken can be read back.
//! Method: any appends of a few subjects under a few replicas go to the log and to a model, which keeps
//! the changes in a list and finds everything by looking through it.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use proptest::collection::vec;
use proptest::prelude::*;
use redb::backends::InMemoryBackend;
use sds_engine::{Change, Op, OpId, ReplicaId, Version};
use sds_server::store_log::{Appended, Appender, Author, StoreLog};
use sds_sync::database::{Medium, Place};
use sds_sync::{RefusalCode, StoreId};

/// How many replicas there are, from 1 on.
const REPLICAS: u64 = 4;

/// A change to send, as seen from what the log has when it is its turn.
#[derive(Clone, Debug)]
struct Sent {
    replica: u64,
    /// How far before or behind the end of its replica it begins.
    offset: i64,
    count: u64,
    /// Another replica, and how far before or behind its last op a dep is.
    dep: Option<(u64, i64)>,
    /// Which change of the log to send again instead.
    again: Option<usize>,
}

/// One append.
#[derive(Clone, Debug)]
struct Step {
    store: u8,
    subject: u8,
    seats: u8,
    speaks_for_all: bool,
    skips_lacking: bool,
    changes: Vec<Sent>,
    packs: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let offset = prop_oneof![6 => Just(0_i64), 1 => -2..2_i64];
    let dep = proptest::option::weighted(0.3, (1..=REPLICAS, -1..1_i64));
    let again = proptest::option::weighted(0.2, any::<usize>());
    (1..=REPLICAS, offset, 1..4_u64, dep, again).prop_map(|(replica, offset, count, dep, again)| {
        Sent { replica, offset, count, dep, again }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let speaks_for_all = proptest::bool::weighted(0.2);
    let flags = (speaks_for_all, any::<bool>(), any::<bool>());
    (0..2_u8, 0..3_u8, 0..16_u8, flags, vec(sent(), 0..8)).prop_map(
        |(store, subject, seats, (speaks_for_all, skips_lacking, packs), changes)| Step {
            packs,
            store,
            subject,
            seats,
            speaks_for_all,
            skips_lacking,
            changes,
        },
    )
}

/// The changes of a store in order, and whose replicas are whose.
#[derive(Debug, Default)]
struct Model {
    log: Vec<Change>,
    owners: BTreeMap<ReplicaId, String>,
}

impl Model {
    fn next(&self, replica: ReplicaId) -> u64 {
        let ours = self.log.iter().filter(|change| change.header().replica == replica);
        ours.map(|change| change.header().end()).max().unwrap_or(0)
    }

    /// The change that is sent, if there can be one like it.
    fn make(&self, sent: &Sent) -> Option<Change> {
        if let Some(again) = sent.again.filter(|_| !self.log.is_empty()) {
            return Some(self.log[again % self.log.len()].clone());
        }
        let author = replica(sent.replica);
        let start = self.next(author).checked_add_signed(sent.offset)?;
        let dep = sent.dep.filter(|(other, _)| *other != sent.replica);
        let dep = dep.and_then(|(other, offset)| {
            let counter = self.next(replica(other)).checked_add_signed(offset)?;
            Some(OpId { replica: replica(other), counter })
        });
        let ops = [Op::Skip { count: sent.count }];
        Some(Change::new(author, start, dep.into_iter().collect(), &ops).unwrap())
    }

    fn append(&mut self, author: &Author, changes: &[Change], skips_lacking: bool) -> Appended {
        let from = self.log.len() as u64;
        let mut appended = Appended { from, ..Appended::default() };
        for change in changes {
            let header = change.header();
            let next = self.next(header.replica);
            let owner = self.owners.get(&header.replica);
            let is_others = owner.is_some_and(|owner| *owner != author.subject);
            let is_foreign = is_others && !author.speaks_for_all;
            let is_there = self.log.iter().any(|known| known.bytes() == change.bytes());
            let has = |dep: &OpId| self.next(dep.replica) > dep.counter;
            if is_there {
                appended.stored.advance(header.replica, header.end());
            } else if is_foreign {
                if !appended.foreign.iter().any(|(known, _)| *known == header.replica) {
                    appended.foreign.push((header.replica, next));
                }
            } else if header.start < next {
                appended.refused = Some(RefusalCode::Forked);
                break;
            } else if header.start > next || !header.deps.iter().all(has) {
                if !skips_lacking && appended.foreign.is_empty() {
                    appended.refused = Some(RefusalCode::MissingDependency);
                    break;
                }
            } else {
                if !is_others && author.seats.contains(&header.replica) {
                    self.owners.insert(header.replica, author.subject.clone());
                }
                self.log.push(change.clone());
                appended.new.push(change.bytes().clone());
                appended.stored.advance(header.replica, header.end());
            }
        }
        appended.end = self.log.len() as u64;
        appended
    }

    /// The position of the first change that somebody with `version` lacks.
    fn position_for(&self, version: &Version) -> usize {
        let is_lacking = |change: &Change| !version.has(change.header().last());
        self.log.iter().position(is_lacking).unwrap_or(self.log.len())
    }
}

#[derive(Debug)]
struct Memory;

impl Medium for Memory {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        let redb = redb::Database::builder().create_with_backend(InMemoryBackend::new())?;
        StoreLog::initialize(&redb).map_err(|error| redb::Error::Corrupted(error.to_string()))?;
        Ok(redb)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn place(&self) -> io::Result<Place> {
        Err(io::ErrorKind::NotFound.into())
    }

    fn path(&self) -> &Path {
        Path::new("relay.redb")
    }
}

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn version_of(log: &[Change]) -> Version {
    let mut version = Version::new();
    log.iter().for_each(|change| version.advance(change.header().replica, change.header().end()));
    version
}

/// All that can be read from `from` on.
fn read_all(log: &StoreLog, store: &StoreId, mut from: u64) -> Vec<Vec<u8>> {
    let mut changes = Vec::new();
    loop {
        let page = log.read(store, from).unwrap();
        changes.extend(page.changes.iter().map(|change| change.to_vec()));
        match page.next {
            Some(next) => {
                assert!(next > from, "reading goes on");
                from = next;
            }
            None => return changes,
        }
    }
}

fn check(log: &StoreLog, store: &StoreId, model: &Model) {
    assert_eq!(log.version(store).unwrap(), version_of(&model.log));
    let expected: Vec<_> = model.log.iter().map(|change| change.bytes().to_vec()).collect();
    assert_eq!(read_all(log, store, 0), expected);
    for had in 0..=model.log.len() {
        assert_eq!(read_all(log, store, had as u64), expected[had..]);
        let version = version_of(&model.log[..had]);
        let opening = log.opening(store, &version).unwrap();
        assert_eq!(opening.end, model.log.len() as u64);
        assert_eq!(opening.version, version_of(&model.log).encode());
        assert!(opening.position <= model.position_for(&version) as u64, "nothing is left out");
    }
}

proptest! {
    #[test]
    fn the_log_does_what_a_list_of_changes_would_do(steps in vec(step(), 1..24)) {
        let log = StoreLog::open_on(Box::new(Memory)).unwrap();
        let stores = ["a", "b"].map(|id| StoreId::new(id).unwrap());
        let mut models = [Model::default(), Model::default()];
        for step in &steps {
            let (store, model) = (&stores[usize::from(step.store)], &mut models[usize::from(step.store)]);
            let seats = (1..=REPLICAS).filter(|seat| step.seats >> (seat - 1) & 1 == 1);
            let author = Author {
                subject: format!("subject {}", step.subject),
                seats: seats.map(replica).collect(),
                speaks_for_all: step.speaks_for_all,
            };
            let mut changes: Vec<Change> = Vec::new();
            let mut ahead = Model { log: model.log.clone(), owners: BTreeMap::new() };
            for sent in &step.changes {
                let Some(change) = ahead.make(sent) else { continue };
                ahead.append(&author, std::slice::from_ref(&change), true);
                changes.push(change);
            }
            let expected = model.append(&author, &changes, step.skips_lacking);
            let appended = log
                .write(|write| {
                    let mut appender = Appender::begin(write, UNIX_EPOCH)?;
                    let appended =
                        appender.append(store, &author, &changes, step.skips_lacking)?;
                    appender.finish(|_| {})?;
                    Ok(appended)
                })
                .unwrap();
            prop_assert_eq!(appended, expected);
            if step.packs {
                let loose = log.pack(store, 2).unwrap();
                prop_assert!(!loose || !log.pack(store, 2).unwrap(), "packed at once");
            }
        }
        for (store, model) in stores.iter().zip(&models) {
            check(&log, store, model);
        }
    }
}
