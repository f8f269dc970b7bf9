//! Which ops a replica has: for each replica, the counter that comes next.
//!
//! A version is the only cursor there is. Peers, files and relays compare versions to find out what
//! the other side lacks.

use std::collections::BTreeMap;
use std::fmt;

use crate::codec::{Reader, Writer};
use crate::error::DecodeError;
use crate::id::{OpId, ReplicaId};
use crate::limits::COUNTER_MAX;

/// A version vector: replica to the counter of its next op.
///
/// Invariant: no replica is listed with zero, so equal versions are equal maps.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Version(BTreeMap<ReplicaId, u64>);

impl Version {
    /// The version of an empty store.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Reads what [`Version::encode`] wrote; empty bytes are the empty version.
    ///
    /// # Errors
    /// Whatever is not such an encoding, with replicas in ascending order.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        if bytes.is_empty() {
            return Ok(Self::new());
        }
        let mut reader = Reader::new(bytes);
        let mut version = Self::new();
        let count = reader.count(9)?;
        for _ in 0..count {
            let replica = reader.replica()?;
            let next = reader.varint()?;
            if next == 0 || next > COUNTER_MAX + 1 {
                return Err(reader.malformed("counter out of range"));
            }
            if version.0.last_key_value().is_some_and(|(last, _)| *last >= replica) {
                return Err(reader.malformed("replicas not in order"));
            }
            version.0.insert(replica, next);
        }
        reader.finish()?;
        Ok(version)
    }

    /// Marks every op of `replica` below `next` as present.
    #[inline]
    pub fn advance(&mut self, replica: ReplicaId, next: u64) {
        match self.0.get_mut(&replica) {
            Some(known) => *known = next.max(*known),
            None if next > 0 => drop(self.0.insert(replica, next)),
            None => {}
        }
    }

    /// Adds everything that `other` has.
    pub fn merge(&mut self, other: &Self) {
        for (replica, next) in other.iter() {
            self.advance(replica, next);
        }
    }

    /// The counter that comes next for `replica`; zero if nothing of it is known.
    #[must_use]
    pub fn next(&self, replica: ReplicaId) -> u64 {
        self.0.get(&replica).copied().unwrap_or(0)
    }

    /// Whether `op` is among the ops of this version.
    #[must_use]
    pub fn has(&self, op: OpId) -> bool {
        op.counter < self.next(op.replica)
    }

    /// Whether every op of `other` is among the ops of this version.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(replica, next)| next <= self.next(replica))
    }

    /// The replicas with the counter that comes next for each, in order of replica.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, u64)> + '_ {
        self.0.iter().map(|(replica, next)| (*replica, *next))
    }

    /// Whether no op is in this version.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The version as bytes: a cursor for `export`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.count(self.0.len());
        for (replica, next) in self.iter() {
            writer.replica(replica);
            writer.varint(next);
        }
        writer.into_bytes()
    }
}

/// A version, and what it will be once something planned has happened. Costs what is planned.
#[derive(Debug)]
pub(crate) struct Ahead<'a> {
    version: &'a Version,
    advanced: BTreeMap<ReplicaId, u64>,
}

impl<'a> Ahead<'a> {
    pub(crate) const fn of(version: &'a Version) -> Self {
        Self { version, advanced: BTreeMap::new() }
    }

    /// Plans that the ops of `replica` below `next` will be there.
    pub(crate) fn advance(&mut self, replica: ReplicaId, next: u64) {
        self.advanced.insert(replica, next);
    }

    /// Plans the same unless more will be there.
    pub(crate) fn reach(&mut self, replica: ReplicaId, next: u64) {
        if next > self.next(replica) {
            self.advance(replica, next);
        }
    }

    /// The counter that will come next for `replica`.
    pub(crate) fn next(&self, replica: ReplicaId) -> u64 {
        let advanced = self.advanced.get(&replica);
        advanced.copied().unwrap_or_else(|| self.version.next(replica))
    }

    /// Whether `op` will be there.
    pub(crate) fn has(&self, op: OpId) -> bool {
        op.counter < self.next(op.replica)
    }

    /// The replicas of which ops will be there that are not yet, with the counter that comes next.
    pub(crate) fn advanced(&self) -> Vec<(ReplicaId, u64)> {
        self.advanced.iter().map(|(replica, next)| (*replica, *next)).collect()
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(number: u64) -> ReplicaId {
        ReplicaId::new(number).unwrap()
    }

    #[test]
    fn a_version_survives_its_encoding() {
        let mut version = Version::new();
        assert_eq!(Version::decode(&version.encode()), Ok(version.clone()));
        version.advance(replica(7), 1);
        version.advance(replica(u64::MAX), COUNTER_MAX + 1);
        assert_eq!(Version::decode(&version.encode()), Ok(version.clone()));
        assert_eq!(Version::decode(&[]), Ok(Version::new()));
    }

    #[test]
    fn damaged_versions_are_errors() {
        let mut version = Version::new();
        version.advance(replica(1), 5);
        version.advance(replica(2), 6);
        let bytes = version.encode();
        for end in 1..bytes.len() {
            assert!(Version::decode(&bytes[..end]).is_err());
        }
        let mut twice = bytes.clone();
        twice.copy_within(1..10, 10);
        assert!(Version::decode(&twice).is_err(), "a replica listed twice");
        assert!(Version::decode(&[0xff; 12]).is_err());
    }

    #[test]
    fn covering_is_a_partial_order() {
        let (mut a, mut b) = (Version::new(), Version::new());
        a.advance(replica(1), 3);
        b.advance(replica(2), 1);
        assert!(!a.covers(&b) && !b.covers(&a));
        b.merge(&a);
        assert!(b.covers(&a) && !a.covers(&b));
    }
}
