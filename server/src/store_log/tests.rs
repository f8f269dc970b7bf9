//! What a relay keeps, and what it does not take.

use std::sync::Arc;

use sds_engine::{Change, Op, OpId};
use sds_sync::RefusalCode;
use sds_sync::log_value::seal;
use tempfile::TempDir;

use super::*;

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
    log.write(|write| append(write, store, author, changes, skips_lacking)).unwrap()
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
    add(&log, &id(), &changes);
    let rows: [(&[(u64, u64)], u64); 6] = [
        (&[], 0),
        (&[(1, 1)], 1),
        (&[(1, 1), (2, 3)], 2),
        (&[(1, 2), (2, 3)], 3),
        (&[(1, 2), (2, 2)], 1),
        (&[(1, 2), (2, 4), (7, 1)], 4),
    ];
    for (known, position) in rows {
        let found = log.position_for(&id(), &version(known)).unwrap();
        assert_eq!(found, (position, 4), "{known:?}");
    }
}

#[test]
fn a_damaged_change_is_not_handed_out_and_not_taken_for_a_fork() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder);
    let changes = [change(1, 0, &[], 2), change(2, 0, &[], 1)];
    add(&log, &id(), &changes);
    log.write(|write| {
        let other = change(1, 0, &[], 3);
        let mut damaged = seal(changes[0].bytes());
        damaged[..other.bytes().len()].copy_from_slice(other.bytes());
        write.open_table(LOG)?.insert((0, 0), damaged.as_slice())?;
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
