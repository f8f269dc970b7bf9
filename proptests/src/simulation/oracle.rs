//! What must be true when everything has come to rest.
//!
//! - O1. Every device and the relay have the same changes, to the byte, and the same digest.
//! - O2. Every note that was said to be on a disk which is still there, or that the relay had on its
//!   own, is made by exactly one change; no note is made by two.
//! - O3. Every store keeps the rules of `store_rules`, and its invariants. Those of what it shows are
//!   checked after each step that changed it as well.
//!
//! What was acknowledged as a version is checked as it happens: `device` and `relay` do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sds_engine::{ChangeHeader, Patch, ReplicaId, Version};
use sds_store::DataStore;

use super::device::notes_of;
use crate::store_rules::{check_shown_rules, check_store_rules};

/// Panics unless a store keeps its rules (O3).
pub(super) fn assert_sound(store: &DataStore, name: &str) {
    store.assert_invariants();
    assert_eq!(check_store_rules(store), Ok(()), "O3: {name}");
}

/// Panics unless what a store shows keeps its rules (O3).
pub(super) fn assert_rules(store: &DataStore, name: &str) {
    assert_eq!(check_shown_rules(store).err(), None, "O3: {name}");
}

/// Panics unless all stores, and `log`, have the same changes and digest (O1).
pub(super) fn assert_same(stores: &[(&str, &DataStore)], log: &[Arc<[u8]>]) {
    let expected = by_id(log);
    let reader = ReplicaId::new(u64::MAX).expect("not zero");
    let mut replayed = DataStore::new(reader);
    let patch = Patch::pack(log.iter().map(|change| &**change));
    let done = replayed.apply_remote_patch(&patch).expect("a relay's log can be taken in");
    assert_eq!(done.waiting, 0, "O1: nothing in the log comes before what it builds on");
    assert_sound(&replayed, "relay");
    for (name, store) in stores {
        assert_sound(store, name);
        assert_eq!(store.version(), replayed.version(), "O1: {name}");
        let changes = store.changes_since(&Version::new()).expect("nothing was cut");
        assert!(by_id(&changes) == expected, "O1: {name} has other changes than the relay");
        let copy = DataStore::from_binary(reader, &store.as_binary());
        let mut copy = copy.expect("a snapshot can be loaded");
        assert_eq!(copy.digest(), replayed.digest(), "O1: {name}");
    }
}

/// Panics unless the notes in `required` are there, and none is there twice (O2).
pub(super) fn assert_notes(required: &BTreeSet<String>, log: &[Arc<[u8]>]) {
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for name in log.iter().flat_map(|change| notes_of(change)) {
        *made.entry(name).or_default() += 1;
    }
    let twice: Vec<_> = made.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "O2: made again, and still there: {twice:?}");
    let lost: Vec<_> = required.iter().filter(|name| !made.contains_key(*name)).collect();
    assert!(lost.is_empty(), "O2: lost: {lost:?}");
}

fn by_id(changes: &[Arc<[u8]>]) -> BTreeMap<(ReplicaId, u64), &[u8]> {
    let id = |change: &Arc<[u8]>| {
        let header = ChangeHeader::decode(change).expect("only changes are kept");
        (header.replica, header.start)
    };
    let ids: BTreeMap<_, _> = changes.iter().map(|change| (id(change), &**change)).collect();
    assert_eq!(ids.len(), changes.len(), "O1: no change is there twice");
    ids
}
