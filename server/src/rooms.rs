//! The rooms of the stores that somebody has open, shared by all connections.
//!
//! A room lives from its first member to its last, so a store that nobody has open costs no memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_sync::StoreId;
use tokio::sync::watch;

use crate::relay::{Cursor, Next, Room};

#[derive(Debug, Default)]
struct Entry {
    room: Room,
    members: usize,
    /// The end of the log; its receivers wake when it moves.
    end: watch::Sender<u64>,
}

/// All rooms.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<StoreId, Entry>>,
}

/// Membership in a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    rooms: Arc<Rooms>,
    store: StoreId,
    end: watch::Receiver<u64>,
}

impl Rooms {
    /// Enters the room of `store`. What is published from now on will be heard.
    pub(crate) fn enter(self: &Arc<Self>, store: &StoreId) -> Member {
        let mut rooms = self.lock();
        let entry = rooms.entry(store.clone()).or_default();
        entry.members += 1;
        Member { rooms: Arc::clone(self), store: store.clone(), end: entry.end.subscribe() }
    }

    /// Publishes changes that are durable, in the order of their positions.
    pub(crate) fn publish(&self, store: &StoreId, from: u64, changes: &[Arc<[u8]>]) {
        if changes.is_empty() {
            return;
        }
        if let Some(entry) = self.lock().get_mut(store) {
            entry.room.publish(from, changes);
            entry.end.send_replace(entry.room.end());
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StoreId, Entry>> {
        // No code under this lock can leave a room half changed.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Tells the room how long the log is, as read from disk after entering.
    pub(crate) fn note_end(&self, end: u64) {
        if let Some(entry) = self.rooms.lock().get_mut(&self.store)
            && entry.room.end() < end
        {
            // What was committed before anybody was here to hear it is on disk.
            entry.room = Room::new(end);
            entry.end.send_replace(end);
        }
    }

    /// Where the next changes for `cursor` are.
    pub(crate) fn next_for(&self, cursor: &Cursor) -> Next {
        self.rooms
            .lock()
            .get(&self.store)
            .map_or(Next::Nothing, |entry| entry.room.next_for(cursor))
    }

    /// Waits until there is more to hear than at the last call.
    pub(crate) async fn changed(&mut self) {
        if self.end.changed().await.is_err() {
            // The room lives as long as its members, so this is never reached; waiting is harmless.
            std::future::pending().await
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let mut rooms = self.rooms.lock();
        if let Some(entry) = rooms.get_mut(&self.store) {
            entry.members -= 1;
            if entry.members == 0 {
                rooms.remove(&self.store);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_lives_from_its_first_member_to_its_last() {
        let rooms = Arc::new(Rooms::default());
        let store = StoreId::new("s").unwrap();
        rooms.publish(&store, 0, &[Arc::from(*b"unheard")]);
        assert!(rooms.lock().is_empty());
        let first = rooms.enter(&store);
        let second = rooms.enter(&store);
        drop(first);
        assert_eq!(rooms.lock().len(), 1);
        drop(second);
        assert!(rooms.lock().is_empty());
    }
}
