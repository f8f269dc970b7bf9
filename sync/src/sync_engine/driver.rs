//! The loop that keeps a store connected: frames in, frames out, and again after a loss.
//!
//! Local changes are sent only when they are on disk. Neither side's queue is ever waited for while
//! the other one is not served, so two peers that send at the same time never block each other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sds_engine::ReplicaId;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until, timeout};

use super::credentials::Credentials;
use super::presence::{Outgoing, PresenceLine};
use super::shared::{DriverNumber, Shared, take_in_off_thread};
use super::signals::SignalLine;
use super::status::ConnectionState;
use super::{ConnectOptions, SyncError, blobs};
use crate::limits::OPEN_TIMEOUT;
use crate::link::{Link, LinkError};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, Token, encode_datagram};
use crate::presence::PeerId;
use crate::random;
use crate::reconnect::{NextAttempt, Reconnect};
use crate::session::{ClientEvent, PeerMisbehaved};
use crate::synced_store::{Purpose, TakenIn};
use crate::transport::{Connection, Datagrams, FramePipe, Interest, Ready};

/// The status's last error while the relay waits for changes that it takes from others alone.
const NOT_YOURS: &str = "not-yours";

/// Keeps the store connected until `stop` says so or the relay refuses for good.
pub(super) async fn run(
    shared: Arc<Shared>,
    number: DriverNumber,
    options: ConnectOptions,
    mut credentials: Credentials,
    mut stop: watch::Receiver<bool>,
) {
    let mut reconnect = Reconnect::new();
    let _watch = PanicWatch { shared: &shared, number };
    loop {
        shared.report_connection(number, ConnectionState::Connecting);
        let connected = connect_once(&shared, number, &options, &mut credentials, &mut stop).await;
        let Err(mut failure) = connected else { return };
        let code = failure.code();
        let (store, relay) = (&shared.id, options.url.host());
        tracing::info!(%store, relay, code, %failure, "not connected");
        let was_open =
            matches!(shared.status.borrow().connection, ConnectionState::Connected { .. });
        let is_unauthorized =
            matches!(failure, LinkError::Refused { code: RefusalCode::Unauthorized, .. });
        if is_unauthorized {
            let attempt = reconnect.attempt();
            shared.report(number, |status| {
                status.connection = ConnectionState::WaitingToReconnect { attempt };
                status.last_error = Some(code);
                true
            });
            tokio::select! {
                is_renewed = credentials.renew() => if is_renewed {
                    failure = LinkError::Renewing;
                },
                () = stopped(&mut stop) => return,
            }
        }
        let next = reconnect.after(failure, was_open, random::jitter());
        let (state, delay) = match next {
            NextAttempt::Retry(delay) => {
                let attempt = reconnect.attempt();
                (ConnectionState::WaitingToReconnect { attempt }, Some(delay))
            }
            NextAttempt::Refused { code, message } => {
                (ConnectionState::Refused { code, message }, None)
            }
            NextAttempt::Stopped => (ConnectionState::Disconnected, None),
        };
        shared.report(number, |status| {
            status.connection = state;
            status.last_error = Some(code);
            true
        });
        let Some(delay) = delay else { return };
        tokio::select! {
            () = sleep(delay) => {}
            () = stopped(&mut stop) => return,
        }
    }
}

/// Says that nobody connects any more if the driver panics, as a handler of the application's may make it.
struct PanicWatch<'a> {
    shared: &'a Shared,
    number: DriverNumber,
}

impl Drop for PanicWatch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.shared.report_connection(self.number, ConnectionState::Disconnected);
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
    credentials: &mut Credentials,
    stop: &mut watch::Receiver<bool>,
) -> Result<(), LinkError> {
    let lease = tokio::select! {
        () = stopped(stop) => return Ok(()),
        leased = options.pool.lease(&options.url, &options.trust) => leased?,
    };
    let outcome = match timeout(OPEN_TIMEOUT, lease.open_stream()).await {
        Ok(Ok((sender, receiver, datagrams))) => {
            let ways = Ways {
                connection: lease.connection().clone(),
                stream: sender.id(),
                datagrams,
                pipe: FramePipe::new(sender, receiver),
            };
            match Line::new(shared, number, credentials, ways) {
                Ok(line) => line.run(stop).await,
                Err(error) => Err(LinkError::Engine(error)),
            }
        }
        Ok(Err(error)) => Err(LinkError::Stream(error)),
        Err(_) => Err(LinkError::Misbehaved(PeerMisbehaved::TooSlow)),
    };
    if outcome.as_ref().is_err_and(LinkError::is_of_connection) {
        lease.give_up();
    }
    lease.end().await;
    outcome
}

