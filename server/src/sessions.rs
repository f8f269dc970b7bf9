//! Who is here: each connection, and each store that it has open. For an operator to see, and to
//! end.
//!
//! Entries live as long as what they stand for, through guards. Nothing is written here on the way
//! of a change but one position; bytes are asked of the connections when somebody wants to know.
//!
//! Invariant: E1. Each session's connection is listed as long as the session.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use quinn::{Connection, VarInt};
use sds_sync::access::{Access, Scope};
use sds_sync::{Refusal, RefusalCode, StoreId};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::metrics::Metrics;
use crate::rooms::Rooms;

/// What a client whose token was revoked is told.
pub(crate) const REVOKED: Refusal =
    Refusal::new(RefusalCode::Unauthorized, "the token was revoked");
/// What a client whom the operator cuts off is told. It may come back: to keep it out its token has
/// to be revoked.
pub(crate) const KICKED: Refusal =
    Refusal::new(RefusalCode::Busy, "the relay's operator ended the session; try again later");

/// The code with which a connection is closed that the operator cuts off.
const KICKED_CODE: VarInt = VarInt::from_u32(1);

/// How long a connection lasts that the operator cuts off, so that its client reads why.
const KICK_TIME: Duration = Duration::from_secs(1);

/// The position of a session that is being opened.
const NOT_YET: u64 = u64::MAX;

/// All connections and sessions.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next connection or session; none is given twice.
    next: u64,
    connections: BTreeMap<u64, Linked>,
    sessions: BTreeMap<u64, Arc<Open>>,
}

struct Linked {
    connection: Connection,
    since: SystemTime,
    /// What of its bytes the metrics have.
    counted: Bytes,
}

/// How many bytes of datagrams a connection has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bytes {
    pub(crate) received: u64,
    pub(crate) sent: u64,
}

/// A store that a connection has open.
#[derive(Debug)]
struct Open {
    number: u64,
    connection: u64,
    store: StoreId,
    since: SystemTime,
    access: Mutex<Arc<Access>>,
    position: AtomicU64,
    /// Why it is to end, once somebody has said so.
    ending: OnceLock<Refusal>,
    told: Notify,
}

/// A connection in the list, until this is dropped.
#[derive(Debug)]
pub(crate) struct ConnectionEntry {
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    number: u64,
}

/// A session in the list, until this is dropped.
#[derive(Debug)]
pub(crate) struct SessionEntry {
    sessions: Arc<Sessions>,
    open: Arc<Open>,
}

/// What can be told of a connection.
#[derive(Clone, Debug)]
pub(crate) struct ConnectionFacts {
    pub(crate) number: u64,
    pub(crate) address: SocketAddr,
    pub(crate) since: SystemTime,
    pub(crate) bytes: Bytes,
    pub(crate) sessions: usize,
}

/// What can be told of a session.
#[derive(Clone, Debug)]
pub(crate) struct SessionFacts {
    pub(crate) number: u64,
    pub(crate) connection: u64,
    pub(crate) store: StoreId,
    pub(crate) subject: String,
    pub(crate) scope: Scope,
    pub(crate) expires: SystemTime,
    pub(crate) address: Option<SocketAddr>,
    pub(crate) since: SystemTime,
    /// Of its whole connection.
    pub(crate) bytes: Bytes,
    /// How far in the store's log; nothing while it is being opened.
    pub(crate) position: Option<u64>,
    /// By how many changes it is behind the end of the log.
    pub(crate) lag: u64,
}

/// Which sessions; all that match each that is given.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    pub(crate) session: Option<u64>,
    pub(crate) connection: Option<u64>,
    pub(crate) subject: Option<String>,
    pub(crate) store: Option<StoreId>,
}

impl Sessions {
    /// Lists a connection.
    pub(crate) fn connect(
        self: &Arc<Self>,
        connection: Connection,
        metrics: Arc<Metrics>,
    ) -> ConnectionEntry {
        metrics.connections.inc();
        let mut state = self.lock();
        let number = state.number();
        let linked = Linked { connection, since: SystemTime::now(), counted: Bytes::default() };
        state.connections.insert(number, linked);
        ConnectionEntry { sessions: Arc::clone(self), metrics, number }
    }

