//! Where a file is: what changes when it is copied, restored from a backup, or taken elsewhere.
//!
//! A place that differs without need costs one replica id; one that is the same although the file
//! was copied is noticed by the first relay that knows the other copy.

use std::fs;
use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

/// A file's machine, device, number and time of birth, as one hash: the file need not tell others on
/// which machine it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(pub [u8; 32]);

impl Place {
    /// The place of the file at `path`.
    ///
    /// # Errors
    /// If it is not there.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &[u8]| {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        };
        add(&machine());
        add(&identity(path, &metadata)?);
        // Not every file system knows it.
        let birth = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        add(&birth.map_or(0, |birth| birth.as_nanos()).to_le_bytes());
        Ok(Self(hasher.finalize().into()))
    }
}

/// What tells this machine from others, if the system says so.
fn machine() -> Vec<u8> {
    let files = ["/etc/machine-id", "/var/lib/dbus/machine-id"];
    let id = files.iter().find_map(|file| fs::read(file).ok()).filter(|id| !id.is_empty());
    let name = || std::env::var_os("COMPUTERNAME").map(|name| name.into_encoded_bytes());
    id.or_else(name).unwrap_or_default()
}

/// Which file it is on this machine.
#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
fn identity(_path: &Path, metadata: &fs::Metadata) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::MetadataExt;
    Ok([metadata.dev().to_le_bytes(), metadata.ino().to_le_bytes()].concat())
}

/// Which file it is on this machine: elsewhere by its name.
#[cfg(not(unix))]
fn identity(path: &Path, _metadata: &fs::Metadata) -> io::Result<Vec<u8>> {
    Ok(fs::canonicalize(path)?.into_os_string().into_encoded_bytes())
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_keeps_its_place_and_a_copy_has_another() {
        let folder = TempDir::new().unwrap();
        let (path, copy) = (folder.path().join("a"), folder.path().join("b"));
        fs::write(&path, "content").unwrap();
        let place = Place::of(&path).unwrap();
        fs::write(&path, "other content").unwrap();
        assert_eq!(Place::of(&path).unwrap(), place);
        fs::copy(&path, &copy).unwrap();
        assert_ne!(Place::of(&copy).unwrap(), place);
        assert!(Place::of(&folder.path().join("c")).is_err());
    }
}
