//! What callers, connection and writer see of each other.

use std::sync::mpsc::channel;

use sds_engine::{Change, Op, Patch, ReplicaId};
use sds_store::EntryId;

use super::super::writer::Writer;
use super::*;
use crate::local_store::LocalStore;
use crate::persistence::MemoryPersistence;

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn shared() -> Shared {
    let (status, saved) = (watch::Sender::default(), watch::Sender::default());
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica(2));
    let (store, persistence) = SyncedStore::new(LocalStore::load(memory).unwrap());
    let (writer, _thread) = Writer::spawn(persistence, status.clone(), saved.clone());
    Shared::new(store, status, saved, writer)
}

fn take_in(shared: &Shared, patch: &[u8]) -> Vec<Arc<[u8]>> {
    match shared.take_in(Purpose::Sync, &Version::new(), patch).unwrap() {
        TakenIn::Changes { came, .. } => came,
        other => panic!("{other:?}"),
    }
}

#[test]
fn changes_of_newer_programs_are_told() {
    let shared = shared();
    shared.edit(|store| store.set_label(EntryId::ROOT, "one's own").unwrap()).unwrap();
    let skip = Change::new(replica(1), 0, vec![], &[Op::Skip { count: 1 }]).unwrap();
    let mut newer = skip.bytes().to_vec();
    // The kind of its op.
    let at = newer.len() - 2;
    newer[at] = 30;
    assert!(take_in(&shared, &Patch::pack([newer.as_slice()])).is_empty());
    shared.status.send_modify(|status| {
        status.connection = ConnectionState::Connected { writable: true };
        status.relay_at_open.advance(replica(1), 1);
    });
    let status = shared.status.borrow().clone();
    assert!(status.is_too_old && status.last_error == Some("too-new"), "{status:?}");
    assert!(status.outcome().is_none(), "others may still come");
}

/// Goal: whoever may only read is not told that there are edits which cannot leave, when only others
/// have made any.
#[test]
fn what_comes_from_the_relay_is_never_something_that_it_lacks() {
    let shared = shared();
    shared.status.send_modify(|status| {
        status.connection = ConnectionState::Connected { writable: false };
    });
    let mut author = DataStore::new(replica(1));
    author.set_label(EntryId::ROOT, "from the relay").unwrap();
    take_in(&shared, &author.export_patch(&Version::new()));
    let outcome = shared.status.borrow().outcome();
    assert!(!matches!(outcome, Some(Err(_))), "{outcome:?}");
    shared.edit(|store| store.set_label(EntryId::ROOT, "one's own").unwrap()).unwrap();
    let outcome = shared.status.borrow().outcome();
    assert!(matches!(outcome, Some(Err(SyncError::ReadOnly))), "{outcome:?}");
}

#[test]
fn whoever_panics_while_reading_closes_the_store_to_nobody() {
    let shared = shared();
    let looked = catch_unwind(AssertUnwindSafe(|| {
        shared.read(|store| assert!(store.version().is_empty(), "no panic"))
    }));
    looked.unwrap().unwrap();
    let panicked = catch_unwind(AssertUnwindSafe(|| shared.read(|_| panic!("while reading"))));
    assert!(panicked.is_err());
    shared.edit(|store| store.set_label(EntryId::ROOT, "after it").unwrap()).unwrap();
}

/// Fifty thousand bytes, which are kept as a blob.
fn content(byte: u8) -> Vec<u8> {
    vec![byte; 50_000]
}

#[test]
fn what_handlers_answer_to_a_patch_is_still_to_be_sent() {
    let shared = shared();
    let subscription = shared.edit(|store| {
        store.on_change(|store, event| {
            if event.origin == sds_store::Origin::External {
                store.write_value(EntryId::ROOT, content(1).as_slice()).unwrap();
            }
        })
    });
    let mut author = DataStore::new(replica(1));
    author.set_label(EntryId::ROOT, "asked").unwrap();
    let changes = take_in(&shared, &author.export_patch(&Version::new()));
    let authors: Vec<_> =
        changes.iter().map(|change| ChangeHeader::decode(change).unwrap().replica).collect();
    assert_eq!(authors, [replica(1)], "the relay has no other");
    assert_eq!(shared.blobs_to_send().unwrap().len(), 1);
    let captured = shared.status.borrow().local.clone();
    assert!(shared.read(|store| captured == *store.version()).unwrap());
    drop(subscription);
}

