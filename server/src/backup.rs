//! Backups: all that a relay keeps, in one file that tells whether it is whole.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `SDSRELAY` |
//! | 2 | the format of the backup (u16 LE) |
//! | | for each table, in one order: 1, the length of its name (u32 LE), its name; then its rows |
//! | | for each row 2, the lengths of key and value (u32 LE each), key and value |
//! | 1, 8 | 3, and how many rows there were (u64 LE) |
//! | 32 | the blake3 of all that |
//!
//! A backup is of one moment, whatever is written to the relay meanwhile: one read transaction. It
//! is made and read in constant memory. It has its name only when it is whole and on disk, and so
//! has what is restored from it. What the relay took in after that moment is not in it: clients see
//! from the versions what is missing, and send it again.
//!
//! Not here: the certificate and its key, which are files of their own.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::fs::File;
use std::io::{self, BufReader, BufWriter, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redb::{
    Key, ReadTransaction, ReadableTable, TableDefinition, TableHandle, Value, WriteTransaction,
};
use sds_sync::StorageError;
use sds_sync::blob_rows::TableVisitor;
use sds_sync::database::{Database, Failure};
use sds_sync::limits::{
    FRAME_BYTES_MAX, FRAME_OVERHEAD_BYTES_MAX, STORE_ID_BYTES_MAX, SUBJECT_BYTES_MAX,
};
use sds_sync::new_file::{folder_of, sync_folder};

use crate::node::{LOG_FILE, create_private};
use crate::store_log::StoreLog;
use crate::store_log::tables::visit;

const MAGIC: &[u8; 8] = b"SDSRELAY";
const FORMAT: u16 = 1;
const TABLE: u8 = 1;
const ROW: u8 = 2;
const END: u8 = 3;
const HASH_BYTES: u64 = 32;

/// The longest key or name of a table, and the longest value, in bytes: what is beyond is no
/// backup.
const KEY_BYTES_MAX: u32 = 8 << 10;
const VALUE_BYTES_MAX: u32 = 32 << 20;

const _: () = assert!(SUBJECT_BYTES_MAX + STORE_ID_BYTES_MAX < KEY_BYTES_MAX as usize);
const _: () =
    assert!(2 * FRAME_BYTES_MAX <= VALUE_BYTES_MAX as usize + FRAME_OVERHEAD_BYTES_MAX * 2);

/// Why there is no backup, or none can be restored. Nothing has changed then.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum BackupError {
    /// The relay's file cannot be read or written.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The backup cannot be read or written.
    #[error("cannot use {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// There is a file of that name already.
    #[error("{} is there already: choose another name, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// The file is not a whole backup, or has changed since it was made.
    #[error("{} is no backup of a relay, or is damaged ({detail})", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        detail: &'static str,
    },
    /// The backup was made by a newer program.
    #[error("{} was made by a newer program: update this one", path.display())]
    FormatTooNew {
        /// The file.
        path: PathBuf,
    },
}

/// The folder for backups of a relay that runs, in its own.
pub(crate) const FOLDER: &str = "backups";

/// What the names of files begin and end with that are no backups yet.
const PREFIX: &str = ".backup.";
const SUFFIX: &str = ".new";

/// How old a file is that nobody is still making.
const LEFTOVER_AGE: Duration = Duration::from_hours(24);

/// Removes what those left in `folder` who were killed while they made a backup, and did nothing to
/// it for so long. Nobody may still be making it.
pub(crate) fn remove_leftovers(folder: &Path, age: Duration) {
    // They do no harm but take room, so a failure here does none either.
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let is_old = changed.is_none_or(|at| at.elapsed().unwrap_or_default() >= age);
        if is_old && name.starts_with(PREFIX) && name.ends_with(SUFFIX) {
            let _removed = std::fs::remove_file(entry.path());
        }
    }
}

