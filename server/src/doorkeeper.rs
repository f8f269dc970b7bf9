//! Who may connect: how many in all, and from one address how many and how fast.
//!
//! Anybody can send packets in somebody else's name, so only what an address has proved counts
//! against it; who has not is asked to when there is reason to (QUIC Retry), which costs the relay
//! no memory. All of an IPv6 /64 are one address: whoever has one has all of them.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sds_sync::transport::{Applicant, Doorkeeper, Shaken, Verdict};

use crate::limits::{Limit, Limits, REMEMBERED_MAX};
use crate::metrics::{Handshake, Metrics};
use sds_sync::rate::Bucket;

/// How often those are forgotten who are of no account any more, if there are too many.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Lets clients of a relay in.
#[derive(Debug)]
pub(crate) struct Door {
    limits: Limits,
    metrics: Arc<Metrics>,
    addresses: Mutex<Addresses>,
}

#[derive(Debug)]
struct Addresses {
    /// At most [`REMEMBERED_MAX`], beside those of connections.
    known: HashMap<IpAddr, Address>,
    /// How many connections there are on which nobody has opened a store yet.
    strangers: u32,
    /// When those of no account were forgotten.
    swept: Instant,
}

/// What is known of an address.
#[derive(Debug)]
struct Address {
    connections: u32,
    /// Those of them on which nobody has opened a store yet.
    strangers: u32,
    /// Those that have proved the address before they began.
    handshakes: u32,
    /// The handshakes that it may still begin.
    rate: Bucket,
}

/// A connection from an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    door: Arc<Door>,
    address: IpAddr,
    is_stranger: AtomicBool,
}

impl Door {
    pub(crate) fn new(limits: Limits, metrics: Arc<Metrics>) -> Self {
        let addresses = Addresses { known: HashMap::new(), strangers: 0, swept: Instant::now() };
        Self { limits, metrics, addresses: Mutex::new(addresses) }
    }

    /// Counts a connection against its address, until the answer is dropped. None if there are too
    /// many.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Visit> {
        let (now, address) = (Instant::now(), network(address));
        let mut addresses = self.lock();
        let is_full = addresses.strangers >= self.limits.strangers;
        // A connection is a place of its own, whatever else is remembered.
        let known = addresses.known.entry(address).or_insert_with(|| self.unknown(now));
        let limit = match self.limit_of_known(known) {
            None if is_full => Some(Limit::Strangers),
            limit => limit,
        };
        if let Some(limit) = limit {
            drop(addresses);
            self.metrics.limit_hit(limit);
            return None;
        }
        (known.connections, known.strangers) = (known.connections + 1, known.strangers + 1);
        addresses.strangers += 1;
        Some(Visit { door: Arc::clone(self), address, is_stranger: AtomicBool::new(true) })
    }

    /// What keeps further connections of an address out.
    fn limit_of_known(&self, known: &Address) -> Option<Limit> {
        if known.connections >= self.limits.connections_per_address {
            Some(Limit::ConnectionsPerAddress)
        } else if known.strangers >= self.limits.strangers.div_ceil(4) {
            Some(Limit::Strangers)
        } else {
            None
        }
    }

    /// What keeps everybody out.
    fn limit_of_all(&self, applicant: Applicant) -> Option<Limit> {
        if applicant.connections + applicant.handshakes >= self.limits.connections as usize {
            Some(Limit::Connections)
        } else if applicant.handshakes >= self.limits.handshakes as usize {
            Some(Limit::Handshakes)
        } else if self.lock().strangers >= self.limits.strangers {
            Some(Limit::Strangers)
        } else {
            None
        }
    }

    /// What keeps those from this address out.
    fn limit_of(&self, address: IpAddr, now: Instant) -> Option<Limit> {
        let mut addresses = self.lock();
        let known = addresses.known.get_mut(&network(address))?;
        if let Some(limit) = self.limit_of_known(known) {
            Some(limit)
        } else if known.handshakes >= self.limits.handshakes.div_ceil(4) {
            Some(Limit::Handshakes)
        } else if known.rate.is_empty(now) {
            Some(Limit::HandshakeRate)
        } else {
            None
        }
    }

    fn refuse(&self, limit: Limit) -> Verdict {
        self.metrics.limit_hit(limit);
        self.metrics.handshake(Handshake::Refused);
        Verdict::Refuse
    }

    fn ask_for_proof(&self) -> Verdict {
        self.metrics.limit_hit(Limit::UnprovedHandshakes);
        self.metrics.handshake(Handshake::Retried);
        Verdict::Prove
    }

    /// Counts a handshake, and those under way, against an address that has proved to be it.
    fn charge(&self, address: IpAddr, under_way: u32, now: Instant) {
        let mut addresses = self.lock();
        if addresses.known.len() >= REMEMBERED_MAX
            && now.saturating_duration_since(addresses.swept) >= SWEEP_INTERVAL
        {
            addresses.swept = now;
            addresses.known.retain(|_, known| !known.is_forgettable(now));
        }
        let (address, is_full) = (network(address), addresses.known.len() >= REMEMBERED_MAX);
        if is_full && !addresses.known.contains_key(&address) {
            return;
        }
        let known = addresses.known.entry(address).or_insert_with(|| self.unknown(now));
        known.handshakes += under_way;
        // Whether there was one left was asked before.
        let _was_left = known.rate.take(now);
    }

    fn unknown(&self, now: Instant) -> Address {
        let rate = Bucket::new(self.limits.handshakes_per_second_per_address, now);
        Address { connections: 0, strangers: 0, handshakes: 0, rate }
    }

    fn lock(&self) -> MutexGuard<'_, Addresses> {
        // No code under this lock can leave the table half changed.
        self.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Doorkeeper for Door {
    fn judge(&self, applicant: Applicant) -> Verdict {
        let now = Instant::now();
        if let Some(limit) = self.limit_of_all(applicant) {
            return self.refuse(limit);
        }
        let is_among_many = applicant.handshakes >= self.limits.unproved_handshakes as usize;
        match self.limit_of(applicant.address, now) {
            Some(limit) if applicant.is_proved => self.refuse(limit),
            Some(_) => self.ask_for_proof(),
            None if applicant.is_proved => {
                self.charge(applicant.address, 1, now);
                Verdict::Accept
            }
            None if is_among_many => self.ask_for_proof(),
            None => Verdict::Accept,
        }
    }

    fn handshake_time(&self) -> Duration {
        self.limits.authenticate_time()
    }

    fn note_handshake(&self, applicant: Applicant, shaken: Shaken) {
        let is_connected = shaken == Shaken::Connected;
        let outcome = if is_connected { Handshake::Completed } else { Handshake::Failed };
        self.metrics.handshake(outcome);
        if shaken == Shaken::TooSlow {
            self.metrics.limit_hit(Limit::AuthenticateTime);
        }
        if applicant.is_proved {
            if let Some(known) = self.lock().known.get_mut(&network(applicant.address)) {
                known.handshakes = known.handshakes.saturating_sub(1);
            }
        } else if is_connected {
            // It has answered, so the address is its own.
            self.charge(applicant.address, 0, Instant::now());
        }
    }
}

