//! The local socket beside a store's file, at which the process that owns the file serves others.
//!
//! On Unix it is `<file>.sock`, for the file's owner alone. A path that is too long for a socket, or a
//! file system without sockets, is got round: the socket then is in a folder for such things, and
//! `<file>.sock` is a symbolic link to it. On Windows it is a named pipe, named by a hash of the path.
//!
//! Invariants:
//! - L1. Only a process that has the file open makes a socket, or replaces one. So what a killed owner left
//!   is replaced without asking, and never somebody's who is still there.
//! - L2. A process removes the socket alone that it has made: it may have lost the file since, after a
//!   failure of the disk, and another one listens there.

use std::io;
use std::path::{Path, PathBuf};

use interprocess::ConnectWaitMode;
use interprocess::local_socket::tokio::{self, Listener};
use interprocess::local_socket::traits::StreamCommon;
use interprocess::local_socket::{ConnectOptions, ListenerOptions, Name, Stream};

use crate::limits::OWNER_TIMEOUT;

pub(crate) use platform::Made;

/// Where the owner of a store's file can be met.
#[derive(Clone, Debug)]
pub(crate) struct LocalAddress {
    /// The store's file.
    file: PathBuf,
}

impl LocalAddress {
    /// The address for a store's file.
    pub(crate) fn of(file: &Path) -> Self {
        Self { file: file.to_owned() }
    }

    /// Listens, in the place of whoever did before (L1); says what was made for that, and is to be removed in
    /// the end. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the operating system refuses.
    pub(crate) fn listen(&self) -> io::Result<(Listener, Made)> {
        platform::listen(&self.file)
    }

    /// Connects to whoever listens, and blocks meanwhile, but for no longer than [`OWNER_TIMEOUT`].
    ///
    /// # Errors
    /// If nobody listens, or somebody who takes in nobody, or whom the file does not belong to.
    pub(crate) fn connect(&self) -> io::Result<Stream> {
        let address = platform::resolve(&self.file)?;
        let options = ConnectOptions::new().name(platform::name(&address)?);
        let stream = options.wait_mode(ConnectWaitMode::Timeout(OWNER_TIMEOUT)).connect_sync()?;
        platform::check_owner(&self.file, &stream)?;
        Ok(stream)
    }

    /// Connects like [`connect`](Self::connect), without blocking. Needs a tokio runtime.
    ///
    /// # Errors
    /// If nobody listens, or somebody whom the file does not belong to.
    pub(crate) async fn connect_async(&self) -> io::Result<tokio::Stream> {
        let address = platform::resolve(&self.file)?;
        let options = ConnectOptions::new().name(platform::name(&address)?);
        let stream = options.connect_tokio().await?;
        platform::check_owner(&self.file, &stream)?;
        Ok(stream)
    }
}