/// How a line speaks to its relay.
struct Ways {
    connection: Connection,
    /// The number of the stream.
    stream: u64,
    datagrams: Datagrams,
    pipe: FramePipe<ClientFrame, RelayFrame>,
}

/// One connection with one open store, and the line that it goes over.
struct Line<'a> {
    shared: Arc<Shared>,
    number: DriverNumber,
    credentials: &'a mut Credentials,
    connection: Connection,
    link: Link,
    pipe: FramePipe<ClientFrame, RelayFrame>,
    /// The number of the stream.
    stream: u64,
    datagrams: Datagrams,
    saved: watch::Receiver<u64>,
    blobs: JoinSet<()>,
    /// Once the store is open.
    presence: Option<PresenceLine>,
    presence_set: watch::Receiver<u64>,
    /// Once the relay has said how others see this side.
    signals: Option<SignalLine>,
    signal_sent: watch::Receiver<u64>,
    /// What of presence waits for room on the stream.
    presence_frame: Option<ClientFrame>,
    /// Whether the last frame was of presence, so that the next one is of the store, if there is one.
    is_stores_turn: bool,
}

/// What a line has to attend to next.
enum Turn {
    Stop,
    Pipe(Ready<RelayFrame>),
    Saved,
    Datagram(RelayFrame),
    Presence,
    Token(Token),
    Timeout,
}

impl<'a> Line<'a> {
    fn new(
        shared: &Arc<Shared>,
        number: DriverNumber,
        credentials: &'a mut Credentials,
        Ways { connection, stream, datagrams, pipe }: Ways,
    ) -> Result<Self, SyncError> {
        let link = shared.open_link(&credentials.current())?;
        let saved = shared.saved.subscribe();
        let presence_set = shared.presence.set.subscribe();
        let signal_sent = shared.signals.sent.subscribe();
        let (shared, blobs) = (Arc::clone(shared), JoinSet::new());
        Ok(Self {
            shared,
            number,
            credentials,
            connection,
            link,
            pipe,
            stream,
            datagrams,
            saved,
            blobs,
            presence: None,
            presence_set,
            signals: None,
            signal_sent,
            presence_frame: None,
            is_stores_turn: false,
        })
    }

    async fn run(mut self, stop: &mut watch::Receiver<bool>) -> Result<(), LinkError> {
        loop {
            match self.next_turn(stop).await {
                Turn::Stop => {
                    self.close().await;
                    return Ok(());
                }
                Turn::Pipe(Ready::Room) => {
                    if let Some(frame) = self.next_frame() {
                        self.pipe.send(frame);
                    }
                }
                // The relay takes nothing further; what it has sent says why.
                Turn::Pipe(Ready::Gone(_)) => {}
                Turn::Pipe(Ready::Received(frame)) => {
                    let frame = frame?.ok_or(LinkError::Ended)?;
                    if let Some(frame) = self.handle_aside(frame) {
                        self.link.handle_frame(frame)?;
                        self.handle_events().await?;
                    }
                }
                Turn::Datagram(frame) => self.handle_datagram(frame),
                Turn::Presence => {}
                Turn::Token(token) => self.link.handle_token(token),
                Turn::Saved => self.shared.handle_saved(&mut self.link)?,
                Turn::Timeout => self.handle_timeout()?,
            }
            self.tell_presence();
            self.publish();
        }
    }

