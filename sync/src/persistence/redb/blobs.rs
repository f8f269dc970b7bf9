//! The blobs in a store's file.
//!
//! Which ones are here whole is known without a look at the file. A blob that is let go of leaves this
//! list at once, and the file with the change after which nothing refers to it.
//!
//! Whoever holds the list waits for no transaction; transactions look at the list. A blob enters it
//! inside the transaction that gives it its name, so that the next one finds it there; all others find it
//! when that has reached the disk, for they let go of what they have in memory then.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::WriteTransaction;
use sds_engine::BlobHash;

use super::open_file::OpenFile;
use crate::blob_rows::{self, Content};
use crate::blob_storage::{BlobStorage, Claims};
use crate::database::Failure;
use crate::limits::BLOB_PARTS_MAX;
use crate::persistence::StorageError;
use crate::persistence::blob_list::BlobList;

/// There is one store in the file.
const OWNER: u64 = 0;

/// The blobs of one store's file.
#[derive(Debug)]
pub(super) struct RedbBlobs {
    file: Arc<OpenFile>,
    list: Mutex<BlobList>,
    next: AtomicU64,
    claims: Claims,
}

impl RedbBlobs {
    pub(super) fn of(file: Arc<OpenFile>) -> Result<Self, StorageError> {
        let (whole, next) =
            file.read(|read| Ok((blob_rows::list(read, OWNER)?, blob_rows::next_number(read)?)))?;
        let list = Mutex::new(BlobList::of(whole));
        let (next, claims) = (AtomicU64::new(next), Claims::default());
        Ok(Self { file, list, next, claims })
    }

    /// Lists what is in the file now.
    pub(super) fn reload(&self) -> Result<(), StorageError> {
        let (whole, next) = self
            .file
            .read(|read| Ok((blob_rows::list(read, OWNER)?, blob_rows::next_number(read)?)))?;
        // Whoever writes one writes to a content that another process may have removed.
        self.claims.end_all();
        self.list().whole = BlobList::of(whole).whole;
        self.next.fetch_max(next, Ordering::Relaxed);
        Ok(())
    }

    /// Releases blobs, and then puts others into the file, as far as they are not there. Notes in
    /// `written` which those are: to be [settled](Self::settle) when the transaction has reached the disk, or
    /// [taken back](Self::take_back) if it fails.
    pub(super) fn write(
        &self,
        write: &WriteTransaction,
        released: &[(BlobHash, u64)],
        blobs: &[(BlobHash, Arc<[u8]>)],
        written: &mut Vec<BlobHash>,
    ) -> Result<(), Failure> {
        for (hash, number) in released {
            blob_rows::release(write, OWNER, hash, *number)?;
        }
        for (hash, bytes) in blobs {
            if !self.list().whole.contains_key(hash) {
                let content = Content { number: self.begin(), size: bytes.len() as u64 };
                if !blob_rows::append(write, content.number, 0, bytes)? {
                    // Another process has given the number to something else.
                    return Err(Failure::Changed);
                }
                let kept = blob_rows::keep(write, OWNER, hash, content, true)?;
                written.push(*hash);
                self.list().enter(*hash, kept);
            }
        }
        Ok(())
    }

    /// Notes that what a transaction has noted is on disk.
    pub(super) fn settle(&self, written: &[BlobHash]) {
        let mut list = self.list();
        written.iter().for_each(|hash| list.settle(hash));
    }

    /// Forgets what a transaction that failed has noted.
    pub(super) fn take_back(&self, written: &[BlobHash]) {
        let mut list = self.list();
        written.iter().for_each(|hash| list.take_back(hash));
    }

    /// Removes contents that nothing names. What cannot be removed goes when the file is opened again.
    pub(super) fn sweep(&self, numbers: impl IntoIterator<Item = u64>) {
        for number in numbers {
            if let Err(error) = self.remove(number) {
                tracing::warn!(code = error.code(), %error, "a blob was not removed");
                return;
            }
        }
    }

    /// Removes all that is not in `referenced`, and what nothing names.
    pub(super) fn retain(&self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
        let is_free = |(hash, _): &(&BlobHash, &Content)| !referenced.contains(hash);
        let free: Vec<(BlobHash, u64)> = (self.list().whole.iter().filter(is_free))
            .map(|(hash, content)| (*hash, content.number))
            .collect();
        let has_parts = self.file.read(blob_rows::has_parts)?;
        if !free.is_empty() || has_parts {
            self.file.write(|write| {
                for (hash, number) in &free {
                    blob_rows::release(write, OWNER, hash, *number)?;
                }
                for (hash, content) in blob_rows::parts(write, OWNER)? {
                    if !referenced.contains(&hash) {
                        blob_rows::forget_part(write, OWNER, &hash, content.number)?;
                    }
                }
                Ok(())
            })?;
        }
        self.list().whole.retain(|hash, _| referenced.contains(hash));
        for number in self.file.read(blob_rows::garbage)? {
            self.remove(number)?;
        }
        Ok(())
    }

    fn remove(&self, number: u64) -> Result<(), StorageError> {
        while !self.file.write(|write| blob_rows::sweep(write, number))? {}
        Ok(())
    }

    fn list(&self) -> MutexGuard<'_, BlobList> {
        // No code under this lock can leave the list half changed.
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BlobStorage for RedbBlobs {
    fn find(&self, hash: &BlobHash) -> Result<Option<Content>, StorageError> {
        Ok(self.list().find(hash))
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> Result<Vec<u8>, StorageError> {
        self.file.read(|read| blob_rows::read(read, number, offset, max))
    }

    fn begin(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn part_len(&self, hash: &BlobHash, size: u64) -> Result<u64, StorageError> {
        self.file.read(|read| blob_rows::part_len(read, OWNER, hash, size))
    }

    fn resume(&self, hash: &BlobHash, size: u64) -> Result<Option<(Content, u64)>, StorageError> {
        let fresh = Content { number: self.begin(), size };
        let is_live = |number| self.claims.is_live(number);
        let part = self
            .file
            .write(|write| blob_rows::resume(write, OWNER, hash, fresh, BLOB_PARTS_MAX, is_live))?;
        let Some(part) = part else { return Ok(None) };
        self.sweep(part.garbage);
        Ok(Some((part.content, part.held)))
    }

    fn append(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<bool, StorageError> {
        self.file.write(|write| blob_rows::append(write, number, offset, bytes))
    }

    fn keep(&self, hash: &BlobHash, content: Content) -> Result<(), StorageError> {
        let kept = self.file.write(|write| {
            let replaces = !self.list().whole.contains_key(hash);
            let kept = blob_rows::keep(write, OWNER, hash, content, replaces)?;
            self.list().enter(*hash, kept);
            Ok(kept)
        });
        let kept = kept.inspect_err(|_| self.list().take_back(hash))?;
        self.list().settle(hash);
        if kept != content {
            self.sweep([content.number]);
        }
        Ok(())
    }

    fn forget(&self, number: u64, part_of: Option<&BlobHash>) -> Result<(), StorageError> {
        if let Some(hash) = part_of {
            self.file.write(|write| blob_rows::forget_part(write, OWNER, hash, number))?;
        }
        self.remove(number)
    }

    fn pin(&self, hash: &BlobHash) {
        self.list().pin(hash);
    }

    fn unpin(&self, hash: &BlobHash) {
        self.list().unpin(hash);
    }

    fn let_go(&self, hash: &BlobHash) -> Option<u64> {
        self.list().let_go(hash)
    }

    fn let_go_late(&self) -> Vec<(BlobHash, u64)> {
        self.list().let_go_late()
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}