impl Address {
    /// Whether a newcomer would be treated alike.
    fn is_forgettable(&mut self, now: Instant) -> bool {
        self.connections == 0 && self.handshakes == 0 && self.rate.is_full(now)
    }
}

impl Visit {
    /// Counts the connection as that of somebody who has shown a token.
    pub(crate) fn become_member(&self) {
        if self.is_stranger.swap(false, Ordering::Relaxed) {
            let mut addresses = self.door.lock();
            addresses.strangers = addresses.strangers.saturating_sub(1);
            if let Some(known) = addresses.known.get_mut(&self.address) {
                known.strangers = known.strangers.saturating_sub(1);
            }
        }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.become_member();
        let mut addresses = self.door.lock();
        if let Some(known) = addresses.known.get_mut(&self.address) {
            known.connections = known.connections.saturating_sub(1);
            if known.is_forgettable(Instant::now()) {
                addresses.known.remove(&self.address);
            }
        }
    }
}

/// What counts as one address.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) >> 64 << 64;
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANN: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, 1));
    const BOB: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 2, 0, 0, 0, 1));

    fn door(change: impl FnOnce(&mut Limits)) -> Arc<Door> {
        let mut limits = Limits::default();
        change(&mut limits);
        limits.check().unwrap();
        Arc::new(Door::new(limits, Arc::default()))
    }

    fn proved(address: IpAddr) -> Applicant {
        Applicant { address, is_proved: true, handshakes: 0, connections: 0 }
    }

    fn hits(door: &Door, limit: Limit) -> u64 {
        door.metrics.limit_hits(limit)
    }

    #[test]
    fn all_of_a_64_are_one_address_and_a_mapped_one_is_itself() {
        let rows = [
            ("2001:db8::1", "2001:db8::ffff:1:2:3", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            ("::ffff:192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
        ];
        for (one, other, is_same) in rows {
            let [one, other] = [one, other].map(|text| network(text.parse().unwrap()));
            assert_eq!(one == other, is_same, "{one} {other}");
        }
    }

    #[test]
    fn what_holds_for_all_together_holds_at_the_bound() {
        let door = door(|limits| {
            (limits.connections, limits.handshakes, limits.unproved_handshakes) = (10, 8, 4);
        });
        let judge = |handshakes, connections, is_proved| {
            door.judge(Applicant { address: ANN, is_proved, handshakes, connections })
        };
        assert_eq!(judge(3, 6, false), Verdict::Accept);
        assert_eq!(judge(4, 5, false), Verdict::Prove);
        assert_eq!(judge(4, 5, true), Verdict::Accept);
        assert_eq!(hits(&door, Limit::UnprovedHandshakes), 1);
        assert_eq!(judge(4, 6, false), Verdict::Refuse);
        assert_eq!(judge(4, 6, true), Verdict::Refuse);
        assert_eq!(hits(&door, Limit::Connections), 2);
        assert_eq!(judge(8, 0, false), Verdict::Refuse);
        assert_eq!(hits(&door, Limit::Handshakes), 1);
    }

    #[test]
    fn an_address_has_so_many_connections_and_others_have_theirs() {
        let door = door(|limits| limits.connections_per_address = 2);
        let visits = [door.enter(ANN), door.enter(ANN)];
        assert!(visits.iter().all(Option::is_some));
        assert!(door.enter(ANN).is_none());
        assert_eq!(door.judge(proved(ANN)), Verdict::Refuse);
        assert_eq!(hits(&door, Limit::ConnectionsPerAddress), 2);
        let unproved = Applicant { is_proved: false, ..proved(ANN) };
        assert_eq!(door.judge(unproved), Verdict::Prove, "it may be somebody else");
        assert!(door.enter(BOB).is_some());
        drop(visits);
        assert!(door.enter(ANN).is_some());
        assert_eq!(door.judge(proved(ANN)), Verdict::Accept);
    }

    #[test]
    fn an_address_shakes_hands_so_often_a_second_and_keeps_nobody_else_out() {
        let door = door(|limits| limits.handshakes_per_second_per_address = 3);
        for _ in 0..3 {
            assert_eq!(door.judge(proved(ANN)), Verdict::Accept);
            door.note_handshake(proved(ANN), Shaken::Failed);
        }
        assert_eq!(door.judge(proved(ANN)), Verdict::Refuse);
        assert_eq!(hits(&door, Limit::HandshakeRate), 1);
        assert_eq!(door.judge(proved(BOB)), Verdict::Accept);
        // Who only says that it is Bob costs Bob nothing.
        let unproved = Applicant { is_proved: false, ..proved(BOB) };
        for _ in 0..10 {
            assert_eq!(door.judge(unproved), Verdict::Accept);
            door.note_handshake(unproved, Shaken::Failed);
        }
        assert_eq!(door.judge(proved(BOB)), Verdict::Accept);
        door.note_handshake(unproved, Shaken::Connected);
        assert_eq!(door.judge(unproved), Verdict::Prove, "it has answered three times by now");
    }

    #[test]
    fn strangers_have_places_of_their_own_of_which_an_address_has_a_quarter() {
        let door = door(|limits| limits.strangers = 8);
        let address = |number| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, number, 0, 0, 0, 1));
        let mut visits: Vec<Visit> = (0..2).map(|_| door.enter(ANN).unwrap()).collect();
        assert!(door.enter(ANN).is_none());
        assert_eq!(door.judge(proved(ANN)), Verdict::Refuse);
        visits[0].become_member();
        visits[0].become_member();
        visits.push(door.enter(ANN).unwrap());
        assert!(door.enter(ANN).is_none(), "a member has one place, not two");
        visits.extend((2..8).map(|number| door.enter(address(number)).unwrap()));
        assert!(door.enter(address(9)).is_none());
        assert_eq!(door.judge(proved(address(9))), Verdict::Refuse);
        drop(visits.pop());
        assert_eq!(door.judge(proved(address(9))), Verdict::Accept);
        visits.push(door.enter(address(9)).unwrap());
        assert_eq!(hits(&door, Limit::Strangers), 5);
        drop(visits);
        assert_eq!(door.lock().strangers, 0);
    }

    #[test]
    fn one_address_has_at_most_a_quarter_of_the_handshakes() {
        let door = door(|limits| (limits.handshakes, limits.unproved_handshakes) = (8, 4));
        assert_eq!(door.judge(proved(ANN)), Verdict::Accept);
        assert_eq!(door.judge(proved(ANN)), Verdict::Accept);
        assert_eq!(door.judge(proved(ANN)), Verdict::Refuse);
        assert_eq!(door.judge(proved(BOB)), Verdict::Accept);
        door.note_handshake(proved(ANN), Shaken::Connected);
        assert_eq!(door.judge(proved(ANN)), Verdict::Accept);
    }

    #[test]
    fn what_is_remembered_is_bounded_and_the_unknown_are_let_in() {
        let door = door(|limits| limits.handshakes_per_second_per_address = 1);
        let address = |number: u128| IpAddr::V6(Ipv6Addr::from((1 << 120) + (number << 64)));
        for number in 0..REMEMBERED_MAX as u128 + 10 {
            assert_eq!(door.judge(proved(address(number))), Verdict::Accept);
        }
        assert_eq!(door.lock().known.len(), REMEMBERED_MAX);
        assert!(door.enter(BOB).is_some());
    }
}
