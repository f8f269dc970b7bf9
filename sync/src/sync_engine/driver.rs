//! The loop that keeps a store connected: frames in, frames out, and again after a loss.
//!
//! Local changes are sent only when they are on disk. Neither side's queue is ever waited for while
//! the other one is not served, so two peers that send at the same time never block each other.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use sds_store::StoreError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::reseat::Purpose;
use super::shared::{ApplyError, DriverNumber, Shared, apply_off_thread};
use super::status::ConnectionState;
use super::{ConnectOptions, SyncError, blobs};
use crate::backoff::Backoff;
use crate::limits::OPEN_TIMEOUT;
use crate::message::{ClientFrame, RefusalCode, RelayFrame};
use crate::random;
use crate::session::{ClientEvent, ClientSession, Hello, PeerMisbehaved};
use crate::transport::{
    Connection, FramePipe, Interest, Ready, StreamError, TransportError, connect,
};

/// Why a connection ended, or did not come about.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Misbehaved(#[from] PeerMisbehaved),
    #[error("the relay refuses ({code}): {message}")]
    Refused { code: RefusalCode, message: String },
    #[error("the relay's patch cannot be taken in: {0}")]
    Apply(#[source] StoreError),
    #[error(transparent)]
    Engine(#[from] SyncError),
    #[error("the relay has ended the stream")]
    Ended,
    #[error("the relay has other changes of this file: connecting anew to settle that")]
    Reseating,
}

impl Failure {
    fn code(&self) -> &'static str {
        match self {
            Self::Transport(error) => error.code(),
            Self::Stream(error) => error.code(),
            Self::Misbehaved(_) => "relay-misbehaved",
            Self::Refused { code, .. } => code.code(),
            Self::Apply(error) => error.code(),
            Self::Engine(error) => error.code(),
            Self::Ended => "connection-lost",
            Self::Reseating => "reseating",
        }
    }

    /// Whether the relay itself was fine, so that there is no reason to go easy on it.
    const fn is_mere_loss(&self) -> bool {
        matches!(self, Self::Stream(StreamError::Transport(_) | StreamError::CutOff) | Self::Ended)
            || matches!(self, Self::Reseating)
            || matches!(self, Self::Refused { code: RefusalCode::ShuttingDown, .. })
    }
}

