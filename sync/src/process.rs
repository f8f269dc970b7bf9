//! What the programs share in dealing with the operating system.

use std::io::{self, Write};
use std::path::Path;

use tempfile::NamedTempFile;

/// Listens to the operating system; resolves when it asks the program to end. Needs a tokio runtime.
///
/// # Errors
/// If that is not to be had.
pub fn stop_requests() -> io::Result<impl Future<Output = io::Result<()>>> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        Ok(async move {
            tokio::select! {
                _ = terminate.recv() => Ok(()),
                _ = interrupt.recv() => Ok(()),
            }
        })
    }
    #[cfg(not(unix))]
    Ok(tokio::signal::ctrl_c())
}

/// Writes a file that only its owner can read, whole or not at all, unless there is one of this name.
/// So of several who write it at once all read the same afterwards. Content and name are on disk then.
///
/// # Errors
/// If it cannot be written.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut draft = NamedTempFile::new_in(path.parent().unwrap_or(path))?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    match draft.persist_noclobber(path) {
        Err(failed) if failed.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(failed) => Err(failed.error),
        Ok(_) => sync_folder(path.parent().unwrap_or(path)),
    }
}

/// Writes a file that only its owner can read in the place of the one of this name, whole or not at all.
/// Its content and its name are on disk then.
///
/// # Errors
/// If it cannot be written.
pub fn replace_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(path);
    let mut draft = NamedTempFile::new_in(folder)?;
    draft.write_all(content)?;
    draft.as_file().sync_all()?;
    draft.persist(path).map_err(|failed| failed.error)?;
    sync_folder(folder)
}

/// Puts the names in a folder on disk. Elsewhere a folder cannot be opened, and names are kept without.
fn sync_folder(folder: &Path) -> io::Result<()> {
    #[cfg(unix)]
    std::fs::File::open(folder)?.sync_all()?;
    #[cfg(not(unix))]
    let _kept = folder;
    Ok(())
}
