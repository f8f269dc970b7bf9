//! A store's file: one redb database.
//!
//! | table | key | value |
//! |---|---|---|
//! | `meta` | `format` (u16 LE), `store` (UTF-8), `replica` (u64 LE) | the value |
//! | `log` | u64, from 0 without gaps | an encoded change, and its checksum (`log_value`) |
//! | `blobs` | SHA-256 | size in bytes (u64) |
//! | `blob_chunks` | SHA-256, u32 from 0 without gaps | 1 MiB; the last one the rest |
//!
//! Invariant R1: what was written here since opening, and nothing else, is behind what was loaded;
//! also if a failure made it necessary to open the file again.
//!
//! Not here: whether changes are well formed; the log gives back what was put in.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::path::Path;
use std::sync::Arc;

use redb::{ReadTransaction, ReadableTable, Table, TableDefinition, TableHandle, WriteTransaction};
use sds_engine::{BlobHash, ReplicaId};

use super::{Batch, LogPage, Persistence, StorageError};
use crate::database::{Database, Failure};
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, LOG_PAGE_BYTES_MAX};
use crate::log_value::{seal, unseal};
use crate::store_id::StoreId;

const FORMAT: u16 = 1;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const LOG: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("log");
const BLOBS: TableDefinition<'_, &[u8; 32], u64> = TableDefinition::new("blobs");
const BLOB_CHUNKS: TableDefinition<'_, (&[u8; 32], u32), &[u8]> =
    TableDefinition::new("blob_chunks");

/// A store in a redb file. As long as this lives no other process can open it.
#[derive(Debug)]
pub struct RedbPersistence {
    database: Database,
    store: StoreId,
    replica: ReplicaId,
    /// Where the log ended when it was last known. The file may be opened anew after a failure.
    end: u64,
}

impl RedbPersistence {
    /// Opens the file of `store` in `folder`, or makes it, for a replica whose number is `fresh`.
    ///
    /// # Errors
    /// Any [`StorageError`] but [`StorageError::NotFound`].
    pub fn open_or_create(
        folder: &Path,
        store: &StoreId,
        fresh: ReplicaId,
    ) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        let database = Database::open_or_create(&path, |write| initialize(write, store, fresh))?;
        Self::check(database, store)
    }

    /// Opens the file of `store` in `folder`; it must be there.
    ///
    /// # Errors
    /// Any [`StorageError`].
    pub fn open_existing(folder: &Path, store: &StoreId) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        if !path.exists() {
            return Err(StorageError::NotFound { path });
        }
        Self::check(Database::open(&path)?, store)
    }

    fn check(database: Database, store: &StoreId) -> Result<Self, StorageError> {
        let (replica, end) = database.read(|read| {
            let replica = check_meta(read, store)?;
            Ok((replica, end_of(&read.open_table(LOG)?)?))
        })?;
        Ok(Self { database, store: store.clone(), replica, end })
    }
}

impl Persistence for RedbPersistence {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn replica(&self) -> ReplicaId {
        self.replica
    }

    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        self.database.read(|read| {
            let mut page = LogPage::default();
            let mut size = 0;
            for row in read.open_table(LOG)?.range(from..)? {
                let (seq, value) = row?;
                let change = unseal(value.value())?;
                size += change.len();
                if !page.changes.is_empty() && size > LOG_PAGE_BYTES_MAX {
                    page.next = Some(seq.value());
                    break;
                }
                page.changes.push(change.into());
            }
            Ok(page)
        })
    }

    fn read_blob(&self, hash: &BlobHash) -> Result<Option<Arc<[u8]>>, StorageError> {
        self.database.read(|read| {
            let Some(size) = read.open_table(BLOBS)?.get(&hash.0)? else { return Ok(None) };
            let size = size.value();
            if size > BLOB_BYTES_MAX {
                return Err(Failure::Corrupt("a blob is larger than any may be"));
            }
            let chunks = read.open_table(BLOB_CHUNKS)?;
            let mut bytes = Vec::new();
            for row in chunks.range((&hash.0, 0)..=(&hash.0, u32::MAX))? {
                bytes.extend_from_slice(row?.1.value());
            }
            if bytes.len() as u64 != size {
                return Err(Failure::Corrupt("a blob has another size than was noted"));
            }
            Ok(Some(bytes.into()))
        })
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let known_end = self.end;
        self.end = self.database.write(|write| {
            write_blobs(write, &batch.blobs)?;
            append_changes(&mut write.open_table(LOG)?, known_end, &batch.changes)
        })?;
        Ok(())
    }
}

