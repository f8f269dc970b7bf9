//! A look at which stores there are, and at what the tables say of them besides their logs: each
//! row can be read and speaks of something that is there.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadTransaction, ReadableTable};
use sds_sync::database::{Database, Failure};
use sds_sync::inspection::tolerant;
use sds_sync::{StorageError, StoreId};

use super::{RelayCheck, RelayFinding};
use crate::store_log::tables::{
    DELETED, FOUNDED, FOUNDERS, GARBAGE, META, STATES, STORES, next_number,
};

/// Looks at the tables of stores; says which stores there are, and their numbers.
pub(super) fn look(
    database: &Database,
    report: &mut RelayCheck,
) -> Result<Vec<(StoreId, u64)>, StorageError> {
    let next = |read: &ReadTransaction, _: &mut _| next_number(&read.open_table(META)?);
    let next = in_table(database, report, "meta", next)?.unwrap_or(u64::MAX);
    let stores = in_table(database, report, "stores", |read, report| stores(read, next, report))?;
    let Some(stores) = stores else { return Ok(Vec::new()) };
    let numbers = stores.iter().map(|(_, number)| *number).collect();
    in_table(database, report, "states", |read, report| states(read, &numbers, report))?;
    let begun =
        in_table(database, report, "founders", |read, report| founders(read, &numbers, report))?;
    if let Some(begun) = begun {
        in_table(database, report, "founded", |read, report| founded(read, begun, report))?;
    }
    in_table(database, report, "deleted", deleted)?;
    in_table(database, report, "garbage", |read, report| garbage(read, &numbers, next, report))?;
    Ok(stores)
}

fn in_table<T>(
    database: &Database,
    report: &mut RelayCheck,
    table: &'static str,
    look: impl FnOnce(&ReadTransaction, &mut RelayCheck) -> Result<T, Failure>,
) -> Result<Option<T>, StorageError> {
    let looked = database.read(|read| look(read, report));
    tolerant(&mut report.findings, looked, RelayFinding::Table { table })
}

impl RelayCheck {
    fn unfit(&mut self, table: &'static str, row: impl ToString, detail: &'static str) {
        self.note(RelayFinding::Row { table, row: row.to_string(), detail });
    }
}

fn stores(
    read: &ReadTransaction,
    next: u64,
    report: &mut RelayCheck,
) -> Result<Vec<(StoreId, u64)>, Failure> {
    let mut stores = Vec::new();
    let mut numbers = BTreeSet::new();
    for row in read.open_table(STORES)?.iter()? {
        let (id, number) = row?;
        let (id, number) = (id.value(), number.value());
        let Ok(store) = StoreId::new(id) else {
            report.unfit("stores", id, "that is no id of a store");
            continue;
        };
        if !numbers.insert(number) {
            report.unfit("stores", id, "another store has its number");
        }
        if number >= next {
            report.unfit("stores", id, "its number was not given out yet");
        }
        stores.push((store, number));
    }
    Ok(stores)
}

fn states(
    read: &ReadTransaction,
    stores: &BTreeSet<u64>,
    report: &mut RelayCheck,
) -> Result<(), Failure> {
    for row in read.open_table(STATES)?.iter()? {
        let number = row?.0.value();
        if !stores.contains(&number) {
            report.unfit("states", number, "there is no such store");
        }
    }
    Ok(())
}

/// Says how many stores each subject has begun.
fn founders(
    read: &ReadTransaction,
    stores: &BTreeSet<u64>,
    report: &mut RelayCheck,
) -> Result<BTreeMap<String, u64>, Failure> {
    let mut begun = BTreeMap::new();
    for row in read.open_table(FOUNDERS)?.iter()? {
        let (number, subject) = row?;
        if stores.contains(&number.value()) {
            *begun.entry(subject.value().to_owned()).or_default() += 1;
        } else {
            report.unfit("founders", number.value(), "there is no such store");
        }
    }
    Ok(begun)
}

fn founded(
    read: &ReadTransaction,
    mut begun: BTreeMap<String, u64>,
    report: &mut RelayCheck,
) -> Result<(), Failure> {
    const DETAIL: &str = "so many stores were not begun by that subject";
    for row in read.open_table(FOUNDED)?.iter()? {
        let (subject, count) = row?;
        if begun.remove(subject.value()) != Some(count.value()) {
            report.unfit("founded", subject.value(), DETAIL);
        }
    }
    begun.keys().for_each(|subject| report.unfit("founded", subject, DETAIL));
    Ok(())
}

fn deleted(read: &ReadTransaction, report: &mut RelayCheck) -> Result<(), Failure> {
    let stores = read.open_table(STORES)?;
    for row in read.open_table(DELETED)?.iter()? {
        let id = row?.0;
        if StoreId::new(id.value()).is_err() {
            report.unfit("deleted", id.value(), "that is no id of a store");
        }
        if stores.get(id.value())?.is_some() {
            report.unfit("deleted", id.value(), "the store is there");
        }
    }
    Ok(())
}

fn garbage(
    read: &ReadTransaction,
    stores: &BTreeSet<u64>,
    next: u64,
    report: &mut RelayCheck,
) -> Result<(), Failure> {
    for row in read.open_table(GARBAGE)?.iter()? {
        let number = row?.0.value();
        if stores.contains(&number) {
            report.unfit("garbage", number, "the store is there");
        }
        if number >= next {
            report.unfit("garbage", number, "the number was not given out yet");
        }
    }
    Ok(())
}