/// Keeps the store connected until `stop` says so or the relay refuses for good.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: DriverNumber,
    options: ConnectOptions,
    mut stop: watch::Receiver<bool>,
) {
    let mut backoff = Backoff::new();
    let mut was_forked = false;
    loop {
        shared.report_connection(number, ConnectionState::Connecting);
        let connected = connect_once(&shared, number, &options, &mut stop).await;
        let Err(failure) = connected else { return };
        let code = failure.code();
        let (store, relay) = (&shared.id, options.url.host());
        tracing::info!(%store, relay, code, %failure, "not connected");
        let was_open =
            matches!(shared.status.borrow().connection, ConnectionState::Connected { .. });
        if was_open && failure.is_mere_loss() {
            backoff.reset();
        }
        let delay = backoff.next_delay(random::jitter());
        let (state, is_final) = match failure {
            // Another copy of this file may have been faster; the next connection will see that.
            Failure::Refused { code: RefusalCode::Forked, .. } if !was_forked => {
                was_forked = true;
                (ConnectionState::WaitingToReconnect { attempt: backoff.attempt() }, false)
            }
            Failure::Refused { code, message }
            | Failure::Engine(SyncError::Refused { code, message })
                if code.is_final() =>
            {
                (ConnectionState::Refused { code, message }, true)
            }
            Failure::Engine(SyncError::Stopped) => (ConnectionState::Disconnected, true),
            other => {
                was_forked &= !matches!(other, Failure::Reseating);
                (ConnectionState::WaitingToReconnect { attempt: backoff.attempt() }, false)
            }
        };
        shared.report(number, |status| {
            status.connection = state;
            status.last_error = Some(code);
            true
        });
        if is_final {
            return;
        }
        tokio::select! {
            () = sleep(delay) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Returns when the driver has to end.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    // Without a sender nobody is left who could want the connection.
    let _closed = stop.wait_for(|stop| *stop).await;
}

async fn connect_once(
    shared: &Arc<Shared>,
    number: DriverNumber,
    options: &ConnectOptions,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), Failure> {
    let connection = tokio::select! {
        () = stopped(stop) => return Ok(()),
        connected = connect(&options.url, &options.trust) => {
            connected?
        }
    };
    let outcome = match timeout(OPEN_TIMEOUT, connection.open_stream()).await {
        Ok(Ok((sender, receiver))) => {
            let pipe = FramePipe::new(sender, receiver);
            let link = Link::new(shared, number, options, connection.clone(), pipe);
            match link {
                Ok(link) => link.run(stop).await,
                Err(error) => Err(Failure::Engine(error)),
            }
        }
        Ok(Err(error)) => Err(Failure::Stream(error)),
        Err(_) => Err(Failure::Misbehaved(PeerMisbehaved::TooSlow)),
    };
    connection.close().await;
    outcome
}

/// One connection with one open store.
struct Link {
    shared: Arc<Shared>,
    number: DriverNumber,
    connection: Connection,
    session: ClientSession,
    purpose: Purpose,
    pipe: FramePipe<ClientFrame, RelayFrame>,
    saved: watch::Receiver<u64>,
    blobs: JoinSet<()>,
}

/// What a link has to attend to next.
enum Turn {
    Stop,
    Pipe(Ready<RelayFrame>),
    Saved,
    Timeout,
}

impl Link {
    fn new(
        shared: &Arc<Shared>,
        number: DriverNumber,
        options: &ConnectOptions,
        connection: Connection,
        pipe: FramePipe<ClientFrame, RelayFrame>,
    ) -> Result<Self, SyncError> {
        let (version, seats) = shared.hello()?;
        let (store, token) = (&shared.id, &options.token);
        let hello = Hello { store, token, version: &version, seats: &seats };
        let session = ClientSession::new(&hello, Instant::now());
        let saved = shared.saved.subscribe();
        let shared = Arc::clone(shared);
        let (blobs, purpose) = (JoinSet::new(), Purpose::Nothing);
        Ok(Self { shared, number, connection, session, purpose, pipe, saved, blobs })
    }

    async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Result<(), Failure> {
        loop {
            match self.next_turn(stop).await {
                Turn::Stop => {
                    self.close().await;
                    return Ok(());
                }
                Turn::Pipe(Ready::Room(true)) => {
                    if let Some(frame) = self.session.poll_transmit() {
                        self.pipe.send(frame);
                    }
                }
                // The relay takes nothing further; what it has sent says why.
                Turn::Pipe(Ready::Room(false)) => {}
                Turn::Pipe(Ready::Received(frame)) => {
                    self.session.handle_frame(frame?.ok_or(Failure::Ended)?)?;
                    self.handle_events().await?;
                }
                Turn::Saved => self.queue_changes()?,
                Turn::Timeout => self.session.handle_timeout(Instant::now())?,
            }
            self.publish();
        }
    }

    async fn next_turn(&mut self, stop: &mut watch::Receiver<bool>) -> Turn {
        let deadline = self.session.poll_timeout();
        let interest = Interest { in_room: self.session.has_transmit(), in_frames: true };
        let timer = sleep_until(deadline.unwrap_or_else(Instant::now).into());
        tokio::select! {
            () = stopped(stop) => Turn::Stop,
            ready = self.pipe.ready(interest) => Turn::Pipe(ready),
            Ok(()) = self.saved.changed() => Turn::Saved,
            () = timer, if deadline.is_some() => Turn::Timeout,
        }
    }

    async fn handle_events(&mut self) -> Result<(), Failure> {
        while let Some(event) = self.session.poll_event() {
            match event {
                ClientEvent::Opened => self.handle_opened()?,
                ClientEvent::Changes(patch) => self.take_in(patch).await?,
                ClientEvent::Stored => self.shared.note_stored(self.session.stored())?,
                ClientEvent::Refused { code, message } => {
                    return Err(Failure::Refused { code, message });
                }
            }
        }
        Ok(())
    }

    fn handle_opened(&mut self) -> Result<(), Failure> {
        self.purpose = self.shared.compare_seats(self.session.seats())?;
        match self.purpose {
            Purpose::Sync => {}
            Purpose::Inquiry => return Ok(()),
            Purpose::Nothing => return Err(Failure::Reseating),
        }
        let writable = self.session.is_writable();
        tracing::info!(store = %self.shared.id, writable, "connected");
        let session = &self.session;
        self.shared.report(self.number, |status| {
            status.connection = ConnectionState::Connected { writable };
            status.relay_at_open = session.at_open().clone();
            status.sent = session.sent().clone();
            status.stored = session.stored().clone();
            status.last_error = None;
            true
        });
        let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
        self.blobs.spawn(blobs::transfer(shared, connection, writable));
        self.queue_changes()
    }

    async fn take_in(&mut self, patch: Bytes) -> Result<(), Failure> {
        if self.purpose == Purpose::Inquiry {
            let is_settled = self.shared.inquire(self.session.at_open(), &patch).await?;
            return if is_settled { Err(Failure::Reseating) } else { Ok(()) };
        }
        if self.shared.is_disk_behind() {
            self.shared.flush().await?;
        }
        let integrated =
            apply_off_thread(&self.shared, patch).await.map_err(|error| match error {
                ApplyError::Store(error) => Failure::Apply(error),
                ApplyError::Sync(error) => Failure::Engine(error),
            })?;
        self.session.handle_integrated(&integrated).map_err(|_| SyncError::Stopped)?;
        Ok(())
    }

    /// Queues what has reached the disk and the relay lacks.
    fn queue_changes(&mut self) -> Result<(), Failure> {
        if self.session.is_writable() && self.purpose == Purpose::Sync {
            let changes = self.shared.durable_since(self.session.queued())?;
            self.session.handle_durable(&changes).map_err(|_| SyncError::Stopped)?;
        }
        Ok(())
    }

    fn publish(&self) {
        if !self.session.is_open() || self.purpose != Purpose::Sync {
            return;
        }
        let (sent, stored) = (self.session.sent(), self.session.stored());
        self.shared.report(self.number, |status| {
            let is_new = status.sent != *sent || status.stored != *stored;
            if is_new {
                status.sent.clone_from(sent);
                status.stored.clone_from(stored);
            }
            is_new
        });
    }

    /// Says goodbye, after what was handed over before, and stays until the relay has taken it in:
    /// a connection that is closed earlier takes with it what the relay has not read yet.
    async fn close(mut self) {
        self.blobs.shutdown().await;
        self.session.handle_close();
        let goodbye: Vec<ClientFrame> =
            std::iter::from_fn(|| self.session.poll_transmit()).collect();
        self.pipe.close(goodbye).await;
    }
}
