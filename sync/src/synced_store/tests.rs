//! Seats of guests, owners and relays, and blobs, without disk and line.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sds_engine::{Change, Op};
use sds_store::{BlobSource, EntryId};

use super::*;
use crate::guest_session::{GuestSession, Wish};
use crate::labelled::{add_labelled, labels};
use crate::limits::{LOG_PART_BYTES_GOAL, LOG_PART_CHANGES_MAX, RESEATS_MAX};
use crate::link::{Link, LinkError};
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip, Token};
use crate::persistence::MemoryPersistence;
use crate::reconnect::{NextAttempt, Reconnect};
use crate::seat::{Chain, Seat, Side};

/// A source that has to ask somebody else, and counts how often it does.
#[derive(Debug, Default)]
struct FarAway(AtomicUsize);

impl BlobSource for FarAway {
    fn size(&self, _: &BlobHash) -> Option<u64> {
        self.0.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn read(&self, _: &BlobHash) -> Option<Arc<[u8]>> {
        None
    }

    fn is_known(&self, _: &BlobHash) -> Option<bool> {
        None
    }
}

#[test]
fn nobody_is_asked_for_blobs_while_the_store_is_in_use() {
    let mut synced = store();
    let far_away = Arc::new(FarAway::default());
    synced.store.set_blob_source(Arc::clone(&far_away) as Arc<dyn BlobSource>);
    let mut author = DataStore::new(id(2));
    let item = author.new_item_at(None, EntryId::ROOT, None).unwrap();
    author.write_value(item, [7; 50_000].as_slice()).unwrap();
    let patch = author.export_patch(&Version::new());
    synced.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().0.unwrap();
    for label in ["a", "b", "c"] {
        synced.edit(|store| store.set_label(item, label)).unwrap().0.unwrap();
    }
    synced.list_blobs();
    assert_eq!(far_away.0.load(Ordering::Relaxed), 0);
    assert_eq!((synced.blobs_to_fetch.len(), synced.blobs_to_send.len()), (1, 1), "it may be");
    synced.edit(|store| store.write_value(item, "small")).unwrap().0.unwrap();
    assert_eq!(synced.blobs_to_fetch.len(), 0);
    let large = |store: &mut DataStore| store.write_value(item, [8; 50_000].as_slice());
    let (written, captured) = synced.edit(large).unwrap();
    written.unwrap();
    assert_eq!(far_away.0.load(Ordering::Relaxed), 0);
    assert_eq!(captured.handover.batch.blobs.len(), 1, "whoever writes it asks");
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn store() -> SyncedStore {
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), id(1));
    SyncedStore::new(LocalStore::load(memory).unwrap()).0
}

/// A change of a guest that has had a seat, behind the counter that nobody uses.
fn first_of(seat: ReplicaId) -> Change {
    Change::new(seat, 0, Vec::new(), &[Op::Skip { count: 2 }]).unwrap()
}

#[test]
fn a_seat_of_guests_that_belongs_to_somebody_else_is_given_up_once() {
    let mut synced = store();
    let seat = id(5);
    assert_eq!(synced.lend_seat(None, seat).tip.replica, seat.as_u64());
    let taken = synced.take_from(Some(seat), &[first_of(seat)], id(6)).unwrap().0;
    assert_eq!(taken.refused, None);
    let foreign = [(seat, 0)];
    let given_up = synced.give_up(&foreign, &Version::new(), id(7)).unwrap().unwrap();
    let seats: Vec<_> = given_up.batch.seats.iter().filter(|it| it.replica == seat).collect();
    assert!(seats.iter().all(|seat| seat.is_given_up) && seats.len() == 1);
    assert_eq!(synced.store().version().next(seat), 0, "it was made again under another id");
    assert!(synced.give_up(&foreign, &Version::new(), id(8)).unwrap().is_none());
    let taken = synced.take_from(Some(seat), &[first_of(seat)], id(6)).unwrap().0;
    assert_eq!(taken.refused, Some(RefusalCode::Forked), "the guest has lost it");
    assert_ne!(synced.lend_seat(Some(seat), id(9)).tip.replica, seat.as_u64());
}

