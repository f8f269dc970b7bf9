//! What a relay keeps, and what it does not take.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use sds_engine::{BlobHash, Change, EntryId, Field, Life, Op, OpId, ReplicaId, Value};
use sds_sync::BlobWriter;
use sds_sync::RefusalCode;
use sds_sync::access::StoreSet;
use sds_sync::log_value::CHECKSUM_BYTES;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::*;
use crate::store_blobs::StoreBlobs;

fn replica_id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn change(author: u64, start: u64, deps: &[(u64, u64)], count: u64) -> Change {
    let deps = deps
        .iter()
        .map(|(replica, counter)| OpId { replica: replica_id(*replica), counter: *counter });
    let ops = [Op::Skip { count }];
    Change::new(replica_id(author), start, deps.collect(), &ops).unwrap()
}

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn open(folder: &TempDir) -> StoreLog {
    StoreLog::open(&folder.path().join("relay.redb")).unwrap()
}

fn add(log: &StoreLog, store: &StoreId, changes: &[Change]) -> Appended {
    add_as(log, store, &Author::default(), changes, false)
}

fn add_as(
    log: &StoreLog,
    store: &StoreId,
    author: &Author,
    changes: &[Change],
    skips_lacking: bool,
) -> Appended {
    log.write(|write| {
        let mut appender = Appender::begin(write, UNIX_EPOCH)?;
        let appended = appender.append(store, author, changes, skips_lacking)?;
        appender.finish(|_| {})?;
        Ok(appended)
    })
    .unwrap()
}

fn version(pairs: &[(u64, u64)]) -> Version {
    let mut version = Version::new();
    pairs.iter().for_each(|(replica, next)| version.advance(replica_id(*replica), *next));
    version
}

#[test]
fn what_was_appended_survives_reopening() {
    let folder = TempDir::new().unwrap();
    let changes = [change(1, 0, &[], 2), change(2, 0, &[(1, 1)], 1)];
    let appended = add(&open(&folder), &id(), &changes);
    assert_eq!((appended.from, appended.new.len(), appended.refused), (0, 2, None));
    let log = open(&folder);
    assert_eq!(log.version(&id()).unwrap(), version(&[(1, 2), (2, 1)]));
    assert_eq!(log.read(&id(), 1).unwrap().changes, [Arc::clone(changes[1].bytes())]);
    assert_eq!(log.version(&StoreId::new("t").unwrap()).unwrap(), Version::new());
    let other = add(&log, &StoreId::new("t").unwrap(), &changes);
    assert_eq!((other.from, other.new.len()), (0, 2), "stores are apart");
}

#[test]
fn duplicates_are_acknowledged_and_not_kept_twice() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    add(&log, &id(), &[change(1, 0, &[], 2)]);
    let again = add(&log, &id(), &[change(1, 0, &[], 2), change(1, 2, &[], 1)]);
    assert_eq!((again.from, again.new.len(), again.refused), (1, 1, None));
    assert_eq!(again.stored, version(&[(1, 3)]));
}

#[test]
fn another_change_under_a_known_id_is_a_fork() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    add(&log, &id(), &[change(1, 0, &[], 2), change(1, 2, &[], 2)]);
    for fork in [change(1, 0, &[], 1), change(1, 1, &[], 1), change(1, 2, &[], 9)] {
        let refused = add(&log, &id(), &[fork, change(3, 0, &[], 1)]);
        assert_eq!(refused.refused, Some(RefusalCode::Forked));
        assert_eq!((refused.new.len(), refused.stored), (0, Version::new()));
    }
}

#[test]
fn changes_before_what_they_build_on_are_refused_and_those_before_them_kept() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    for bad in [change(1, 5, &[], 1), change(2, 0, &[(1, 1)], 1), change(2, 0, &[(9, 0)], 1)] {
        let refused = add(&log, &id(), &[change(1, 0, &[], 1), bad, change(4, 0, &[], 1)]);
        assert_eq!(refused.refused, Some(RefusalCode::MissingDependency));
        assert_eq!(refused.stored, version(&[(1, 1)]));
    }
    assert_eq!(log.version(&id()).unwrap(), version(&[(1, 1)]));
}

