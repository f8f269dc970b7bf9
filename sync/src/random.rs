//! Randomness from the operating system: names of replicas, jitter.

use std::hash::{BuildHasher, RandomState};

use sds_engine::ReplicaId;

/// A replica id that nobody has drawn before.
pub(crate) fn replica_id() -> ReplicaId {
    loop {
        if let Some(replica) = ReplicaId::new(number()) {
            return replica;
        }
    }
}

/// A number to draw a pause with.
pub(crate) fn jitter() -> u32 {
    u32::try_from(number() >> 32).unwrap_or_default()
}

/// Any number.
pub(crate) fn number() -> u64 {
    // The second source has its own seed from the system; it is for systems that refuse the first.
    getrandom::u64().unwrap_or_else(|_| RandomState::new().hash_one(std::time::SystemTime::now()))
}