/// Goal: a relay that calls every id somebody else's does not make the file take new ones for ever, and
/// nothing is lost. Method: a store with something that was never sent, and that relay's word each time.
#[test]
fn a_relay_that_takes_no_id_is_believed_so_many_times() {
    let mut synced = store();
    let label = |synced: &SyncedStore| synced.store.root_item().label().into_owned();
    let edit = |synced: &mut SyncedStore, text| {
        synced.edit(|store| store.set_label(EntryId::ROOT, text)).unwrap().0.unwrap();
    };
    let mut fresh = 100;
    let mut refuse = |synced: &mut SyncedStore| {
        fresh += 1;
        let foreign = [(synced.store.replica_id(), 0)];
        synced.give_up(&foreign, &Version::new(), id(fresh))
    };
    for text in ["first", "second"] {
        edit(&mut synced, text);
        for _ in 0..RESEATS_MAX {
            assert!(refuse(&mut synced).unwrap().is_some());
            assert_eq!(label(&synced), text);
        }
        let (seat, version) = (synced.store.replica_id(), synced.store.version().clone());
        let refused = refuse(&mut synced);
        let is_typed = matches!(&refused, Err(SyncError::Refused { code, .. }) if *code == RefusalCode::Forbidden);
        assert!(is_typed, "{refused:?}");
        assert_eq!((synced.store.replica_id(), synced.store.version()), (seat, &version));
        assert_eq!(label(&synced), text);
    }
}

#[test]
fn nothing_is_sent_of_a_seat_that_the_relay_was_not_told_of() {
    let mut synced = store();
    let mut link = Link::new(&synced, &Token::from(String::new()), Instant::now());
    let version = Version::new().encode().into();
    let opened = RelayFrame::OpenedSeated { version, writable: true, seats: Vec::new() };
    link.handle_frame(opened).unwrap();
    link.handle_opened(&mut synced, id(3)).unwrap();
    synced.edit(|store| store.set_label(EntryId::ROOT, "own")).unwrap().0.unwrap();
    let persisted = synced.captured().clone();
    link.handle_saved(&synced, &persisted).unwrap();
    assert!(link.session().has_transmit());
    synced.lend_seat(None, id(5));
    synced.take_from(Some(id(5)), &[first_of(id(5))], id(6)).unwrap();
    let persisted = synced.captured().clone();
    let saved = link.handle_saved(&synced, &persisted);
    assert!(matches!(saved, Err(LinkError::Reseating)));
    let mut next = Link::new(&synced, &Token::from(String::new()), Instant::now());
    let Some(ClientFrame::OpenSeated { seats, .. }) = next.poll_transmit() else {
        panic!("not an open frame")
    };
    assert!(seats.contains(&5));
}

#[test]
fn a_guest_gets_no_snapshot_with_the_former_ids() {
    let mut synced = store();
    synced.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().0.unwrap();
    let former = synced.snapshot();
    assert!(former.version.next(id(1)) > 0);
    let foreign = [(id(1), 0)];
    synced.give_up(&foreign, &Version::new(), id(7)).unwrap().unwrap();
    let snapshot = synced.snapshot();
    assert_eq!(snapshot.version, *synced.store().version());
    let mut guest = DataStore::from_binary(id(9), &snapshot.bytes).unwrap();
    assert_eq!(guest.version(), synced.store().version());
    assert_eq!(guest.digest(), synced.store.digest());
}

/// Goal: what handlers answer when the store is made again is written like any edit, with its large values.
/// Method: a handler that writes one then; a store is opened from what is to be written.
#[test]
fn what_handlers_answer_to_a_store_made_again_is_written() {
    let mut synced = store();
    synced.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().0.unwrap();
    let mut is_answered = false;
    let answer = synced.store.on_change(move |store, _| {
        if !std::mem::replace(&mut is_answered, true) {
            let item = store.new_item_at(None, EntryId::ROOT, None).unwrap();
            store.write_value(item, [7; 50_000].as_slice()).unwrap();
        }
    });
    answer.detach();
    let settled = synced.give_up(&[(id(1), 0)], &Version::new(), id(7)).unwrap().unwrap();
    assert_eq!(settled.upto, *synced.store.version());
    let Batch { snapshot, changes, seats, blobs, .. } = settled.batch;
    assert_eq!((changes.len(), blobs.len()), (0, 1), "all changes are in the snapshot");
    assert_eq!(synced.blobs_to_send.keys().collect::<Vec<_>>(), [&blobs[0].0]);
    let mut reopened = DataStore::from_binary(id(9), &snapshot.unwrap()).unwrap();
    assert_eq!(reopened.digest(), synced.store.digest());
    let seat = synced.store.replica_id();
    let written = seats.iter().rfind(|written| written.replica == seat).unwrap();
    assert_eq!(written.own.counter, reopened.version().next(seat));
}

/// A change of the seat `id(5)` after [`first_of`], that another copy of the file has.
fn second_of_five() -> Change {
    Change::new(id(5), 2, Vec::new(), &[Op::Skip { count: 3 }]).unwrap()
}

