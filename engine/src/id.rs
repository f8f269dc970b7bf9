//! Names of replicas, ops and entries, and the one total order of ops.
//!
//! An [`OpId`] only says which op is meant. What is newer is decided by [`Stamp`]s alone: a replica
//! that typed ten thousand characters is not newer than one that typed ten.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use uuid::Uuid;

use crate::limits::COUNTER_MAX;

/// One author of changes: a store's file on one device. 64 random bits, never zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(NonZeroU64);

impl ReplicaId {
    /// The greatest id there can be.
    pub(crate) const MAX: Self = Self(NonZeroU64::MAX);

    /// The replica with this number, or `None` for zero, which names nobody.
    #[must_use]
    pub const fn new(number: u64) -> Option<Self> {
        match NonZeroU64::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number behind the id.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "r{:x}", self.0)
    }
}

/// Identity of one op, or of one inserted character: the n-th that its replica made, without gaps.
///
/// It has no order on purpose; see [`Stamp`].
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct OpId {
    /// Who made it.
    pub replica: ReplicaId,
    /// How many ops and characters that replica had made before.
    pub counter: u64,
}

impl OpId {
    /// The op `by` places later of the same replica.
    #[must_use]
    pub const fn plus(self, by: u64) -> Self {
        Self { replica: self.replica, counter: self.counter + by }
    }
}

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}@{}", self.replica, self.counter)
    }
}

/// When an op or a character was made, in the order that every replica agrees on.
///
/// Compared by the Lamport time of its change, then by replica, then by counter (the field order).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    /// Lamport time of the change: one more than anything its author had seen.
    pub lamport: u64,
    /// Who made it.
    pub replica: ReplicaId,
    /// Its place among the author's ops.
    pub counter: u64,
}

impl Stamp {
    /// Older than any other.
    pub(crate) const ZERO: Self =
        Self { lamport: 0, replica: ReplicaId(NonZeroU64::MIN), counter: 0 };

    /// The op that bears this stamp.
    #[must_use]
    pub const fn op(self) -> OpId {
        OpId { replica: self.replica, counter: self.counter }
    }
}

/// Name of an entry: a UUID.
///
/// Ids of entries made by this engine are version 8 and carry the op that created the entry, so
/// they cost next to nothing in a change; any other UUID is carried as it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId([u8; 16]);

impl EntryId {
    /// The item that holds everything.
    pub const ROOT: Self = Self::well_known(0);
    /// Where deleted entries wait.
    pub const TRASH: Self = Self::well_known(1);
    /// Where entries show that have lost their place.
    pub const LOST_AND_FOUND: Self = Self::well_known(2);

    const fn well_known(last: u8) -> Self {
        Self([0, 0, 0, 0, 0, 0, 0x40, 0, 0x80, 0, 0, 0, 0, 0, 0, last])
    }

