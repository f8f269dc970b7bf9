//! The blobs of a store whose file another process owns, or nobody at the moment: read through the
//! owner, or from the file itself; written to a temporary file, and to the owner when they are whole.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sds_engine::{BlobHash, BlobRef, Version};

use super::guest_link::{Line, LinkError};
use super::shared_file::{Patience, refused};
use super::{Batch, Intent, Persistence, RedbPersistence, StorageError};
use crate::blob_rows::Content;
use crate::blob_storage::{BlobError, BlobStorage, BlobWriter, Claims};
use crate::ledger::blobs_of;
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX};
use crate::local_socket::LocalAddress;
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::new_file::temporary_name;
use crate::store_id::StoreId;

/// See the module.
#[derive(Debug)]
pub(super) struct GuestBlobs {
    folder: PathBuf,
    path: PathBuf,
    store: StoreId,
    address: LocalAddress,
    next: AtomicU64,
    claims: Claims,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Blobs that are whole, here or at the owner, and what their numbers mean.
    found: HashMap<BlobHash, Content>,
    hashes: HashMap<u64, BlobHash>,
    /// Contents on their way, and the numbers of those with a name.
    drafts: HashMap<u64, Draft>,
    named: HashMap<BlobHash, u64>,
    /// Blobs of this process that nothing at the owner refers to yet: it may forget them.
    unconfirmed: HashMap<BlobHash, SharedDraft>,
    /// Blobs that this process is about to refer to.
    pinned: HashSet<BlobHash>,
    /// The transfer that was read from last.
    reading: Option<Reading>,
}

/// A transfer from the owner.
struct Reading {
    number: u64,
    offset: u64,
    line: Line,
    /// What has come and was not asked for yet.
    rest: Bytes,
}

/// A blob of this process, and its content.
pub(super) type NamedDraft = (BlobHash, SharedDraft);

/// A draft that is whole, to be read from here and there at once: `at` is this reader's place.
#[derive(Clone, Debug)]
pub(super) struct SharedDraft {
    draft: Arc<Mutex<Draft>>,
    at: u64,
}

/// A temporary file.
struct Draft {
    file: File,
    path: PathBuf,
    size: u64,
}

impl GuestBlobs {
    pub(super) fn new(folder: &Path, path: &Path, store: &StoreId) -> Self {
        Self {
            folder: folder.to_owned(),
            path: path.to_owned(),
            store: store.clone(),
            address: LocalAddress::of(path),
            next: AtomicU64::new(1),
            claims: Claims::default(),
            state: Mutex::default(),
        }
    }

    /// The blobs of this process that a batch refers to and the owner may lack.
    pub(super) fn drafts_for(&self, batch: &Batch) -> Vec<NamedDraft> {
        let referred: BTreeSet<BlobHash> = batch
            .changes
            .iter()
            .flat_map(|change| blobs_of(change))
            .map(|blob| blob.hash)
            .collect();
        let state = self.state();
        let draft = |hash| Some((hash, state.unconfirmed.get(&hash)?.clone()));
        referred.into_iter().filter_map(draft).collect()
    }

    /// Sends the blobs that a batch refers to, `drafts` and its own, as far as the owner lacks them.
    pub(super) fn send(&self, batch: &Batch, drafts: &[NamedDraft]) -> Result<(), LinkError> {
        for (hash, bytes) in &batch.blobs {
            self.offer(*hash, bytes.len() as u64, &mut Cursor::new(bytes))?;
        }
        for (hash, draft) in drafts {
            self.offer(*hash, draft.len(), &mut draft.clone())?;
        }
        Ok(())
    }

    /// Writes them to a file that nobody else has.
    pub(super) fn write(
        &self,
        batch: &Batch,
        drafts: &[NamedDraft],
        file: &Arc<dyn BlobStorage>,
    ) -> Result<(), StorageError> {
        for (hash, bytes) in &batch.blobs {
            self.copy(*hash, bytes.len() as u64, &mut Cursor::new(bytes), file)?;
        }
        for (hash, draft) in drafts {
            self.copy(*hash, draft.len(), &mut draft.clone(), file)?;
        }
        Ok(())
    }

    /// Makes the owner keep blobs that undoing here may refer to again. Who has none keeps none.
    pub(super) fn hold_all(&self, batch: &Batch) -> Result<(), LinkError> {
        for blob in &batch.held {
            self.hold_at_owner(blob)?;
        }
        Ok(())
    }