    /// Ends the sessions that `is_meant` says so of: each tells its client `why`. How many there
    /// were.
    pub(crate) fn end(&self, why: Refusal, is_meant: impl Fn(&StoreId, &Access) -> bool) -> usize {
        self.end_those(why, |open| is_meant(&open.store, &open.access()))
    }

    /// Ends the sessions that are selected, of stores that `may_end` allows. How many there were.
    pub(crate) fn kick(&self, selection: &Selection, may_end: impl Fn(&str) -> bool) -> usize {
        self.end_those(KICKED, |open| selection.has(open) && may_end(open.store.as_str()))
    }

    fn end_those(&self, why: Refusal, is_meant: impl Fn(&Open) -> bool) -> usize {
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        let meant = sessions.iter().filter(|open| is_meant(open));
        meant.filter(|open| open.end(why)).count()
    }

    /// Closes a connection when those have had time to hear why who have stores open on it. Needs a
    /// tokio runtime.
    pub(crate) fn cut_off(&self, connection: u64) {
        let linked =
            self.lock().connections.get(&connection).map(|linked| linked.connection.clone());
        if let Some(connection) = linked {
            tokio::spawn(async move {
                let _left = timeout(KICK_TIME, connection.closed()).await;
                connection.close(KICKED_CODE, b"kicked");
            });
        }
    }

    /// Sessions that are selected, of stores that `may_see` allows, by number from the one behind
    /// `after` on; at most `max`.
    pub(crate) fn list(
        &self,
        rooms: &Rooms,
        selection: &Selection,
        may_see: impl Fn(&str) -> bool,
        after: Option<u64>,
        max: usize,
    ) -> Vec<SessionFacts> {
        let state = self.lock();
        let from = after.map_or(0, |after| after.saturating_add(1));
        let listed = state.sessions.range(from..).map(|(_, open)| open);
        let meant = listed.filter(|open| selection.has(open) && may_see(open.store.as_str()));
        meant.take(max).map(|open| state.facts(open, rooms)).collect()
    }

    /// Connections by number from the one behind `after` on; at most `max`.
    pub(crate) fn list_connections(&self, after: Option<u64>, max: usize) -> Vec<ConnectionFacts> {
        let state = self.lock();
        let from = after.map_or(0, |after| after.saturating_add(1));
        let mut facts: Vec<ConnectionFacts> = state
            .connections
            .range(from..)
            .take(max)
            .map(|(number, linked)| linked.facts(*number))
            .collect();
        for open in state.sessions.values() {
            if let Ok(index) = facts.binary_search_by_key(&open.connection, |facts| facts.number) {
                let facts = facts.get_mut(index);
                facts.into_iter().for_each(|facts| facts.sessions += 1);
            }
        }
        facts
    }

    /// How many connections and sessions there are.
    pub(crate) fn count(&self) -> (usize, usize) {
        let state = self.lock();
        (state.connections.len(), state.sessions.len())
    }

    /// By how many changes the slowest session is behind.
    pub(crate) fn lag_max(&self, rooms: &Rooms) -> u64 {
        let sessions: Vec<_> = self.lock().sessions.values().cloned().collect();
        let lags = sessions.iter().map(|open| open.lag(rooms));
        lags.max().unwrap_or(0)
    }

