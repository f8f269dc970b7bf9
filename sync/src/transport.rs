//! How a client reaches a relay: the address, whom it trusts, and streams of frames.
//!
//! All that the rest of the crate sees are [`Connection`], [`FrameSender`] and [`FrameReceiver`];
//! QUIC
//! stays below them.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::ServerName;

mod admission;
mod pipe;
mod pool;
mod quic;
mod race;
mod room;
mod stream;
mod trust;

pub use admission::{Admission, Applicant, Doorkeeper, Shaken, Verdict, serve_connections};
pub use pipe::{FramePipe, Interest, Ready};
pub use pool::ConnectionPool;
pub(crate) use pool::Datagrams;
pub use quic::{Connection, connect, send_datagram, server_endpoint};
pub use room::{FrameBound, FrameRoom, InputRoom, OutputRoom, RoomBytes, SharedRoom};
pub use stream::{FrameReceiver, FrameSender, Pace, StreamError};

/// The protocol that both sides name when they shake hands.
pub const ALPN: &[u8] = b"sds/1";

/// Where a relay is: `quic://host:port`, with `#sha256=HEX` behind it if only one certificate will
/// do.
///
/// ```
/// use sds_sync::RelayUrl;
///
/// let url: RelayUrl = "quic://relay.example:3000".parse()?;
/// assert_eq!((url.host(), url.port()), ("relay.example", 3000));
/// # Ok::<(), sds_sync::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RelayUrl {
    host: String,
    port: u16,
    pin: Option<CertificateHash>,
}

/// Why a text is not the URL of a relay. Whoever wrote it is at fault.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UrlError {
    /// Another scheme, or none.
    #[error("a relay's url begins with quic://")]
    Scheme,
    /// No host, or none that can be.
    #[error("the url names no valid host; expected quic://host:port")]
    Host,
    /// No port from 1 to 65535.
    #[error("the url names no valid port; expected quic://host:port")]
    Port,
    /// Something follows the port that has no meaning here.
    #[error("nothing but #sha256=HEX may follow the port of a relay's url")]
    Trailing,
    /// The hash is not 64 hexadecimal digits.
    #[error("the pin is not #sha256= and 64 hexadecimal digits")]
    Pin,
}

impl RelayUrl {
    /// The relay at `host`, which may be an address of either kind.
    ///
    /// # Errors
    /// If the host cannot be one, or the port is zero.
    pub fn new(host: &str, port: u16, pin: Option<CertificateHash>) -> Result<Self, UrlError> {
        if ServerName::try_from(host).is_err() {
            return Err(UrlError::Host);
        }
        if port == 0 {
            return Err(UrlError::Port);
        }
        Ok(Self { host: host.to_owned(), port, pin })
    }

    /// For clients of who listens on `address` with the certificate `pin`, which they reach as `host`, if
    /// there is one; else by the address itself, or on the same machine if that is all addresses.
    ///
    /// # Errors
    /// If `host` cannot be one, or the port is zero.
    pub fn of_listener(
        address: SocketAddr,
        host: Option<&str>,
        pin: CertificateHash,
    ) -> Result<Self, UrlError> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        let host = host.map_or_else(|| ip.to_string(), str::to_owned);
        Self::new(&host, address.port(), Some(pin))
    }

    /// The host: a name or an address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The only certificate that will do, if the URL names one.
    #[must_use]
    pub const fn pin(&self) -> Option<CertificateHash> {
        self.pin
    }
}

impl FromStr for RelayUrl {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("quic://").ok_or(UrlError::Scheme)?;
        let (rest, pin) = match rest.split_once('#') {
            Some((rest, fragment)) => (rest, Some(parse_pin(fragment)?)),
            None => (rest, None),
        };
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        if authority.contains(['/', '?', '@']) {
            return Err(UrlError::Trailing);
        }
        let (host, port) = authority.rsplit_once(':').ok_or(UrlError::Port)?;
        let host = match host.strip_prefix('[') {
            Some(inner) => inner.strip_suffix(']').ok_or(UrlError::Host)?,
            None if host.contains(':') => return Err(UrlError::Host),
            None => host,
        };
        if !port.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(UrlError::Port);
        }
        Self::new(host, port.parse().map_err(|_| UrlError::Port)?, pin)
    }
}

impl fmt::Display for RelayUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "quic://[{}]:{}", self.host, self.port)?,
            false => write!(f, "quic://{}:{}", self.host, self.port)?,
        }
        self.pin.map_or(Ok(()), |pin| write!(f, "#sha256={pin}"))
    }
}

/// SHA-256 of a certificate in DER form.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct CertificateHash([u8; 32]);

impl CertificateHash {
    /// The hash with these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The hash of a certificate.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Self {
        use sha2::Digest as _;
        Self(sha2::Sha256::digest(certificate).into())
    }
}

impl fmt::Display for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CertificateHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whom a client believes to be the relay.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// Whoever an authority vouches for that the operating system trusts.
    SystemRoots,
    /// Whoever an authority vouches for whose certificate is in this PEM file.
    CaFile(PathBuf),
    /// Whoever has the key of this one certificate; its names and dates do not matter.
    PinnedSha256(CertificateHash),
}