    /// Whether the owner has a blob, which it keeps from now on until something refers to it.
    fn hold_at_owner(&self, blob: &BlobRef) -> Result<bool, LinkError> {
        let Some((size, _)) = self.get(&blob.hash, 0)? else { return Ok(false) };
        let mut line = Line::to(&self.address, BLOB_FRAME_BYTES_MAX)?;
        let store = self.store.as_str().to_owned();
        line.send(&ClientFrame::OfferBlob { store, hash: blob.hash.0, size })?;
        let is_there = line.receive()? == RelayFrame::BlobStored;
        if is_there {
            self.state().note(blob.hash, Content { number: self.number(), size });
        }
        Ok(is_there)
    }

    /// Notes that these, and the batch's own, are at the owner, with something that refers to them. What
    /// was written since, or is to be referred to later, stays: the owner may forget it, or be another
    /// one by then.
    pub(super) fn confirm(&self, batch: &Batch, drafts: &[NamedDraft]) {
        let mut state = self.state();
        for (hash, bytes) in &batch.blobs {
            let content = Content { number: self.number(), size: bytes.len() as u64 };
            state.note(*hash, content);
        }
        for (hash, draft) in drafts {
            if state.unconfirmed.get(hash).is_some_and(|kept| kept.is(draft)) {
                state.unconfirmed.remove(hash);
            }
        }
    }