    /// The entry with these UUID bytes, in network order.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The UUID's bytes, in network order.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of the entry that `op` creates: 60 bits of replica around the version, then the
    /// variant, 4 bits of replica and 58 bits of counter.
    #[must_use]
    pub fn created_by(op: OpId) -> Self {
        debug_assert!(op.counter <= COUNTER_MAX);
        let replica = op.replica.as_u64();
        let high = (replica >> 16 << 16) | 0x8000 | (replica >> 4 & 0x0fff);
        let low = (0b10 << 62) | (replica & 0xf) << 58 | op.counter;
        Self((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The op that created this entry, when the id carries it.
    #[must_use]
    pub fn creator(&self) -> Option<OpId> {
        let high = u64::from_be_bytes(*self.0.first_chunk()?);
        let low = u64::from_be_bytes(*self.0.last_chunk()?);
        if high & 0xf000 != 0x8000 || low >> 62 != 0b10 {
            return None;
        }
        let number = (high >> 16 << 16) | (high & 0x0fff) << 4 | (low >> 58 & 0xf);
        let counter = low & ((1 << 58) - 1);
        if counter > COUNTER_MAX {
            return None;
        }
        ReplicaId::new(number).map(|replica| OpId { replica, counter })
    }

    /// Whether this is Root, Trash or Lost and Found, which exist without any op.
    #[must_use]
    pub fn is_well_known(&self) -> bool {
        [Self::ROOT, Self::TRASH, Self::LOST_AND_FOUND].contains(self)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.creator()) {
            (Self::ROOT, _) => f.write_str("Root"),
            (Self::TRASH, _) => f.write_str("Trash"),
            (Self::LOST_AND_FOUND, _) => f.write_str("LostAndFound"),
            (_, Some(op)) => write!(f, "e{op:?}"),
            (_, None) => fmt::Display::fmt(self, f),
        }
    }
}

/// The text is not a UUID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an entry id: expected a uuid such as 00000000-0000-4000-8000-000000000000")]
pub struct NotAnEntryId;

impl FromStr for EntryId {
    type Err = NotAnEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // Of the forms that a UUID may take only the hyphenated one is an id: one entry, one name.
        if text.len() != uuid::fmt::Hyphenated::LENGTH {
            return Err(NotAnEntryId);
        }
        Uuid::try_parse(text).map(|id| Self(id.into_bytes())).map_err(|_| NotAnEntryId)
    }
}

/// How often an entry had been purged, as the author of an op saw it.
///
/// An op counts only in its own life of the entry; a purge begins the next one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Life(u32);

impl Life {
    /// The life of an entry that was never purged.
    pub const FIRST: Self = Self(0);
    /// The last life; nothing purges it, so that counting lives never overflows.
    pub const LAST: Self = Self(1 << 30);

    /// The life with this number, or `None` past [`Life::LAST`].
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number <= Self::LAST.0 { Some(Self(number)) } else { None }
    }

    /// How many purges came before it.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The life that a purge of this one begins, or `None` after the last.
    #[must_use]
    pub const fn next(self) -> Option<Self> {
        Self::new(self.0 + 1)
    }
}

/// Milliseconds since 1970-01-01 UTC. The engine never reads a clock; callers bring the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The moment `millis` milliseconds after the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn op(replica: u64, counter: u64) -> OpId {
        OpId { replica: ReplicaId::new(replica).unwrap(), counter }
    }

    #[test]
    fn entry_ids_carry_their_creating_op() {
        for replica in [1, 0xf, 0x1234_5678_9abc_def0, u64::MAX] {
            for counter in [0, 1, 0xffff, COUNTER_MAX] {
                let id = EntryId::created_by(op(replica, counter));
                assert_eq!(id.creator(), Some(op(replica, counter)));
                let uuid: Uuid = id.to_string().parse().unwrap();
                assert_eq!(uuid.get_version_num(), 8);
                assert_eq!(id.to_string().parse(), Ok(id));
            }
        }
    }

    #[test]
    fn well_known_ids_are_the_documented_ones() {
        assert_eq!(EntryId::ROOT.to_string(), "00000000-0000-4000-8000-000000000000");
        assert_eq!(EntryId::TRASH.to_string(), "00000000-0000-4000-8000-000000000001");
        assert_eq!(EntryId::LOST_AND_FOUND.to_string(), "00000000-0000-4000-8000-000000000002");
        assert_eq!(EntryId::ROOT.creator(), None);
    }

    #[test]
    fn stamps_order_by_time_before_counter() {
        let stamp = |lamport, replica, counter| Stamp {
            lamport,
            replica: ReplicaId::new(replica).unwrap(),
            counter,
        };
        assert!(stamp(1, 9, 900) < stamp(2, 1, 1));
        assert!(stamp(2, 1, 900) < stamp(2, 2, 1));
        assert!(stamp(2, 2, 1) < stamp(2, 2, 2));
    }

    #[test]
    fn only_the_hyphenated_form_of_a_uuid_is_an_id() {
        for text in ["", "root", "00000000000040008000000000000000", "{", "é".repeat(18).as_str()]
        {
            assert_eq!(text.parse::<EntryId>(), Err(NotAnEntryId), "{text}");
        }
    }
}
