//! The rooms of the stores that somebody has open, shared by all connections.
//!
//! A room lives from its first member to its last, so a store that nobody has open costs no memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sds_sync::limits::SIGNALS_WAITING_MAX;
use sds_sync::presence::{PeerId, PresenceRoom};
use sds_sync::transport::FrameRoom;
use sds_sync::{RelayFrame, StoreId};
use tokio::sync::{Notify, Semaphore, watch};

use crate::limits::TAILS_BYTES_MAX;
use crate::relay::{Cursor, Next, Room};

/// What the members of one store share. A store that is deleted and made again has another one:
/// whoever is still in the former changes nothing of it.
#[derive(Debug, Default)]
pub(crate) struct OpenRoom {
    state: Mutex<State>,
    /// The end of the log; its receivers wake when it moves.
    end: watch::Sender<u64>,
    /// The revision of presence; its receivers wake when it moves.
    revision: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct State {
    room: Room,
    presence: PresenceRoom,
    /// Where its tail is noted.
    age: Option<u64>,
    /// Where messages for those go who take them.
    inboxes: HashMap<PeerId, Arc<Inbox>>,
}

/// What the rooms keep in memory of recent changes, by when they heard of something last.
#[derive(Debug, Default)]
struct Tails {
    bytes: usize,
    by_age: BTreeMap<u64, (Arc<OpenRoom>, usize)>,
    next: u64,
}

impl Tails {
    /// Notes that `room`, which is noted at `age` if it is, keeps so many bytes; says where it is
    /// noted now.
    fn note(&mut self, room: &Arc<OpenRoom>, age: Option<u64>, bytes: usize) -> u64 {
        self.remove(age);
        self.next += 1;
        self.bytes += bytes;
        self.by_age.insert(self.next, (Arc::clone(room), bytes));
        self.next
    }

    fn remove(&mut self, age: Option<u64>) {
        if let Some((_, bytes)) = age.and_then(|age| self.by_age.remove(&age)) {
            self.bytes -= bytes;
        }
    }

    /// Takes out the one that is to forget what it keeps, if together they keep more than `max`
    /// bytes.
    fn pop(&mut self, max: usize) -> Option<Arc<OpenRoom>> {
        if self.bytes <= max {
            return None;
        }
        let (_, (room, bytes)) = self.by_age.pop_first()?;
        self.bytes -= bytes;
        Some(room)
    }
}

/// Messages that wait for one member. It takes room only for those that are there, as a channel
/// does not, which has room for thirty-two from the beginning.
#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<VecDeque<Message>>,
    arrived: Notify,
    /// Counts the bytes of all messages on their way that share it.
    room: Arc<Semaphore>,
}

/// A message, and the room that it takes until it has gone out.
pub(crate) type Message = (RelayFrame, FrameRoom);

#[derive(Debug, Default)]
struct Listed {
    room: Arc<OpenRoom>,
    members: usize,
}

/// All rooms.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    rooms: Mutex<HashMap<StoreId, Listed>>,
    tails: Mutex<Tails>,
    /// Held from before a commit until it is published, and while a room is forgotten.
    publishing: Mutex<()>,
}

/// Leave to publish what is committed meanwhile, until it is dropped.
#[derive(Debug)]
pub(crate) struct Publishing<'a> {
    rooms: &'a Rooms,
    _turn: MutexGuard<'a, ()>,
}

