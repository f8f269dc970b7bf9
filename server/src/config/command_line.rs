//! What can be said on the command line, and in variables of the environment.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sds_sync::access::{Grant, Scope, StoreSet, UnknownScope};

use super::LogFormat;

/// Stores and forwards the changes of shared data stores.
///
/// What is said here wins over the environment, that over the file, and that over the defaults. The
/// secret that tokens are signed with has no flag, as flags show in the list of processes: it comes
/// from SDS_JWT_SECRET or from files, and has at least 32 characters.
///
/// Exit codes: 0 ended in good order; 1 it could not be done; 2 the command line or the
/// configuration is wrong; 3 the data are damaged.
#[derive(Debug, Parser)]
#[command(name = "sds-relay", version)]
pub struct CommandLine {
    /// What to do instead of running the relay.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Checks the configuration and the files that it names, prints it without secrets, and ends.
    #[arg(long)]
    pub check: bool,
    /// How to run the relay.
    #[command(flatten)]
    pub serve: ServeArgs,
}

/// What `sds-relay` does beside running the relay.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Prints a token that opens stores.
    Token(TokenArgs),
    /// Writes all that a relay keeps, which does not run, to one file. One that runs makes a backup
    /// when its admin listener is asked to.
    Backup {
        /// The file, which must not be there yet.
        to: PathBuf,
    },
    /// Restores a backup into the data folder, which must have no data of a relay yet.
    Restore {
        /// The backup.
        from: PathBuf,
    },
    /// Looks whether a backup is whole.
    Verify {
        /// The backup.
        from: PathBuf,
    },
    /// Looks whether the data of a relay that does not run are sound, and changes nothing.
    Check,
    /// Asks the relay of this configuration, at its admin listener, whether it is alive.
    Health {
        /// Whether it is ready for clients, rather.
        #[arg(long)]
        ready: bool,
    },
}

/// Where the relay listens and keeps its data.
#[derive(Clone, Debug, Default, Args)]
pub struct ServeArgs {
    /// A TOML file with the configuration.
    #[arg(long, env = "SDS_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// The address to listen on.
    #[arg(long, env = "SDS_HOST", global = true)]
    pub host: Option<String>,
    /// The UDP port to listen on; 0 is any that is free.
    #[arg(long, env = "SDS_PORT", global = true)]
    pub port: Option<u16>,
    /// The folder for everything that the relay keeps.
    #[arg(long, env = "SDS_DATA_DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// A PEM file with the certificate and its chain; without it one is made and kept.
    #[arg(long, env = "SDS_CERT")]
    pub cert: Option<PathBuf>,
    /// A PEM file with the certificate's private key.
    #[arg(long, env = "SDS_KEY")]
    pub key: Option<PathBuf>,
    /// A file with the secret that tokens are signed with, if the configuration has none.
    #[arg(long, env = "SDS_JWT_SECRET_FILE", global = true)]
    pub secret_file: Option<PathBuf>,
    /// Who must have given a token for it to be accepted.
    #[arg(long, env = "SDS_ISSUER", global = true)]
    pub issuer: Option<String>,
    /// The address and the TCP port of the admin listener; wins over both by themselves. In the
    /// environment: SDS_ADMIN, and so SDS_ADMIN_HOST and SDS_ADMIN_PORT.
    #[arg(long, value_name = "HOST:PORT", global = true)]
    pub admin: Option<AdminAddress>,
    /// The address of the admin listener.
    #[arg(long, global = true)]
    pub admin_host: Option<String>,
    /// The TCP port of the admin listener; without it there is none.
    #[arg(long, global = true)]
    pub admin_port: Option<u16>,
    /// How long clients may take to leave when the relay stops, in seconds.
    #[arg(long, env = "SDS_DRAIN_SECONDS")]
    pub drain_seconds: Option<u32>,
    /// How log lines are written.
    #[arg(long, env = "SDS_LOG_FORMAT", global = true)]
    pub log_format: Option<LogFormat>,
    /// What is logged: error, warn, info, debug or trace, or such a level for parts of the program.
    #[arg(long, env = "SDS_LOG_LEVEL", global = true)]
    pub log_level: Option<String>,
    /// A limit, as KEY=NUMBER; may be given several times. In the environment: SDS_LIMITS_KEY.
    #[arg(long = "limit", value_name = "KEY=NUMBER")]
    pub limits: Vec<String>,
}

/// Where the admin listener is: a host, of IPv6 in brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminAddress {
    /// The address, or a name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
}

