//! Large contents in and out as streams: what keeps them, one that comes in, one that goes out.
//!
//! A content that comes in is kept as it comes, and is a blob only once it is whole and its hash was
//! checked. One whose name is known from the start goes on where it broke off, after a kill too: what
//! is there is hashed again first. Memory stays constant, whatever the size.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sds_engine::{BlobHash, BlobRef};
use sds_store::BlobSource;
use sha2::{Digest, Sha256};

use crate::blob_rows::{Content, ROW_BYTES};
use crate::limits::{BLOB_BYTES_MAX, BLOB_CHUNK_BYTES_MAX, chunk_timeout};
use crate::persistence::StorageError;

/// How many bytes are gathered before they are written: what a kill can cost, and what one takes in
/// memory.
const GATHER_BYTES: usize = 16 * ROW_BYTES;

/// How long bytes may be gathered before they are written all the same.
const GATHER_TIME: Duration = Duration::from_secs(1);

/// When a transfer counts as given up, so that another one of the same blob may go on with its part:
/// when the piece that it waits for may not come any more. One that breaks off ends at once.
const STALLED_AFTER: Duration = chunk_timeout(BLOB_CHUNK_BYTES_MAX as u64);

/// How many bytes of a blob are read at a time.
const READ_BYTES: usize = 4 * ROW_BYTES;

/// Where blobs are kept: a store's file, or what a relay's file has of a store.
pub trait BlobStorage: fmt::Debug + Send + Sync + 'static {
    /// The blob of this name, if it is here, whole.
    ///
    /// # Errors
    /// If that cannot be read.
    fn find(&self, hash: &BlobHash) -> Result<Option<Content>, StorageError>;

    /// Whether the blob is here, whole, as far as that is known without asking another process.
    fn is_known(&self, hash: &BlobHash) -> Option<bool> {
        Some(matches!(self.find(hash), Ok(Some(_))))
    }

    /// Makes whoever might let go of a blob keep it for something that is to refer to it again, if this
    /// process cannot say so by itself; false if it was here and is gone.
    ///
    /// # Errors
    /// If that cannot be found out.
    fn hold(&self, _: &BlobRef) -> Result<bool, StorageError> {
        Ok(true)
    }

    /// The bytes of a content from `offset`: `max` of them, or what there is.
    ///
    /// # Errors
    /// If they cannot be read.
    fn read(&self, number: u64, offset: u64, max: usize) -> Result<Vec<u8>, StorageError>;

    /// A number for a content that has no name yet.
    fn begin(&self) -> u64;

    /// How many bytes are here of the part of this name and size.
    ///
    /// # Errors
    /// If that cannot be read.
    fn part_len(&self, hash: &BlobHash, size: u64) -> Result<u64, StorageError>;

    /// The part of this name, or a new one; and how many bytes of it are here. None if there is no room
    /// for one, because too many others are being written.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn resume(&self, hash: &BlobHash, size: u64) -> Result<Option<(Content, u64)>, StorageError>;

    /// Appends to a content of which `offset` bytes are here, durably; says false, and does not, if
    /// another number of bytes is here.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn append(&self, number: u64, offset: u64, bytes: &[u8]) -> Result<bool, StorageError>;

    /// Gives a content, which is whole, its name, which the caller has checked.
    ///
    /// # Errors
    /// If the file cannot be written.
    fn keep(&self, hash: &BlobHash, content: Content) -> Result<(), StorageError>;

    /// Removes a content that came to nothing, and the part of this name if it is that content's still.
    ///
    /// # Errors
    /// If the file cannot be written; then it goes when the file is opened again.
    fn forget(&self, number: u64, part_of: Option<&BlobHash>) -> Result<(), StorageError>;

    /// Says from now on that the blob is not here, and which content it was: to be released with the
    /// change that made nothing refer to it. None where blobs stay, and for one that is not here yet:
    /// it is [given up](Self::let_go_late) later.
    fn let_go(&self, hash: &BlobHash) -> Option<u64>;

    /// The same for blobs that were not here yet when they were let go of, are now, and are still
    /// referred to by nothing.
    fn let_go_late(&self) -> Vec<(BlobHash, u64)> {
        Vec::new()
    }

    /// Keeps a blob from being let go of until something refers to it, or the file is closed: for who
    /// is about to refer to it. Where blobs stay in any case that takes nothing.
    fn pin(&self, _: &BlobHash) {}

    /// Notes that something refers to a blob now.
    fn unpin(&self, _: &BlobHash) {}

    /// Who writes to which content.
    fn claims(&self) -> &Claims;
}

