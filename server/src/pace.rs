//! How fast clients may send: each connection, and all connections of one subject together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use sds_sync::access::{Access, StoreSet};
use sds_sync::transport::{Pace, RoomBytes, SharedRoom};

use crate::limits::{
    ARRIVED_BYTES_PER_SUBJECT_MAX, BEGUN_BYTES_PER_SUBJECT_MAX, KNOWN_BYTES_PER_SUBJECT_MAX,
    LEAVING_BYTES_PER_SUBJECT_MAX, Limit, Limits, SIGNAL_BYTES_PER_SUBJECT_MAX,
};
use crate::metrics::Metrics;
use sds_sync::rate::Bucket;
use tokio::sync::Semaphore;

/// What all connections of a subject share.
const ROOM_OF_SUBJECT: RoomBytes = RoomBytes {
    begun: BEGUN_BYTES_PER_SUBJECT_MAX,
    arrived: ARRIVED_BYTES_PER_SUBJECT_MAX,
    leaving: LEAVING_BYTES_PER_SUBJECT_MAX,
};

/// Who has connections and what all of them share: a subject, among the tokens of one realm, as an
/// admin of stores may give anybody's name to a token.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Holder {
    subject: Arc<str>,
    realm: Option<StoreSet>,
}

impl Holder {
    pub(crate) fn of(access: &Access) -> Self {
        Self { subject: access.subject.as_str().into(), realm: access.realm.clone() }
    }
}

/// The subjects that have stores open.
#[derive(Debug, Default)]
pub(crate) struct Subjects {
    /// Only those with connections.
    known: Mutex<HashMap<Arc<Holder>, Subject>>,
}

#[derive(Debug)]
struct Subject {
    connections: u32,
    share: Arc<Share>,
}

/// What all connections of a subject have together.
#[derive(Debug)]
struct Share {
    bytes: Mutex<Bucket>,
    signals: Mutex<Bucket>,
    room: Arc<SharedRoom>,
    messages: Arc<Semaphore>,
    known: Arc<Semaphore>,
}

/// A connection on which a subject has stores open, until it is dropped.
#[derive(Debug)]
pub(crate) struct SubjectSeat {
    subjects: Arc<Subjects>,
    holder: Arc<Holder>,
    share: Arc<Share>,
}

impl Subjects {
    /// Counts a connection of `holder`, until the answer is dropped. None if there are too many.
    pub(crate) fn enter(self: &Arc<Self>, holder: Holder, limits: &Limits) -> Option<SubjectSeat> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (holder, subjects) = match known.get_key_value(&holder) {
            Some((holder, _)) => (Arc::clone(holder), Arc::clone(self)),
            None => (Arc::new(holder), Arc::clone(self)),
        };
        let subject = known
            .entry(Arc::clone(&holder))
            .or_insert_with(|| Subject { connections: 0, share: Arc::new(Share::new(limits)) });
        if subject.connections >= limits.connections_per_subject {
            return None;
        }
        subject.connections += 1;
        let share = Arc::clone(&subject.share);
        Some(SubjectSeat { subjects, holder, share })
    }
}

impl Share {
    fn new(limits: &Limits) -> Self {
        let bucket = |per_second| Mutex::new(Bucket::new(per_second, Instant::now()));
        Self {
            bytes: bucket(limits.bytes_per_second_per_subject),
            signals: bucket(limits.signals_per_second_per_subject),
            room: Arc::new(SharedRoom::new(ROOM_OF_SUBJECT)),
            messages: Arc::new(Semaphore::new(SIGNAL_BYTES_PER_SUBJECT_MAX)),
            known: Arc::new(Semaphore::new(KNOWN_BYTES_PER_SUBJECT_MAX)),
        }
    }
}

impl SubjectSeat {
    /// What all that it sends and is sent shares.
    pub(crate) fn room(&self) -> &Arc<SharedRoom> {
        &self.share.room
    }

    /// Room for so many bytes of messages that are on their way to all its sessions together.
    pub(crate) fn messages(&self) -> &Arc<Semaphore> {
        &self.share.messages
    }

    /// Room for so many bytes of what the clients of all its sessions have.
    pub(crate) fn known(&self) -> &Arc<Semaphore> {
        &self.share.known
    }

    /// Takes one of the messages that all its connections may send together, if there is one.
    fn take_signal(&self, now: Instant) -> bool {
        self.share.signals.lock().unwrap_or_else(PoisonError::into_inner).take(now)
    }