/// Goal: a seat of guests of which a relay knows more, for the file was restored, is given up, whether
/// or not the relay was known to have all of it; so what the file says of it is true.
#[test]
fn a_seat_of_guests_that_somebody_went_on_under_is_given_up() {
    for is_agreed in [true, false] {
        let (mut synced, seat) = (store(), id(5));
        synced.lend_seat(None, seat);
        synced.take_from(Some(seat), &[first_of(seat)], id(6)).unwrap();
        synced.take_seat_back(seat);
        if is_agreed {
            synced.compare_seats(&[seat], &[], id(7)).unwrap();
            synced.note_stored(&synced.captured().clone());
        }
        let mut theirs = Chain::default();
        theirs.extend(2, first_of(seat).bytes());
        theirs.extend(5, second_of_five().bytes());
        let relay = [(seat, theirs)];
        let (purpose, mut handover) = synced.compare_seats(&[seat], &relay, id(7)).unwrap();
        if !is_agreed {
            assert_eq!(purpose, Purpose::Nothing);
            let (purpose, _) = synced.compare_seats(&[seat], &relay, id(7)).unwrap();
            assert_eq!(purpose, Purpose::Inquiry);
            let changes = [first_of(seat), second_of_five()];
            let patch = Patch::pack(changes.iter().map(|change| &**change.bytes()));
            let mut version = Version::new();
            version.advance(seat, 5);
            let taken = synced.take_in(purpose, &version, &patch, id(7)).unwrap();
            let TakenIn::Settled { handover: settled } = taken else { panic!("{taken:?}") };
            handover = settled;
        }
        let written = handover.batch.seats.iter().rfind(|it| it.replica == seat).unwrap();
        let patch = Patch::pack([first_of(seat), second_of_five()].iter().map(|it| &**it.bytes()));
        synced.take_in(Purpose::Sync, &Version::new(), &patch, id(8)).unwrap();
        assert!(written.is_given_up && written.fits(synced.store()));
        assert_ne!(synced.lend_seat(Some(seat), id(9)).tip.replica, seat.as_u64());
    }
}

#[test]
fn a_blob_that_the_owner_gets_later_is_sent_then() {
    let mut synced = store();
    synced.store.set_blob_source(Arc::new(FarAway::default()));
    let mut author = DataStore::new(id(2));
    let item = EntryId::ROOT;
    author.write_value(item, [7; 50_000].as_slice()).unwrap();
    let hash = author.entry_with_id(item).unwrap().blob_ref().unwrap().hash;
    let patch = author.export_patch(&Version::new());
    synced.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().0.unwrap();
    assert_eq!(synced.blobs_to_send.keys().collect::<Vec<_>>(), [&hash]);
    synced.note_blob_absent(&hash);
    assert!(synced.blobs_to_send.is_empty(), "nobody waits for what is not here");
    assert!(synced.blobs_to_look_for().contains(&hash));
    synced.note_blob_found(&hash);
    assert_eq!(synced.blobs_to_send.keys().collect::<Vec<_>>(), [&hash]);
    synced.note_blob_absent(&hash);
    synced.edit(|store| store.write_value(item, "small")).unwrap().0.unwrap();
    assert!(synced.blobs_to_look_for().is_empty());
}

fn label_new(synced: &mut SyncedStore, label: &str) -> Captured {
    synced.edit(|store| add_labelled(store, label)).unwrap().1
}

/// An owner's store, and that of a guest, which has all of it.
fn owner_and_guest() -> (SyncedStore, SyncedStore) {
    let mut owner = store();
    label_new(&mut owner, "a");
    label_new(&mut owner, "b");
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), id(2));
    let mut guest = SyncedStore::new(LocalStore::load(memory).unwrap()).0;
    let patch = owner.store().export_patch(&Version::new());
    guest.take_in(Purpose::Sync, &Version::new(), &patch, id(9)).unwrap();
    (owner, guest)
}

/// Brings the owner what came out of a guest that goes on from what the owner has.
fn rebase(owner: &mut SyncedStore, guest: &mut SyncedStore, persisted: &Version) {
    let captured = guest.rebase(&owner.store, told_to_guest(owner), persisted, id(11)).unwrap();
    let changes = captured.handover.batch.changes.iter();
    let changes: Vec<Change> = changes.map(|change| Change::decode(change).unwrap()).collect();
    assert_eq!(owner.take_from(None, &changes, id(12)).unwrap().0.refused, None);
    assert_eq!(owner.store().version(), guest.store().version());
    assert_eq!(owner.store.digest(), guest.store.digest());
    guest.store().assert_invariants();
}