#[test]
fn the_position_is_where_the_first_lacking_change_is() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let changes =
        [change(1, 0, &[], 1), change(2, 0, &[], 3), change(1, 1, &[], 1), change(2, 3, &[], 1)];
    changes.iter().for_each(|change| drop(add(&log, &id(), std::slice::from_ref(change))));
    let rows: [(&[(u64, u64)], u64); 6] = [
        (&[], 0),
        (&[(1, 1)], 1),
        (&[(1, 1), (2, 3)], 2),
        (&[(1, 2), (2, 3)], 3),
        (&[(1, 2), (2, 2)], 1),
        (&[(1, 2), (2, 4), (7, 1)], 4),
    ];
    for (known, position) in rows {
        let found = log.opening(&id(), &version(known)).unwrap();
        let told = version(&[(1, 2), (2, 4)]).encode().into();
        // Nobody ever heard of the replica 7.
        let had = known.iter().copied().filter(|(replica, _)| *replica != 7);
        let had = version(&had.collect::<Vec<_>>());
        assert_eq!(found, Opening { version: told, position, end: 4, had }, "{known:?}");
    }
    assert!(log.pack(&id(), 1).unwrap());
    for (known, position) in rows {
        let found = log.opening(&id(), &version(known)).unwrap().position;
        assert_eq!(found, if position == 4 { 4 } else { 0 }, "one page: {known:?}");
    }
}

#[test]
fn a_damaged_change_is_not_handed_out_and_not_taken_for_a_fork() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let changes = [change(1, 0, &[], 2), change(2, 0, &[], 1)];
    changes.iter().for_each(|change| drop(add(&log, &id(), std::slice::from_ref(change))));
    log.write(|write| {
        let other = page::encode(&[Arc::clone(change(1, 0, &[], 3).bytes())], false)?;
        let mut pages = write.open_table(PAGES)?;
        let mut damaged = page::read(&pages, 0, 0)?.unwrap();
        let until = damaged.len() - CHECKSUM_BYTES;
        damaged[..until].copy_from_slice(&other[..until]);
        page::write(&mut pages, 0, 0, &damaged)?;
        Ok(())
    })
    .unwrap();
    assert_eq!(log.read(&id(), 0).unwrap_err().code(), "store-corrupt");
    assert_eq!(log.read(&id(), 1).unwrap().changes.len(), 1);
    let again = add(&log, &id(), &changes);
    assert_eq!(again.refused, Some(RefusalCode::StorageFailed));
}

fn author(subject: &str, seats: &[u64]) -> Author {
    let seats = seats.iter().map(|seat| replica_id(*seat)).collect();
    Author { subject: subject.to_owned(), seats, speaks_for_all: false }
}

#[test]
fn a_replica_belongs_to_the_subject_that_first_wrote_with_it_as_its_own() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let (ann, bob) = (author("ann", &[1]), author("bob", &[1, 2]));
    add_as(&log, &id(), &ann, &[change(1, 0, &[], 1)], false);
    let sent = [change(1, 0, &[], 1), change(1, 1, &[], 1), change(2, 0, &[(1, 1)], 1)];
    let more = [change(2, 0, &[(1, 0)], 1), change(1, 0, &[], 7)];
    let appended = add_as(&log, &id(), &bob, &[&sent[..], &more[..]].concat(), false);
    assert_eq!((appended.new.len(), appended.refused), (1, None), "{appended:?}");
    assert_eq!(appended.stored, version(&[(1, 1), (2, 1)]), "what is there is acknowledged");
    assert_eq!(appended.foreign, [(replica_id(1), 1)]);
    let log = {
        drop(log);
        open(&folder)
    };
    let appended = add_as(&log, &id(), &ann, &[change(1, 1, &[], 1), change(2, 1, &[], 1)], false);
    assert_eq!(appended.stored, version(&[(1, 2)]));
    assert_eq!(appended.foreign, [(replica_id(2), 1)]);
}