    /// Whose it is.
    pub(crate) fn name(&self) -> &str {
        &self.holder.subject
    }

    /// Whether it is that of `holder`.
    pub(crate) fn is_of(&self, holder: &Holder) -> bool {
        *self.holder == *holder
    }
}

impl Drop for SubjectSeat {
    fn drop(&mut self) {
        let mut known = self.subjects.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(subject) = known.get_mut(&self.holder) {
            subject.connections -= 1;
            if subject.connections == 0 {
                known.remove(&self.holder);
            }
        }
    }
}

/// How far past the rate of datagrams a connection is ended. Nothing can make a sender of datagrams
/// wait, and each costs the relay a decryption, so that dropping them would not keep a flood off
/// the others.
const FLOOD_DEBT: Duration = Duration::from_secs(1);

/// What becomes of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DatagramFate {
    Read,
    /// There were too many of late.
    Dropped,
    /// There were so many that it is an attack.
    EndsConnection,
}

/// How fast one connection may send.
#[derive(Debug)]
pub(crate) struct ConnectionPace {
    metrics: Arc<Metrics>,
    rates: Mutex<Rates>,
}

#[derive(Debug)]
struct Rates {
    frames: Bucket,
    datagrams: Bucket,
    bytes: Bucket,
    signals: Bucket,
    /// Those who have stores open on the connection; never more than it may have open.
    subjects: Vec<Weak<SubjectSeat>>,
}

impl ConnectionPace {
    /// That of a stranger.
    pub(crate) fn new(limits: &Limits, metrics: Arc<Metrics>) -> Self {
        let now = Instant::now();
        let rates = Rates {
            frames: Bucket::new(limits.stranger_frames_per_second, now),
            datagrams: Bucket::new(limits.datagrams_per_second, now),
            bytes: Bucket::new(limits.stranger_bytes_per_second, now),
            signals: Bucket::new(limits.signals_per_second, now),
            subjects: Vec::new(),
        };
        Self { metrics, rates: Mutex::new(rates) }
    }

    /// That of somebody who has shown a token, from now on.
    pub(crate) fn widen(&self, limits: &Limits) {
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.frames.set_rate(limits.frames_per_second, now);
        rates.bytes.set_rate(limits.bytes_per_second, now);
    }

    /// Counts a datagram of so many bytes, and says what is to become of it.
    pub(crate) fn note_datagram(&self, bytes: usize) -> DatagramFate {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let debt = rates.datagrams.spend(1, Instant::now());
        drop(rates);
        // It has come, so it counts against the bytes whatever becomes of it.
        let is_in_time = self.note(0, bytes).is_zero();
        if debt.is_zero() {
            return if is_in_time { DatagramFate::Read } else { DatagramFate::Dropped };
        }
        self.metrics.limit_hit(Limit::DatagramRate);
        if debt < FLOOD_DEBT { DatagramFate::Dropped } else { DatagramFate::EndsConnection }
    }

    /// Takes one of the messages that the connection, and all of the subject of `seat`, may send.
    ///
    /// # Errors
    /// Which limit there is, if there is none left.
    pub(crate) fn take_signal(&self, seat: &SubjectSeat) -> Result<(), Limit> {
        let now = Instant::now();
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if rates.signals.is_empty(now) {
            Err(Limit::SignalRate)
        } else if !seat.take_signal(now) {
            Err(Limit::SubjectSignalRate)
        } else {
            // What the subject's limit refuses costs the connection nothing.
            let _was_left = rates.signals.take(now);
            Ok(())
        }
    }

    /// Counts what comes from now on against `seat` too, as long as it is there.
    pub(crate) fn add(&self, seat: &Arc<SubjectSeat>) {
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        rates.subjects.retain(|seat| seat.strong_count() > 0);
        rates.subjects.push(Arc::downgrade(seat));
    }
}