#[test]
fn only_blobs_that_the_state_refers_to_are_fetched() {
    let shared = shared();
    let mut author = DataStore::new(replica(1));
    let item = author.new_item_at(None, EntryId::ROOT, None).unwrap();
    let mut seen = Version::new();
    let mut pass_on = |author: &DataStore| {
        take_in(&shared, &author.export_patch(&seen));
        seen = author.version().clone();
        let hashes = shared.blobs_to_fetch().unwrap();
        assert_eq!(shared.status.borrow().blobs_to_fetch, hashes.len());
        hashes.iter().map(|(hash, _)| *hash).collect::<Vec<_>>()
    };
    (0..9).for_each(|byte| author.write_value(item, content(byte).as_slice()).unwrap());
    let current = |author: &DataStore| author.entry_with_id(item).unwrap().blob_ref().unwrap();
    assert_eq!(pass_on(&author), [current(&author).hash]);
    author.write_value(item, content(99).as_slice()).unwrap();
    assert_eq!(pass_on(&author), [current(&author).hash], "overwritten while it was awaited");
    author.write_value(item, "no blob").unwrap();
    assert_eq!(pass_on(&author), []);
}

/// Goal: what is being written while seats are settled does not count as on disk by its former
/// name, neither before the rest is written nor after.
#[tokio::test]
async fn a_commit_under_way_does_not_bring_former_ids_back() {
    let ((gate, gated), (begun, has_begun)) = (channel(), channel());
    let (status, saved) = (watch::Sender::default(), watch::Sender::default());
    let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica(2));
    let gated = Mutex::new(gated);
    let file = memory.guarded(move || {
        begun.send(()).unwrap();
        gated.lock().unwrap().recv().unwrap();
        Ok(())
    });
    let (store, file) = SyncedStore::new(LocalStore::load(file).unwrap());
    let (writer, _thread) = Writer::spawn(file, status.clone(), saved.clone());
    let shared = Shared::new(store, status, saved, writer);
    let mut commits = shared.saved.subscribe();
    shared.edit(|store| store.set_label(EntryId::ROOT, "own")).unwrap().unwrap();
    has_begun.recv().unwrap();
    let settle = |core: &mut SyncedStore, fresh| {
        Ok(core.give_up(&[(replica(2), 0)], &Version::new(), fresh)?)
    };
    assert!(shared.give_up(settle).unwrap());
    gate.send(()).unwrap();
    commits.wait_for(|count| *count > 0).await.unwrap();
    assert_eq!(shared.persisted().next(replica(2)), 0);
    gate.send(()).unwrap();
    shared.flush().await.unwrap();
    assert_eq!(shared.persisted(), shared.read(|store| store.version().clone()).unwrap());
}

/// Goal: a guest that comes back before its former session has ended gets the seat that it had, and one whose
/// seat somebody else has gets another one in the end.
#[tokio::test]
async fn a_guest_that_is_back_soon_gets_its_own_seat() {
    let shared = Arc::new(shared());
    let first = shared.lend_seat(None).await.unwrap();
    let seat = ReplicaId::new(first.replica);
    let (former, back) = (Arc::clone(&shared), Arc::clone(&shared));
    let back = tokio::spawn(async move { back.lend_seat(seat).await.unwrap() });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    former.take_seat_back(seat.unwrap());
    let again = back.await.unwrap();
    assert_eq!((again.replica, again.next), (first.replica, first.next + 1));
    assert_ne!(shared.lend_seat(seat).await.unwrap().replica, first.replica);
}