/// The text is no address with a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected HOST:PORT, such as 127.0.0.1:3001 or [::1]:3001")]
pub struct InvalidAddress;

impl FromStr for AdminAddress {
    type Err = InvalidAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or(InvalidAddress)?;
        let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = inner.unwrap_or(host);
        if host.is_empty() || (inner.is_none() && host.contains([':', '[', ']'])) {
            return Err(InvalidAddress);
        }
        let port = port.parse().map_err(|_| InvalidAddress)?;
        Ok(Self { host: host.to_owned(), port })
    }
}

/// What a token is to say.
#[derive(Debug, Args)]
pub struct TokenArgs {
    /// The store that it opens; with * at its end, all whose names begin so. May be given several
    /// times.
    #[arg(long, required = true)]
    pub store: Vec<String>,
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

impl TokenArgs {
    /// What to mint for these stores.
    #[must_use]
    pub fn to_grant(&self, stores: StoreSet, issuer: Option<&str>) -> Grant {
        Grant {
            stores,
            subject: self.sub.clone(),
            scope: self.scope,
            lifetime: self.expires_in,
            issuer: issuer.map(str::to_owned),
        }
    }
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

fn parse_scope(text: &str) -> Result<Scope, UnknownScope> {
    text.parse()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::super::ADMIN_VARIABLES;
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    /// Goal: what is shipped runs a relay that others can reach. Method: the variables that the
    /// unit and the container set, and the example that the unit's head says to install.
    #[test]
    fn what_is_shipped_sets_what_there_is_and_listens_for_others() {
        let unit = include_str!("../../deploy/sds-relay.service");
        let container = include_str!("../../deploy/Containerfile");
        let of_unit = unit.lines().filter_map(|line| line.strip_prefix("Environment="));
        let of_container = container.lines().filter_map(|line| line.strip_prefix("ENV "));
        let of_container = of_container.flat_map(|line| line.split(' '));
        let serve = ServeArgs::augment_args(clap::Command::new("relay"));
        let known = serve.get_arguments().filter_map(clap::Arg::get_env);
        let known: Vec<_> = known.chain(ADMIN_VARIABLES.map(AsRef::as_ref)).collect();
        for set in [of_unit.collect::<Vec<_>>(), of_container.collect()] {
            for setting in &set {
                let (name, _) = setting.split_once('=').unwrap();
                let is_allocators = name == "MALLOC_ARENA_MAX";
                assert!(is_allocators || known.contains(&name.as_ref()), "{name}");
            }
            assert!(set.contains(&"SDS_HOST=::"), "{set:?}");
        }
        let copied = container.lines().filter(|line| line.starts_with("COPY --from=build"));
        let (owned, others): (Vec<_>, Vec<_>) = copied.partition(|line| line.contains("--chown"));
        assert!(owned.iter().all(|line| line.ends_with(" /out/owned/ /")), "{owned:?}");
        assert!(others.iter().any(|line| line.ends_with(" /usr/bin/sds-relay")), "{others:?}");
        let example: super::super::Settings =
            toml::from_str(include_str!("../../deploy/relay.toml")).unwrap();
        example.limits.check().unwrap();
        assert!(unit.contains("\nType=notify\n") && unit.contains("\nWatchdogSec="));
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
    fn where_admins_are_listened_for_is_a_host_and_a_port() {
        let rows = [
            ("127.0.0.1:3001", "127.0.0.1", 3001),
            ("[::1]:1", "::1", 1),
            ("relay.example:0", "relay.example", 0),
        ];
        for (text, host, port) in rows {
            assert_eq!(text.parse(), Ok(AdminAddress { host: host.to_owned(), port }), "{text}");
        }
        for bad in ["", "3001", ":3001", "host:", "host:x", "host:65536", "::1:3001", "[::1]"] {
            assert_eq!(bad.parse::<AdminAddress>(), Err(InvalidAddress), "{bad}");
        }
    }

    #[test]
    fn tokens_are_for_admins_and_ninety_days_unless_said_otherwise() {
        let words = ["sds-relay", "token", "--store", "s", "--sub", "desk"];
        let line = CommandLine::try_parse_from(words).unwrap();
        let Some(Command::Token(args)) = line.command else { panic!("no token command") };
        let stores = StoreSet::parse(&args.store).unwrap();
        let grant = args.to_grant(stores, None);
        assert_eq!((grant.scope, grant.issuer), (Scope::Admin, None));
        assert_eq!(grant.lifetime, Duration::from_secs(90 * 86_400));
        assert!(grant.stores.contains("s") && !grant.stores.contains("t"));
    }
}