/// Membership in a room, until it is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    rooms: Arc<Rooms>,
    store: StoreId,
    room: Arc<OpenRoom>,
    end: watch::Receiver<u64>,
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

    /// Takes leave to publish, for a commit that begins after this and is published before it is
    /// given back. Meanwhile no room is forgotten: what is published then is of the store whose
    /// room it is.
    pub(crate) fn publishing(&self) -> Publishing<'_> {
        let turn = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        Publishing { rooms: self, _turn: turn }
    }

    /// Forgets the room of a store that was deleted, whose members have to leave. Whoever enters
    /// from now on is in another one. Waits for a commit that is not published yet.
    pub(crate) fn forget(&self, store: &StoreId) {
        let _publishing = self.publishing();
        let forgotten = self.lock().remove(store);
        if let Some(Listed { room, .. }) = forgotten {
            let age = room.lock().age;
            self.tails().remove(age);
        }
    }

    /// The end of the log of `store`, as far as those know who have it open.
    pub(crate) fn end(&self, store: &StoreId) -> u64 {
        self.room(store).map_or(0, |room| room.lock().room.end())
    }

    /// How many stores somebody has open.
    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Lets rooms forget what they keep, as long as all together keep more than `max` bytes.
    fn bound_tails(&self, max: usize) {
        loop {
            let Some(room) = self.tails().pop(max) else { return };
            room.lock().room.forget_tail();
        }
    }

    /// No room is asked for anything while this is held.
    fn tails(&self) -> MutexGuard<'_, Tails> {
        // No code under this lock can leave it half changed.
        self.tails.lock().unwrap_or_else(PoisonError::into_inner)
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
    /// Publishes changes that are durable, in the order of their positions; without any, that the
    /// log goes until `from`, of which nobody may have heard if the commit seemed to fail.
    pub(crate) fn publish(&self, store: &StoreId, from: u64, changes: &[Arc<[u8]>]) {
        if changes.is_empty() {
            self.rooms.room(store).into_iter().for_each(|open| open.note_end(from));
            return;
        }
        if let Some(open) = self.rooms.room(store) {
            let mut state = open.lock();
            state.room.publish(from, changes);
            open.end.send_replace(state.room.end());
            let (age, bytes) = (state.age, state.room.tail_bytes());
            drop(state);
            // Nobody else publishes meanwhile, so nobody else notes it.
            let noted = self.rooms.tails().note(&open, age, bytes);
            open.lock().age = Some(noted);
            let is_listed = |known: Arc<OpenRoom>| Arc::ptr_eq(&known, &open);
            if !self.rooms.room(store).is_some_and(is_listed) {
                // The last one has left meanwhile, and nobody would take it out any more.
                self.rooms.tails().remove(Some(noted));
            }
            self.rooms.bound_tails(TAILS_BYTES_MAX);
        }
    }
}

impl OpenRoom {
    fn note_end(&self, end: u64) {
        let mut state = self.lock();
        if state.room.end() < end {
            // What was committed without anybody here hearing of it is on disk.
            state.room = Room::new(end);
            self.end.send_replace(end);
        }
    }

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

    /// Puts a message into the inbox of `to`, or of all but `from`; says how many had room for it.
    /// Nobody waits for the room meanwhile, however many they are.
    pub(crate) fn signal(&self, from: PeerId, to: Option<PeerId>, message: &RelayFrame) -> u64 {
        let RelayFrame::Signal { subject, message: body, .. } = message else { return 0 };
        let bytes = u32::try_from(subject.len() + body.len()).unwrap_or(u32::MAX);
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
        inboxes.iter().filter(|inbox| inbox.put(message, bytes)).count() as u64
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code under this lock can leave a room half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inbox {
    /// One whose messages take `room`.
    pub(crate) fn new(room: Arc<Semaphore>) -> Self {
        Self { waiting: Mutex::default(), arrived: Notify::new(), room }
    }

    /// Takes the message that came first.
    pub(crate) fn take(&self) -> Option<Message> {
        self.lock().pop_front()
    }

    /// Waits for a message, and takes it; one at a time. May be dropped while it waits.
    pub(crate) async fn next(&self) -> Message {
        loop {
            if let Some(message) = self.take() {
                return message;
            }
            self.arrived.notified().await;
        }
    }

    /// Puts a message of so many bytes in, if there is room for it.
    fn put(&self, message: &RelayFrame, bytes: u32) -> bool {
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(bytes) else { return false };
        let mut waiting = self.lock();
        let has_place = waiting.len() < SIGNALS_WAITING_MAX;
        if has_place {
            waiting.push_back((message.clone(), room.into()));
        }
        drop(waiting);
        self.arrived.notify_one();
        has_place
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Message>> {
        // No code under this lock can leave the list half changed.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Member {
    /// Tells the room how long the log is, as read from disk after entering.
    pub(crate) fn note_end(&self, end: u64) {
        self.room.note_end(end);
    }

    /// Where the next changes for `cursor` are.
    pub(crate) fn next_for(&self, cursor: &Cursor) -> Next {
        self.room.lock().room.next_for(cursor)
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
                drop(rooms);
                let age = self.room.lock().age;
                self.rooms.tails().remove(age);
            }
        }
    }
}

#[cfg(test)]
mod tests;
