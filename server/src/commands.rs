//! What the program `sds-relay` does beside running the relay. Part of the program, not of the
//! library.

use std::error::Error;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sds_server::backup::{self, BackupError, BackupReport};
use sds_server::check::{RelayCheck, check};
use sds_server::config::{Settings, TokenArgs};
use sds_sync::access::{StoreSet, TokenId};

/// How long a relay may take to say how it is.
const HEALTH_TIME: Duration = Duration::from_secs(5);

/// The most of its answer that is read, in bytes.
const ANSWER_BYTES_MAX: u64 = 4 << 10;

/// Why the relay is not known to be well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwell {
    /// There is nobody to ask.
    #[error("there is no admin listener to ask: set admin.port")]
    NoListener,
    /// It does not answer.
    #[error("the relay does not answer at {address}: {source}")]
    Silent {
        /// Where.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
    /// It says that it is not.
    #[error("the relay answers {0:?}")]
    Answer(String),
}

/// The data have been found to be damaged.
#[derive(Debug, thiserror::Error)]
#[error("the data are damaged: restore a backup")]
pub(crate) struct DataDamaged;

pub(crate) fn print_token(args: &TokenArgs, settings: &Settings) -> Result<(), Box<dyn Error>> {
    let stores = StoreSet::parse(&args.store)?;
    let grant = args.to_grant(stores, settings.issuer.as_deref());
    let token = settings.keyring()?.mint(&grant, &TokenId::random(), SystemTime::now())?;
    writeln!(io::stdout(), "{}", token.reveal())?;
    Ok(())
}

pub(crate) fn back_up(settings: &Settings, to: &Path) -> Result<(), Box<dyn Error>> {
    tell("backed up", backup::backup(&settings.data_dir, to)?)
}

pub(crate) fn restore(settings: &Settings, from: &Path) -> Result<(), Box<dyn Error>> {
    tell("restored", backup::restore(from, &settings.data_dir).map_err(damage)?)
}

pub(crate) fn verify(from: &Path) -> Result<(), Box<dyn Error>> {
    tell("whole", backup::verify(from).map_err(damage)?)
}

pub(crate) fn check_data(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let report = check(&settings.data_dir)?;
    for finding in &report.findings {
        writeln!(io::stdout(), "{}: {finding}", finding.code())?;
    }
    let RelayCheck { stores, changes, change_bytes, blobs, blob_bytes, .. } = report;
    writeln!(
        io::stdout(),
        "{stores} stores, {changes} changes of {change_bytes} bytes, {blobs} blobs of {blob_bytes} bytes"
    )?;
    if report.is_sound() { Ok(()) } else { Err(DataDamaged.into()) }
}

/// Asks the relay of the same configuration whether it is alive, or ready for clients.
pub(crate) fn health(settings: &Settings, is_ready: bool) -> Result<(), Box<dyn Error>> {
    let port = settings.admin.port.ok_or(Unwell::NoListener)?;
    let mut addresses = (settings.admin.host.as_str(), port).to_socket_addrs()?;
    let address = addresses.next().ok_or(Unwell::NoListener)?;
    let path = if is_ready { "/readyz" } else { "/healthz" };
    let answer = ask(address, path).map_err(|source| Unwell::Silent { address, source })?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        Ok(())
    } else {
        Err(Unwell::Answer(status.to_owned()).into())
    }
}

/// Connects to the admin listener. One that listens on all addresses is asked on this machine,
/// which may have addresses of IPv4 alone.
fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    let at = |ip: IpAddr| TcpStream::connect_timeout(&(ip, address.port()).into(), HEALTH_TIME);
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => at(Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => {
            at(Ipv6Addr::LOCALHOST.into()).or_else(|_| at(Ipv4Addr::LOCALHOST.into()))
        }
        ip => at(ip),
    }
}

/// The beginning of what the admin listener answers.
fn ask(address: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = connect(address)?;
    stream.set_read_timeout(Some(HEALTH_TIME))?;
    stream.set_write_timeout(Some(HEALTH_TIME))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

fn tell(what: &str, report: BackupReport) -> Result<(), Box<dyn Error>> {
    writeln!(io::stdout(), "{what}: {} rows, {} bytes", report.rows, report.bytes)?;
    Ok(())
}

fn damage(error: BackupError) -> Box<dyn Error> {
    match error {
        BackupError::Damaged { .. } => {
            // Nobody is left to be told that standard error is closed.
            let _closed = writeln!(io::stderr(), "sds-relay: {error}");
            Box::new(DataDamaged)
        }
        other => Box::new(other),
    }
}
