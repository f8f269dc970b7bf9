//! QUIC endpoints with TLS 1.3, for clients and for relays.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use bytes::Bytes;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Endpoint, EndpointConfig, IdleTimeout, SendDatagramError, ServerConfig,
    TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::time::timeout;

use super::race::{interleave, race};
use super::stream::{FrameReceiver, FrameSender, StreamError};
use super::trust::client_config;
use super::{ALPN, RelayUrl, TransportError, Trust};
use crate::certificate::LiveIdentity;
use crate::limits::{
    CLOSE_TIMEOUT, CONNECT_TIMEOUT, CONNECTION_WINDOW_BYTES, DATAGRAM_BUFFER_BYTES,
    FRAME_BYTES_MAX, IDLE_TIMEOUT, INCOMING_BUFFER_BYTES, INCOMING_BUFFERS_BYTES, INCOMING_MAX,
    KEEP_ALIVE_INTERVAL, SOCKET_BUFFER_BYTES, STRANGER_WINDOW_BYTES, STREAM_WINDOW_BYTES,
};

/// A connection to a relay.
#[derive(Clone, Debug)]
pub struct Connection {
    endpoint: Endpoint,
    connection: quinn::Connection,
}

/// Connects to the relay at `url`, if `trust` accepts it: at whichever of its addresses answers
/// first.
///
/// # Errors
/// If none of the addresses leads to a trusted relay: why, as far as one of them has told.
pub async fn connect(url: &RelayUrl, trust: &Trust) -> Result<Connection, TransportError> {
    let trust = trust.clone();
    let tls = tokio::task::spawn_blocking(move || client_config(&trust));
    let tls = tls.await.map_err(|_| TransportError::TimedOut)??;
    let crypto = QuicClientConfig::try_from(tls)
        .map_err(|_| TransportError::Tls(Arc::new(rustls::Error::HandshakeNotComplete)))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(transport_config(0, CONNECTION_WINDOW_BYTES));
    let no_address = || TransportError::NoAddress { host: url.host().to_owned() };
    let addresses =
        tokio::net::lookup_host((url.host(), url.port())).await.map_err(|_| no_address())?;
    let attempt = |address| connect_to(address, url.host().to_owned(), config.clone());
    race(interleave(addresses), attempt, no_address()).await
}

impl Connection {
    /// Opens a stream of frames.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn open_stream(&self) -> Result<(FrameSender, FrameReceiver), StreamError> {
        let (send, receive) = self
            .connection
            .open_bi()
            .await
            .map_err(|error| StreamError::Transport(error.into()))?;
        Ok((FrameSender::new(send), FrameReceiver::new(receive, FRAME_BYTES_MAX)))
    }

    /// Sends a datagram, which may get lost; says false, and does not, if it is too large for one.
    #[must_use]
    pub fn send_datagram(&self, bytes: Bytes) -> bool {
        send_datagram(&self.connection, bytes)
    }

    /// The next datagram. May be dropped while it waits; nothing that arrived is lost.
    ///
    /// # Errors
    /// If the connection is gone.
    pub async fn read_datagram(&self) -> Result<Bytes, TransportError> {
        Ok(self.connection.read_datagram().await?)
    }

    /// Whether the connection is over.
    pub(super) fn is_closed(&self) -> bool {
        self.connection.close_reason().is_some()
    }

    /// Closes the connection, and does not wait until the other side knows.
    pub(super) fn close_at_once(&self) {
        self.connection.close(VarInt::from_u32(0), b"bye");
    }

    /// Closes the connection and waits until the other side knows, or a few seconds.
    pub async fn close(self) {
        self.close_at_once();
        // The other side may be gone; it will notice by itself.
        let _idle = timeout(CLOSE_TIMEOUT, self.endpoint.wait_idle()).await;
    }
}

/// Sends a datagram; says false, and does not, if it is too large for one, or the other side takes none.
#[must_use]
pub fn send_datagram(connection: &quinn::Connection, bytes: Bytes) -> bool {
    let fits = connection.max_datagram_size().is_some_and(|max| bytes.len() <= max);
    // What the connection does not send any more is not missed either.
    fits && !matches!(connection.send_datagram(bytes), Err(SendDatagramError::TooLarge))
}

/// An endpoint that takes connections of clients, and shows them the certificate that `identity` has at
/// the time. Each may have `streams` streams and little under way until its bounds are widened.
///
/// # Errors
/// If the address is taken.
pub fn server_endpoint(
    listen: SocketAddr,
    identity: Arc<LiveIdentity>,
    streams: u32,
) -> Result<Endpoint, TransportError> {
    let failed = |error| TransportError::Tls(Arc::new(error));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(failed)?
        .with_no_client_auth()
        .with_cert_resolver(identity);
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // Clients begin anew each time, so a ticket would only be kept, by both.
    tls.send_tls13_tickets = 0;
    let crypto =
        QuicServerConfig::try_from(tls).map_err(|_| failed(rustls::Error::HandshakeNotComplete))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(transport_config(streams, STRANGER_WINDOW_BYTES))
        .max_incoming(INCOMING_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFERS_BYTES);
    let no_socket = |error| TransportError::Socket(Arc::new(error));
    let socket = server_socket(listen).map_err(no_socket)?;
    let runtime = Arc::new(quinn::TokioRuntime);
    Endpoint::new(EndpointConfig::default(), Some(config), socket, runtime).map_err(no_socket)
}

/// A socket on `listen`, with room for the packets of many who come at once.
fn server_socket(listen: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(listen), Type::DGRAM, Some(Protocol::UDP))?;
    if listen.is_ipv6() {
        // Where the system has no other way, it listens on IPv6 alone.
        let _both = socket.set_only_v6(false);
    }
    // The system gives what its own bounds allow.
    let _granted = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _granted = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&listen.into())?;
    Ok(socket.into())
}

async fn connect_to(
    address: SocketAddr,
    host: String,
    config: ClientConfig,
) -> Result<Connection, TransportError> {
    let any = match address {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let endpoint =
        Endpoint::client(any).map_err(|error| TransportError::Socket(Arc::new(error)))?;
    let connecting = endpoint
        .connect_with(config, address, &host)
        .map_err(|_| TransportError::NoAddress { host })?;
    let connection =
        timeout(CONNECT_TIMEOUT, connecting).await.map_err(|_| TransportError::TimedOut)??;
    Ok(Connection { endpoint, connection })
}

fn transport_config(streams: u32, window: u32) -> Arc<TransportConfig> {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(window))
        .send_window(CONNECTION_WINDOW_BYTES.into())
        .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES))
        .datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES)
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIMEOUT).ok());
    Arc::new(config)
}