#[test]
fn a_guest_follows_what_the_owner_made_again_and_keeps_its_own() {
    for is_filled in [false, true] {
        let (mut owner, mut guest) = owner_and_guest();
        let persisted = guest.captured().clone();
        label_new(&mut guest, "of the guest");
        // The relay had another change in the place of the owner's second one.
        let common = owner.store().changes_since(&Version::new()).unwrap();
        let first = ChangeHeader::decode(&common[0]).unwrap().end();
        let mut stored = Version::new();
        stored.advance(id(1), first);
        let mut copy = DataStore::new(id(1));
        copy.apply_remote_patch(&Patch::pack([&*common[0]])).unwrap();
        owner.give_up(&[(id(1), first)], &stored, id(7)).unwrap().unwrap();
        let mut expected = vec!["a", "b", "of the guest"];
        if is_filled {
            let item = copy.new_item_at(None, EntryId::ROOT, None).unwrap();
            copy.set_label(item, "relay").unwrap();
            let patch = copy.export_patch(&Version::new());
            owner.take_in(Purpose::Sync, &Version::new(), &patch, id(8)).unwrap();
            expected.push("relay");
            // What it lacks may seem to go on from what it has under that id.
            let patch = owner.store().export_patch(guest.store().version());
            let taken = guest.take_in(Purpose::Sync, &Version::new(), &patch, id(9));
            assert!(taken.is_err() || !guest.fits(&owner.seat_chains()));
        }
        rebase(&mut owner, &mut guest, &persisted);
        assert_eq!(labels(owner.store()), expected);
        assert!(guest.fits(&owner.seat_chains()));
    }
}

#[test]
fn a_guest_brings_back_what_a_restored_file_lacks() {
    let (_, mut guest) = owner_and_guest();
    let (mut owner, persisted) = (store(), guest.captured().clone());
    label_new(&mut guest, "of the guest");
    rebase(&mut owner, &mut guest, &persisted);
    assert_eq!(labels(owner.store()), ["a", "b", "of the guest"]);
    assert_eq!(owner.store().version().iter().count(), 2, "the former ids, and one for the guest");
}

/// Goal: of what a guest writes at once a part is acknowledged, and made again by the owner then, before the
/// rest comes: all of it is there once.
#[test]
fn what_was_acknowledged_of_an_unfinished_write_is_there_once() {
    let (mut owner, seat) = (store(), id(5));
    owner.lend_seat(None, seat);
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), seat);
    let mut guest = SyncedStore::new(LocalStore::load(memory).unwrap()).0;
    let made = ["one", "two"].map(|label| label_new(&mut guest, label));
    let changes = made.iter().flat_map(|captured| &captured.handover.batch.changes);
    let changes: Vec<Change> = changes.map(|change| Change::decode(change).unwrap()).collect();
    let taken = owner.take_from(Some(seat), &changes[..1], id(6)).unwrap().0;
    owner.give_up(&[(seat, 0)], &Version::new(), id(7)).unwrap().unwrap();
    rebase(&mut owner, &mut guest, &taken.version);
    assert_eq!(labels(owner.store()), ["one", "two"]);
}

/// Goal: seats that are too many for one opening are named by several, and nothing of a seat goes
/// out, or counts as agreed upon, before.
#[test]
fn seats_that_are_too_many_are_named_one_connection_after_the_other() {
    let mut synced = store();
    for number in 100..250 {
        synced.lend_seat(None, id(number));
        let first = first_of(id(number));
        synced.take_from(Some(id(number)), &[first], id(6)).unwrap();
    }
    let all = synced.captured().clone();
    let mut relay = Version::new();
    for opening in 1.. {
        assert!(opening < 6, "it goes on and on");
        let mut link = Link::new(&synced, &Token::from(String::new()), Instant::now());
        let Some(ClientFrame::OpenSeated { seats: named, .. }) = link.poll_transmit() else {
            panic!("not an open frame")
        };
        assert!(named.len() <= crate::limits::OPEN_SEATS_MAX);
        let version = relay.encode().into();
        let opened = RelayFrame::OpenedSeated { version, writable: true, seats: Vec::new() };
        link.handle_frame(opened).unwrap();
        link.handle_opened(&mut synced, id(3)).unwrap();
        let mut saved = link.handle_saved(&synced, &all);
        while let Some(ClientFrame::Changes { patch }) = link.poll_transmit() {
            for change in Patch::decode(&patch).unwrap().changes() {
                let header = change.header();
                assert!(named.contains(&header.replica.as_u64()), "{:?}", header.replica);
                relay.advance(header.replica, header.end());
            }
            link.handle_frame(RelayFrame::Stored { version: relay.encode().into() }).unwrap();
            synced.note_stored(&all);
            if link.is_holding_back() {
                saved = link.handle_saved(&synced, &all);
            }
        }
        if saved.is_ok() {
            break;
        }
        assert!(matches!(saved, Err(LinkError::Reseating)));
    }
    assert_eq!(relay, all);
}