    async fn next_turn(&mut self, stop: &mut watch::Receiver<bool>) -> Turn {
        let (link, now) = (self.link.poll_timeout(), Instant::now());
        let presence = self.presence.as_ref().and_then(|line| line.poll_timeout(now));
        let signals = self.signals.as_mut().and_then(|line| line.poll_timeout(now));
        let is_signal_due = signals.is_some_and(|due| due <= now);
        // What is due already goes out as soon as there is room.
        let signals = signals.filter(|_| !is_signal_due);
        let deadline = [link, presence, signals].into_iter().flatten().min();
        let in_room =
            self.link.session().has_transmit() || self.presence_frame.is_some() || is_signal_due;
        let interest = Interest { in_room, in_frames: true };
        let timer = sleep_until(deadline.unwrap_or_else(Instant::now).into());
        tokio::select! {
            () = stopped(stop) => Turn::Stop,
            ready = self.pipe.ready(interest) => Turn::Pipe(ready),
            Ok(()) = self.saved.changed() => Turn::Saved,
            frame = self.datagrams.next(), if self.presence.is_some() => Turn::Datagram(frame),
            Ok(()) = self.presence_set.changed() => Turn::Presence,
            Ok(()) = self.signal_sent.changed() => Turn::Presence,
            token = self.credentials.newer(), if self.link.is_syncing() => Turn::Token(token),
            () = timer, if deadline.is_some() => Turn::Timeout,
        }
    }

    /// What to send next: presence and the store by turns, so that many changes on a slow line do not
    /// make this side seem gone, and somebody who moves a lot does not hold the changes up.
    fn next_frame(&mut self) -> Option<ClientFrame> {
        let aside = if self.is_stores_turn { None } else { self.next_aside() };
        self.is_stores_turn = aside.is_some();
        aside.or_else(|| self.link.poll_transmit()).or_else(|| self.next_aside())
    }

    /// What to send next that is not of the store.
    fn next_aside(&mut self) -> Option<ClientFrame> {
        let signals = &mut self.signals;
        let presence = self.presence_frame.take();
        presence.or_else(|| signals.as_mut()?.poll_transmit(Instant::now()))
    }

    fn handle_timeout(&mut self) -> Result<(), LinkError> {
        let now = Instant::now();
        if let Some(presence) = &self.presence {
            presence.handle_timeout(now);
        }
        Ok(self.link.handle_timeout(now)?)
    }

    /// Takes in a frame about presence, or from others, and gives any other back.
    fn handle_aside(&self, frame: RelayFrame) -> Option<RelayFrame> {
        let frame = match &self.presence {
            Some(presence) => presence.handle_frame(frame)?,
            None => frame,
        };
        match &self.signals {
            Some(signals) => signals.handle_frame(frame),
            None => Some(frame),
        }
    }

    fn handle_datagram(&self, frame: RelayFrame) {
        // What has no place in a datagram is as good as lost.
        let _other = self.presence.as_ref().and_then(|presence| presence.handle_frame(frame));
    }

    /// Tells others what this side shows, if it is time. What still waits for room gives way: only the
    /// newest state counts.
    fn tell_presence(&mut self) {
        let Some(presence) = &self.presence else { return };
        match presence.poll_transmit(Instant::now()) {
            Some(Outgoing::Datagram(frame)) => {
                let datagram = encode_datagram(presence.stream(), &frame);
                if !self.connection.send_datagram(datagram) {
                    self.presence_frame = Some(frame);
                }
            }
            Some(Outgoing::Frame(frame)) => self.presence_frame = Some(frame),
            None => {}
        }
    }

    async fn handle_events(&mut self) -> Result<(), LinkError> {
        while let Some(event) = self.link.poll_event() {
            match event {
                ClientEvent::Opened => self.handle_opened()?,
                ClientEvent::Changes(patch) => self.take_in(patch).await?,
                ClientEvent::Stored => self.shared.handle_stored(&mut self.link)?,
                ClientEvent::Access { peer, writable, expires_in } => {
                    self.handle_access(peer, writable, expires_in).await?;
                }
                ClientEvent::NotYours { replica, next } => {
                    self.handle_not_yours(replica, next).await?;
                }
                ClientEvent::Refused { code, message, after } => {
                    return Err(LinkError::Refused { code, message, after });
                }
            }
        }
        Ok(())
    }

