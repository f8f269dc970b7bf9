//! The rooms of the stores that somebody has open, shared by all connections.
//!
//! A room lives from its first member to its last, so a store that nobody has open costs no memory.
//!
//! Whoever appends waits for its turn: of each store only so much is on its way to the disk at a
//! time, so that one store with much to write does not keep the others waiting. Small appends
//! together fit into one turn, and so into one commit.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_sync::limits::APPEND_BYTES_GOAL;
use sds_sync::presence::{PeerId, PresenceRoom};
use sds_sync::{RelayFrame, StoreId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::limits::GROUP_BYTES_GOAL;
use crate::relay::{Cursor, Next, Room};

/// Turns are counted in steps of this many bytes.
const TURN_BYTES: usize = 1 << 10;

#[derive(Debug)]
struct Entry {
    room: Room,
    members: usize,
    /// The end of the log; its receivers wake when it moves.
    end: watch::Sender<u64>,
    /// What this store may have on its way to the disk.
    turns: Arc<Semaphore>,
    presence: PresenceRoom,
    /// The revision of presence; its receivers wake when it moves.
    revision: watch::Sender<u64>,
    /// Where messages for those go who take them; boxed, since each channel has room for many from the
    /// beginning.
    inboxes: HashMap<PeerId, mpsc::Sender<Box<RelayFrame>>>,
}

/// All rooms.
#[derive(Debug)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<StoreId, Entry>>,
    /// What all stores together may have on their way to the disk.
    turns: Arc<Semaphore>,
}

/// Leave to append, until it is dropped.
#[derive(Debug)]
pub(crate) struct AppendTurn {
    _of_store: Option<OwnedSemaphorePermit>,
    _of_all: Option<OwnedSemaphorePermit>,
}

/// Membership in a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    rooms: Arc<Rooms>,
    store: StoreId,
    end: watch::Receiver<u64>,
    turns: Arc<Semaphore>,
}

impl Default for Entry {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(APPEND_BYTES_GOAL / TURN_BYTES));
        Self {
            room: Room::default(),
            members: 0,
            end: watch::Sender::default(),
            turns,
            presence: PresenceRoom::default(),
            revision: watch::Sender::default(),
            inboxes: HashMap::new(),
        }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(GROUP_BYTES_GOAL / TURN_BYTES));
        Self { rooms: Mutex::default(), turns }
    }
}