impl Trust {
    /// The pin of the URL if it has one, else the roots of the operating system.
    #[must_use]
    pub fn of(url: &RelayUrl) -> Self {
        url.pin().map_or(Self::SystemRoots, Self::PinnedSha256)
    }
}

/// Why a relay cannot be reached.
#[non_exhaustive]
#[derive(Clone, Debug, thiserror::Error)]
pub enum TransportError {
    /// The host has no address.
    #[error("the host {host} has no address")]
    NoAddress {
        /// The host.
        host: String,
    },
    /// No answer came, from none of its addresses.
    #[error("no answer from the relay: is it running, and is UDP let through?")]
    TimedOut,
    /// The relay is not the one to trust.
    #[error("the relay's certificate is not the one to trust: check the url's pin or the CA file")]
    Untrusted,
    /// Something else answers there.
    #[error("the other side does not speak this protocol: check the port")]
    WrongProtocol,
    /// The CA file cannot be used.
    #[error("cannot use the CA file {}: {reason}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: &'static str,
    },
    /// The operating system trusts nobody.
    #[error("the operating system has no trusted roots: pin the certificate or give a CA file")]
    NoSystemRoots,
    /// The configuration of TLS or QUIC is impossible.
    #[error("TLS cannot be set up: {0}")]
    Tls(Arc<rustls::Error>),
    /// The operating system refused a socket.
    #[error("no network: {0}")]
    Socket(Arc<io::Error>),
    /// The connection broke, or the other side closed it.
    #[error("the connection was lost: {0}")]
    Lost(quinn::ConnectionError),
}

impl TransportError {
    /// The stable name of the reason.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoAddress { .. } => "unknown-host",
            Self::TimedOut => "no-answer",
            Self::Untrusted => "untrusted-certificate",
            Self::WrongProtocol => "wrong-protocol",
            Self::CaFile { .. } => "ca-file",
            Self::NoSystemRoots => "no-system-roots",
            Self::Tls(_) => "tls-failed",
            Self::Socket(_) => "no-network",
            Self::Lost(_) => "connection-lost",
        }
    }
}

impl From<quinn::ConnectionError> for TransportError {
    fn from(error: quinn::ConnectionError) -> Self {
        // TLS alerts travel as 0x100 plus their number.
        const CERTIFICATE_ALERTS: std::ops::RangeInclusive<u64> = 0x100 + 42..=0x100 + 49;
        const NO_APPLICATION_PROTOCOL: u64 = 0x100 + 120;
        let code = match &error {
            quinn::ConnectionError::TransportError(error) => Some(u64::from(error.code)),
            quinn::ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code)),
            quinn::ConnectionError::TimedOut => return Self::TimedOut,
            _ => None,
        };
        match code {
            Some(code) if CERTIFICATE_ALERTS.contains(&code) => Self::Untrusted,
            Some(NO_APPLICATION_PROTOCOL) => Self::WrongProtocol,
            _ => Self::Lost(error),
        }
    }
}

fn parse_pin(fragment: &str) -> Result<CertificateHash, UrlError> {
    let digits = fragment.strip_prefix("sha256=").ok_or(UrlError::Pin)?;
    let mut hash = [0; 32];
    hex::decode_to_slice(digits, &mut hash).map_err(|_| UrlError::Pin)?;
    Ok(CertificateHash(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_survive_their_text() {
        let pin = format!("#sha256={}", "0f".repeat(32));
        for text in ["quic://relay.example:3000", "quic://127.0.0.1:1", "quic://[::1]:65535"] {
            for text in [text.to_owned(), format!("{text}{pin}")] {
                assert_eq!(text.parse::<RelayUrl>().map(|url| url.to_string()), Ok(text));
            }
        }
        let url: RelayUrl = "quic://[::1]:1/".parse().unwrap();
        assert_eq!((url.host(), url.port(), url.pin()), ("::1", 1, None));
        assert_eq!(Trust::of(&url), Trust::SystemRoots);
    }

    #[test]
    fn bad_urls_say_what_is_wrong_with_them() {
        let rows = [
            ("", UrlError::Scheme),
            ("ws://host:1", UrlError::Scheme),
            ("QUIC://host:1", UrlError::Scheme),
            ("host:1", UrlError::Scheme),
            ("quic://", UrlError::Port),
            ("quic://host", UrlError::Port),
            ("quic://host:", UrlError::Port),
            ("quic://host:0", UrlError::Port),
            ("quic://host:+1", UrlError::Port),
            ("quic://host:65536", UrlError::Port),
            ("quic://:1", UrlError::Host),
            ("quic://::1:1", UrlError::Host),
            ("quic://[::1:1", UrlError::Host),
            ("quic://a b:1", UrlError::Host),
            ("quic://host:1/store", UrlError::Trailing),
            ("quic://host:1?token=x", UrlError::Trailing),
            ("quic://me@host:1", UrlError::Trailing),
            ("quic://host:1#", UrlError::Pin),
            ("quic://host:1#sha256=", UrlError::Pin),
            ("quic://host:1#sha256=00", UrlError::Pin),
            ("quic://host:1#md5=00", UrlError::Pin),
        ];
        for (text, error) in rows {
            assert_eq!(text.parse::<RelayUrl>(), Err(error), "{text}");
        }
    }
}
