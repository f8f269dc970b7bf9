//! The rooms of the stores that somebody has open, shared by all connections.
//!
//! A room lives from its first member to its last, so a store that nobody has open costs no memory.
//!
//! Whoever appends waits for its turn: of each store only so much is on its way to the disk at a
//! time, so that one store with much to write does not keep the others waiting. Small appends
//! together fit into one turn, and so into one commit.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_sync::limits::{APPEND_BYTES_GOAL, SIGNALS_WAITING_MAX};
use sds_sync::presence::{PeerId, PresenceRoom};
use sds_sync::{RelayFrame, StoreId};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::limits::GROUP_BYTES_GOAL;
use crate::relay::{Cursor, Next, Room};

/// Turns are counted in steps of this many bytes.
const TURN_BYTES: usize = 1 << 10;

/// What the members of one store share. A store that is deleted and made again has another one: whoever
/// is still in the former changes nothing of it.
#[derive(Debug)]
pub(crate) struct OpenRoom {
    state: Mutex<State>,
    /// The end of the log; its receivers wake when it moves.
    end: watch::Sender<u64>,
    /// What this store may have on its way to the disk.
    turns: Arc<Semaphore>,
    /// The revision of presence; its receivers wake when it moves.
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    room: Room,
    presence: PresenceRoom,
    /// Where messages for those go who take them.
    inboxes: HashMap<PeerId, Arc<Inbox>>,
}

/// Messages that wait for one member. It takes room only for those that are there, as a channel does not,
/// which has room for thirty-two from the beginning.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    waiting: Mutex<VecDeque<RelayFrame>>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Listed {
    room: Arc<OpenRoom>,
    members: usize,
}

/// All rooms.
#[derive(Debug)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<StoreId, Listed>>,
    /// What all stores together may have on their way to the disk.
    turns: Arc<Semaphore>,
    /// Held from before a commit until it is published, and while a room is forgotten.
    publishing: Mutex<()>,
}

/// Leave to publish what is committed meanwhile, until it is dropped.
#[derive(Debug)]
pub(crate) struct Publishing<'a> {
    rooms: &'a Rooms,
    _turn: MutexGuard<'a, ()>,
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
    room: Arc<OpenRoom>,
    end: watch::Receiver<u64>,
}

impl Default for OpenRoom {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(APPEND_BYTES_GOAL / TURN_BYTES));
        let (end, revision) = (watch::Sender::default(), watch::Sender::default());
        Self { state: Mutex::default(), end, turns, revision }
    }
}

impl Default for Rooms {
    fn default() -> Self {
        let turns = Arc::new(Semaphore::new(GROUP_BYTES_GOAL / TURN_BYTES));
        Self { rooms: Mutex::default(), turns, publishing: Mutex::default() }
    }
}

impl Rooms {
    /// Enters the room of `store`. What is published from now on will be heard.
    pub(crate) fn enter(self: &Arc<Self>, store: &StoreId) -> Member {
        let mut rooms = self.lock();
        let listed = rooms.entry(store.clone()).or_default();
        listed.members += 1;
        let (room, end) = (Arc::clone(&listed.room), listed.room.end.subscribe());
        Member { rooms: Arc::clone(self), store: store.clone(), room, end }
    }

    /// Takes leave to publish, for a commit that begins after this and is published before it is given
    /// back. Meanwhile no room is forgotten: what is published then is of the store whose room it is.
    pub(crate) fn publishing(&self) -> Publishing<'_> {
        let turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        Publishing { rooms: self, _turn: turn }
    }

    /// Forgets the room of a store that was deleted, whose members have to leave. Whoever enters from now
    /// on is in another one. Waits for a commit that is not published yet.
    pub(crate) fn forget(&self, store: &StoreId) {
        let _publishing = self.publishing();
        self.lock().remove(store);
    }

    /// The end of the log of `store`, as far as those know who have it open.
    pub(crate) fn end(&self, store: &StoreId) -> u64 {
        self.room(store).map_or(0, |room| room.lock().room.end())
    }

    /// How many stores somebody has open.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    fn room(&self, store: &StoreId) -> Option<Arc<OpenRoom>> {
        self.lock().get(store).map(|listed| Arc::clone(&listed.room))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<StoreId, Listed>> {
        // No code under this lock can leave the list half changed.
        self.rooms.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Publishing<'_> {
    /// Publishes changes that are durable, in the order of their positions.
    pub(crate) fn publish(&self, store: &StoreId, from: u64, changes: &[Arc<[u8]>]) {
        if changes.is_empty() {
            return;
        }
        if let Some(open) = self.rooms.room(store) {
            let mut state = open.lock();
            state.room.publish(from, changes);
            open.end.send_replace(state.room.end());
        }
    }
}

