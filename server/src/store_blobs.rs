//! The large contents of one store in the relay's file. They stay, as the log does that refers to
//! them.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_engine::BlobHash;
use sds_sync::blob_rows::{self, Content, ROW_BYTES};
use sds_sync::limits::BLOB_PARTS_MAX;
use sds_sync::{BlobStorage, Claims, Offer, StorageError, StoreId};

use crate::blob_totals::BlobTotal;
use crate::store_log::tables::is_live as is_live_store;
use crate::store_log::{NoStore, StoreLog, StoreQuota};

/// The blobs of one store.
#[derive(Debug)]
pub(crate) struct StoreBlobs {
    log: Arc<StoreLog>,
    owner: u64,
}

/// What of the room of each store is promised to uploads that are under way: those that can go on
/// later have their names in the file too, the others nowhere else.
#[derive(Debug, Default)]
pub(crate) struct Reservations {
    /// Held while somebody looks whether there is room, and while a blob is kept.
    turn: Mutex<()>,
    state: Mutex<Reserved>,
}

#[derive(Debug, Default)]
struct Reserved {
    /// The number of the last one.
    last: u64,
    /// By the store's number.
    of: HashMap<u64, Vec<(u64, Offer)>>,
}

impl Reservations {
    fn lock(&self) -> MutexGuard<'_, Reserved> {
        // No code under this lock can leave the list half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Room for a blob, until it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    log: Arc<StoreLog>,
    owner: u64,
    number: u64,
}

/// Why a store has no room for a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoRoom {
    /// Its blobs have too many bytes.
    Bytes,
    /// It has too many.
    Blobs,
    /// Too many are on their way.
    Uploads,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut reserved = self.log.reserved.lock();
        if let Some(of_store) = reserved.of.get_mut(&self.owner) {
            of_store.retain(|(number, _)| *number != self.number);
            if of_store.is_empty() {
                reserved.of.remove(&self.owner);
            }
        }
    }
}

impl StoreBlobs {
    /// The blobs of `store`; none if there is no such store.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn of(log: Arc<StoreLog>, store: &StoreId) -> Result<Option<Self>, StorageError> {
        let owner = log.number_of(store)?;
        Ok(owner.map(|owner| Self { log, owner }))
    }

    /// The blobs of `store`, which begins if `subject` may begin one more.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub(crate) fn begin_for(
        log: Arc<StoreLog>,
        store: &StoreId,
        subject: &str,
        quota: StoreQuota,
    ) -> Result<Result<Self, NoStore>, StorageError> {
        let owner = log.number_for(store, subject, quota)?;
        Ok(owner.map(|owner| Self { log, owner }))
    }

    /// Takes room for a blob that is not here yet: if so many are not on their way already, and the
    /// store's blobs are no more than `max` with it and all those. Reads all their names if nobody
    /// has of late.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub(crate) fn reserve(
        &self,
        offer: Offer,
        max: BlobTotal,
    ) -> Result<Result<Reservation, NoRoom>, StorageError> {
        // What takes long is done before anybody has to wait for it.
        self.log.blob_total(self.owner)?;
        // Whoever comes meanwhile waits, and reckons with this one. Who gives room back does not
        // wait: what has become a blob by then is in the file, which is read after the list.
        let _turn = self.log.reserved.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let of_store = self.log.reserved.lock().of.get(&self.owner).cloned().unwrap_or_default();
        if of_store.len() >= BLOB_PARTS_MAX {
            return Ok(Err(NoRoom::Uploads));
        }
        let total = self.log.blob_total(self.owner)?;
        let used = self.log.database.read(|read| {
            let BlobTotal { mut count, mut bytes } = total;
            // One that goes on has its room already; it is counted once.
            let goes_on = |hash: &BlobHash| {
                let others = of_store.iter().map(|(_, other)| other);
                others.chain([&offer]).any(|other| other.can_resume && other.hash == *hash)
            };
            for (hash, part) in blob_rows::parts_of(read, self.owner)? {
                if !goes_on(&hash) {
                    bytes = bytes.saturating_add(part.size);
                }
            }
            // What several bring at once becomes one blob.
            let mut names = HashSet::from([offer.hash]);
            for (_, other) in &of_store {
                // One that has just become a blob is counted as that.
                if blob_rows::find(read, self.owner, &other.hash)?.is_none() {
                    bytes = bytes.saturating_add(other.size);
                    count = count.saturating_add(u64::from(names.insert(other.hash)));
                }
            }
            Ok(BlobTotal { count, bytes })
        })?;
        if used.count >= max.count {
            return Ok(Err(NoRoom::Blobs));
        }
        if used.bytes.saturating_add(offer.size) > max.bytes {
            return Ok(Err(NoRoom::Bytes));
        }
        let mut reserved = self.log.reserved.lock();
        reserved.last += 1;
        let number = reserved.last;
        reserved.of.entry(self.owner).or_default().push((number, offer));
        drop(reserved);
        Ok(Ok(Reservation { log: Arc::clone(&self.log), owner: self.owner, number }))
    }

    fn remove(&self, number: u64) -> Result<(), StorageError> {
        while !self.log.write(|write| blob_rows::sweep(write, number))? {}
        Ok(())
    }
}