/// What `owner` tells a guest of the file's seats, as the guest reads it.
fn told_to_guest(owner: &SyncedStore) -> Vec<Seat> {
    let tip = |(replica, chain): (ReplicaId, Chain)| SeatTip {
        replica: replica.as_u64(),
        next: chain.counter,
        chain: chain.hash,
    };
    let seats = owner.seat_chains().into_iter().map(tip).collect();
    let version = owner.captured().encode().into();
    let mut session = GuestSession::new(owner.id(), &Version::new(), Wish::Nothing);
    session.handle_frame(RelayFrame::OpenedSeated { version, writable: true, seats }).unwrap();
    session.file_seats()
}

/// What a relay that has the store `relay` has of the seat `seat`.
fn tip_at(relay: &mut SyncedStore, seat: ReplicaId) -> (ReplicaId, Chain) {
    let version = relay.store().version().clone();
    let tip = relay.tips(&[seat.as_u64()], &version).pop().unwrap();
    (seat, Chain { counter: tip.next, hash: tip.chain })
}

/// Goal: a guest with a relay of its own does not mix what the file has made since it was restored with
/// what the relay has under the same ids; and where the relay merely knows more, it goes on.
#[test]
fn a_guest_does_not_sync_past_what_the_owner_has_to_make_again() {
    for is_restored in [true, false] {
        let seat = id(1);
        let (mut owner, mut relay) = (store(), store());
        label_new(&mut owner, "a");
        owner.compare_seats(&[seat], &[], id(7)).unwrap();
        owner.note_stored(&owner.captured().clone());
        label_new(&mut owner, if is_restored { "after the restoration" } else { "b" });
        for label in ["a", "b", "c"] {
            label_new(&mut relay, label);
        }
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), id(2));
        let mut guest = SyncedStore::new(LocalStore::load(memory).unwrap()).0;
        guest.is_guest = true;
        bring(&owner, &mut guest);
        guest.follow_seats(told_to_guest(&owner));
        let relays = [tip_at(&mut relay, seat)];
        for expected in [Purpose::Nothing, Purpose::Inquiry] {
            let purpose = guest.compare_seats(&[seat], &relays, id(8)).unwrap().0;
            assert_eq!(purpose, expected);
        }
        let patch = relay.store().export_patch(&Version::new());
        let at_open = relay.store().version().clone();
        let taken = guest.take_in(Purpose::Inquiry, &at_open, &patch, id(8));
        if is_restored {
            // The owner may connect at any time.
            let mut reconnect = Reconnect::new();
            for attempt in 1..=9 {
                let failure = LinkError::from(taken.as_ref().unwrap_err().clone());
                assert_eq!(failure.code(), "owner-first");
                let next = reconnect.after(failure, false, 0);
                assert!(matches!(next, NextAttempt::Retry(_)), "{next:?}");
                assert_eq!(reconnect.attempt(), attempt);
            }
        } else {
            assert!(matches!(taken, Ok(TakenIn::Settled { .. })), "{taken:?}");
            let purpose = guest.compare_seats(&[seat], &relays, id(8)).unwrap().0;
            assert_eq!(purpose, Purpose::Sync);
        }
        assert_eq!(guest.store().replica_id(), id(2));
    }
}

/// Goal: a guest that has gone on from what is in the file compares the seats of that file as before.
#[test]
fn a_guest_that_went_on_from_the_file_does_not_sync_past_it_either() {
    let (mut owner, mut guest) = owner_and_guest();
    guest.is_guest = true;
    let persisted = guest.captured().clone();
    rebase(&mut owner, &mut guest, &persisted);
    let mut relay = store();
    ["a", "another"].iter().for_each(|label| drop(label_new(&mut relay, label)));
    let relays = [tip_at(&mut relay, id(1))];
    let (_, seats) = guest.hello();
    assert!(seats.contains(&id(1)), "the relay is to be asked about it");
    let purpose = guest.compare_seats(&seats, &relays, id(8)).unwrap().0;
    assert_eq!(purpose, Purpose::Nothing);
    assert_eq!(guest.compare_seats(&seats, &relays, id(8)).unwrap().0, Purpose::Inquiry);
}

