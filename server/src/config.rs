//! The configuration of the program: defaults, a TOML file, the environment, the command line; each
//! wins over those before it.
//!
//! A [`Settings`] is what the file says, with every key; the environment and the command line are
//! laid over it. A key that nobody knows is an error that says where it is. Paths in the file start
//! at the file's own folder. Secrets are never part of what is printed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use sds_sync::certificate::{CertificateSource, LiveIdentity};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

use crate::limits::Limits;
use crate::node::RelayConfig;
use crate::revocations;

mod command_line;
mod error;
mod keys;

pub use command_line::{
    AdminAddress, Command, CommandLine, InvalidAddress, InvalidLifetime, ServeArgs, TokenArgs,
    parse_lifetime,
};
pub use error::ConfigError;
pub use keys::{EnvironmentSecret, KeySettings};

/// The variable that holds the secret. There is no flag for it: flags show in the list of
/// processes.
pub const SECRET_VARIABLE: &str = "SDS_JWT_SECRET";

/// Other names of the variable for the data folder, which the one of the flag wins over.
const DATA_DIR_VARIABLES: [&str; 2] = ["SDS_PERSISTENCE_DIR", "SDS_PERSIST_DIR"];

/// The variables for the admin listener's address, for its port and for both. No flag stands for
/// them, as `--admin-host` is to win over the variable for both.
const ADMIN_VARIABLES: [&str; 3] = ["SDS_ADMIN_HOST", "SDS_ADMIN_PORT", "SDS_ADMIN"];

/// What variables that set a limit begin with; its key in capitals follows.
const LIMIT_PREFIX: &str = "SDS_LIMITS_";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The address to listen on; a name is looked up. Default 127.0.0.1.
    pub host: String,
    /// The UDP port to listen on; 0 is any that is free. Default 3000.
    pub port: u16,
    /// The folder for everything that the relay keeps. Default `sds-relay-data`.
    pub data_dir: PathBuf,
    /// Who must have given a token for it to be accepted. Default: anybody who has the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// The `kid` of the key that signs. Default: the first one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signing_key: Option<String>,
    /// How long clients may take to leave when the relay stops, in seconds. Default 5.
    pub drain_seconds: u32,
    /// How log lines are written. Default text.
    pub log_format: LogFormat,
    /// What is logged: a level, or directives of `tracing`. Default info.
    pub log_level: String,
    /// The certificate. Default: a self-signed one is made and kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsSettings>,
    /// What tokens are signed with, if the environment and the command line say nothing.
    pub keys: Vec<KeySettings>,
    /// The admin listener.
    pub admin: AdminSettings,
    /// What clients may do.
    pub limits: Limits,
    /// The one secret, from the environment. There are no `keys` then, nor another secret.
    #[serde(skip)]
    pub secret: Option<EnvironmentSecret>,
    /// The file with the one secret, if the environment or the command line names it. The same.
    #[serde(skip)]
    pub secret_file: Option<PathBuf>,
}

/// A certificate from files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// A PEM file with the certificate and those that vouch for it.
    pub certificate: PathBuf,
    /// A PEM file with its private key.
    pub key: PathBuf,
}

/// The listener for those who run the relay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminSettings {
    /// Its address. Default 127.0.0.1.
    pub host: String,
    /// Its TCP port. Default: there is no such listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".to_owned(),
            port: 3000,
            data_dir: "sds-relay-data".into(),
            issuer: None,
            signing_key: None,
            drain_seconds: 5,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            tls: None,
            keys: Vec::new(),
            admin: AdminSettings::default(),
            limits: Limits::default(),
            secret: None,
            secret_file: None,
        }
    }
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self { host: "127.0.0.1".to_owned(), port: None }
    }
}

impl AdminSettings {
    fn lay_over(&mut self, host: Option<String>, port: Option<u16>, both: Option<AdminAddress>) {
        set(&mut self.host, host);
        self.port = port.or(self.port);
        if let Some(AdminAddress { host, port }) = both {
            *self = Self { host, port: Some(port) };
        }
    }
}

impl Settings {
    /// Reads the file that `args` name, and lays `environment` and `args` over it. Of the
    /// environment only what no flag stands for is looked at; `args` have the rest.
    ///
    /// # Errors
    /// If the file is none, or a key or a value is none.
    pub fn gather(
        args: &ServeArgs,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = match &args.config {
            Some(path) => Self::read(path)?,
            None => Self::default(),
        };
        let mut limits = BTreeMap::new();
        let mut folders = [None, None];
        let mut admin = [None, None, None];
        for (name, value) in environment.into_iter().filter(|(_, value)| !value.is_empty()) {
            if name == SECRET_VARIABLE {
                settings.secret = Some(EnvironmentSecret(value));
            } else if let Some(rank) = DATA_DIR_VARIABLES.iter().position(|known| *known == name) {
                folders[rank] = Some(value);
            } else if let Some(which) = ADMIN_VARIABLES.iter().position(|known| *known == name) {
                admin[which] = Some(value);
            } else if let Some(key) = name.strip_prefix(LIMIT_PREFIX) {
                limits.insert(key.to_lowercase(), (format!("{name}={value}"), value));
            }
        }
        for text in &args.limits {
            let (key, value) =
                text.split_once('=').ok_or_else(|| ConfigError::LimitSetting(text.clone()))?;
            limits.insert(key.to_owned(), (format!("--limit {text}"), value.to_owned()));
        }
        for (key, (said, value)) in limits {
            settings.limits = with_limit(&settings.limits, &key, &value)
                .ok_or(ConfigError::LimitSetting(said))?;
        }
        let folder = folders.into_iter().flatten().next();
        set(&mut settings.data_dir, folder.map(PathBuf::from));
        let [host, port, both] = admin;
        let port = port.map(|port| port.parse().map_err(|_| ConfigError::AdminPort(port)));
        let both = both.map(|both| both.parse().map_err(|error| ConfigError::Admin(both, error)));
        settings.admin.lay_over(host, port.transpose()?, both.transpose()?);
        settings.lay_over(args)?;
        Ok(settings)
    }

    fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let mut settings: Self = toml::from_str(&text).map_err(|source| ConfigError::Syntax {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut paths = vec![&mut settings.data_dir];
        paths.extend(settings.keys.iter_mut().map(|key| &mut key.secret_file));
        paths.extend(settings.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]));
        paths.into_iter().for_each(|path| *path = folder.join(&*path));
        Ok(settings)
    }

    fn lay_over(&mut self, args: &ServeArgs) -> Result<(), ConfigError> {
        let args = args.clone();
        let (certificate, key) =
            self.tls.take().map_or((None, None), |tls| (Some(tls.certificate), Some(tls.key)));
        self.tls = match (args.cert.or(certificate), args.key.or(key)) {
            (Some(certificate), Some(key)) => Some(TlsSettings { certificate, key }),
            (None, None) => None,
            _ => return Err(ConfigError::HalfCertificate),
        };
        self.secret_file = args.secret_file;
        set(&mut self.host, args.host);
        set(&mut self.port, args.port);
        set(&mut self.data_dir, args.data_dir);
        set(&mut self.drain_seconds, args.drain_seconds);
        set(&mut self.log_format, args.log_format);
        set(&mut self.log_level, args.log_level);
        self.admin.lay_over(args.admin_host, args.admin_port, args.admin);
        self.issuer = args.issuer.or(self.issuer.take()).filter(|issuer| !issuer.is_empty());
        Ok(())
    }

    /// What the relay needs to know. Reads the secrets.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn to_relay_config(&self) -> Result<RelayConfig, ConfigError> {
        self.limits.check()?;
        let admin = self.admin.port.map(|port| address(&self.admin.host, port)).transpose()?;
        Ok(RelayConfig {
            keys: self.keyring()?,
            issuer: self.issuer.clone(),
            listen: address(&self.host, self.port)?,
            data_dir: self.data_dir.clone(),
            certificate: self.certificate(),
            limits: self.limits.clone(),
            admin,
            drain: Duration::from_secs(self.drain_seconds.into()),
        })
    }

    /// Everything that is wrong, also in the files that are named. Starts and changes nothing.
    #[must_use]
    pub fn problems(&self) -> Vec<ConfigError> {
        let certificate = LiveIdentity::check(&self.certificate(), &self.data_dir);
        let admin =
            self.admin.port.map_or(Ok(()), |port| address(&self.admin.host, port).map(drop));
        let checks = [
            self.limits.check().map_err(Into::into),
            self.keyring().map(drop),
            address(&self.host, self.port).map(drop),
            admin,
            certificate.map_err(Into::into),
            revocations::check(&self.data_dir).map_err(ConfigError::Revocations),
            self.filter().map(drop),
            check_writable(&self.data_dir),
        ];
        checks.into_iter().filter_map(Result::err).collect()
    }

    /// What is logged.
    ///
    /// # Errors
    /// If the level is none.
    pub fn filter(&self) -> Result<EnvFilter, ConfigError> {
        EnvFilter::try_new(&self.log_level)
            .map_err(|_| ConfigError::LogLevel(self.log_level.clone()))
    }

    /// All keys and their values as a TOML file, without secrets.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let keys = self.secret_files();
        // Texts, numbers and paths are all there is; a path that is no text has no such form.
        toml::to_string(&Self { keys, ..self.clone() }).unwrap_or_default()
    }

    fn certificate(&self) -> CertificateSource {
        self.tls.as_ref().map_or(CertificateSource::SelfSigned, |tls| CertificateSource::Files {
            chain: tls.certificate.clone(),
            key: tls.key.clone(),
        })
    }
}

fn set<T>(value: &mut T, over: Option<T>) {
    if let Some(over) = over {
        *value = over;
    }
}

/// `limits` with another value for one key. None if there is no such key, or no such value.
fn with_limit(limits: &Limits, key: &str, value: &str) -> Option<Limits> {
    let mut table = toml::Table::try_from(limits).ok()?;
    let value: i64 = value.trim().parse().ok()?;
    *table.get_mut(key)? = value.into();
    table.try_into().ok()
}

fn address(host: &str, port: u16) -> Result<SocketAddr, ConfigError> {
    let failed = |source| ConfigError::Address { host: host.to_owned(), source };
    let mut addresses = (host, port).to_socket_addrs().map_err(failed)?;
    addresses.next().ok_or_else(|| failed(io::ErrorKind::AddrNotAvailable.into()))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    fs::read_to_string(path).map_err(failed)
}

/// Checks that files can be made in the folder, or where it would be made.
fn check_writable(folder: &Path) -> Result<(), ConfigError> {
    let nearest = folder.ancestors().find(|ancestor| ancestor.exists());
    // A relative path starts where the program runs.
    let nearest = nearest.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let made = tempfile::tempfile_in(nearest);
    made.map(drop).map_err(|source| ConfigError::Folder { path: nearest.to_owned(), source })
}

#[cfg(test)]
mod tests;
