//! The command line and the environment of `sds-relay`.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sds_sync::{InvalidStoreId, StoreId};

use crate::limits::Limits;
use crate::node::RelayConfig;
use sds_sync::access::{Grant, Scope, Secret, UnknownScope, WeakSecret};
use sds_sync::certificate::CertificateSource;

/// The variable that holds the secret. There is no flag for it: flags show in the list of
/// processes.
const SECRET_VARIABLE: &str = "SDS_JWT_SECRET";

/// Stores and forwards the changes of shared data stores.
///
/// The secret that tokens are signed with comes from `SDS_JWT_SECRET`, at least 32 characters.
#[derive(Debug, Parser)]
#[command(name = "sds-relay", version)]
pub struct CommandLine {
    /// What to do instead of running the relay.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// How to run the relay.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What `sds-relay` does beside running the relay.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a token that opens a store.
    Token(TokenArgs),
}

/// Where the relay listens and keeps its data.
#[derive(Debug, Args)]
pub struct ServeArgs {
    /// The address to listen on.
    #[arg(long, env = "SDS_HOST", default_value = "127.0.0.1")]
    pub host: String,
    /// The UDP port to listen on; 0 is any that is free.
    #[arg(long, env = "SDS_PORT", default_value_t = 3000)]
    pub port: u16,
    /// The folder for everything that the relay keeps.
    #[arg(long, env = "SDS_DATA_DIR", default_value = "sds-relay-data")]
    pub data_dir: PathBuf,
    /// A PEM file with the certificate and its chain; without it one is made and kept.
    #[arg(long, requires = "key")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[arg(long, requires = "cert")]
    pub key: Option<PathBuf>,
    /// Who must have given a token for it to be accepted.
    #[arg(long, env = "SDS_ISSUER", global = true)]
    pub issuer: Option<String>,
}

/// What a token is to say.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The store that it opens.
    #[arg(long, value_parser = parse_store)]
    pub store: StoreId,
    /// Whom it is for.
    #[arg(long)]
    pub sub: String,
    /// What it allows: read, write or admin.
    #[arg(long, default_value = "admin", value_parser = parse_scope)]
    pub scope: Scope,
    /// How long it holds, with a unit of s, m, h, d or w.
    #[arg(long, default_value = "90d", value_parser = parse_lifetime)]
    pub expires_in: Duration,
}

/// The text is no lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a lifetime: expected a number from 1 and a unit of s, m, h, d or w, such as 90d")]
pub struct InvalidLifetime;

impl ServeArgs {
    /// The configuration of the relay.
    ///
    /// # Errors
    /// If the host has no address.
    pub fn to_config(&self, secret: Secret) -> io::Result<RelayConfig> {
        let certificate = match (&self.cert, &self.key) {
            (Some(chain), Some(key)) => {
                CertificateSource::Files { chain: chain.clone(), key: key.clone() }
            }
            _ => CertificateSource::SelfSigned,
        };
        let issuer = issuer(self.issuer.as_deref());
        let listen = self.listen()?;
        let (data_dir, limits) = (self.data_dir.clone(), Limits::default());
        Ok(RelayConfig { keys: secret.into(), issuer, listen, data_dir, certificate, limits })
    }

    fn listen(&self) -> io::Result<SocketAddr> {
        let mut addresses = (self.host.as_str(), self.port).to_socket_addrs()?;
        addresses.next().ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))
    }
}

impl TokenArgs {
    /// What to mint.
    #[must_use]
    pub fn to_grant(&self, issuer_name: Option<&str>) -> Grant {
        Grant {
            stores: self.store.clone().into(),
            subject: self.sub.clone(),
            scope: self.scope,
            lifetime: self.expires_in,
            issuer: issuer(issuer_name),
        }
    }
}

/// The secret from the environment.
///
/// # Errors
/// If there is none, or it is too short.
pub fn secret_from_environment() -> Result<Secret, WeakSecret> {
    Secret::new(&std::env::var(SECRET_VARIABLE).unwrap_or_default())
}

/// A lifetime such as `15m` or `90d`.
///
/// # Errors
/// If it is anything but a number from 1 and a unit.
pub fn parse_lifetime(text: &str) -> Result<Duration, InvalidLifetime> {
    let unit = text.chars().next_back().ok_or(InvalidLifetime)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        'w' => 604_800,
        _ => return Err(InvalidLifetime),
    };
    let digits = text.strip_suffix(unit).unwrap_or_default();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(InvalidLifetime);
    }
    let count: u64 = digits.parse().map_err(|_| InvalidLifetime)?;
    let lifetime = count.checked_mul(seconds).filter(|lifetime| *lifetime > 0);
    lifetime.map(Duration::from_secs).ok_or(InvalidLifetime)
}

/// An empty variable is no issuer.
fn issuer(name: Option<&str>) -> Option<String> {
    name.filter(|name| !name.is_empty()).map(str::to_owned)
}

fn parse_store(text: &str) -> Result<StoreId, InvalidStoreId> {
    text.parse()
}

fn parse_scope(text: &str) -> Result<Scope, UnknownScope> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn lifetimes_are_a_number_and_a_unit() {
        let rows = [("1s", 1), ("15m", 900), ("2h", 7_200), ("90d", 7_776_000), ("1w", 604_800)];
        for (text, seconds) in rows {
            assert_eq!(parse_lifetime(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        let bad = ["", "d", "0d", "1", "1y", "1 d", "-1d", "+1d", "1.5h", "1dd", "1é", "٣d"];
        for text in bad.into_iter().chain(["99999999999999999999d", "18446744073709551615w"]) {
            assert_eq!(parse_lifetime(text), Err(InvalidLifetime), "{text}");
        }
    }

    #[test]
    fn tokens_are_for_admins_and_ninety_days_unless_said_otherwise() {
        let words = ["sds-relay", "token", "--store", "s", "--sub", "desk"];
        let line = CommandLine::try_parse_from(words).unwrap();
        let Some(Command::Token(args)) = line.command else { panic!("no token command") };
        let grant = args.to_grant(Some(""));
        assert_eq!((grant.scope, grant.issuer), (Scope::Admin, None));
        assert_eq!(grant.lifetime, Duration::from_secs(90 * 86_400));
    }

    #[test]
    fn a_certificate_needs_its_key() {
        assert!(CommandLine::try_parse_from(["sds-relay", "--cert", "c.pem"]).is_err());
        let line = CommandLine::try_parse_from(["sds-relay", "--host", "127.0.0.1"]).unwrap();
        let secret = Secret::new(&"x".repeat(32)).unwrap();
        let config = line.serve.to_config(secret).unwrap();
        assert_eq!(config.certificate, CertificateSource::SelfSigned);
    }
}