/// Goal: however much a relay says of a seat in doubt, it takes no memory.
#[test]
fn what_is_told_of_a_seat_in_doubt_is_not_kept() {
    let (mut relay, _) = owner_and_guest();
    let mut restored = store();
    label_new(&mut restored, "after the restoration");
    let (seat, tip) = tip_at(&mut relay, id(1));
    let mut doubts = Doubts::new([(seat, tip.counter + 1)]);
    label_new(&mut relay, "more");
    let changes = relay.store().changes_since(&Version::new()).unwrap();
    let changes = changes.iter().map(|change| Change::decode(change).unwrap());
    let changes: Vec<Change> = changes.take(2).collect();
    let version = relay.store().version().clone();
    let settled =
        restored.inquire(&mut doubts, Side::Peer, &version, changes.clone(), id(7)).unwrap();
    assert!(settled.is_none(), "there is more to come");
    let kept = changes.iter().filter(|change| Arc::strong_count(change.bytes()) > 1);
    assert_eq!(kept.count(), 0);
}

/// Brings one store what another one has.
fn bring(from: &SyncedStore, to: &mut SyncedStore) {
    let changes = from.store().changes_since(to.store().version()).unwrap();
    let changes: Vec<Change> =
        changes.iter().map(|change| Change::decode(change).unwrap()).collect();
    assert_eq!(to.take_from(None, &changes, id(22)).unwrap().0.refused, None);
}

/// Goal: a store that was restored, and edited more or less than before, finds out from a peer that its
/// changes mean something else there, and makes them again; what is merely less is given up.
#[test]
fn what_a_peer_has_in_the_place_of_own_changes_is_settled() {
    for label in [Some("after the restoration"), Some(""), None] {
        let is_edited = label.is_some();
        let (mut peer, _) = owner_and_guest();
        let mut restored = store();
        if let Some(label) = label {
            label_new(&mut restored, label);
        }
        let version = peer.store().version().clone();
        let (mut doubts, batch) = restored.compare_with_peer(&version, true, id(20)).unwrap();
        assert_eq!(doubts.seats().count(), usize::from(is_edited));
        assert_eq!(batch.is_empty(), is_edited);
        if is_edited {
            let changes = peer.store().changes_since(&Version::new()).unwrap();
            let changes: Vec<Change> =
                changes.iter().map(|change| Change::decode(change).unwrap()).collect();
            let mut parts = changes.chunks(1);
            let part = parts.next().unwrap().to_vec();
            let settled =
                restored.inquire(&mut doubts, Side::Peer, &version, part, id(21)).unwrap();
            assert!(settled.is_none());
            let rest = parts.flatten().cloned();
            let settled =
                restored.inquire(&mut doubts, Side::Peer, &version, rest, id(21)).unwrap();
            assert!(settled.unwrap().batch.snapshot.is_some());
        }
        assert_ne!(restored.store().replica_id(), id(1));
        bring(&peer, &mut restored);
        bring(&restored, &mut peer);
        assert_eq!(restored.store.digest(), peer.store.digest());
        let mut expected: Vec<&str> = ["a", "b"].into_iter().chain(label).collect();
        expected.sort_unstable();
        assert_eq!(labels(restored.store()), expected);
    }
}

/// Goal: a peer that only reads, and whose word nobody can check, takes no seat from guests, and makes the store
/// take new ids only so many times, whatever it says it has.
#[test]
fn the_word_of_a_peer_that_only_reads_counts_for_the_id_in_use_alone() {
    let mut synced = store();
    let (lent, free) = (id(5), id(6));
    synced.lend_seat(None, free);
    synced.lend_seat(None, lent);
    synced.take_seat_back(free);
    let mut last = synced.store().replica_id();
    for number in 0..3 * RESEATS_MAX {
        let mut claimed = Version::new();
        synced.ledger.seats.iter().for_each(|seat| claimed.advance(seat.replica, u64::MAX));
        let fresh = id(100 + u64::from(number));
        let (doubts, batch) = synced.compare_with_peer(&claimed, false, fresh).unwrap();
        assert!(doubts.is_empty());
        assert!(batch.seats.iter().all(|seat| ![lent, free].contains(&seat.replica)));
        label_new(&mut synced, "in between");
        let former = std::mem::replace(&mut last, synced.store().replica_id());
        assert_eq!(former != last, number < RESEATS_MAX, "{number}");
    }
    let taken = synced.take_from(Some(lent), &[first_of(lent)], id(7)).unwrap().0;
    assert_eq!(taken.refused, None, "the guest still has it");
    assert_eq!(synced.lend_seat(None, id(8)).tip.replica, free.as_u64());
}

