//! What can be wrong with a configuration.

use std::io;
use std::path::PathBuf;

use sds_sync::access::{InvalidKeyId, KeyringError, WeakSecret};
use sds_sync::certificate::CertificateError;

use super::InvalidAddress;
use crate::limits::InvalidLimit;

/// Why the relay cannot be run like this. Whoever configures it can help.
#[non_exhaustive]
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is no configuration.
    #[error("{}: {source}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, and in which line.
        source: Box<toml::de::Error>,
    },
    /// A limit on the command line or in the environment is none.
    #[error("{0} sets no limit: expected one of the keys of [limits], and a number")]
    LimitSetting(String),
    /// The variable for the port of the admin listener has none.
    #[error("SDS_ADMIN_PORT={0}: expected a number up to 65535")]
    AdminPort(String),
    /// The variable for the admin listener has no address.
    #[error("SDS_ADMIN={0}: {1}")]
    Admin(String, InvalidAddress),
    /// A limit has a value that does not work.
    #[error(transparent)]
    Limit(#[from] InvalidLimit),
    /// A host has no address.
    #[error("the host {host} has no address: {source}")]
    Address {
        /// The host.
        host: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// A certificate without a key, or the reverse.
    #[error("a certificate needs its key, and a key its certificate")]
    HalfCertificate,
    /// The certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// Nobody has said what tokens are signed with.
    #[error("there is no secret: set SDS_JWT_SECRET, or name a secret_file")]
    NoSecret,
    /// Nobody could say which secrets count.
    #[error(
        "there are secrets in {0} and in {1}: take one of them out; to replace a secret step by \
         step, keep [[keys]] alone"
    )]
    TwoPlaces(&'static str, &'static str),
    /// The secret is too short to be one.
    #[error("{from}: {source}")]
    Secret {
        /// Where it is from.
        from: String,
        /// What is wrong.
        source: WeakSecret,
    },
    /// The name of a key is none.
    #[error("keys: {0:?} is {1}")]
    KeyId(String, InvalidKeyId),
    /// The keys do not go together.
    #[error("keys: {0}")]
    Keyring(#[from] KeyringError),
    /// The key that is to sign is not there.
    #[error("signing_key: there is no key {0:?}")]
    NoSuchKey(String),
    /// The folder cannot be written to.
    #[error("data_dir: cannot write to {}: {source}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// Nobody could say which tokens were revoked.
    #[error("cannot read the revocations: {0}")]
    Revocations(#[source] io::Error),
    /// Not what can be logged.
    #[error("log_level: {0:?} is neither a level nor directives")]
    LogLevel(String),
}