impl OpenRoom {
    /// Does something with presence, and wakes those who have to hear of it.
    pub(crate) fn with_presence<T>(&self, work: impl FnOnce(&mut PresenceRoom) -> T) -> T {
        let mut state = self.lock();
        let outcome = work(&mut state.presence);
        let revision = state.presence.revision();
        self.revision.send_if_modified(|known| {
            let is_new = *known != revision;
            *known = revision;
            is_new
        });
        outcome
    }

    /// Lets `inbox` get the messages for `peer`, who has the store open.
    pub(crate) fn open_inbox(&self, peer: PeerId, inbox: Arc<Inbox>) {
        self.lock().inboxes.insert(peer, inbox);
    }

    /// Ends that.
    pub(crate) fn close_inbox(&self, peer: PeerId) {
        self.lock().inboxes.remove(&peer);
    }

    /// Puts a message into the inbox of `to`, or of all but `from`; says how many had room for it. Nobody
    /// waits for the room meanwhile, however many they are.
    pub(crate) fn signal(&self, from: PeerId, to: Option<PeerId>, message: &RelayFrame) -> u64 {
        let inboxes: Vec<Arc<Inbox>> = {
            let state = self.lock();
            match to {
                Some(to) => state.inboxes.get(&to).cloned().into_iter().collect(),
                None => {
                    let others = state.inboxes.iter().filter(|(peer, _)| **peer != from);
                    others.map(|(_, inbox)| Arc::clone(inbox)).collect()
                }
            }
        };
        inboxes.iter().filter(|inbox| inbox.put(message)).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave a room half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// Takes the message that came first.
    pub(crate) fn take(&self) -> Option<RelayFrame> {
        self.lock().pop_front()
    }

    /// Waits for a message, and takes it; one at a time. May be dropped while it waits.
    pub(crate) async fn next(&self) -> RelayFrame {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.arrived.notified().await;
        }
    }