impl BackupError {
    /// The stable name of the error.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Storage(error) => error.code(),
            Self::Io { .. } => "backup-io",
            Self::Exists { .. } => "backup-exists",
            Self::Damaged { .. } => "backup-damaged",
            Self::FormatTooNew { .. } => "backup-too-new",
        }
    }
}

/// What a backup has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackupReport {
    /// How many rows.
    pub rows: u64,
    /// How many bytes the file has.
    pub bytes: u64,
}

impl StoreLog {
    /// Writes a backup to the file `to`, which must not be there yet, while others go on reading
    /// and writing. Takes as long as copying the relay's file; what is written to the relay
    /// meanwhile makes that file larger, since it keeps what the backup still has to read.
    ///
    /// # Errors
    /// If the relay's file cannot be read, or the backup not be written; then there is no backup.
    pub fn backup(&self, to: &Path) -> Result<BackupReport, BackupError> {
        let faulty = |error| BackupError::Io { path: to.to_owned(), source: Arc::new(error) };
        if to.try_exists().map_err(faulty)? {
            return Err(BackupError::Exists { path: to.to_owned() });
        }
        let folder = folder_of(to).unwrap_or(to);
        remove_leftovers(folder, LEFTOVER_AGE);
        let made = tempfile::Builder::new().prefix(PREFIX).suffix(SUFFIX).tempfile_in(folder);
        let file = made.map_err(faulty)?;
        let out = Output::new(file.as_file().try_clone().map_err(faulty)?);
        // What the backup's disk fails with must not close the relay's file.
        let written = self.database.read(|read| {
            let mut backup = Writing { read, out, fault: None };
            match backup.write() {
                Err(failure) if backup.fault.is_none() => Err(failure),
                _ => Ok(backup.fault.map_or(Ok(backup.out.report), Err)),
            }
        })?;
        let report = written.map_err(faulty)?;
        file.as_file().sync_all().map_err(faulty)?;
        file.persist_noclobber(to).map_err(|error| match error.error.kind() {
            ErrorKind::AlreadyExists => BackupError::Exists { path: to.to_owned() },
            _ => faulty(error.error),
        })?;
        sync_folder(to).map_err(faulty)?;
        Ok(report)
    }
}

/// Writes a backup of the relay whose data is in the folder `data_dir`, and which does not run: a
/// relay that runs makes its backups itself ([`StoreLog::backup`]).
///
/// # Errors
/// Any [`BackupError`]; [`StorageError::Locked`] if the relay runs, [`StorageError::NotFound`] if
/// there is none.
pub fn backup(data_dir: &Path, to: &Path) -> Result<BackupReport, BackupError> {
    let path = data_dir.join(LOG_FILE);
    if !path.try_exists().map_err(|error| StorageError::from_io(&path, error))? {
        return Err(StorageError::NotFound { path }.into());
    }
    StoreLog::open(&path)?.backup(to)
}

/// Whether the file `from` is a whole backup, and what it has.
///
/// # Errors
/// If it is not, or cannot be read.
pub fn verify(from: &Path) -> Result<BackupReport, BackupError> {
    let mut input = Input::open(from)?;
    let mut rows = 0;
    let report = loop {
        match input.record()? {
            Record::Table(_) => {}
            Record::Row(..) => rows += 1,
            Record::End(counted) if counted == rows => break input.finish(rows)?,
            Record::End(_) => return Err(input.damaged("rows are missing")),
        }
    };
    Ok(report)
}

/// Restores a backup into the folder `data_dir`, which must have no data of a relay yet; makes the
/// folder if it is not there. Reads the backup twice: first to see that it is whole.
///
/// # Errors
/// Any [`BackupError`]; then there is no relay's file.
pub fn restore(from: &Path, data_dir: &Path) -> Result<BackupReport, BackupError> {
    let report = verify(from)?;
    let path = data_dir.join(LOG_FILE);
    let folder = |source| BackupError::Io { path: data_dir.to_owned(), source: Arc::new(source) };
    create_private(data_dir).map_err(folder)?;
    if path.try_exists().map_err(folder)? {
        return Err(BackupError::Exists { path });
    }
    let mut input = Input::open(from)?;
    let mut fault = None;
    let restored = Database::create_if_missing(&path, |write| {
        let mut restoring = Restoring { write, input: &mut input, next: None, fault: None };
        let restored = visit(&mut restoring);
        fault = restoring.fault;
        restored
    });
    match fault {
        Some(fault) => Err(fault),
        // A relay that was started meanwhile has made its own.
        None if !restored? => Err(BackupError::Exists { path }),
        None => Ok(report),
    }
}