    /// Lets the metrics have the bytes of all connections up to now.
    pub(crate) fn tally(&self, metrics: &Metrics) {
        self.lock().connections.values_mut().for_each(|linked| linked.tally(metrics));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave the lists half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn facts(&self, open: &Open, rooms: &Rooms) -> SessionFacts {
        let linked = self.connections.get(&open.connection);
        let access = open.access();
        SessionFacts {
            number: open.number,
            connection: open.connection,
            store: open.store.clone(),
            subject: access.subject.clone(),
            scope: access.scope,
            expires: access.expires,
            address: linked.map(|linked| linked.connection.remote_address()),
            since: open.since,
            bytes: linked.map(Linked::bytes).unwrap_or_default(),
            position: open.position(),
            lag: open.lag(rooms),
        }
    }
}

impl Linked {
    fn bytes(&self) -> Bytes {
        let stats = self.connection.stats();
        Bytes { received: stats.udp_rx.bytes, sent: stats.udp_tx.bytes }
    }

    fn facts(&self, number: u64) -> ConnectionFacts {
        ConnectionFacts {
            number,
            address: self.connection.remote_address(),
            since: self.since,
            bytes: self.bytes(),
            sessions: 0,
        }
    }

    fn tally(&mut self, metrics: &Metrics) {
        let bytes = self.bytes();
        metrics.received_bytes.inc_by(bytes.received.saturating_sub(self.counted.received));
        metrics.sent_bytes.inc_by(bytes.sent.saturating_sub(self.counted.sent));
        self.counted = bytes;
    }
}

impl fmt::Debug for Linked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Linked").field("since", &self.since).finish_non_exhaustive()
    }
}

impl Open {
    fn access(&self) -> Arc<Access> {
        Arc::clone(&self.access.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Lets the session end; says false if it was to end before.
    fn end(&self, why: Refusal) -> bool {
        let is_first = self.ending.set(why).is_ok();
        self.told.notify_one();
        is_first
    }

    fn lag(&self, rooms: &Rooms) -> u64 {
        let end = || rooms.end(&self.store);
        self.position().map_or(0, |position| end().saturating_sub(position))
    }

    fn position(&self) -> Option<u64> {
        Some(self.position.load(Ordering::Relaxed)).filter(|position| *position != NOT_YET)
    }
}

impl Selection {
    fn has(&self, open: &Open) -> bool {
        self.session.is_none_or(|number| number == open.number)
            && self.connection.is_none_or(|number| number == open.connection)
            && self.store.as_ref().is_none_or(|store| *store == open.store)
            && self.subject.as_ref().is_none_or(|subject| *subject == open.access().subject)
    }
}

impl ConnectionEntry {
    /// Lists a store that the connection has open now.
    pub(crate) fn open(&self, store: &StoreId, access: &Access) -> SessionEntry {
        let mut state = self.sessions.lock();
        let open = Arc::new(Open {
            number: state.number(),
            connection: self.number,
            store: store.clone(),
            since: SystemTime::now(),
            access: Mutex::new(Arc::new(access.clone())),
            position: AtomicU64::new(NOT_YET),
            ending: OnceLock::new(),
            told: Notify::new(),
        });
        state.sessions.insert(open.number, Arc::clone(&open));
        SessionEntry { sessions: Arc::clone(&self.sessions), open }
    }
}

impl Drop for ConnectionEntry {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        if let Some(mut linked) = self.sessions.lock().connections.remove(&self.number) {
            linked.tally(&self.metrics);
        }
    }
}

impl SessionEntry {
    /// Resolves when somebody ends the session: what its client is to be told.
    pub(crate) async fn ended(&self) -> Refusal {
        loop {
            if let Some(refusal) = self.open.ending.get() {
                return *refusal;
            }
            self.open.told.notified().await;
        }
    }

    /// Notes what a newer token allows.
    pub(crate) fn set_access(&self, access: &Access) {
        *self.open.access.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(access.clone());
    }

    /// Notes how far in the log the session is.
    pub(crate) fn set_position(&self, position: u64) {
        self.open.position.store(position, Ordering::Relaxed);
    }

    /// Notes that the session follows the log no further, so that nobody is told of how far it is.
    pub(crate) fn leave_log(&self) {
        self.set_position(NOT_YET);
    }
}

impl Drop for SessionEntry {
    fn drop(&mut self) {
        self.sessions.lock().sessions.remove(&self.open.number);
    }
}
