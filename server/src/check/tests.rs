//! A sound file is sound, and whatever is changed in it is found.

use std::time::UNIX_EPOCH;

use redb::{Key, TableDefinition, Value, WriteTransaction};
use sds_engine::{Change, Op, OpId};
use tempfile::TempDir;

use super::*;
use crate::store_log::tables::{DELETED, FOUNDED, FOUNDERS, GARBAGE, STORES, State};
use crate::store_log::{Appender, Author, StoreLog, StoreQuota};

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn change(author: u64, start: u64, dep: Option<(u64, u64)>) -> Change {
    let dep = dep.map(|(author, counter)| OpId { replica: replica(author), counter });
    let ops = [Op::Skip { count: 1 }];
    Change::new(replica(author), start, dep.into_iter().collect(), &ops).unwrap()
}

/// Two stores, whose changes are packed for a part; what `damage` does to them; what is found then.
fn find(damage: impl FnOnce(&WriteTransaction) -> Result<(), Failure>) -> Vec<RelayFinding> {
    let folder = TempDir::new().unwrap();
    let log = StoreLog::open(&folder.path().join(LOG_FILE)).unwrap();
    let author = Author { subject: "ann".to_owned(), seats: vec![replica(1)], ..Author::default() };
    for counter in 0..20 {
        log.write(|write| {
            let mut appender = Appender::begin(write, UNIX_EPOCH)?;
            let changes = [change(1, counter, None), change(2, counter, Some((1, counter)))];
            for store in ["a", "b"] {
                appender.append(&StoreId::new(store).unwrap(), &author, &changes, false)?;
            }
            appender.finish(|_| {})
        })
        .unwrap();
        if counter == 15 {
            assert!(log.pack(&StoreId::new("a").unwrap(), 1).unwrap());
        }
    }
    log.write(damage).unwrap();
    drop(log);
    let report = super::check(folder.path()).unwrap();
    assert_eq!(report.is_sound(), report.findings.is_empty());
    report.findings
}

fn check(damage: impl FnOnce(&WriteTransaction) -> Result<(), Failure>) -> Vec<&'static str> {
    find(damage).iter().map(RelayFinding::code).collect()
}

/// The tables and rows that do not fit after `damage`.
fn unfit(damage: impl FnOnce(&WriteTransaction) -> Result<(), Failure>) -> Vec<String> {
    let row = |finding| match finding {
        RelayFinding::Row { table, row, .. } => format!("{table} {row}"),
        other => other.to_string(),
    };
    find(damage).into_iter().map(row).collect()
}

fn put<'a, K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<'static, K, V>,
    key: K::SelfType<'a>,
    value: V::SelfType<'a>,
) -> impl FnOnce(&WriteTransaction) -> Result<(), Failure> + 'a {
    move |write| {
        write.open_table(table)?.insert(key, value)?;
        Ok(())
    }
}

fn remove<'a, K: Key + 'static, V: Value + 'static>(
    table: TableDefinition<'static, K, V>,
    key: K::SelfType<'a>,
) -> impl FnOnce(&WriteTransaction) -> Result<(), Failure> + 'a {
    move |write| {
        write.open_table(table)?.remove(key)?;
        Ok(())
    }
}

/// The position of the second page of the first store, and its changes.
fn second_page(write: &WriteTransaction) -> (u64, Vec<std::sync::Arc<[u8]>>) {
    let pages = write.open_table(PAGES).unwrap();
    let bytes = page::read(&pages, 0, 32).unwrap().unwrap();
    (32, page::decode(&bytes).unwrap().to_vec())
}

#[test]
fn what_was_written_is_sound() {
    assert_eq!(check(|_| Ok(())), [""; 0]);
}

#[test]
fn a_damaged_or_missing_page_is_found() {
    let found = check(|write| {
        let mut pages = write.open_table(PAGES)?;
        let mut bytes = page::read(&pages, 0, 0)?.unwrap();
        bytes[20] ^= 1;
        page::write(&mut pages, 0, 0, &bytes)
    });
    assert_eq!(found[0], "changes-damaged");
    let found = check(|write| {
        write.open_table(PAGES)?.remove((1, 4, 0))?;
        Ok(())
    });
    assert_eq!(found[0], "changes-damaged");
}