/// Writes, counts and hashes.
struct Output {
    file: BufWriter<File>,
    hasher: blake3::Hasher,
    report: BackupReport,
}

impl Output {
    fn new(file: File) -> Self {
        let report = BackupReport { rows: 0, bytes: 0 };
        Self { file: BufWriter::new(file), hasher: blake3::Hasher::new(), report }
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.report.bytes += bytes.len() as u64;
        self.file.write_all(bytes)
    }

    fn record(&mut self, kind: u8, parts: &[&[u8]]) -> io::Result<()> {
        self.put(&[kind])?;
        for (part, max) in parts.iter().zip([KEY_BYTES_MAX, VALUE_BYTES_MAX]) {
            if part.len() > max as usize {
                // Nobody could restore it.
                return Err(io::Error::other("a row that is too long for a backup"));
            }
            let len = u32::try_from(part.len()).map_err(io::Error::other)?;
            self.put(&len.to_le_bytes())?;
        }
        parts.iter().try_for_each(|part| self.put(part))
    }

    fn finish(&mut self) -> io::Result<()> {
        self.put(&[END])?;
        self.put(&self.report.rows.to_le_bytes())?;
        let hash = self.hasher.finalize();
        self.put(hash.as_bytes())?;
        self.file.flush()
    }
}

/// A backup that is being made.
struct Writing<'a> {
    read: &'a ReadTransaction,
    out: Output,
    /// What the backup's own disk failed with.
    fault: Option<io::Error>,
}

const STOPPED: Failure = Failure::Corrupt("the backup cannot go on");

impl Writing<'_> {
    fn write(&mut self) -> Result<(), Failure> {
        self.attempt(|out| {
            out.put(MAGIC)?;
            out.put(&FORMAT.to_le_bytes())
        })?;
        visit(self)?;
        self.attempt(Output::finish)
    }

    fn attempt(&mut self, work: impl FnOnce(&mut Output) -> io::Result<()>) -> Result<(), Failure> {
        work(&mut self.out).map_err(|error| {
            self.fault = Some(error);
            STOPPED
        })
    }
}

impl TableVisitor for Writing<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Failure> {
        self.attempt(|out| out.record(TABLE, &[table.name().as_bytes()]))?;
        for row in self.read.open_table(table)?.iter()? {
            let (key, value) = row?;
            let (key, value) = (key.value(), value.value());
            let (key, value) = (K::as_bytes(&key), V::as_bytes(&value));
            self.attempt(|out| out.record(ROW, &[key.as_ref(), value.as_ref()]))?;
            self.out.report.rows += 1;
        }
        Ok(())
    }
}

/// What comes next in a backup.
enum Record {
    Table(Vec<u8>),
    Row(Vec<u8>, Vec<u8>),
    End(u64),
}

/// Reads and hashes.
struct Input {
    path: PathBuf,
    file: BufReader<File>,
    hasher: blake3::Hasher,
    read: u64,
}

impl Input {
    fn open(path: &Path) -> Result<Self, BackupError> {
        let opened = File::open(path).map_err(|error| io_error(path, error))?;
        let (file, hasher) = (BufReader::new(opened), blake3::Hasher::new());
        let mut input = Self { path: path.to_owned(), file, hasher, read: 0 };
        if input.take::<8>()? != *MAGIC {
            return Err(input.damaged("it does not begin as one"));
        }
        match u16::from_le_bytes(input.take()?) {
            FORMAT => Ok(input),
            newer if newer > FORMAT => Err(BackupError::FormatTooNew { path: path.to_owned() }),
            _ => Err(input.damaged("an unknown format")),
        }
    }

