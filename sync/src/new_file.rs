//! Files that are made whole before they have their name, and what is left of those that were not.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use tempfile::{NamedTempFile, TempPath};

use crate::persistence::StorageError;
use crate::random;

/// How much of a file's name is in those of its temporary files, in bytes: with what follows they fit
/// any file system.
const TEMPORARY_PREFIX_BYTES_MAX: usize = 200;

/// How old a temporary file is that nobody is still making.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// Makes a file whole, and only then gives it its name (D1). If somebody else was faster, theirs
/// stays, and this returns `false`.
pub(crate) fn make_whole(
    path: &Path,
    fill: impl FnOnce(&Path) -> Result<(), StorageError>,
) -> Result<bool, StorageError> {
    let folder = folder_of(path).unwrap_or(path);
    fs::create_dir_all(folder).map_err(|error| StorageError::from_io(folder, error))?;
    remove_leftovers(path);
    let temporary = temporary_name(path);
    let named = fill(&temporary).and_then(|()| {
        give_name(&temporary, path).map_err(|error| StorageError::from_io(path, error))
    });
    // Either it has its name now, or it is not wanted; a leftover does no harm.
    let _removed = fs::remove_file(&temporary);
    let is_this = named?;
    sync_folder(path).map_err(|error| StorageError::from_io(path, error))?;
    Ok(is_this)
}

/// Gives a file its name unless there is a file of that name, and says whether it has it now.
fn give_name(temporary: &Path, path: &Path) -> io::Result<bool> {
    match fs::hard_link(temporary, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        // What a file system without hard links says is not the same everywhere.
        Err(error)
            if !matches!(
                error.kind(),
                ErrorKind::NotFound
                    | ErrorKind::StorageFull
                    | ErrorKind::QuotaExceeded
                    | ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            if path.try_exists()? {
                Ok(false)
            } else {
                fs::rename(temporary, path).map(|()| true)
            }
        }
        outcome => outcome.map(|()| true),
    }
}

/// A name for a temporary file beside a file, which somebody removes if its maker was killed.
pub(crate) fn temporary_name(path: &Path) -> PathBuf {
    path.with_file_name(format!("{}{:016x}.new", temporary_prefix(path), random::number()))
}

/// What the names of temporary files begin with: the file's own name, unless that is too long.
fn temporary_prefix(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let end = name.floor_char_boundary(TEMPORARY_PREFIX_BYTES_MAX);
    format!("{}.", name.get(..end).unwrap_or_default())
}

/// Removes what makers of this file left behind that were killed a day ago or earlier.
pub fn remove_leftovers(path: &Path) {
    let prefix = temporary_prefix(path);
    let Some(folder) = folder_of(path) else { return };
    // They do no harm, so neither does a failure here.
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let random = name.strip_prefix(&prefix).and_then(|rest| rest.strip_suffix(".new"));
        let is_ours = random.is_some_and(|digits| {
            digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit())
        });
        let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
        let age = made.and_then(|made| SystemTime::now().duration_since(made).ok());
        if is_ours && age.is_some_and(|age| age > LEFTOVER_AGE) {
            let _removed = fs::remove_file(entry.path());
        }
    }
}

/// Writes a file that only its owner can read, whole or not at all, unless there is one of this name.
/// So of several who write it at once all read the same afterwards. Content and name are on disk then.
///
/// # Errors
/// If it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    match draft(path, content)?.persist_noclobber(path) {
        Err(failed) if failed.error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
        Ok(_) => sync_folder(path),
    }
}

/// Writes a file that only its owner can read in the place of the one of this name, whole or not at all.
/// Its content and its name are on disk then.
///
/// # Errors
/// If it cannot be written.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    draft(path, content)?.persist(path).map_err(|failed| failed.error)?;
    sync_folder(path)
}

/// A file with this content, on disk, that has yet to get its name.
fn draft(path: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    remove_leftovers(path);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let temporary = temporary_name(path);
    let file = options.open(&temporary)?;
    let mut draft = NamedTempFile::from_parts(file, TempPath::try_from_path(temporary)?);
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    Ok(draft)
}

/// The folder of a file, also of one that is named without.
#[must_use]
pub fn folder_of(path: &Path) -> Option<&Path> {
    path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
}

/// Makes the name of a new file durable, not only its content. Elsewhere than on Unix a folder cannot be
/// opened, and names are kept without.
///
/// # Errors
/// If the folder cannot be synced.
pub fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix)
        && let Some(folder) = folder_of(path)
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn what_its_owner_alone_may_read_is_written_once_or_replaced_whole() {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("f");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace_private(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_that_is_named_without_a_folder_is_in_this_one() {
        let here = Some(Path::new("."));
        assert_eq!((folder_of(Path::new("f")), folder_of(Path::new("/"))), (here, None));
        sync_folder(Path::new("f")).unwrap();
    }

    #[test]
    fn old_leftovers_are_removed_and_nothing_else_is() {
        let folder = TempDir::new().unwrap();
        let old = SystemTime::now() - 2 * LEFTOVER_AGE;
        let fill = |path: &Path| {
            File::create(path).unwrap();
            Ok(())
        };
        let rows = [
            ("f.0123456789abcdef.new", old, false),
            ("f.fedcba9876543210.new", SystemTime::now(), true),
            ("f.notes.new", old, true),
            ("g.0123456789abcdef.new", old, true),
        ];
        let makers: [&dyn Fn(&Path); 2] =
            [&|path| assert!(make_whole(path, fill).unwrap()), &|path| {
                replace_private(path, b"").unwrap()
            }];
        for make in makers {
            for (name, time, _) in rows {
                File::create(folder.path().join(name)).unwrap().set_modified(time).unwrap();
            }
            make(&folder.path().join("f"));
            for (name, _, stays) in rows {
                assert_eq!(folder.path().join(name).exists(), stays, "{name}");
            }
        }
    }
}