#[test]
fn whoever_carries_the_changes_of_others_does_not_own_them() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let (carrier, ann) = (author("carrier", &[9]), author("ann", &[1]));
    add_as(&log, &id(), &carrier, &[change(1, 0, &[], 1)], false);
    let appended = add_as(&log, &id(), &ann, &[change(1, 1, &[], 1)], false);
    assert_eq!((appended.new.len(), appended.foreign), (1, vec![]));
    let appended = add_as(&log, &id(), &carrier, &[change(1, 2, &[], 1)], false);
    assert_eq!((appended.new.len(), appended.foreign), (0, vec![(replica_id(1), 2)]));
}

#[test]
fn what_lacks_something_can_be_passed_over_and_the_rest_taken() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let changes = [change(1, 5, &[], 1), change(2, 0, &[(1, 5)], 1), change(3, 0, &[], 1)];
    let appended = add_as(&log, &id(), &Author::default(), &changes, true);
    assert_eq!((appended.stored, appended.refused), (version(&[(3, 1)]), None));
}

/// A change that packing makes hardly smaller.
fn noisy(author: u64, start: u64, len: usize) -> Change {
    let mut dice = fastrand::Rng::with_seed(author << 32 | start);
    let text = (0..len).map(|_| char::from(dice.u8(b' '..b' ' + 90))).collect();
    let set = Op::Set {
        entry: EntryId::ROOT,
        life: Life::FIRST,
        field: Field::Label,
        value: Value::Text(text),
    };
    Change::new(replica_id(author), start, vec![], &[set]).unwrap()
}

fn all(log: &StoreLog, from: u64) -> Vec<Arc<[u8]>> {
    let mut changes = Vec::new();
    let mut next = Some(from);
    while let Some(from) = next {
        let page = log.read(&id(), from).unwrap();
        changes.extend(page.changes);
        next = page.next;
    }
    changes
}

/// Goal: a log reads the same from everywhere, whatever of it is packed.
/// Method: changes of all sizes, also beyond a page and a part, packed after each few appends.
#[test]
fn packing_changes_nothing_that_can_be_read() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let mut changes = Vec::new();
    let mut next = [0; 3];
    let sizes = [10, 70_000, 1, 300_000, 200, 5_000, 100_000, 40, 90_000, 600_000, 3];
    for (at, size) in sizes.into_iter().cycle().take(60).enumerate() {
        let change = noisy(1 + at as u64 % 3, next[at % 3], size);
        next[at % 3] = change.header().end();
        add(&log, &id(), std::slice::from_ref(&change));
        changes.push(Arc::clone(change.bytes()));
        if at % 7 == 0 {
            while log.pack(&id(), 3).unwrap() {}
        }
    }
    let log = {
        drop(log);
        open(&folder)
    };
    for from in 0..=changes.len() {
        assert!(all(&log, from as u64) == changes[from..], "from {from}");
    }
    let bytes = changes.iter().map(|change| change.len() as u64).sum();
    let state = log.database.read(|read| state(&read.open_table(STATES)?, 0)).unwrap();
    assert_eq!((state.end, state.bytes), (60, bytes));
    assert!(state.loose_pages < 7 && state.loose_bytes < 900_000, "{state:?}");
    let again: Vec<_> = changes.iter().map(|change| Change::decode(change).unwrap()).collect();
    let appended = add(&log, &id(), &again[..40]);
    assert_eq!((appended.new.len(), appended.refused), (0, None), "what is packed is known");
    let fork = add(&log, &id(), &[noisy(1, next[0] - 1, 7)]);
    assert_eq!(fork.refused, Some(RefusalCode::Forked));
}

#[test]
fn an_append_that_repeats_much_gives_others_their_turn() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let mut changes: Vec<Change> = Vec::new();
    for _ in 0..40 {
        let start = changes.last().map_or(0, |change| change.header().end());
        changes.push(noisy(1, start, 250_000));
        add(&log, &id(), &changes[changes.len() - 1..]);
    }
    let (mut rest, mut turns) = (&changes[..], 0);
    while !rest.is_empty() {
        let appended = add(&log, &id(), rest);
        assert!(appended.left < rest.len(), "it goes on");
        assert_eq!(appended.refused, None);
        rest = &rest[rest.len() - appended.left..];
        turns += 1;
    }
    assert!((3..6).contains(&turns), "{turns}");
}

