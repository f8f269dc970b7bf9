//! A transaction happens as a whole or not at all.

use sds_store::{DataStore, EntryId, ReplicaId, StoreError, Timestamp};

const ROOT: EntryId = EntryId::ROOT;

fn store(replica: u64) -> DataStore {
    DataStore::new(ReplicaId::new(replica).unwrap())
}

#[test]
fn a_failing_transaction_takes_everything_back() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let (version, digest) = (store.version().clone(), store.digest());
    let failed: Result<(), StoreError> = store.transact(|store| {
        store.set_label(item, "lost")?;
        store.new_item_at(None, item, None)?;
        store.move_entry_to(item, item, None)
    });
    assert_eq!(failed.unwrap_err().code(), "move-would-cycle");
    assert_eq!(*store.version(), version);
    assert_eq!(store.digest(), digest);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        store.transact(|store| -> Result<(), StoreError> {
            store.set_label(item, "lost")?;
            panic!("in the middle")
        })
    }));
    assert!(panicked.is_err());
    assert_eq!(store.entry_with_id(item).unwrap().label(), "", "a panic takes it back too");
    store.set_label(item, "kept").unwrap();
    store.assert_invariants();
    assert_eq!(store.changes_since(&version).unwrap().len(), 1);
}

#[test]
fn a_transaction_past_the_size_of_a_change_is_refused_as_a_whole() {
    let mut store = store(1);
    let item = store.new_item_at(None, ROOT, None).unwrap();
    let version = store.version().clone();
    let text = "x".repeat(131_072);
    let failed: Result<(), StoreError> = store.transact(|store| {
        (0..140).try_for_each(|at| store.set_info(item, &format!("k{at}"), &text))
    });
    assert_eq!(failed.unwrap_err().code(), "transaction-too-large");
    assert_eq!(*store.version(), version);
    assert_eq!(store.entry(item).unwrap().info_keys().count(), 0);
    store.delete_entry(item, Timestamp::from_millis(1)).unwrap();
    store.assert_invariants();
}
