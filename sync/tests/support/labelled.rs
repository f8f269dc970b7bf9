//! Items that are told apart by their labels.

use sds_store::{DataStore, EntryId};

/// Adds an item with a label, in one edit: the id that it has may change with that of its author.
pub(crate) fn add_labelled(store: &mut DataStore, label: &str) {
    let add = |store: &mut DataStore| {
        let item = store.new_item_at(None, EntryId::ROOT, None)?;
        store.set_label(item, label)
    };
    store.transact(add).unwrap();
}

/// The labels of what is in the root, in alphabetical order.
pub(crate) fn labels(store: &DataStore) -> Vec<String> {
    let root = store.root_item();
    let own = root.inner_entries().filter(|entry| !entry.id().is_well_known());
    let mut labels: Vec<String> = own.map(|entry| entry.label().into_owned()).collect();
    labels.sort();
    labels
}