/// Why a blob cannot be written. None of it can be seen.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The disk fails.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// What it is made from cannot be read.
    #[error("cannot read what is to be stored: {0}")]
    Source(#[from] io::Error),
    /// It is larger than any may be.
    #[error("more than {BLOB_BYTES_MAX} bytes: no value may be so large")]
    TooLarge,
    /// Its bytes are not those of its name.
    #[error("the bytes are not those of the hash")]
    WrongHash,
    /// Somebody else is writing it, or too many others are being written.
    #[error("another transfer of the same blob is under way, or too many of others are")]
    Busy,
}

impl BlobError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Source(_) => "source-unreadable",
            Self::TooLarge => "too-large",
            Self::WrongHash => "wrong-hash",
            Self::Busy => "busy",
        }
    }
}

/// Who writes to which content: one at a time, until that ends or has brought nothing for longer than
/// a piece may take.
#[derive(Debug, Default)]
pub struct Claims {
    claims: Mutex<ClaimTable>,
}

#[derive(Debug, Default)]
struct ClaimTable {
    last_ticket: u64,
    of: HashMap<u64, (u64, Instant)>,
}

impl ClaimTable {
    fn is_live(&self, number: u64) -> bool {
        self.of.get(&number).is_some_and(|(_, at)| at.elapsed() < STALLED_AFTER)
    }
}

impl Claims {
    /// Whether somebody is writing to this content. Takes a lock, under which nothing else is done.
    #[must_use]
    pub fn is_live(&self, number: u64) -> bool {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).is_live(number)
    }

    fn claim(&self, number: u64) -> Option<u64> {
        let mut table = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if table.is_live(number) {
            return None;
        }
        table.last_ticket += 1;
        let ticket = table.last_ticket;
        table.of.insert(number, (ticket, Instant::now()));
        Some(ticket)
    }

    /// As if `by` had passed.
    #[cfg(test)]
    pub(crate) fn age(&self, by: Duration) {
        let mut table = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        for (_, at) in table.of.values_mut() {
            *at = at.checked_sub(by).unwrap();
        }
    }

    fn renew(&self, number: u64, ticket: u64) -> bool {
        let mut table = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        match table.of.get_mut(&number) {
            Some((holder, at)) if *holder == ticket => {
                *at = Instant::now();
                true
            }
            _ => false,
        }
    }

    /// Ends all of them: what they are to has gone, and their numbers may be others' by now.
    pub(crate) fn end_all(&self) {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).of.clear();
    }

    fn end(&self, number: u64, ticket: u64) {
        let mut table = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        if table.of.get(&number).is_some_and(|(holder, _)| *holder == ticket) {
            table.of.remove(&number);
        }
    }
}

/// A blob that comes in. Dropped before its end, one with a name is kept as a part to go on with, and
/// any other is removed.
#[derive(Debug)]
pub struct BlobWriter {
    storage: Arc<dyn BlobStorage>,
    name: Option<(BlobHash, u64)>,
    number: u64,
    ticket: u64,
    /// How many bytes are in the storage.
    written: u64,
    hasher: Sha256,
    gathered: Vec<u8>,
    gathered_at: Instant,
    is_done: bool,
}

impl BlobWriter {
    /// Begins a blob whose name is not known yet.
    #[must_use]
    pub fn begin(storage: Arc<dyn BlobStorage>) -> Self {
        let number = storage.begin();
        // Nobody else has this number.
        let ticket = storage.claims().claim(number).unwrap_or_default();
        Self::at(storage, None, (number, ticket), 0)
    }

    /// Goes on with a blob of this name, or begins it. Costs reading what is there of it.
    ///
    /// # Errors
    /// If the disk fails, the blob is too large, somebody else is writing it, or as many others as
    /// parts are kept of are being written.
    pub fn resume(
        storage: Arc<dyn BlobStorage>,
        hash: BlobHash,
        size: u64,
    ) -> Result<Self, BlobError> {
        if size > BLOB_BYTES_MAX {
            return Err(BlobError::TooLarge);
        }
        let (content, _) = storage.resume(&hash, size)?.ok_or(BlobError::Busy)?;
        let ticket = storage.claims().claim(content.number).ok_or(BlobError::Busy)?;
        // Whoever wrote before may have written more meanwhile.
        let mut writer = Self::at(storage, Some((hash, size)), (content.number, ticket), 0);
        let (now, held) = writer.storage.resume(&hash, size)?.ok_or(BlobError::Busy)?;
        if now != content {
            return Err(BlobError::Busy);
        }
        while writer.written < held {
            let left = usize::try_from(held - writer.written).unwrap_or(READ_BYTES);
            let max = left.min(READ_BYTES);
            let bytes = match writer.storage.read(content.number, writer.written, max) {
                Err(StorageError::Corrupt { .. }) => {
                    // Better from the start than never.
                    writer.forget();
                    return Err(BlobError::Busy);
                }
                read => read?,
            };
            if bytes.is_empty() {
                break;
            }
            writer.hasher.update(&bytes);
            writer.written += bytes.len() as u64;
            writer.renew()?;
        }
        Ok(writer)
    }

