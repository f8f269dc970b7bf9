//! What a relay needs to start, what it finds in its folder, and why it does not start.

use std::fs::DirBuilder;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sds_sync::access::Keyring;
use sds_sync::certificate::{CertificateError, CertificateSource, LiveIdentity};
use sds_sync::limits::STOP_TIMEOUT;
use sds_sync::{StorageError, TransportError, new_file};

use crate::audit::Audit;
use crate::backup::{self, remove_leftovers};
use crate::limits::Limits;
use crate::metrics::Metrics;
use crate::revocations::Revocations;
use crate::store_log::StoreLog;

/// The name of the relay's file in its folder.
pub(crate) const LOG_FILE: &str = "relay.redb";

/// What a relay needs to know.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// What tokens are signed with: the first of them signs, and any of them may have.
    pub keys: Keyring,
    /// Who must have given them, if anybody in particular.
    pub issuer: Option<String>,
    /// Where to listen; port 0 is any that is free.
    pub listen: SocketAddr,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// The certificate.
    pub certificate: CertificateSource,
    /// What clients may do.
    pub limits: Limits,
    /// Where those who run the relay can reach it, if anywhere.
    pub admin: Option<SocketAddr>,
    /// How long clients may take to leave when the relay stops.
    pub drain: Duration,
}

impl RelayConfig {
    /// Any free port of this machine alone, with a self-signed certificate.
    #[must_use]
    pub fn new(keys: impl Into<Keyring>, data_dir: impl Into<PathBuf>) -> Self {
        Self {
            keys: keys.into(),
            issuer: None,
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data_dir: data_dir.into(),
            certificate: CertificateSource::SelfSigned,
            limits: Limits::default(),
            admin: None,
            drain: STOP_TIMEOUT,
        }
    }
}

/// Why a relay does not start. The operator can help.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The folder cannot be made.
    #[error("cannot use the data folder {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file cannot be opened.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// Nobody could say which tokens were revoked.
    #[error("cannot read the revocations: {0}")]
    Revocations(#[source] io::Error),
    /// What is done to the relay could not be written down.
    #[error("cannot write the audit log: {0}")]
    Audit(#[source] io::Error),
    /// The admin listener's address is taken.
    #[error("cannot listen for admins on {listen}: {source}")]
    Admin {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The address is taken, or the certificate does not fit its key.
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// Why.
        source: TransportError,
    },
    /// The runtime is about to end.
    #[error("the program is about to end")]
    Ending,
}

impl StartError {
    /// Whether what the relay keeps is not as it was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Storage(error) => matches!(error, StorageError::Corrupt { .. }),
            Self::Revocations(error) => error.kind() == io::ErrorKind::InvalidData,
            Self::Certificate(error) => !matches!(error, CertificateError::Io { .. }),
            _ => false,
        }
    }
}

/// What the relay's folder holds.
pub(super) struct Opened {
    pub(super) log: StoreLog,
    pub(super) identity: LiveIdentity,
    pub(super) revocations: Revocations,
    pub(super) audit: Arc<Audit>,
}

/// Opens everything in the folder, which is made if it is not there.
pub(super) fn open(config: &RelayConfig, metrics: Arc<Metrics>) -> Result<Opened, StartError> {
    let folder = &config.data_dir;
    create_private(folder).map_err(|source| StartError::Folder { path: folder.clone(), source })?;
    let log = StoreLog::open(&folder.join(LOG_FILE))?;
    // Of those who were killed while they restored it.
    new_file::remove_leftovers(&folder.join(LOG_FILE));
    // With the file open nobody else makes a backup of it.
    remove_leftovers(&folder.join(backup::FOLDER), Duration::ZERO);
    // With the file open no second relay can make another certificate at the same time.
    let identity = LiveIdentity::load(&config.certificate, folder)?;
    let revocations =
        Revocations::open(folder, SystemTime::now()).map_err(StartError::Revocations)?;
    let audit = Arc::new(Audit::open(folder, metrics).map_err(StartError::Audit)?);
    Ok(Opened { log, identity, revocations, audit })
}

/// Makes the folder, if it is not there, for its owner alone: everybody's stores are in it.
pub(crate) fn create_private(folder: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(folder)
}