    /// Sends a blob; returns when the owner has it on disk.
    fn offer(
        &self,
        hash: BlobHash,
        size: u64,
        content: &mut (impl Read + Seek),
    ) -> Result<(), LinkError> {
        let mut line = Line::to(&self.address, BLOB_FRAME_BYTES_MAX)?;
        let store = self.store.as_str().to_owned();
        line.send(&ClientFrame::OfferBlob { store, hash: hash.0, size })?;
        let offset = match line.receive()? {
            RelayFrame::BlobStored => return Ok(()),
            RelayFrame::BlobWantedFrom { offset } => offset,
            other => return Err(unexpected(&other)),
        };
        content.seek(SeekFrom::Start(offset))?;
        let mut left = size.saturating_sub(offset);
        while left > 0 {
            let due = left.min(BLOB_CHUNK_BYTES_MAX as u64);
            let mut bytes = Vec::new();
            if content.by_ref().take(due).read_to_end(&mut bytes)? as u64 != due {
                return Err(LinkError::Refused(RefusalCode::WrongHash));
            }
            left -= due;
            line.send(&ClientFrame::BlobChunk { bytes: bytes.into() })?;
        }
        match line.receive()? {
            RelayFrame::BlobStored => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Writes a blob to a file that nobody else has.
    fn copy(
        &self,
        hash: BlobHash,
        size: u64,
        content: &mut (impl Read + Seek),
        file: &Arc<dyn BlobStorage>,
    ) -> Result<(), StorageError> {
        if file.find(&hash)?.is_some() {
            return Ok(());
        }
        let failed = |error| match error {
            BlobError::Storage(error) => error,
            _ => refused(&self.path, RefusalCode::WrongHash, Version::new()),
        };
        let mut writer = BlobWriter::resume(Arc::clone(file), hash, size).map_err(failed)?;
        let broken = |error| StorageError::from_io(&self.path, error);
        content.seek(SeekFrom::Start(writer.len())).map_err(broken)?;
        let mut buffer = vec![0; BLOB_CHUNK_BYTES_MAX];
        loop {
            let count = content.read(&mut buffer).map_err(broken)?;
            if count == 0 {
                return writer.finish().map(drop).map_err(failed);
            }
            writer.write(buffer.get(..count).unwrap_or_default()).map_err(failed)?;
        }
    }

    /// Asks the owner; if there is none, does `alone` with the file's own blobs, for which it is opened with
    /// this intent.
    fn ask<T>(
        &self,
        intent: Intent,
        mut ask: impl FnMut() -> Result<T, LinkError>,
        alone: impl FnOnce(&Arc<dyn BlobStorage>) -> Result<T, StorageError>,
    ) -> Result<T, StorageError> {
        let mut patience = Patience::new();
        loop {
            match ask() {
                Ok(answer) => return Ok(answer),
                Err(LinkError::Refused(code)) => {
                    return Err(refused(&self.path, code, Version::new()));
                }
                Err(LinkError::Gone) => {}
            }
            match RedbPersistence::open_at_once(&self.folder, &self.store, intent) {
                Ok(file) => return alone(&file.blobs()),
                Err(StorageError::Locked { .. }) => patience.wait(&self.path)?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Opens a blob of the owner at an offset; its size, and the line that the bytes come on.
    fn get(&self, hash: &BlobHash, offset: u64) -> Result<Option<(u64, Line)>, LinkError> {
        let mut line = Line::to(&self.address, BLOB_FRAME_BYTES_MAX)?;
        let store = self.store.as_str().to_owned();
        line.send(&ClientFrame::GetBlobFrom { store, hash: hash.0, offset })?;
        match line.receive()? {
            RelayFrame::BlobMissing => Ok(None),
            RelayFrame::BlobFound { size } if size <= BLOB_BYTES_MAX => Ok(Some((size, line))),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads on in a blob of the owner.
    fn read_remote(
        &self,
        number: u64,
        hash: &BlobHash,
        offset: u64,
        max: usize,
    ) -> Result<Vec<u8>, LinkError> {
        let former = self.state().reading.take();
        let mut reading = match former {
            Some(reading) if (reading.number, reading.offset) == (number, offset) => reading,
            _ => match self.get(hash, offset)? {
                Some((_, line)) => Reading { number, offset, line, rest: Bytes::new() },
                None => return Ok(Vec::new()),
            },
        };
        if reading.rest.is_empty() {
            reading.rest = match reading.line.receive()? {
                RelayFrame::BlobChunk { bytes } if !bytes.is_empty() => bytes,
                other => return Err(unexpected(&other)),
            };
        }
        let part = reading.rest.split_to(max.min(reading.rest.len()));
        reading.offset += part.len() as u64;
        self.state().reading = Some(reading);
        Ok(part.into())
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the lists half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn broken(&self, error: io::Error) -> StorageError {
        StorageError::from_io(&self.path, error)
    }
}

impl State {
    fn note(&mut self, hash: BlobHash, content: Content) -> Content {
        self.hashes.insert(content.number, hash);
        *self.found.entry(hash).or_insert(content)
    }
}

impl BlobStorage for GuestBlobs {
    fn find(&self, hash: &BlobHash) -> Result<Option<Content>, StorageError> {
        let known = self.state().found.get(hash).copied();
        if known.is_some() {
            return Ok(known);
        }
        let ask = || Ok(self.get(hash, 0)?.map(|(size, _)| size));
        let alone = |file: &Arc<dyn BlobStorage>| Ok(file.find(hash)?.map(|found| found.size));
        let Some(size) = self.ask(Intent::Read, ask, alone)? else { return Ok(None) };
        Ok(Some(self.state().note(*hash, Content { number: self.number(), size })))
    }

    fn is_known(&self, hash: &BlobHash) -> Option<bool> {
        self.state().found.contains_key(hash).then_some(true)
    }

    fn hold(&self, blob: &BlobRef) -> Result<bool, StorageError> {
        let state = self.state();
        let (is_ours, was_here) =
            (state.unconfirmed.contains_key(&blob.hash), state.found.contains_key(&blob.hash));
        drop(state);
        if is_ours {
            return Ok(true);
        }
        let alone = |file: &Arc<dyn BlobStorage>| Ok(file.find(&blob.hash)?.is_some());
        let is_here = self.ask(Intent::Read, || self.hold_at_owner(blob), alone)?;
        Ok(is_here || !was_here)
    }

    fn read(&self, number: u64, offset: u64, max: usize) -> Result<Vec<u8>, StorageError> {
        let mut state = self.state();
        if let Some(draft) = state.drafts.get_mut(&number) {
            return draft.read(offset, max).map_err(|error| self.broken(error));
        }
        let Some(hash) = state.hashes.get(&number).copied() else { return Ok(Vec::new()) };
        let draft = state.unconfirmed.get(&hash).cloned();
        drop(state);
        if let Some(draft) = draft {
            return draft.draft().read(offset, max).map_err(|error| self.broken(error));
        }
        let ask = || self.read_remote(number, &hash, offset, max);
        self.ask(Intent::Read, ask, |file| match file.find(&hash)? {
            Some(content) => file.read(content.number, offset, max),
            None => Ok(Vec::new()),
        })
    }

    fn begin(&self) -> u64 {
        self.number()
    }

    fn part_len(&self, hash: &BlobHash, _size: u64) -> Result<u64, StorageError> {
        let state = self.state();
        let draft = state.named.get(hash).and_then(|number| state.drafts.get(number));
        Ok(draft.map_or(0, |draft| draft.size))
    }

    fn resume(&self, hash: &BlobHash, size: u64) -> Result<Option<(Content, u64)>, StorageError> {
        let fresh = self.number();
        let mut state = self.state();
        let number = *state.named.entry(*hash).or_insert(fresh);
        let held = state.drafts.get(&number).map_or(0, |draft| draft.size);
        Ok(Some((Content { number, size }, held)))
    }

    fn append(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<bool, StorageError> {
        let mut state = self.state();
        if let std::collections::hash_map::Entry::Vacant(free) = state.drafts.entry(number) {
            free.insert(Draft::make(&self.path).map_err(|error| self.broken(error))?);
        }
        let Some(draft) = state.drafts.get_mut(&number).filter(|draft| draft.size == offset) else {
            return Ok(false);
        };
        draft.append(bytes).map_err(|error| self.broken(error))?;
        Ok(true)
    }

    fn keep(&self, hash: &BlobHash, content: Content) -> Result<(), StorageError> {
        let mut state = self.state();
        let draft = state.drafts.remove(&content.number);
        let is_named = state.named.remove(hash).is_some();
        drop(state);
        let mut draft = match draft {
            Some(draft) => draft,
            // Nothing was ever appended to an empty one.
            None => Draft::make(&self.path).map_err(|error| self.broken(error))?,
        };
        if is_named {
            // The owner's store refers to it: it is what was asked for.
            let file = Mutex::new(&mut draft.file);
            let file = || file.lock().unwrap_or_else(PoisonError::into_inner);
            let send = || self.offer(*hash, content.size, &mut **file());
            return self.ask(Intent::Write, send, |own| {
                self.copy(*hash, content.size, &mut **file(), own)
            });
        }
        let mut state = self.state();
        state.unconfirmed.insert(*hash, SharedDraft::new(draft));
        state.note(*hash, content);
        Ok(())
    }

    fn forget(&self, number: u64, part_of: Option<&BlobHash>) -> Result<(), StorageError> {
        let mut state = self.state();
        state.drafts.remove(&number);
        if let Some(hash) = part_of
            && state.named.get(hash) == Some(&number)
        {
            state.named.remove(hash);
        }
        Ok(())
    }

    /// What is in the file is the owner's to release.
    fn let_go(&self, hash: &BlobHash) -> Option<u64> {
        let mut state = self.state();
        if !state.pinned.contains(hash) {
            state.unconfirmed.remove(hash);
            state.found.remove(hash);
        }
        None
    }

    fn pin(&self, hash: &BlobHash) {
        self.state().pinned.insert(*hash);
    }

    fn unpin(&self, hash: &BlobHash) {
        self.state().pinned.remove(hash);
    }

    fn claims(&self) -> &Claims {
        &self.claims
    }
}

impl SharedDraft {
    fn new(draft: Draft) -> Self {
        Self { draft: Arc::new(Mutex::new(draft)), at: 0 }
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        // Whoever reads seeks first.
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> u64 {
        self.draft().size
    }

    /// Whether both are the same file.
    fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.draft, &other.draft)
    }
}

impl Read for SharedDraft {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut draft = self.draft();
        draft.file.seek(SeekFrom::Start(self.at))?;
        let count = draft.file.read(buffer)?;
        drop(draft);
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for SharedDraft {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.len().checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Draft {
    fn make(beside: &Path) -> io::Result<Self> {
        let path = temporary_name(beside);
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        if cfg!(unix) {
            // It goes with the process, however that ends.
            fs::remove_file(&path)?;
        }
        Ok(Self { file, path, size: 0 })
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.size))?;
        self.file.write_all(bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    fn read(&mut self, offset: u64, max: usize) -> io::Result<Vec<u8>> {
        self.file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        Read::by_ref(&mut self.file).take(max as u64).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !cfg!(unix) {
            // A leftover does no harm, and is removed after a day.
            let _removed = fs::remove_file(&self.path);
        }
    }
}

impl fmt::Debug for Draft {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draft").field("size", &self.size).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading").field("offset", &self.offset).finish_non_exhaustive()
    }
}

fn unexpected(frame: &RelayFrame) -> LinkError {
    match frame {
        RelayFrame::Refused { code, .. } => RefusalCode::from_number(*code).into(),
        _ => LinkError::Refused(RefusalCode::Unexpected),
    }
}