#[test]
fn changes_in_the_wrong_order_are_found() {
    let found = check(|write| {
        let (position, mut changes) = second_page(write);
        changes.reverse();
        let bytes = page::encode(&changes, false)?;
        page::write(&mut write.open_table(PAGES)?, 0, position, &bytes)
    });
    assert_eq!(found, ["change-out-of-order"]);
}

#[test]
fn an_index_that_does_not_fit_is_found() {
    let check = |damage: fn(&WriteTransaction) -> Result<(), Failure>| {
        let found = check(damage);
        assert!(!found.is_empty() && found.iter().all(|code| *code == "index-unfit"), "{found:?}");
    };
    check(|write| {
        write.open_table(VERSIONS)?.insert((0, 1), (19, &[0; 32]))?;
        Ok(())
    });
    check(|write| {
        write.open_table(STARTS)?.remove((0, 1, 0))?;
        Ok(())
    });
    check(|write| {
        write.open_table(OWNERS)?.insert((1, 9), "ann")?;
        Ok(())
    });
    check(|write| {
        let mut states = write.open_table(STATES)?;
        let mut state = state(&states, 0)?;
        state.bytes += 1;
        states.insert(0, state.to_row())?;
        Ok(())
    });
    check(|write| {
        let mut states = write.open_table(STATES)?;
        let mut state = state(&states, 1)?;
        state.end -= 2;
        states.insert(1, state.to_row())?;
        Ok(())
    });
    check(|write| {
        write.open_table(STATES)?.remove(1)?;
        Ok(())
    });
}

/// Goal: each table that says which stores there are is looked at.
#[test]
fn what_is_said_of_stores_and_is_not_so_is_found() {
    let state = State::default().to_row();
    assert_eq!(unfit(remove(META, "next_store")), ["stores a", "stores b"]);
    assert_eq!(unfit(put(STORES, "", 0)), ["stores "]);
    assert_eq!(unfit(put(STATES, 7, state)), ["states 7"]);
    assert_eq!(unfit(put(FOUNDERS, 7, "ann")), ["founders 7"]);
    assert_eq!(unfit(put(FOUNDERS, 1, "bob")), ["founded ann", "founded bob"]);
    assert_eq!(unfit(remove(FOUNDERS, 1)), ["founded ann"]);
    assert_eq!(unfit(put(FOUNDED, "eve", 0)), ["founded eve"]);
    assert_eq!(unfit(remove(FOUNDED, "ann")), ["founded ann"]);
    assert_eq!(unfit(put(DELETED, "b", 0)), ["deleted b"]);
    assert_eq!(unfit(put(DELETED, "", 0)), ["deleted "]);
    assert_eq!(unfit(put(GARBAGE, 1, ())), ["garbage 1"]);
    assert_eq!(unfit(put(GARBAGE, 2, ())), ["garbage 2"]);
    let same = unfit(put(STORES, "b", 0));
    assert_eq!(same, ["stores b", "states 1", "founders 1", "founded ann"]);
}

/// Goal: rows that no program of ours writes, whose checksums are right.
#[test]
fn a_row_that_cannot_be_read_is_found() {
    assert_eq!(check(put(META, "next_store", &[1])), ["table-damaged"]);
    let no_text = check(|write| {
        write.delete_table(FOUNDERS)?;
        let bytes = TableDefinition::<u64, &[u8]>::new("founders");
        write.open_table(bytes)?.insert(0, [0xff].as_slice())?;
        Ok(())
    });
    assert_eq!(no_text, ["table-damaged"]);
}

#[test]
fn a_store_that_was_deleted_and_is_being_removed_is_sound() {
    let folder = TempDir::new().unwrap();
    let log = StoreLog::open(&folder.path().join(LOG_FILE)).unwrap();
    let [one, two] = ["a", "b"].map(|id| StoreId::new(id).unwrap());
    for store in [&one, &two] {
        log.number_for(store, "ann", StoreQuota::UNLIMITED).unwrap().unwrap();
    }
    assert!(log.delete(&one, UNIX_EPOCH).unwrap());
    drop(log);
    let report = super::check(folder.path()).unwrap();
    assert_eq!((report.stores, report.findings), (1, vec![]));
}

#[test]
fn a_relay_that_runs_is_left_alone() {
    let folder = TempDir::new().unwrap();
    assert_eq!(super::check(folder.path()).unwrap_err().code(), "store-not-found");
    let _log = StoreLog::open(&folder.path().join(LOG_FILE)).unwrap();
    assert_eq!(super::check(folder.path()).unwrap_err().code(), "store-locked");
}
