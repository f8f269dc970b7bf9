//! Files that commands write: whole or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use sds_sync::new_file::{folder_of, sync_folder};

/// Writes a file through `write`. One that was there stays as it is until the new one is complete
/// and on disk; what is no ordinary file, such as a pipe, is written to directly.
pub(crate) fn write_file(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<()> {
    if is_direct(path) {
        let mut out = BufWriter::new(File::options().write(true).open(path)?);
        write(&mut out)?;
        return out.flush();
    }
    // A link is followed, so that the file that it points to is the one replaced.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let mut builder = tempfile::Builder::new();
    if let Some(permissions) = permissions(&path) {
        builder.permissions(permissions);
    }
    let temporary = builder.tempfile_in(folder_of(&path).unwrap_or(&path))?;
    let mut out = BufWriter::new(temporary);
    write(&mut out)?;
    let temporary = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    temporary.as_file().sync_all()?;
    temporary.persist(&path)?;
    synced_if_possible(sync_folder(&path))
}

/// Whether what is there is no ordinary file, so that it is written to directly, as fast as it takes it.
pub(crate) fn is_direct(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| !meta.is_file())
}

/// The file is complete: that its folder cannot be read, or is of a kind that cannot be synced, is no failure.
fn synced_if_possible(synced: io::Result<()>) -> io::Result<()> {
    synced.or_else(|error| match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput => Ok(()),
        _ => Err(error),
    })
}

/// Those of the file that is replaced, or those that a new file usually gets.
#[cfg(unix)]
fn permissions(path: &Path) -> Option<Permissions> {
    use std::os::unix::fs::PermissionsExt;
    let former = fs::metadata(path).map(|meta| meta.permissions());
    Some(former.unwrap_or_else(|_| Permissions::from_mode(0o666)))
}

#[cfg(not(unix))]
fn permissions(_: &Path) -> Option<Permissions> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_that_cannot_be_synced_is_no_failure_of_the_file() {
        let rows = [
            (io::ErrorKind::PermissionDenied, true),
            (io::ErrorKind::InvalidInput, true),
            (io::ErrorKind::StorageFull, false),
        ];
        for (kind, is_well) in rows {
            assert_eq!(synced_if_possible(Err(kind.into())).is_ok(), is_well, "{kind}");
        }
    }

    /// Goal: a folder that may be written to and not read takes a file. (Root may read any.)
    #[cfg(unix)]
    #[test]
    fn a_file_is_written_into_a_folder_that_cannot_be_read() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        fs::set_permissions(folder.path(), Permissions::from_mode(0o300)).unwrap();
        let written = write_file(&path, |out| out.write_all(b"all"));
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        written.unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"all");
    }

    #[test]
    fn a_failed_write_leaves_the_former_file_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        write_file(&path, |out| out.write_all(b"first")).unwrap();
        let failed = write_file(&path, |out| {
            out.write_all(b"sec")?;
            Err(io::Error::other("in the middle"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        write_file(&path, |out| out.write_all(b"second")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
    }
}