    /// Puts a message in, if there is room for it.
    fn put(&self, message: &RelayFrame) -> bool {
        let mut waiting = self.lock();
        let has_room = waiting.len() < SIGNALS_WAITING_MAX;
        if has_room {
            waiting.push_back(message.clone());
        }
        drop(waiting);
        self.arrived.notify_one();
        has_room
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<RelayFrame>> {
        // No code under this lock can leave the list half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Tells the room how long the log is, as read from disk after entering.
    pub(crate) fn note_end(&self, end: u64) {
        let mut state = self.room.lock();
        if state.room.end() < end {
            // What was committed before anybody was here to hear it is on disk.
            state.room = Room::new(end);
            self.room.end.send_replace(end);
        }
    }

    /// Where the next changes for `cursor` are.
    pub(crate) fn next_for(&self, cursor: &Cursor) -> Next {
        self.room.lock().room.next_for(cursor)
    }

    /// Waits for leave to append changes that take `bytes` of memory, in the order of asking.
    pub(crate) fn turn(&self, bytes: usize) -> impl Future<Output = AppendTurn> + Send + use<> {
        let (store, all) = (Arc::clone(&self.room.turns), Arc::clone(&self.rooms.turns));
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
        self.room.revision.subscribe()
    }

    /// The room that this is a member of.
    pub(crate) const fn room(&self) -> &Arc<OpenRoom> {
        &self.room
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
        if let Some(listed) = rooms.get_mut(&self.store)
            && Arc::ptr_eq(&listed.room, &self.room)
        {
            listed.members -= 1;
            if listed.members == 0 {
                rooms.remove(&self.store);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Wake, Waker};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn a_room_lives_from_its_first_member_to_its_last() {
        let rooms = Arc::new(Rooms::default());
        let store = StoreId::new("s").unwrap();
        rooms.publishing().publish(&store, 0, &[Arc::from(*b"unheard")]);
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
        rooms.publishing().publish(&store, 0, &[Arc::from(*b"first")]);
        let heard = of_new.next_for(&Cursor::new(sds_engine::Version::new(), 0, 0));
        assert!(matches!(heard, Next::Changes { from: 0, .. }), "{heard:?}");
    }

    #[test]
    fn what_members_of_a_forgotten_room_say_is_not_heard_in_the_new_one() {
        let rooms = Arc::new(Rooms::default());
        let store = StoreId::new("s").unwrap();
        let of_deleted = rooms.enter(&store);
        of_deleted.room().with_presence(|_| {});
        rooms.forget(&store);
        let of_new = rooms.enter(&store);
        of_deleted.note_end(7);
        let from_the_beginning = Cursor::new(sds_engine::Version::new(), 0, 0);
        assert_eq!(of_new.next_for(&from_the_beginning), Next::Nothing);
        assert_eq!(rooms.end(&store), 0);
        rooms.publishing().publish(&store, 0, &[Arc::from(*b"first")]);
        assert_eq!(of_deleted.next_for(&from_the_beginning), Next::OnDisk(0));
        let inbox = Arc::new(Inbox::default());
        of_new.room().open_inbox(PeerId(2), Arc::clone(&inbox));
        let message = signal();
        assert_eq!(of_deleted.room().signal(PeerId(1), None, &message), 0);
        of_deleted.room().close_inbox(PeerId(2));
        assert_eq!(of_new.room().signal(PeerId(3), Some(PeerId(2)), &message), 1);
        assert_eq!(inbox.take(), Some(message));
    }

    /// A commit that has begun before a store was deleted is published in the room of that store.
    #[test]
    fn a_room_is_not_forgotten_between_a_commit_and_its_publishing() {
        let rooms = Arc::new(Rooms::default());
        let store = StoreId::new("s").unwrap();
        let of_deleted = rooms.enter(&store);
        let publishing = rooms.publishing();
        let deleting = {
            let (rooms, store) = (Arc::clone(&rooms), store.clone());
            std::thread::spawn(move || {
                rooms.forget(&store);
                rooms.enter(&store)
            })
        };
        publishing.publish(&store, 0, &[Arc::from(*b"before the end")]);
        drop(publishing);
        let of_new = deleting.join().unwrap();
        let from_the_beginning = Cursor::new(sds_engine::Version::new(), 0, 0);
        assert_eq!(of_new.next_for(&from_the_beginning), Next::Nothing);
        let heard = of_deleted.next_for(&from_the_beginning);
        assert!(matches!(heard, Next::Changes { from: 0, .. }), "{heard:?}");
    }

    fn signal() -> RelayFrame {
        RelayFrame::Signal { from: 1, subject: "ann".to_owned(), message: "hi".into() }
    }

    /// Looks, at the moment of being woken, whether the rooms can be used.
    struct Looks {
        rooms: Arc<Rooms>,
        room: Arc<OpenRoom>,
        seen: Mutex<Vec<bool>>,
    }

    impl Wake for Looks {
        fn wake(self: Arc<Self>) {
            let is_free = self.rooms.rooms.try_lock().is_ok() && self.room.state.try_lock().is_ok();
            self.seen.lock().unwrap().push(is_free);
        }
    }

    #[test]
    fn a_message_for_all_keeps_nobody_waiting_for_the_room() {
        let rooms = Arc::new(Rooms::default());
        let member = rooms.enter(&StoreId::new("s").unwrap());
        let room = Arc::clone(member.room());
        let looks =
            Looks { rooms: Arc::clone(&rooms), room: Arc::clone(&room), seen: Mutex::default() };
        let looks = Arc::new(looks);
        let waker = Waker::from(Arc::clone(&looks));
        let inboxes = [1, 2, 3].map(|peer| (PeerId(peer), Arc::new(Inbox::default())));
        let mut waiting = Vec::new();
        for (peer, inbox) in &inboxes {
            room.open_inbox(*peer, Arc::clone(inbox));
            let mut next = Box::pin(inbox.next());
            assert!(next.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            waiting.push(next);
        }
        assert_eq!(room.signal(PeerId(1), None, &signal()), 2);
        assert_eq!(*looks.seen.lock().unwrap(), [true, true]);
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
