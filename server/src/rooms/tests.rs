//! Who is in which room, and who waits for whom.

use std::task::{Context, Wake, Waker};

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
    let inbox = Arc::new(Inbox::new(Arc::new(Semaphore::new(1_000))));
    of_new.room().open_inbox(PeerId(2), Arc::clone(&inbox));
    let message = signal();
    assert_eq!(of_deleted.room().signal(PeerId(1), None, &message), 0);
    of_deleted.room().close_inbox(PeerId(2));
    assert_eq!(of_new.room().signal(PeerId(3), Some(PeerId(2)), &message), 1);
    assert_eq!(inbox.take().map(|(message, _)| message), Some(message));
}

#[test]
fn messages_take_room_until_they_have_gone_out() {
    let message = signal();
    let RelayFrame::Signal { subject, message: body, .. } = &message else { panic!("{message:?}") };
    let bytes = subject.len() + body.len();
    let shared = Arc::new(Semaphore::new(2 * bytes));
    let rooms = Arc::new(Rooms::default());
    let member = rooms.enter(&StoreId::new("s").unwrap());
    let room = member.room();
    let inboxes = [1, 2, 3].map(|peer| (PeerId(peer), Arc::new(Inbox::new(Arc::clone(&shared)))));
    for (peer, inbox) in &inboxes {
        room.open_inbox(*peer, Arc::clone(inbox));
    }
    assert_eq!(room.signal(PeerId(0), None, &message), 2, "three share the room of two");
    let leaving = inboxes.iter().find_map(|(_, inbox)| inbox.take()).unwrap();
    assert_eq!(room.signal(PeerId(0), Some(PeerId(1)), &message), 0, "it is on its way yet");
    drop(leaving);
    assert_eq!(room.signal(PeerId(0), Some(PeerId(1)), &message), 1);
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
    let inboxes =
        [1, 2, 3].map(|peer| (PeerId(peer), Arc::new(Inbox::new(Arc::new(Semaphore::new(1_000))))));
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

/// Goal: all rooms together keep no more than so much, and those that are busy keep theirs. Method:
/// three rooms, of which the first is heard of again.
#[test]
fn rooms_that_heard_of_nothing_for_long_forget_first_and_who_leaves_takes_its_share_along() {
    let rooms = Arc::new(Rooms::default());
    let names = ["a", "b", "c"].map(|name| StoreId::new(name).unwrap());
    let members = names.each_ref().map(|name| rooms.enter(name));
    let bytes: Arc<[u8]> = vec![0; 100].into();
    let publish = |store: &StoreId, from| {
        rooms.publishing().publish(store, from, &[Arc::clone(&bytes)]);
    };
    names.iter().for_each(|name| publish(name, 0));
    publish(&names[0], 1);
    assert_eq!(rooms.tails().bytes, 400);
    rooms.bound_tails(400);
    assert_eq!(rooms.tails().bytes, 400, "the bound is free");
    rooms.bound_tails(300);
    let behind = Cursor::new(sds_engine::Version::new(), 0, 0);
    let is_on_disk = |member: &Member| member.next_for(&behind) == Next::OnDisk(0);
    assert_eq!(members.each_ref().map(is_on_disk), [false, true, false]);
    publish(&names[1], 1);
    assert_eq!(rooms.tails().bytes, 400, "it goes on");
    drop(members);
    let tails = rooms.tails();
    assert_eq!((tails.bytes, tails.by_age.len()), (0, 0));
}

/// Goal: however many hear of a change, its bytes are in memory once.
#[test]
fn all_who_hear_of_a_change_share_its_bytes() {
    let rooms = Arc::new(Rooms::default());
    let store = StoreId::new("s").unwrap();
    let members: Vec<Member> = (0..100).map(|_| rooms.enter(&store)).collect();
    let change: Arc<[u8]> = Arc::from(*b"change");
    rooms.publishing().publish(&store, 0, &[Arc::clone(&change)]);
    for member in &members {
        let heard = member.next_for(&Cursor::new(sds_engine::Version::new(), 0, 0));
        let Next::Changes { changes, .. } = heard else { panic!("{heard:?}") };
        assert!(Arc::ptr_eq(&changes[0], &change));
    }
}
