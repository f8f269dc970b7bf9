//! What a look at a store's file and one at a relay's file have in common: opening it so that nothing
//! changes, and noting what is damaged instead of giving up.
//!
//! Findings are whatever the one who looks calls them; their number is bounded.

use std::path::PathBuf;

use redb::ReadTransaction;
use sds_engine::BlobHash;

use crate::blob_rows::{self, Content};
use crate::database::{Database, Failure};
use crate::persistence::StorageError;
use crate::read_only::ReadOnlyFile;

/// The most findings that are told of; a file with more is not worth a longer list.
pub const FINDINGS_MAX: usize = 1_000;

/// Adds `finding` unless it is there already or there are too many.
pub fn note<F: PartialEq>(findings: &mut Vec<F>, finding: F) {
    if findings.len() < FINDINGS_MAX && !findings.contains(&finding) {
        findings.push(finding);
    }
}

/// What was read; or nothing, and `finding` is noted, if it is damaged.
///
/// # Errors
/// If it could not be read for another reason.
pub fn tolerant<T, F: PartialEq>(
    findings: &mut Vec<F>,
    outcome: Result<T, StorageError>,
    finding: F,
) -> Result<Option<T>, StorageError> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(StorageError::Corrupt { .. }) => {
            note(findings, finding);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The file at `path`, to be looked at and never changed, if `recognize` has nothing against it. Notes
/// `damaged` if the checksums of its pages do not match. Takes reading it once.
///
/// # Errors
/// If there is no such file, somebody has it to write, or it is no database at all, cannot be read, or
/// is not recognized.
pub fn open<F: PartialEq>(
    path: PathBuf,
    recognize: impl FnOnce(&ReadTransaction) -> Result<(), Failure>,
    findings: &mut Vec<F>,
    damaged: F,
) -> Result<Database, StorageError> {
    if !path.try_exists().map_err(|error| StorageError::from_io(&path, error))? {
        return Err(StorageError::NotFound { path });
    }
    let mut database = Database::open_on(Box::new(ReadOnlyFile(path)))?;
    database.read(recognize)?;
    if !database.check_integrity()? {
        note(findings, damaged);
    }
    Ok(database)
}

/// The blobs of `owner`, in order of hash. Notes what `damaged` says for each whose bytes are not those
/// of its name, and `unreadable` if not even their names can be read. Takes reading them once.
///
/// # Errors
/// If the file cannot be read.
pub fn look_at_blobs<F: PartialEq>(
    database: &Database,
    owner: u64,
    findings: &mut Vec<F>,
    unreadable: F,
    damaged: impl Fn(BlobHash) -> F,
) -> Result<Vec<(BlobHash, Content)>, StorageError> {
    let blobs = database.read(|read| blob_rows::list(read, owner));
    let blobs = tolerant(findings, blobs, unreadable)?.unwrap_or_default();
    for (hash, content) in &blobs {
        let is_it = database.read(|read| blob_rows::is_sound(read, hash, *content));
        if tolerant(findings, is_it, damaged(*hash))? == Some(false) {
            note(findings, damaged(*hash));
        }
    }
    Ok(blobs)
}
