//! Which stores there are, how large they are, and deleting them.
//!
//! Deleting takes effect at once, and what the store had is removed in bounded steps, so that
//! appends to other stores do not wait for long. Its id stays as deleted, so that no client that
//! comes back fills it again, until somebody takes the deletion back; then it begins empty.

use std::fmt;
use std::ops::{Bound, RangeInclusive};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use redb::{
    Key, ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, Value,
    WriteTransaction,
};
use sds_sync::access::StoreSet;
use sds_sync::blob_rows;
use sds_sync::database::Failure;
use sds_sync::{StorageError, StoreId};

use super::StoreLog;
use super::tables::{
    DELETED, GARBAGE, OWNERS, PAGES, STARTS, STATES, STORES, VERSIONS, give_back, is_live,
    milliseconds, state,
};
use crate::blob_totals::BlobTotal;

/// How many rows of a deleted store are removed in one transaction.
const SWEEP_ROWS: usize = 512;

/// A store, and how much of it there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSummary {
    /// The store.
    pub store: StoreId,
    /// How many changes it has.
    pub changes: u64,
    /// How many bytes the changes have; on disk they mostly take less.
    pub change_bytes: u64,
    /// How many large values it has.
    pub blobs: u64,
    /// How many bytes the large values have.
    pub blob_bytes: u64,
    /// When something was appended to it last; none if nothing ever was.
    pub last_change: Option<SystemTime>,
}

/// Which stores are asked for.
pub struct Wanted<'a> {
    /// Those of these names.
    pub among: &'a StoreSet,
    /// And of them those for which this says so.
    pub is_wanted: &'a dyn Fn(&str) -> bool,
}

impl Wanted<'_> {
    /// All stores.
    #[must_use]
    pub fn all(among: &StoreSet) -> Wanted<'_> {
        Wanted { among, is_wanted: &|_| true }
    }

    /// Up to `max` rows of those that come after `after`. Passes over what is not among the names
    /// at once.
    fn rows(
        &self,
        table: &impl ReadableTable<&'static str, u64>,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(String, u64)>, Failure> {
        let mut found = Vec::new();
        let mut from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_owned()));
        loop {
            let mut beyond = None;
            let begin = from.as_ref().map(String::as_str);
            for row in table.range::<&str>((begin, Bound::Unbounded))? {
                let (id, value) = row?;
                let id = id.value();
                if !self.among.contains(id) {
                    beyond = self.among.next_after(id);
                    break;
                }
                if (self.is_wanted)(id) {
                    found.push((id.to_owned(), value.value()));
                }
                if found.len() >= max {
                    return Ok(found);
                }
            }
            let Some(beyond) = beyond else { return Ok(found) };
            from = Bound::Included(beyond.to_owned());
        }
    }
}

impl fmt::Debug for Wanted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted").field("among", self.among).finish_non_exhaustive()
    }
}