/// As many replicas as may have written at the same time in a large store, and more than there may
/// be deps to look for in one transaction.
const CROWD: u64 = 10_000;

/// A change that names the first changes of so many replicas.
fn deps_on(crowd: u64) -> Change {
    let deps: Vec<(u64, u64)> = (1..=crowd).map(|replica| (replica, 0)).collect();
    change(CROWD + 9, 0, &deps, 1)
}

fn add_crowd(log: &StoreLog, store: &StoreId) {
    let crowd: Vec<Change> = (1..=CROWD).map(|replica| change(replica, 0, &[], 1)).collect();
    assert_eq!(add(log, store, &crowd).new.len(), crowd.len());
}

/// Goal: many deps are taken, and delay nobody but who names them. Method: a change with more of
/// them than one transaction looks for, and behind it others, of the same subject and of another.
#[test]
fn a_change_with_many_deps_gives_others_their_turn() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    add_crowd(&log, &id());
    let (ann, bob) = (author("ann", &[]), author("bob", &[]));
    let mallory = [deps_on(CROWD), change(1, 1, &[(CROWD + 9, 0)], 1)];
    let go_on = |found, round: u64| {
        log.write(|write| {
            let mut appender = Appender::begin(write, UNIX_EPOCH)?;
            let slow = appender.go_on(&id(), &ann, &mallory, false, found)?;
            let same = appender.append(&id(), &ann, &[change(2, 1, &[], 1)], false)?;
            let others = [change(3, 1 + round, &[(1, 0)], 1)];
            let other = appender.append(&id(), &bob, &others, false)?;
            appender.finish(|_| {})?;
            Ok((slow, same, other))
        })
        .unwrap()
    };
    let (mut found, mut rounds) = (FoundDeps::default(), 0_u64);
    loop {
        let (slow, same, other) = go_on(found, rounds);
        rounds += 1;
        assert_eq!((other.left, other.new.len()), (0, 1));
        assert_eq!(slow.refused, None);
        if slow.left == 0 {
            assert_eq!((slow.new.len(), same.new.len()), (2, 1));
            break;
        }
        assert_eq!((slow.left, slow.new.len()), (2, 0));
        assert_eq!((same.left, same.new.len()), (1, 0), "all sessions of a subject share it");
        found = slow.found;
    }
    assert_eq!(rounds, 3, "it goes on where it was");
}

#[test]
fn the_first_dep_that_is_lacking_is_the_last_one_looked_for() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let refused = add(&log, &id(), &[deps_on(CROWD)]);
    assert_eq!((refused.left, refused.refused), (0, Some(RefusalCode::MissingDependency)));
}

#[test]
fn deps_that_were_found_are_not_those_of_a_store_that_is_begun_anew() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    add_crowd(&log, &id());
    let slow = add(&log, &id(), &[deps_on(CROWD)]);
    assert_eq!(slow.left, 1);
    assert!(log.delete(&id(), UNIX_EPOCH).unwrap() && log.undelete(&id()).unwrap());
    let late: Vec<Change> = (4_000..=CROWD).map(|replica| change(replica, 0, &[], 1)).collect();
    add(&log, &id(), &late);
    let appended = log.write(|write| {
        let mut appender = Appender::begin(write, UNIX_EPOCH)?;
        appender.go_on(&id(), &Author::default(), &[deps_on(CROWD)], false, slow.found)
    });
    assert_eq!(appended.unwrap().refused, Some(RefusalCode::MissingDependency));
}

fn blobs_of(log: &Arc<StoreLog>, store: &StoreId) -> Arc<StoreBlobs> {
    let blobs = StoreBlobs::begin_for(Arc::clone(log), store, "ann", StoreQuota::UNLIMITED);
    Arc::new(blobs.unwrap().unwrap())
}