/// Appends changes behind `known_end`, and says where the log ends then.
///
/// A commit that failed may have reached the disk all the same: what is there already of these is
/// not written twice. Anything else there was written by somebody else.
fn append_changes(
    log: &mut Table<'_, u64, &'static [u8]>,
    known_end: u64,
    changes: &[Arc<[u8]>],
) -> Result<u64, Failure> {
    let end = end_of(log)?;
    let mut seq = known_end;
    for change in changes {
        let value = seal(change);
        if seq < end {
            let is_there = log.get(seq)?.is_some_and(|there| there.value() == value);
            if !is_there {
                return Err(Failure::Changed);
            }
        } else {
            log.insert(seq, value.as_slice())?;
        }
        seq += 1;
    }
    if seq < end || known_end > end {
        return Err(Failure::Changed);
    }
    Ok(seq)
}

fn end_of(log: &impl ReadableTable<u64, &'static [u8]>) -> Result<u64, Failure> {
    Ok(log.last()?.map_or(0, |(last, _)| last.value() + 1))
}

fn initialize(write: &WriteTransaction, store: &StoreId, fresh: ReplicaId) -> Result<(), Failure> {
    let mut meta = write.open_table(META)?;
    meta.insert("format", FORMAT.to_le_bytes().as_slice())?;
    meta.insert("store", store.as_str().as_bytes())?;
    meta.insert("replica", fresh.as_u64().to_le_bytes().as_slice())?;
    write.open_table(LOG)?;
    write.open_table(BLOBS)?;
    write.open_table(BLOB_CHUNKS)?;
    Ok(())
}

/// The replica that writes to the file, if the file is `store`'s and this program can read it.
fn check_meta(read: &ReadTransaction, store: &StoreId) -> Result<ReplicaId, Failure> {
    if !read.list_tables()?.any(|table| table.name() == META.name()) {
        return Err(Failure::Corrupt("a database of another kind"));
    }
    let meta = read.open_table(META)?;
    let format = meta.get("format")?.and_then(|bytes| bytes.value().try_into().ok());
    match format.map(u16::from_le_bytes) {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => return Err(Failure::TooNew),
        _ => return Err(Failure::Corrupt("no known format")),
    }
    if meta.get("store")?.is_none_or(|id| id.value() != store.as_str().as_bytes()) {
        return Err(Failure::WrongStore);
    }
    let replica = meta.get("replica")?.and_then(|bytes| bytes.value().try_into().ok());
    replica
        .and_then(|bytes| ReplicaId::new(u64::from_le_bytes(bytes)))
        .ok_or(Failure::Corrupt("no replica id"))
}

fn write_blobs(write: &WriteTransaction, blobs: &[(BlobHash, Arc<[u8]>)]) -> Result<(), Failure> {
    let mut sizes = write.open_table(BLOBS)?;
    let mut chunks = write.open_table(BLOB_CHUNKS)?;
    for (hash, bytes) in blobs {
        if sizes.insert(&hash.0, bytes.len() as u64)?.is_some() {
            continue;
        }
        for (index, chunk) in (0..).zip(bytes.chunks(BLOB_CHUNK_BYTES_MAX)) {
            chunks.insert((&hash.0, index), chunk)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