impl Rooms {
    /// Enters the room of `store`. What is published from now on will be heard.
    pub(crate) fn enter(self: &Arc<Self>, store: &StoreId) -> Member {
        let mut rooms = self.lock();
        let entry = rooms.entry(store.clone()).or_default();
        entry.members += 1;
        let (end, turns) = (entry.end.subscribe(), Arc::clone(&entry.turns));
        Member { rooms: Arc::clone(self), store: store.clone(), end, turns }
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

    /// Forgets the room of a store that was deleted, whose members have to leave. Whoever enters from now
    /// on is in another one.
    pub(crate) fn forget(&self, store: &StoreId) {
        self.lock().remove(store);
    }

    /// Does something with the presence of `store`, and wakes those who have to hear of it.
    pub(crate) fn with_presence<T>(
        &self,
        store: &StoreId,
        work: impl FnOnce(&mut PresenceRoom) -> T,
    ) -> Option<T> {
        let mut rooms = self.lock();
        let entry = rooms.get_mut(store)?;
        let outcome = work(&mut entry.presence);
        let revision = entry.presence.revision();
        entry.revision.send_if_modified(|known| {
            let is_new = *known != revision;
            *known = revision;
            is_new
        });
        Some(outcome)
    }

    /// The end of the log of `store`, as far as those know who have it open.
    pub(crate) fn end(&self, store: &StoreId) -> u64 {
        self.lock().get(store).map_or(0, |entry| entry.room.end())
    }

    /// Lets `inbox` get the messages for `peer`, who has the store open.
    pub(crate) fn open_inbox(
        &self,
        store: &StoreId,
        peer: PeerId,
        inbox: mpsc::Sender<Box<RelayFrame>>,
    ) {
        if let Some(entry) = self.lock().get_mut(store) {
            entry.inboxes.insert(peer, inbox);
        }
    }

    /// Ends that.
    pub(crate) fn close_inbox(&self, store: &StoreId, peer: PeerId) {
        if let Some(entry) = self.lock().get_mut(store) {
            entry.inboxes.remove(&peer);
        }
    }

    /// Puts a message into the inbox of `to`, or of all but `from`; says how many had room for it.
    pub(crate) fn signal(
        &self,
        store: &StoreId,
        from: PeerId,
        to: Option<PeerId>,
        message: &RelayFrame,
    ) -> u64 {
        let rooms = self.lock();
        let Some(entry) = rooms.get(store) else { return 0 };
        let is_meant = |peer: PeerId| to.map_or(peer != from, |to| to == peer);
        let inboxes = entry.inboxes.iter().filter(|(peer, _)| is_meant(**peer));
        inboxes.filter(|(_, inbox)| inbox.try_send(Box::new(message.clone())).is_ok()).count()
            as u64
    }

    /// How many stores somebody has open.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
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

    /// Waits for leave to append changes that take `bytes` of memory, in the order of asking.
    pub(crate) fn turn(&self, bytes: usize) -> impl Future<Output = AppendTurn> + Send + use<> {
        let (store, all) = (Arc::clone(&self.turns), Arc::clone(&self.rooms.turns));
        // A single change may be larger than any turn; it takes a whole one.
        let steps = u32::try_from(bytes.min(APPEND_BYTES_GOAL).div_ceil(TURN_BYTES));
        let steps = steps.unwrap_or(u32::MAX).max(1);
        async move {
            // Nobody closes a semaphore, so nobody goes without leave.
            let of_store = store.acquire_many_owned(steps).await.ok();
            let of_all = all.acquire_many_owned(steps).await.ok();
            AppendTurn { _of_store: of_store, _of_all: of_all }
        }
    }

    /// Wakes when there is more to hear of presence.
    pub(crate) fn watch_presence(&self) -> watch::Receiver<u64> {
        let rooms = self.rooms.lock();
        rooms
            .get(&self.store)
            .map_or_else(|| watch::channel(0).1, |entry| entry.revision.subscribe())
    }

    /// The store whose room it is.
    pub(crate) const fn store(&self) -> &StoreId {
        &self.store
    }

    /// The rooms that this is a member of one of.
    pub(crate) const fn rooms(&self) -> &Arc<Rooms> {
        &self.rooms
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
        // Another room has the name if this one was forgotten.
        if let Some(entry) = rooms.get_mut(&self.store)
            && Arc::ptr_eq(&entry.turns, &self.turns)
        {
            entry.members -= 1;
            if entry.members == 0 {
                rooms.remove(&self.store);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

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

    #[test]
    fn who_leaves_a_forgotten_room_does_not_leave_the_new_one() {
        let rooms = Arc::new(Rooms::default());
        let store = StoreId::new("s").unwrap();
        let of_deleted = rooms.enter(&store);
        of_deleted.note_end(7);
        rooms.forget(&store);
        let of_new = rooms.enter(&store);
        drop(of_deleted);
        rooms.publish(&store, 0, &[Arc::from(*b"first")]);
        let heard = of_new.next_for(&Cursor::new(sds_engine::Version::new(), 0, 0));
        assert!(matches!(heard, Next::Changes { from: 0, .. }), "{heard:?}");
    }

    #[tokio::test]
    async fn a_store_with_much_to_write_waits_for_itself_and_not_before_others() {
        let rooms = Arc::new(Rooms::default());
        let busy = rooms.enter(&StoreId::new("busy").unwrap());
        let other = rooms.enter(&StoreId::new("other").unwrap());
        let first = busy.turn(usize::MAX).await;
        let mut second = std::pin::pin!(busy.turn(1));
        let brief = Duration::from_millis(50);
        assert!(timeout(brief, &mut second).await.is_err(), "there is one turn at a time");
        drop(other.turn(APPEND_BYTES_GOAL).await);
        drop(first);
        drop(second.await);
    }

    #[tokio::test]
    async fn small_appends_of_a_store_share_a_turn() {
        let rooms = Arc::new(Rooms::default());
        let member = rooms.enter(&StoreId::new("s").unwrap());
        let mut turns = Vec::new();
        for _ in 0..APPEND_BYTES_GOAL / TURN_BYTES {
            turns.push(member.turn(1).await);
        }
        assert!(timeout(Duration::from_millis(50), member.turn(1)).await.is_err());
    }
}