impl StoreLog {
    /// Up to `max` stores that are `wanted` and whose ids come after `after`, in order of id. Costs
    /// a look at the name of each of their large values the first time, and none at stores of other
    /// names.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn stores(
        &self,
        wanted: &Wanted<'_>,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<StoreSummary>, StorageError> {
        let found: Vec<_> = self.database.read(|read| {
            let rows = wanted.rows(&read.open_table(STORES)?, after, max)?;
            let found = |(id, number): &(String, u64)| Ok((*number, summary(read, id, *number)?));
            rows.iter().map(found).collect::<Result<_, Failure>>()
        })?;
        found.into_iter().map(|found| self.with_blobs(found)).collect()
    }

    /// How much there is of `store`; none if there is no such store.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn summary(&self, store: &StoreId) -> Result<Option<StoreSummary>, StorageError> {
        let found = self.database.read(|read| {
            let number = read.open_table(STORES)?.get(store.as_str())?.map(|number| number.value());
            let Some(number) = number else { return Ok(None) };
            Ok(Some((number, summary(read, store.as_str(), number)?)))
        })?;
        found.map(|found| self.with_blobs(found)).transpose()
    }

    fn with_blobs(
        &self,
        (number, summary): (u64, StoreSummary),
    ) -> Result<StoreSummary, StorageError> {
        let BlobTotal { count: blobs, bytes: blob_bytes } = self.blob_total(number)?;
        Ok(StoreSummary { blobs, blob_bytes, ..summary })
    }

    /// Up to `max` stores that were deleted, are `wanted`, and whose ids come after `after`, in
    /// order of id, and when.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn deleted_stores(
        &self,
        wanted: &Wanted<'_>,
        after: Option<&str>,
        max: usize,
    ) -> Result<Vec<(StoreId, SystemTime)>, StorageError> {
        self.database.read(|read| {
            let rows = wanted.rows(&read.open_table(DELETED)?, after, max)?;
            let store = |(id, when): &(String, u64)| {
                Ok((store_id(id)?, UNIX_EPOCH + Duration::from_millis(*when)))
            };
            rows.iter().map(store).collect()
        })
    }

    /// How many stores are kept as deleted, and how many of them `is_meant`, up to `max`. Costs a
    /// look at all their ids.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn count_deleted(
        &self,
        is_meant: impl Fn(&str) -> bool,
        max: u64,
    ) -> Result<(u64, u64), StorageError> {
        self.database.read(|read| {
            let deleted = read.open_table(DELETED)?;
            let mut meant = 0;
            for row in deleted.iter()? {
                meant += u64::from(is_meant(row?.0.value()));
                if meant >= max {
                    break;
                }
            }
            Ok((deleted.len()?, meant))
        })
    }

    /// Whether `store` was deleted.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn is_deleted(&self, store: &StoreId) -> Result<bool, StorageError> {
        self.database.read(|read| Ok(read.open_table(DELETED)?.get(store.as_str())?.is_some()))
    }

    /// Deletes `store`: from now on it is not there and takes nothing. What it had is removed by
    /// [`sweep_deleted`](Self::sweep_deleted). Says false, and does nothing, if there is no such
    /// store.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn delete(&self, store: &StoreId, now: SystemTime) -> Result<bool, StorageError> {
        self.write(|write| {
            let mut stores = write.open_table(STORES)?;
            let removed = stores.remove(store.as_str())?.map(|number| number.value());
            let Some(number) = removed else { return Ok(false) };
            write.open_table(STATES)?.remove(number)?;
            give_back(write, number)?;
            write.open_table(GARBAGE)?.insert(number, ())?;
            write.open_table(DELETED)?.insert(store.as_str(), milliseconds(now))?;
            Ok(true)
        })
    }

    /// Lets a deleted store be used again; it begins empty. Says false if it was not deleted.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn undelete(&self, store: &StoreId) -> Result<bool, StorageError> {
        self.write(|write| {
            let mut deleted = write.open_table(DELETED)?;
            let is_known = deleted.remove(store.as_str())?.is_some();
            Ok(is_known)
        })
    }

    /// Removes some of what deleted stores have left behind, in one bounded transaction. Says
    /// whether there may be more.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn sweep_deleted(&self) -> Result<bool, StorageError> {
        if self.database.read(|read| Ok(read.open_table(GARBAGE)?.first()?.is_none()))? {
            return Ok(false);
        }
        let mut sweeping = self.sweeping.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(content) = *sweeping {
            if self.write(|write| blob_rows::sweep(write, content))? {
                *sweeping = None;
            }
            return Ok(true);
        }
        *sweeping = self.write(sweep_rows)?;
        Ok(true)
    }
}

/// Removes some rows of a deleted store, or takes the name of one of its large values away; says
/// which content is to be removed then.
fn sweep_rows(write: &WriteTransaction) -> Result<Option<u64>, Failure> {
    let number = write.open_table(GARBAGE)?.first()?.map(|(number, _)| number.value());
    let Some(number) = number else { return Ok(None) };
    if is_live(write, number)? {
        return Err(Failure::Corrupt("a store that is there is called garbage"));
    }
    let pages = (number, 0, 0)..=(number, u64::MAX, u32::MAX);
    let starts = (number, 0, 0)..=(number, u64::MAX, u64::MAX);
    let replicas = (number, 0)..=(number, u64::MAX);
    let mut rows = SWEEP_ROWS;
    remove_some(write, PAGES, pages, &mut rows)?;
    remove_some(write, STARTS, starts, &mut rows)?;
    remove_some(write, VERSIONS, replicas.clone(), &mut rows)?;
    remove_some(write, OWNERS, replicas, &mut rows)?;
    if rows == 0 {
        return Ok(None);
    }
    let content = blob_rows::release_any(write, number)?;
    if content.is_none() {
        write.open_table(GARBAGE)?.remove(number)?;
    }
    Ok(content)
}

/// Removes rows in a range, as many as are left to remove.
fn remove_some<'a, K: Key + 'static, V: Value + 'static>(
    write: &WriteTransaction,
    table: TableDefinition<'static, K, V>,
    range: RangeInclusive<K::SelfType<'a>>,
    left: &mut usize,
) -> Result<(), Failure> {
    let mut table = write.open_table(table)?;
    for row in table.extract_from_if::<K::SelfType<'a>, _>(range, |_, _| true)?.take(*left) {
        drop(row?);
        *left -= 1;
    }
    Ok(())
}

/// All but the large values.
fn summary(read: &ReadTransaction, id: &str, number: u64) -> Result<StoreSummary, Failure> {
    let state = state(&read.open_table(STATES)?, number)?;
    let (blobs, blob_bytes) = (0, 0);
    let last_change = (state.end > 0).then(|| UNIX_EPOCH + Duration::from_millis(state.active_ms));
    let (changes, change_bytes) = (state.end, state.bytes);
    Ok(StoreSummary { store: store_id(id)?, changes, change_bytes, blobs, blob_bytes, last_change })
}

pub(super) fn store_id(id: &str) -> Result<StoreId, Failure> {
    StoreId::new(id).map_err(|_| Failure::Corrupt("a store without a valid id"))
}