/// A guest's store under the seat `seat`, which has all of `owner`, with what came of an edit.
fn edited_by_guest(owner: &SyncedStore, seat: ReplicaId, next: u64, label: &str) -> Vec<Change> {
    let mut guest = DataStore::new(seat);
    guest.apply_remote_patch(&owner.store().export_patch(&Version::new())).unwrap();
    let known = guest.version().clone();
    guest.resume_at(next);
    add_labelled(&mut guest, label);
    guest.decoded_changes_since(&known).unwrap()
}

/// Goal: what a guest has brought, and nobody has told it to be on disk, is not made again by an owner that has
/// its file again: the guest brings it again, and would have it there twice. What the owner has made with it stays.
#[test]
fn what_was_not_acknowledged_to_a_guest_is_the_guests_to_bring_again() {
    for used in ["nowhere", "here", "elsewhere"] {
        let (mut owner, seat) = (store(), id(5));
        label_new(&mut owner, "before");
        let persisted = owner.captured().clone();
        let common = owner.store().export_patch(&Version::new());
        owner.lend_seat(None, seat);
        let brought = edited_by_guest(&owner, seat, 1, "brought");
        assert_eq!(owner.take_from(Some(seat), &brought, id(6)).unwrap().0.refused, None);
        if used == "elsewhere" {
            // Somebody has seen it, and does not refer to it.
            let mut elsewhere = DataStore::from_binary(id(9), &owner.store().as_binary()).unwrap();
            let seen = elsewhere.version().clone();
            let item = elsewhere.new_item_at(None, EntryId::ROOT, None).unwrap();
            elsewhere.set_label(item, "elsewhere").unwrap();
            let patch = elsewhere.export_patch(&seen);
            owner.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().0.unwrap();
        }
        if used == "here" {
            let into = |store: &mut DataStore| {
                let root = store.root_item();
                let item = root.inner_entries().find(|entry| entry.label() == "brought");
                let item = item.unwrap().id();
                store.new_item_at(None, item, None)
            };
            owner.edit(into).unwrap().0.unwrap();
        }
        label_new(&mut owner, "ours");
        // Whoever had the file meanwhile has lent the seat to another guest, or to none.
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), id(1));
        let mut other = SyncedStore::new(LocalStore::load(memory.clone()).unwrap()).0;
        let captured = other.edit(|store| store.apply_remote_patch(&common).map(drop)).unwrap().1;
        let mut memory = memory;
        memory.append(&captured.handover.batch).unwrap();
        if used != "elsewhere" {
            other.lend_seat(None, seat);
            let another = edited_by_guest(&other, seat, 1, "of another");
            let captured = other.take_from(Some(seat), &another, id(6)).unwrap().1;
            memory.append(&captured.handover.batch).unwrap();
        }
        let (base, ledger) = crate::local_store::read(&memory).unwrap();
        owner.take_over(&base, ledger, &persisted, id(7)).unwrap();
        owner.store().assert_invariants();
        let expected: &[&str] = match used {
            "nowhere" => &["before", "of another", "ours"],
            "here" => &["before", "brought", "of another", "ours"],
            _ => &["before", "brought", "elsewhere", "ours"],
        };
        let is_theirs = owner.store().version().next(id(9)) > 0;
        assert_eq!(is_theirs, used == "elsewhere", "what others have made nobody makes again");
        assert_eq!(labels(owner.store()), expected);
    }
}

/// Goal: what a peer has counts for no relay, which is asked about the seat as before.
#[test]
fn what_a_peer_has_is_not_agreed_upon_with_a_relay() {
    let (mut peer, _) = owner_and_guest();
    let mut restored = store();
    let first = peer.store().decoded_changes_since(&Version::new()).unwrap().remove(0);
    label_new(&mut restored, "a");
    assert_eq!(restored.store().version().next(id(1)), first.header().end());
    label_new(&mut restored, "after the restoration");
    label_new(&mut peer, "c");
    let version = peer.store().version().clone();
    let (mut doubts, _) = restored.compare_with_peer(&version, true, id(20)).unwrap();
    let changes = peer.store().decoded_changes_since(&Version::new()).unwrap();
    let settled = restored.inquire(&mut doubts, Side::Peer, &version, changes, id(21)).unwrap();
    assert!(settled.is_some());
    assert_eq!(restored.store().version().next(id(1)), first.header().end());
    assert!(restored.hello().1.contains(&id(1)), "a relay may have something else");
    for _ in 0..2 {
        let (doubts, batch) = restored.compare_with_peer(&version, true, id(22)).unwrap();
        assert!(doubts.is_empty() && batch.is_empty(), "the peer has told");
        bring(&peer, &mut restored);
    }
}