/// Goal: a deleted store is gone at once and its room is free in the end, and nobody else notices.
/// Method: two stores with packed and loose pages and blobs; one is deleted and swept, step by
/// step, with a restart in the middle.
#[test]
fn a_deleted_store_is_gone_until_the_deletion_is_taken_back() {
    let folder = TempDir::new().unwrap();
    let mut log = Arc::new(open(&folder));
    let (gone, other) = (id(), StoreId::new("other").unwrap());
    let mut next = 0;
    for round in 0..8 {
        let change = noisy(1, next, 100_000);
        next = change.header().end();
        for store in [&gone, &other] {
            add_as(&log, store, &author("ann", &[1]), std::slice::from_ref(&change), false);
            if round < 6 {
                log.pack(store, 2).unwrap();
            }
        }
    }
    let bytes = vec![7; 700_000];
    let hash = BlobHash(Sha256::digest(&bytes).into());
    for store in [&gone, &other] {
        let mut writer = BlobWriter::resume(blobs_of(&log, store), hash, 700_000).unwrap();
        writer.write(&bytes).unwrap();
        writer.finish().unwrap();
    }
    let all = StoreSet::all();
    let summaries = log.stores(&Wanted::all(&all), None, 10).unwrap();
    let names = |log: &StoreLog, after| {
        let stores = log.stores(&Wanted::all(&all), after, 10).unwrap();
        stores.into_iter().map(|summary| summary.store.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(&log, None), ["other", "s"]);
    assert_eq!(names(&log, Some("other")), ["s"]);
    assert_eq!(
        (summaries[1].changes, summaries[1].blobs, summaries[1].blob_bytes),
        (8, 1, 700_000)
    );
    assert!(summaries[1].change_bytes > 800_000 && summaries[1].last_change == Some(UNIX_EPOCH));

    let late = blobs_of(&log, &gone);
    let now = UNIX_EPOCH + std::time::Duration::from_secs(7);
    assert!(log.delete(&gone, now).unwrap());
    assert!(
        !log.delete(&gone, now).unwrap() && !log.delete(&StoreId::new("x").unwrap(), now).unwrap()
    );
    assert_eq!(log.version(&gone).unwrap(), Version::new());
    let deleted = log.deleted_stores(&Wanted::all(&all), None, 10).unwrap();
    assert_eq!(deleted, [(gone.clone(), now)]);
    let refused = add(&log, &gone, &[change(5, 0, &[], 1)]);
    assert_eq!((refused.refused, refused.new.len()), (Some(RefusalCode::Forbidden), 0));
    assert!(BlobWriter::resume(late, hash, 700_000).is_err(), "it takes no blobs");

    let mut steps = 0;
    while log.sweep_deleted().unwrap() {
        steps += 1;
        assert!(steps < 100);
        if steps == 2 {
            drop(log);
            log = Arc::new(open(&folder));
        }
    }
    assert_eq!(names(&log, None), ["other"]);
    assert_eq!(log.summary(&other).unwrap().unwrap(), summaries[0]);
    let left = log.database.read(|read| {
        let pages = read.open_table(PAGES)?.range((0, 0, 0)..(1, 0, 0))?.count();
        let starts = read.open_table(STARTS)?.range((0, 0, 0)..(1, 0, 0))?.count();
        let replicas = read.open_table(VERSIONS)?.range((0, 0)..(1, 0))?.count();
        let owners = read.open_table(OWNERS)?.range((0, 0)..(1, 0))?.count();
        let (blobs, _) = blob_rows::total(read, 0)?;
        Ok((pages, starts, replicas, owners, blobs, blob_rows::garbage(read)?.len()))
    });
    assert_eq!(left.unwrap(), (0, 0, 0, 0, 0, 0));

    assert!(log.undelete(&gone).unwrap() && !log.undelete(&gone).unwrap());
    let again = add_as(&log, &gone, &author("bob", &[1]), &[change(1, 0, &[], 1)], false);
    assert_eq!((again.from, again.stored, again.foreign), (0, version(&[(1, 1)]), vec![]));
}