impl BlobStorage for StoreBlobs {
    fn find(&self, hash: &BlobHash) -> Result<Option<Content>, StorageError> {
        self.log.database.read(|read| blob_rows::find(read, self.owner, hash))
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> Result<Vec<u8>, StorageError> {
        self.log.database.read(|read| blob_rows::read(read, number, offset, max))
    }

    fn begin(&self) -> u64 {
        self.log.next_content.fetch_add(1, Ordering::Relaxed)
    }

    fn part_len(&self, hash: &BlobHash, size: u64) -> Result<u64, StorageError> {
        self.log.database.read(|read| blob_rows::part_len(read, self.owner, hash, size))
    }

    fn resume(&self, hash: &BlobHash, size: u64) -> Result<Option<(Content, u64)>, StorageError> {
        let fresh = Content { number: self.begin(), size };
        let is_live = |number| self.claims().is_live(number);
        let part = self.log.write(|write| {
            if !is_live_store(write, self.owner)? {
                return Ok(None);
            }
            blob_rows::resume(write, self.owner, hash, fresh, BLOB_PARTS_MAX, is_live)
        })?;
        let Some(part) = part else { return Ok(None) };
        part.garbage.into_iter().try_for_each(|number| self.remove(number))?;
        Ok(Some((part.content, part.held)))
    }

    fn append(&self, number: u64, mut offset: u64, bytes: &[u8]) -> Result<bool, StorageError> {
        let mut left = bytes;
        while !left.is_empty() {
            // While changes come in, they wait for one row at a time.
            let row = ROW_BYTES - usize::try_from(offset % ROW_BYTES as u64).unwrap_or(0);
            let most = if self.log.is_busy() { row } else { left.len() };
            let (piece, rest) = left.split_at(most.min(left.len()));
            if !self.log.write(|write| blob_rows::append(write, number, offset, piece))? {
                return Ok(false);
            }
            (offset, left) = (offset + piece.len() as u64, rest);
        }
        Ok(true)
    }

    fn keep(&self, hash: &BlobHash, content: Content) -> Result<(), StorageError> {
        let turn = self.log.reserved.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let keeping = self.log.blob_totals.keep(self.owner);
        let kept = self.log.write(|write| {
            // Of a store that was deleted meanwhile nothing stays.
            if !is_live_store(write, self.owner)? {
                return Ok(None);
            }
            blob_rows::keep(write, self.owner, hash, content, false).map(Some)
        })?;
        keeping.done((kept == Some(content)).then_some(content.size));
        drop(turn);
        // Somebody may be reading the former one, which stays.
        if kept == Some(content) { Ok(()) } else { self.remove(content.number) }
    }

    fn forget(&self, number: u64, part_of: Option<&BlobHash>) -> Result<(), StorageError> {
        if let Some(hash) = part_of {
            self.log.write(|write| blob_rows::forget_part(write, self.owner, hash, number))?;
        }
        self.remove(number)
    }

    fn let_go(&self, _: &BlobHash) -> Option<u64> {
        None
    }

    fn claims(&self) -> &Claims {
        &self.log.claims
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use sds_sync::{BlobError, BlobReader, BlobWriter};
    use sha2::{Digest, Sha256};
    use tempfile::TempDir;

    use super::*;

    fn open(folder: &TempDir, store: &str) -> Arc<dyn BlobStorage> {
        let log = Arc::new(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
        let store = StoreId::new(store).unwrap();
        let begun = StoreBlobs::begin_for(log, &store, "ann", StoreQuota::UNLIMITED);
        Arc::new(begun.unwrap().unwrap())
    }

    fn named(bytes: &[u8]) -> BlobHash {
        BlobHash(Sha256::digest(bytes).into())
    }

    fn read(blobs: &Arc<dyn BlobStorage>, hash: BlobHash) -> Option<Vec<u8>> {
        let mut reader = BlobReader::open(Arc::clone(blobs), hash).unwrap()?;
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        Some(bytes)
    }

    #[test]
    fn an_upload_that_was_cut_off_goes_on_after_reopening_and_is_seen_when_it_is_whole() {
        let folder = TempDir::new().unwrap();
        let bytes: Vec<u8> = (0..700_000_u32).map(|at| (at % 251) as u8).collect();
        let (hash, size) = (named(&bytes), bytes.len() as u64);
        let mut from = 0;
        for until in [1, 300_000, 300_001, 650_000] {
            let blobs = open(&folder, "s");
            let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, size).unwrap();
            assert_eq!(writer.len(), from as u64);
            writer.write(&bytes[from..until]).unwrap();
            drop(writer);
            from = until;
            assert_eq!(read(&blobs, hash), None);
        }
        let blobs = open(&folder, "s");
        let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, size).unwrap();
        writer.write(&bytes[from..]).unwrap();
        writer.finish().unwrap();
        assert_eq!(read(&blobs, hash).unwrap(), bytes);
        drop(blobs);
        assert_eq!(read(&open(&folder, "s"), hash).unwrap(), bytes);
        assert_eq!(read(&open(&folder, "other"), hash), None, "stores are apart");
    }

    /// Goal: a large value that gives way to changes is whole all the same. Method: the log has just been written
    /// before each piece, and pieces begin in the middle of rows.
    #[test]
    fn what_is_written_row_by_row_while_changes_come_in_is_whole() {
        let folder = TempDir::new().unwrap();
        let log = Arc::new(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
        let (store, quota) = (StoreId::new("s").unwrap(), StoreQuota::UNLIMITED);
        let begun = StoreBlobs::begin_for(Arc::clone(&log), &store, "ann", quota);
        let blobs: Arc<dyn BlobStorage> = Arc::new(begun.unwrap().unwrap());
        let bytes: Vec<u8> = (0..=250).cycle().take(7 * ROW_BYTES / 2).collect();
        let (hash, size) = (named(&bytes), bytes.len() as u64);
        let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, size).unwrap();
        for piece in bytes.chunks(ROW_BYTES * 3 / 2) {
            log.write_log(|_| Ok(())).unwrap();
            writer.write(piece).unwrap();
            writer.flush().unwrap();
        }
        writer.finish().unwrap();
        assert_eq!(read(&blobs, hash).unwrap(), bytes);
    }

    #[test]
    fn an_upload_that_has_become_a_blob_or_is_made_twice_counts_once() {
        let folder = TempDir::new().unwrap();
        let log = Arc::new(StoreLog::open(&folder.path().join("relay.redb")).unwrap());
        let (store, quota) = (StoreId::new("s").unwrap(), StoreQuota::UNLIMITED);
        let begun = StoreBlobs::begin_for(log, &store, "ann", quota).unwrap().unwrap();
        let blobs = Arc::new(begun);
        let offer =
            |bytes: &[u8]| Offer { hash: named(bytes), size: bytes.len() as u64, can_resume: true };
        let max = BlobTotal { count: 2, bytes: 1_000 };
        let reserve = |bytes| blobs.reserve(offer(bytes), max).unwrap();
        let first = reserve(b"first").unwrap();
        let again = reserve(b"first").unwrap();
        let storage: Arc<dyn BlobStorage> = blobs.clone();
        let mut writer = BlobWriter::resume(storage, named(b"first"), 5).unwrap();
        writer.write(b"first").unwrap();
        writer.finish().unwrap();
        let second = reserve(b"second").unwrap();
        assert_eq!(reserve(b"third").unwrap_err(), NoRoom::Blobs);
        drop((first, again));
        assert_eq!(reserve(b"third").unwrap_err(), NoRoom::Blobs);
        drop(second);
        assert!(reserve(b"third").is_ok());
    }

    #[test]
    fn bytes_that_are_not_those_of_the_name_are_never_seen_and_do_not_stay() {
        let folder = TempDir::new().unwrap();
        let blobs = open(&folder, "s");
        let hash = named(b"right");
        let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, 5).unwrap();
        writer.write(b"wrong").unwrap();
        assert!(matches!(writer.finish(), Err(BlobError::WrongHash)));
        assert_eq!((read(&blobs, hash), blobs.part_len(&hash, 5).unwrap()), (None, 0));
        let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, 5).unwrap();
        assert!(matches!(writer.write(b"longer"), Err(BlobError::WrongHash)));
        writer.write(b"right").unwrap();
        writer.finish().unwrap();
        assert_eq!(read(&blobs, hash).unwrap(), b"right");
    }

    #[test]
    fn a_part_that_is_being_written_gives_way_to_no_other() {
        let folder = TempDir::new().unwrap();
        let blobs = open(&folder, "s");
        let contents: Vec<[u8; 2]> =
            (0..).map(|number| [number, 1]).take(BLOB_PARTS_MAX + 1).collect();
        let resume =
            |bytes: &[u8], size| BlobWriter::resume(Arc::clone(&blobs), named(bytes), size);
        let (last, first) = contents.split_last().unwrap();
        let mut writers: Vec<BlobWriter> =
            first.iter().map(|bytes| resume(bytes, 2).unwrap()).collect();
        assert!(matches!(resume(last, 2), Err(BlobError::Busy)));
        assert!(matches!(resume(&contents[3], 3), Err(BlobError::Busy)), "of another size");
        for (writer, bytes) in writers.iter_mut().zip(first) {
            writer.write(bytes).unwrap();
            writer.flush().unwrap();
        }
        // One that nobody writes gives way, though others were begun before it.
        drop(writers.remove(5));
        resume(last, 2).unwrap();
        let left = |bytes: &[u8]| blobs.part_len(&named(bytes), 2).unwrap();
        assert_eq!((left(&contents[5]), left(&contents[0])), (0, 2));
        for writer in writers {
            writer.finish().unwrap();
        }
        assert_eq!(read(&blobs, named(&contents[0])).unwrap(), contents[0]);
    }

    #[test]
    fn of_two_who_bring_the_same_blob_one_waits() {
        let folder = TempDir::new().unwrap();
        let blobs = open(&folder, "s");
        let hash = named(b"ab");
        let first = BlobWriter::resume(Arc::clone(&blobs), hash, 2).unwrap();
        let second = BlobWriter::resume(Arc::clone(&blobs), hash, 2);
        assert!(matches!(second, Err(BlobError::Busy)));
        drop(first);
        let mut again = BlobWriter::resume(Arc::clone(&blobs), hash, 2).unwrap();
        again.write(b"ab").unwrap();
        again.finish().unwrap();
        assert_eq!(read(&blobs, hash).unwrap(), b"ab");
    }
}