/// Goal: what a relay is known to have is not made again since a peer lacks it.
#[test]
fn what_a_relay_has_keeps_its_name_whatever_a_peer_has() {
    let (mut synced, seat) = (store(), id(5));
    label_new(&mut synced, "a");
    let mut version = synced.captured().clone();
    label_new(&mut synced, "b");
    let agreed = synced.captured().clone();
    synced.compare_seats(&[id(1)], &[], id(7)).unwrap();
    synced.note_stored(&agreed);
    label_new(&mut synced, "c");
    synced.lend_seat(None, seat);
    synced.take_from(Some(seat), &[first_of(seat)], id(6)).unwrap();
    synced.take_seat_back(seat);
    version.advance(seat, 5);
    let (mut doubts, _) = synced.compare_with_peer(&version, true, id(20)).unwrap();
    assert_eq!(doubts.seats().collect::<Vec<_>>(), [seat]);
    let other = Change::new(seat, 0, Vec::new(), &[Op::Skip { count: 5 }]).unwrap();
    let settled = synced.inquire(&mut doubts, Side::Peer, &version, [other], id(21)).unwrap();
    assert!(settled.is_some());
    assert_eq!(synced.store().version().next(id(1)), agreed.next(id(1)));
    assert_eq!(labels(synced.store()), ["a", "b", "c"]);
}

/// Goal: what is read for a visitor at a time does not depend on how much it lacks. Method: changes that are
/// many, and some that are large, all on disk but the last.
#[test]
fn a_log_is_read_for_a_visitor_in_parts() {
    let mut synced = store();
    let sizes = [vec![8; 2 * LOG_PART_CHANGES_MAX + 3], vec![LOG_PART_BYTES_GOAL / 5; 16]].concat();
    for size in sizes {
        let info = |store: &mut DataStore| store.set_info(EntryId::ROOT, "k", &"x".repeat(size));
        synced.edit(info).unwrap().0.unwrap();
    }
    let persisted = synced.store.version().clone();
    synced.edit(|store| store.set_label(EntryId::ROOT, "not on disk")).unwrap().0.unwrap();
    let (mut known, mut parts, mut is_last) = (Version::new(), 0, false);
    while !is_last {
        let part = synced.durable_part(&known, &persisted).unwrap();
        let size: usize = part.changes.iter().map(|(_, change)| change.len()).sum();
        assert!(part.changes.len() <= LOG_PART_CHANGES_MAX && size <= LOG_PART_BYTES_GOAL);
        part.changes.iter().for_each(|(header, _)| known.advance(header.replica, header.end()));
        (parts, is_last) = (parts + 1, part.is_last);
    }
    assert!(known == persisted && parts >= 6, "{parts}");
    let rest = synced.durable_part(&known, &persisted).unwrap();
    assert!(rest.changes.is_empty() && rest.is_last);
}

/// Goal: what was asked before is not read again, and never told of another history than the one that is here.
/// Method: a replica of somebody else, asked about before and after it has gone on, and when its changes were
/// made again by others, compared with a store that is asked for the first time.
#[test]
fn a_tip_that_is_asked_for_again_is_the_same_as_the_first_time() {
    let mut synced = store();
    let mut author = DataStore::new(id(7));
    for label in ["a", "b", "c"] {
        let known = author.version().clone();
        author.set_label(EntryId::ROOT, label).unwrap();
        let patch = author.export_patch(&known);
        synced.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().0.unwrap();
        let tip = tip_at(&mut synced, id(7));
        let mut other = store();
        let all = author.export_patch(&Version::new());
        other.edit(|store| store.apply_remote_patch(&all).map(drop)).unwrap().0.unwrap();
        assert_eq!(tip, tip_at(&mut other, id(7)));
        // Of what is not on disk yet nothing is told.
        let on_disk = synced.tips(&[7], &known);
        assert_eq!(on_disk, other.tips(&[7], &known));
    }
    synced.tips.chains.values_mut().for_each(|chain| chain.hash = [0; 32]);
    let is_asked_once = tip_at(&mut synced, id(7)).1.hash == [0; 32];
    assert!(is_asked_once, "it was read again");
    synced.resettled += 1;
    assert_ne!(tip_at(&mut synced, id(7)).1.hash, [0; 32]);
}