    fn at(
        storage: Arc<dyn BlobStorage>,
        name: Option<(BlobHash, u64)>,
        (number, ticket): (u64, u64),
        written: u64,
    ) -> Self {
        Self {
            storage,
            name,
            number,
            ticket,
            written,
            hasher: Sha256::new(),
            gathered: Vec::new(),
            gathered_at: Instant::now(),
            is_done: false,
        }
    }

    /// How many bytes have come.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.written + self.gathered.len() as u64
    }

    /// Whether none has.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// If the disk fails, the blob becomes too large, or somebody else has taken it over.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let max = self.name.map_or(BLOB_BYTES_MAX, |(_, size)| size);
        if self.len() + bytes.len() as u64 > max {
            return Err(if self.name.is_some() {
                BlobError::WrongHash
            } else {
                BlobError::TooLarge
            });
        }
        self.renew()?;
        if self.gathered.is_empty() {
            self.gathered_at = Instant::now();
        }
        self.hasher.update(bytes);
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER_BYTES || self.gathered_at.elapsed() > GATHER_TIME {
            self.flush()?;
        }
        Ok(())
    }

    /// Makes what has come durable.
    ///
    /// # Errors
    /// If the disk fails, or somebody else has taken the blob over.
    pub fn flush(&mut self) -> Result<(), BlobError> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        self.renew()?;
        if !self.storage.append(self.number, self.written, &self.gathered)? {
            return Err(BlobError::Busy);
        }
        self.written += self.gathered.len() as u64;
        self.gathered = Vec::new();
        Ok(())
    }

    /// Makes a blob of what has come, whose name is what its bytes say.
    ///
    /// # Errors
    /// If the disk fails; or the bytes are not those of the name that it had from the start, then they
    /// are removed.
    pub fn finish(mut self) -> Result<BlobRef, BlobError> {
        self.flush()?;
        self.renew()?;
        let hash = BlobHash(self.hasher.clone().finalize().into());
        let size = self.written;
        if self.name.is_some_and(|name| name != (hash, size)) {
            self.forget();
            return Err(BlobError::WrongHash);
        }
        self.storage.keep(&hash, Content { number: self.number, size })?;
        self.is_done = true;
        Ok(BlobRef { hash, size, is_text: false })
    }

    /// As [`finish`](Self::finish), for one that may have begun without a name.
    ///
    /// # Errors
    /// If the disk fails; or the bytes are not those of `hash`, then they are removed.
    pub fn finish_as(mut self, hash: &BlobHash) -> Result<BlobRef, BlobError> {
        if self.hasher.clone().finalize().as_slice() != hash.0 {
            self.forget();
            return Err(BlobError::WrongHash);
        }
        self.finish()
    }

    fn renew(&self) -> Result<(), BlobError> {
        let is_ours = self.storage.claims().renew(self.number, self.ticket);
        if is_ours { Ok(()) } else { Err(BlobError::Busy) }
    }

    fn forget(&mut self) {
        self.is_done = true;
        if self.renew().is_err() {
            // It is somebody else's by now.
            return;
        }
        let name = self.name.map(|(hash, _)| hash);
        if let Err(error) = self.storage.forget(self.number, name.as_ref()) {
            tracing::warn!(code = error.code(), %error, "a part of a blob was not removed");
        }
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.is_done && self.name.is_none() {
            self.forget();
        } else if !self.is_done {
            // What is lost has to come again, no more.
            let _written = self.flush();
        }
        self.storage.claims().end(self.number, self.ticket);
    }
}

/// Stores all that `source` gives as a blob: as a text, if it is to be one and is UTF-8.
pub(crate) fn write_blob(
    storage: Arc<dyn BlobStorage>,
    mut source: impl Read,
    mut is_text: bool,
) -> Result<BlobRef, BlobError> {
    let mut writer = BlobWriter::begin(Arc::clone(&storage));
    let mut text = Utf8Check::default();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error.into()),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        is_text = is_text && text.take(bytes);
        writer.write(bytes)?;
    }
    // Before it is there, so that it cannot go with the last reference to the same content.
    storage.pin(&BlobHash(writer.hasher.clone().finalize().into()));
    Ok(BlobRef { is_text: is_text && text.is_whole(), ..writer.finish()? })
}

