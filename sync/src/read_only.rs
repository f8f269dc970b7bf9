//! A file that is looked at and never changed: what redb would write to it, to repair it after a kill
//! for one, stays in memory.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{self, File};
use std::io;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::database::{Medium, Place};
use crate::limits::FILE_CACHE_BYTES;

/// What is written is kept in blocks of this many bytes.
const BLOCK_BYTES: u64 = 4 << 10;

/// A file to look at. Others may look at it at the same time, but nobody may have it to write.
#[derive(Debug)]
pub(crate) struct ReadOnlyFile(pub(crate) PathBuf);

impl Medium for ReadOnlyFile {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        let file = File::open(&self.0)?;
        let overlay = Overlay { len: file.metadata()?.len(), blocks: BTreeMap::new() };
        let view = View { file: FileBackend::new(file)?, overlay: Mutex::new(overlay) };
        let mut builder = redb::Database::builder();
        Ok(builder.set_cache_size(FILE_CACHE_BYTES).create_with_backend(view)?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(fs::metadata(&self.0)?.len())
    }

    fn place(&self) -> io::Result<Place> {
        Place::of(&self.0)
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

/// The file, with what was written over it.
#[derive(Debug)]
struct View {
    file: FileBackend,
    overlay: Mutex<Overlay>,
}

#[derive(Debug)]
struct Overlay {
    len: u64,
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl View {
    fn overlay(&self) -> MutexGuard<'_, Overlay> {
        // No code under this lock can leave a block half written.
        self.overlay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the file has there; zeros behind its end.
    fn read_file(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let there = self.file.len()?.saturating_sub(offset).min(out.len() as u64);
        let (head, rest) = out.split_at_mut(usize::try_from(there).unwrap_or(0));
        rest.fill(0);
        if head.is_empty() { Ok(()) } else { self.file.read(offset, head) }
    }

    /// Goes through a range block by block: the number of the block, where the part begins in it, and
    /// which part of the range it is.
    fn parts(
        offset: u64,
        len: usize,
    ) -> impl Iterator<Item = (u64, usize, std::ops::Range<usize>)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let at = offset + done as u64;
            let within = usize::try_from(at % BLOCK_BYTES).unwrap_or(0);
            let block = usize::try_from(BLOCK_BYTES).unwrap_or(usize::MAX);
            let count = (block - within).min(len - done);
            let part = (at / BLOCK_BYTES, within, done..done + count);
            done += count;
            (count > 0).then_some(part)
        })
    }
}

impl StorageBackend for View {
    fn len(&self) -> io::Result<u64> {
        Ok(self.overlay().len)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let overlay = self.overlay();
        if offset.saturating_add(out.len() as u64) > overlay.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_file(offset, out)?;
        for (block, within, part) in Self::parts(offset, out.len()) {
            if let (Some(written), Some(out)) = (overlay.blocks.get(&block), out.get_mut(part)) {
                let written = written.get(within..within + out.len());
                out.copy_from_slice(written.ok_or(io::ErrorKind::UnexpectedEof)?);
            }
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.overlay().len = len;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut overlay = self.overlay();
        for (number, within, part) in Self::parts(offset, data.len()) {
            let block = match overlay.blocks.entry(number) {
                Entry::Occupied(block) => block.into_mut(),
                Entry::Vacant(place) => {
                    let mut former = vec![0; usize::try_from(BLOCK_BYTES).unwrap_or(0)];
                    self.read_file(number * BLOCK_BYTES, &mut former)?;
                    place.insert(former)
                }
            };
            let target = block.get_mut(within..within + part.len());
            if let (Some(target), Some(data)) = (target, data.get(part)) {
                target.copy_from_slice(data);
            }
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    // A file that is open to be read can only be locked together with others that read it; that is
    // enough to find out whether somebody has it to write.

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
