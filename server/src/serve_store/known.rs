//! Room for what is known of a client, which grows and shrinks while its session goes on.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::limits::KNOWN_FREE_BYTES;
use crate::relay::Cursor;

/// What a session takes of the room that all sessions of its subject share.
#[derive(Debug)]
pub(super) struct KnownRoom {
    shared: Arc<Semaphore>,
    taken: Option<OwnedSemaphorePermit>,
}

impl KnownRoom {
    pub(super) const fn new(shared: Arc<Semaphore>) -> Self {
        Self { shared, taken: None }
    }

    /// Takes as much as `cursor` needs; lets it forget what its client has if there is no room.
    pub(super) fn fit(&mut self, cursor: &mut Cursor) {
        if !self.resize(cursor.memory()) {
            cursor.forget();
            self.taken = None;
        }
    }

    /// Takes room for so many bytes instead of what it has; says false if there is none.
    fn resize(&mut self, bytes: usize) -> bool {
        let bytes = if bytes <= KNOWN_FREE_BYTES { 0 } else { bytes };
        let taken = self.taken.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        if bytes <= taken {
            drop(self.taken.as_mut().and_then(|known| known.split(taken - bytes)));
            return true;
        }
        let Ok(more) = u32::try_from(bytes - taken) else { return false };
        let Ok(more) = Arc::clone(&self.shared).try_acquire_many_owned(more) else { return false };
        match &mut self.taken {
            Some(taken) => taken.merge(more),
            None => self.taken = Some(more),
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::{ReplicaId, Version};
    use sds_sync::LogCursor;

    use super::*;

    fn version(replicas: u64) -> Version {
        let mut version = Version::new();
        for replica in 1..=replicas {
            version.advance(ReplicaId::new(replica).unwrap(), 1);
        }
        version
    }

    #[test]
    fn sessions_share_room_and_of_whom_there_is_none_nothing_is_known() {
        let shared = Arc::new(Semaphore::new(10_000));
        let session = |replicas| {
            let cursor = Cursor::new(version(replicas), 0, 9);
            (KnownRoom::new(Arc::clone(&shared)), cursor)
        };
        let (mut room, mut small) = session(KNOWN_FREE_BYTES as u64 / 16);
        room.fit(&mut small);
        assert!(small.memory() > 0);
        assert_eq!(shared.available_permits(), 10_000, "a little is free");
        let (mut room, mut large) = session(500);
        room.fit(&mut large);
        assert_eq!(shared.available_permits(), 10_000 - large.memory());
        let (mut no_room, mut other) = session(300);
        no_room.fit(&mut other);
        assert_eq!(other.memory(), 0);
        large.note_taken(&version(510));
        room.fit(&mut large);
        assert_eq!(shared.available_permits(), 10_000, "it grew past what there is");
        assert_eq!(large.memory(), 0);
        other.note_taken(&version(300));
        no_room.fit(&mut other);
        assert!(other.memory() > 0, "there is room by now");
        other.note_end(0);
        no_room.fit(&mut other);
        assert_eq!(shared.available_permits(), 10_000);
    }
}