    fn handle_opened(&mut self) -> Result<(), LinkError> {
        self.shared.handle_opened(&mut self.link)?;
        if self.link.purpose() != Purpose::Sync {
            return Ok(());
        }
        self.shared.report(self.number, |status| std::mem::take(&mut status.is_too_old));
        self.presence = Some(self.shared.presence.open(self.stream));
        self.shared.handle_saved(&mut self.link)
    }

    /// Begins all that a connection is for: the relay has said the last of what it says at the start.
    /// Who hears that the store is connected may signal to others, for one.
    fn begin(&mut self, peer: Option<PeerId>, writable: bool) {
        tracing::info!(store = %self.shared.id, writable, "connected");
        self.transfer_blobs(writable);
        self.signals = peer.map(|peer| self.shared.signals.open(peer, Instant::now()));
        let session = self.link.session();
        self.shared.report(self.number, |status| {
            status.connection = ConnectionState::Connected { writable };
            status.relay_at_open = session.at_open().clone();
            status.sent = session.sent().clone();
            status.stored = session.stored().clone();
            status.last_error = None;
            true
        });
    }

    fn transfer_blobs(&mut self, writable: bool) {
        let (shared, connection) = (Arc::clone(&self.shared), self.connection.clone());
        self.blobs.spawn(blobs::transfer(shared, connection, writable));
    }

    async fn handle_access(
        &mut self,
        peer: Option<PeerId>,
        writable: bool,
        expires_in: Duration,
    ) -> Result<(), LinkError> {
        let now = Instant::now();
        self.credentials.note_access(expires_in, now);
        if self.link.purpose() != Purpose::Sync {
            return Ok(());
        }
        let link = &mut self.link;
        let given_up = self.shared.give_up(|store, fresh| link.handle_access(store, fresh))?;
        self.settle(given_up).await?;
        let connected = ConnectionState::Connected { writable };
        let former = self.shared.status.borrow().connection.clone();
        if !matches!(former, ConnectionState::Connected { .. }) {
            self.begin(peer, writable);
        } else if former != connected {
            // Large contents may be sent now, or not any more.
            self.blobs.shutdown().await;
            self.transfer_blobs(writable);
            self.shared.report_connection(self.number, connected);
        }
        self.shared.handle_saved(&mut self.link)
    }

    async fn handle_not_yours(&mut self, replica: ReplicaId, next: u64) -> Result<(), LinkError> {
        let (link, foreign) = (&mut self.link, (replica, next));
        let give_up = |store: &mut _, fresh| link.handle_not_yours(store, foreign, fresh);
        let given_up = self.shared.give_up(give_up)?;
        self.shared.report(self.number, |status| {
            status.last_error = Some(NOT_YOURS);
            true
        });
        self.settle(given_up).await
    }

    /// Goes on with another connection if seats were given up.
    async fn settle(&mut self, given_up: bool) -> Result<(), LinkError> {
        if given_up {
            // Nothing is sent before it is on disk, nor is any connection opened.
            self.shared.flush().await?;
            return Err(LinkError::NotYours);
        }
        Ok(())
    }

    async fn take_in(&mut self, patch: Bytes) -> Result<(), LinkError> {
        if self.shared.is_disk_behind() {
            self.shared.flush().await?;
        }
        let taken_in = take_in_off_thread(&self.shared, &self.link, patch.clone()).await?;
        if matches!(taken_in, TakenIn::Settled { .. }) {
            // Nothing is sent before it is on disk, nor is any connection opened.
            self.shared.flush().await?;
        }
        self.link.handle_taken_in(&taken_in, &patch)
    }

    fn publish(&self) {
        if !self.link.is_syncing() {
            return;
        }
        let session = self.link.session();
        let (sent, stored) = (session.sent(), session.stored());
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
        self.link.handle_close();
        let goodbye: Vec<ClientFrame> = std::iter::from_fn(|| self.link.poll_transmit()).collect();
        self.pipe.close(goodbye).await;
    }
}