    fn record(&mut self) -> Result<Record, BackupError> {
        match self.take::<1>()? {
            [TABLE] => {
                let len = self.len(KEY_BYTES_MAX)?;
                Ok(Record::Table(self.bytes(len)?))
            }
            [ROW] => {
                let (key, value) = (self.len(KEY_BYTES_MAX)?, self.len(VALUE_BYTES_MAX)?);
                Ok(Record::Row(self.bytes(key)?, self.bytes(value)?))
            }
            [END] => Ok(Record::End(u64::from_le_bytes(self.take()?))),
            _ => Err(self.damaged("an unknown record")),
        }
    }

    /// Checks the hash, and that nothing follows it.
    fn finish(&mut self, rows: u64) -> Result<BackupReport, BackupError> {
        let hash = self.hasher.finalize();
        let mut rest = Vec::new();
        let read = (&mut self.file).take(HASH_BYTES + 1).read_to_end(&mut rest);
        read.map_err(|error| io_error(&self.path, error))?;
        if rest != hash.as_bytes() {
            return Err(self.damaged("its hash does not match"));
        }
        Ok(BackupReport { rows, bytes: self.read + HASH_BYTES })
    }

    fn len(&mut self, max: u32) -> Result<u32, BackupError> {
        let len = u32::from_le_bytes(self.take()?);
        if len > max { Err(self.damaged("a row that is too long")) } else { Ok(len) }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BackupError> {
        let mut bytes = [0; N];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn bytes(&mut self, len: u32) -> Result<Vec<u8>, BackupError> {
        let mut bytes = vec![0; len as usize];
        self.fill(&mut bytes)?;
        Ok(bytes)
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), BackupError> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => self.damaged("it ends too early"),
            _ => io_error(&self.path, error),
        })?;
        self.hasher.update(bytes);
        self.read += bytes.len() as u64;
        Ok(())
    }

    fn damaged(&self, detail: &'static str) -> BackupError {
        BackupError::Damaged { path: self.path.clone(), detail }
    }
}

/// A relay's file that is being made from a backup.
struct Restoring<'a> {
    write: &'a WriteTransaction,
    input: &'a mut Input,
    /// The record after the last row of a table.
    next: Option<Record>,
    /// What is wrong with the backup.
    fault: Option<BackupError>,
}

impl Restoring<'_> {
    fn record(&mut self) -> Result<Record, Failure> {
        if let Some(next) = self.next.take() {
            return Ok(next);
        }
        self.input.record().map_err(|error| self.stop(error))
    }

    fn stop(&mut self, error: BackupError) -> Failure {
        self.fault = Some(error);
        STOPPED
    }
}

impl TableVisitor for Restoring<'_> {
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Failure> {
        let Record::Table(name) = self.record()? else {
            let error = self.input.damaged("a table is missing");
            return Err(self.stop(error));
        };
        if name != table.name().as_bytes() {
            let error = self.input.damaged("another table is expected");
            return Err(self.stop(error));
        }
        let mut rows = self.write.open_table(table)?;
        loop {
            let (key, value) = match self.record()? {
                Record::Row(key, value) => (key, value),
                next => {
                    self.next = Some(next);
                    return Ok(());
                }
            };
            let fits = |width: Option<usize>, bytes: &[u8]| width.is_none_or(|w| w == bytes.len());
            if !fits(K::fixed_width(), &key) || !fits(V::fixed_width(), &value) {
                let error = self.input.damaged("a row of another shape");
                return Err(self.stop(error));
            }
            rows.insert(K::from_bytes(&key), V::from_bytes(&value))?;
        }
    }
}

fn io_error(path: &Path, error: io::Error) -> BackupError {
    BackupError::Io { path: path.to_owned(), source: Arc::new(error) }
}

#[cfg(test)]
mod tests;