/// Looks whether bytes that come in pieces are UTF-8.
#[derive(Debug, Default)]
struct Utf8Check {
    /// The beginning of a character whose rest is to come.
    begun: Vec<u8>,
}

impl Utf8Check {
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        while !self.begun.is_empty() {
            let Some((first, rest)) = bytes.split_first() else { return true };
            self.begun.push(*first);
            bytes = rest;
            match std::str::from_utf8(&self.begun) {
                Ok(_) => self.begun.clear(),
                Err(error) if error.error_len().is_some() => return false,
                Err(_) => {}
            }
        }
        match std::str::from_utf8(bytes) {
            Ok(_) => true,
            Err(error) if error.error_len().is_some() => false,
            Err(error) => {
                self.begun.extend_from_slice(bytes.get(error.valid_up_to()..).unwrap_or_default());
                true
            }
        }
    }

    const fn is_whole(&self) -> bool {
        self.begun.is_empty()
    }
}

/// A blob to be read, from any place in it. Whoever reads it from the start to the end without a leap
/// gets an error there if the bytes are not those of its name. Reading fails once nothing refers to
/// the blob any more.
#[derive(Debug)]
pub struct BlobReader {
    storage: Arc<dyn BlobStorage>,
    hash: BlobHash,
    content: Content,
    at: u64,
    /// The bytes around `at`, and where they begin.
    page: Vec<u8>,
    page_at: u64,
    /// The hash so far, while everything was read in order.
    hasher: Option<Sha256>,
}

impl BlobReader {
    /// A reader at the start of a blob; none if the blob is not here.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn open(
        storage: Arc<dyn BlobStorage>,
        hash: BlobHash,
    ) -> Result<Option<Self>, StorageError> {
        let found = storage.find(&hash)?;
        Ok(found.map(|content| Self {
            storage,
            hash,
            content,
            at: 0,
            page: Vec::new(),
            page_at: 0,
            hasher: Some(Sha256::new()),
        }))
    }

    /// How many bytes the blob has.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.content.size
    }

    /// What is there at the present place, at least one byte but at the end.
    fn rest_of_page(&mut self) -> io::Result<&[u8]> {
        if self.at >= self.content.size {
            return Ok(&[]);
        }
        let is_inside = |at: u64, page: &[u8], page_at: u64| {
            at.checked_sub(page_at).is_some_and(|skip| skip < page.len() as u64)
        };
        if !is_inside(self.at, &self.page, self.page_at) {
            let page = self.storage.read(self.content.number, self.at, READ_BYTES);
            self.page = page.map_err(io::Error::other)?;
            self.page_at = self.at;
            if self.page.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the blob is gone"));
            }
        }
        let skip = usize::try_from(self.at - self.page_at).unwrap_or(usize::MAX);
        Ok(self.page.get(skip..).unwrap_or_default())
    }
}

impl Read for BlobReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at >= self.content.size
            && let Some(hasher) = self.hasher.take()
            && hasher.finalize().as_slice() != self.hash.0
        {
            return Err(io::Error::new(io::ErrorKind::InvalidData, BlobError::WrongHash));
        }
        let count = self.rest_of_page()?.read(buffer)?;
        self.at += count as u64;
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

impl Seek for BlobReader {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.content.size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        let outside = || io::Error::new(io::ErrorKind::InvalidInput, "before the start");
        let target = target.ok_or_else(outside)?;
        if target != self.at {
            self.hasher = None;
        }
        self.at = target;
        Ok(target)
    }
}

/// What a store sees of the blobs in its file.
#[derive(Debug)]
pub(crate) struct StoredBlobs(pub(crate) Arc<dyn BlobStorage>);

impl BlobSource for StoredBlobs {
    fn size(&self, hash: &BlobHash) -> Option<u64> {
        self.0.find(hash).ok().flatten().map(|content| content.size)
    }

    fn is_known(&self, hash: &BlobHash) -> Option<bool> {
        self.0.is_known(hash)
    }

    fn hold(&self, blob: &BlobRef) -> bool {
        // A value that cannot be brought back now may be so later.
        self.0.hold(blob).unwrap_or(false)
    }

    fn read(&self, hash: &BlobHash) -> Option<Arc<[u8]>> {
        let read = || {
            let Some(mut reader) = BlobReader::open(Arc::clone(&self.0), *hash)? else {
                return Ok(None);
            };
            let mut bytes = Vec::with_capacity(usize::try_from(reader.size()).unwrap_or(0));
            reader.read_to_end(&mut bytes)?;
            Ok::<_, BlobError>(Some(bytes.into()))
        };
        read().unwrap_or_else(|error| {
            tracing::error!(%hash, code = error.code(), %error, "a blob cannot be read");
            None
        })
    }
}