impl Pace for ConnectionPace {
    fn note(&self, frames: usize, bytes: usize) -> Duration {
        let now = Instant::now();
        let steps = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        let by_frames = rates.frames.spend(steps(frames), now);
        let by_bytes = rates.bytes.spend(steps(bytes), now);
        let by_subject = rates.subjects.iter().filter_map(Weak::upgrade).map(|seat| {
            let mut rate = seat.share.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            rate.spend(steps(bytes), now)
        });
        let by_subject = by_subject.max().unwrap_or_default();
        drop(rates);
        let waits = [
            (by_frames, Limit::FrameRate),
            (by_bytes, Limit::ByteRate),
            (by_subject, Limit::SubjectByteRate),
        ];
        for (_, limit) in waits.into_iter().filter(|(wait, _)| !wait.is_zero()) {
            self.metrics.limit_hit(limit);
        }
        by_frames.max(by_bytes).max(by_subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(subject: &str) -> Holder {
        Holder { subject: subject.into(), realm: None }
    }

    fn limits() -> Limits {
        Limits {
            connections_per_subject: 2,
            bytes_per_second_per_subject: 3 << 20,
            bytes_per_second: 2 << 20,
            ..Limits::default()
        }
    }

    #[test]
    fn a_subject_has_so_many_connections_and_others_have_theirs() {
        let (subjects, limits) = (Arc::new(Subjects::default()), limits());
        let enter = |name| subjects.enter(holder(name), &limits);
        let (first, second) = (enter("ann"), enter("ann"));
        assert!(first.is_some() && second.is_some());
        assert!(enter("ann").is_none());
        assert!(enter("bob").is_some());
        drop(first);
        assert!(enter("ann").is_some());
        drop(second);
        assert!(subjects.known.lock().unwrap().is_empty(), "who has left is forgotten");
    }

    #[test]
    fn strangers_are_slower_and_each_bound_is_its_own() {
        let (metrics, limits) = (Arc::<Metrics>::default(), limits());
        let pace = ConnectionPace::new(&limits, Arc::clone(&metrics));
        let hits = |limit| metrics.limit_hits(limit);
        assert!(pace.note(limits.stranger_frames_per_second as usize, 0).is_zero());
        assert!(pace.note(1, 0) > Duration::ZERO);
        assert_eq!((hits(Limit::FrameRate), hits(Limit::ByteRate)), (1, 0));
        pace.widen(&limits);
        assert!(pace.note(limits.stranger_frames_per_second as usize + 1, 2 << 20).is_zero());
        let wait = pace.note(0, 1 << 20);
        assert!(
            wait > Duration::from_millis(400) && wait <= Duration::from_millis(500),
            "{wait:?}"
        );
        assert_eq!((hits(Limit::FrameRate), hits(Limit::ByteRate)), (1, 1));
    }

    #[test]
    fn datagrams_past_the_rate_are_dropped_and_twice_as_many_end_the_connection() {
        let (metrics, limits) = (Arc::<Metrics>::default(), limits());
        let pace = ConnectionPace::new(&limits, Arc::clone(&metrics));
        let rate = limits.datagrams_per_second;
        let fates: Vec<_> = (0..3 * rate).map(|_| pace.note_datagram(1)).collect();
        let count = |fate| fates.iter().filter(|found| **found == fate).count();
        let at_once = rate as usize;
        // Some grow back while this loop runs.
        assert!((at_once..2 * at_once).contains(&count(DatagramFate::Read)));
        assert!((at_once - 1..2 * at_once).contains(&count(DatagramFate::Dropped)));
        assert_eq!(fates[..at_once], vec![DatagramFate::Read; at_once], "the bound is free");
        assert_eq!(fates.last(), Some(&DatagramFate::EndsConnection));
        let read = count(DatagramFate::Read) as u64;
        assert_eq!(metrics.limit_hits(Limit::DatagramRate), fates.len() as u64 - read);
        let (by_bytes, one) = (ConnectionPace::new(&limits, metrics), 1);
        assert_eq!(by_bytes.note_datagram(1 << 20), DatagramFate::Dropped, "bytes count too");
        assert!(!by_bytes.note(one, 0).is_zero());
    }

    #[test]
    fn connections_of_one_subject_share_its_rate() {
        let (subjects, metrics, limits) = (Arc::default(), Arc::<Metrics>::default(), limits());
        let connect = || {
            let pace = ConnectionPace::new(&limits, Arc::clone(&metrics));
            pace.widen(&limits);
            let seat = Arc::new(Subjects::enter(&subjects, holder("ann"), &limits).unwrap());
            pace.add(&seat);
            (pace, seat)
        };
        let (one, other) = (connect(), connect());
        assert!(one.0.note(1, 2 << 20).is_zero());
        assert!(other.0.note(1, 1 << 20).is_zero());
        assert!(other.0.note(1, 1 << 20) > Duration::from_millis(300));
        assert_eq!(metrics.limit_hits(Limit::SubjectByteRate), 1);
        drop(other.1);
        assert!(other.0.note(1, 0).is_zero(), "only as long as the subject is there");
    }
}