fn listener_at(name: Name<'_>) -> ListenerOptions<'_> {
    // Whoever listens removes the name itself, if it is still that of its own socket (L2).
    ListenerOptions::new().name(name).reclaim_name(false)
}

#[cfg(unix)]
mod platform {
    use std::fs;
    use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};

    use interprocess::local_socket::{GenericFilePath, ToFsName};
    use interprocess::os::unix::local_socket::ListenerOptionsExt;

    use super::{Listener, Name, Path, PathBuf, StreamCommon, io, listener_at};
    use crate::random;

    /// How many bytes a socket's path may have anywhere.
    const PATH_BYTES_MAX: usize = 100;

    pub(super) fn name(path: &Path) -> io::Result<Name<'_>> {
        path.to_fs_name::<GenericFilePath>()
    }

    /// What was made to listen.
    #[derive(Debug)]
    pub(crate) enum Made {
        /// A socket beside the file, and its device and number. As long as it listens no other has these.
        Beside(PathBuf, (u64, u64)),
        /// A socket elsewhere, of a name that no other has, and a link to it.
        Elsewhere { link: PathBuf, socket: PathBuf },
    }

    impl Made {
        /// Removes it, as far as it is still there (L2); while it still listens.
        pub(crate) fn remove(&self) {
            // What is not there need not go, and a leftover does no harm.
            match self {
                Self::Beside(path, made) => {
                    if identity(path).is_ok_and(|there| there == *made) {
                        let _removed = fs::remove_file(path);
                    }
                }
                Self::Elsewhere { link, socket } => {
                    if fs::read_link(link).is_ok_and(|there| there == *socket) {
                        let _removed = fs::remove_file(link);
                    }
                    let _removed = fs::remove_file(socket);
                }
            }
        }
    }

    pub(super) fn listen(file: &Path) -> io::Result<(Listener, Made)> {
        let beside = beside(file);
        remove_former(&beside);
        if fits(&beside)
            && let Ok(listener) = bind(&beside)
        {
            let identity = identity(&beside)?;
            return Ok((listener, Made::Beside(beside, identity)));
        }
        let socket = folder_for_sockets().join(format!("sds-{:016x}.sock", random::number()));
        let listener = bind(&socket)?;
        let linked = symlink(&socket, &beside);
        let made = Made::Elsewhere { link: beside, socket };
        linked.inspect_err(|_| made.remove())?;
        Ok((listener, made))
    }

    pub(super) fn resolve(file: &Path) -> io::Result<PathBuf> {
        let beside = beside(file);
        if fits(&beside) { Ok(beside) } else { fs::read_link(beside) }
    }

    /// Removes what a former owner has left.
    fn remove_former(beside: &Path) {
        // Somebody else's link could lead anywhere.
        if let Ok(elsewhere) = fs::read_link(beside)
            && is_made_here(&elsewhere)
        {
            let _removed = fs::remove_file(elsewhere);
        }
        let _removed = fs::remove_file(beside);
    }

    fn identity(path: &Path) -> io::Result<(u64, u64)> {
        let found = fs::symlink_metadata(path)?;
        Ok((found.dev(), found.ino()))
    }

    /// A socket in a folder that others may write to could be anybody's.
    pub(super) fn check_owner(file: &Path, stream: &impl StreamCommon) -> io::Result<()> {
        let owner = fs::metadata(file)?.uid();
        match stream.peer_creds()?.euid() {
            Some(user) if user != owner && user != 0 => {
                Err(io::Error::from(io::ErrorKind::PermissionDenied))
            }
            _ => Ok(()),
        }
    }

    /// A socket that its owner alone may use.
    fn bind(path: &Path) -> io::Result<Listener> {
        listener_at(name(path)?).mode(0o600).create_tokio()
    }

    fn beside(file: &Path) -> PathBuf {
        let mut path = file.as_os_str().to_owned();
        path.push(".sock");
        path.into()
    }

    fn fits(path: &Path) -> bool {
        path.as_os_str().len() <= PATH_BYTES_MAX
    }

    fn is_made_here(socket: &Path) -> bool {
        let is_socket =
            fs::symlink_metadata(socket).is_ok_and(|found| found.file_type().is_socket());
        is_socket && socket.parent() == Some(&folder_for_sockets())
    }

    fn folder_for_sockets() -> PathBuf {
        let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let folder = folder.filter(|folder| folder.is_dir() && folder.as_os_str().len() < 64);
        folder.unwrap_or_else(std::env::temp_dir)
    }
}

#[cfg(windows)]
mod platform {
    use interprocess::local_socket::{GenericNamespaced, ToNsName};

    use super::{Listener, Name, Path, PathBuf, StreamCommon, io, listener_at};

    pub(super) fn name(path: &Path) -> io::Result<Name<'static>> {
        let path = std::fs::canonicalize(path)?;
        let hash = blake3::hash(path.as_os_str().as_encoded_bytes()).to_hex();
        format!("sds-{hash}").to_ns_name::<GenericNamespaced>()
    }

    /// A named pipe goes with the last process that has it.
    #[derive(Debug)]
    pub(crate) struct Made;

    impl Made {
        /// Elsewhere there is something to remove.
        pub(crate) const fn remove(&self) {}
    }

    pub(super) fn listen(file: &Path) -> io::Result<(Listener, Made)> {
        Ok((listener_at(name(file)?).create_tokio()?, Made))
    }

    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(super) fn resolve(file: &Path) -> io::Result<PathBuf> {
        Ok(file.to_owned())
    }

    #[expect(clippy::unnecessary_wraps, reason = "elsewhere it can fail")]
    pub(super) fn check_owner(_file: &Path, _stream: &impl StreamCommon) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use socket2::{Domain, SockAddr, Socket, Type};

    use super::*;

    /// Goal: whoever asks an owner that was stopped, and takes in nobody, is told so, and may look for the
    /// next one. Method: a socket at which all places are taken.
    #[test]
    fn an_owner_that_was_stopped_holds_nobody_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("s.sds");
        std::fs::write(&file, []).unwrap();
        let at = SockAddr::unix(folder.path().join("s.sds.sock")).unwrap();
        let socket = || Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        let owner = socket();
        owner.bind(&at).unwrap();
        owner.listen(0).unwrap();
        let mut waiting = Vec::new();
        loop {
            let next = socket();
            next.set_nonblocking(true).unwrap();
            if next.connect(&at).is_err() {
                break;
            }
            waiting.push(next);
        }
        let (told, was_told) = channel();
        std::thread::spawn(move || told.send(LocalAddress::of(&file).connect().is_err()));
        assert_eq!(was_told.recv_timeout(Duration::from_secs(60)), Ok(true));
    }
}
