//! Whatever several users do to a store, and in whatever order it reaches the others, the store's rules
//! hold after every step, and everybody ends up with the same.

use proptest::prelude::{any, prop};
use sds_proptests::check::check;
use sds_proptests::store_rules::check_store_rules;
use sds_proptests::store_story::{StoreStep, StoreStory, USERS};
use sds_store::{DataStore, EntryId, ReplicaId, Timestamp};

#[test]
fn the_rules_hold_after_every_step_of_any_story() {
    let stories = (USERS, prop::collection::vec(StoreStep::any(), 1..60), any::<u64>());
    check(120, &stories, |(users, steps, seed)| StoreStory::new(users).run(&steps).converge(seed));
}

/// Some items in Trash, each with one inside, and links among all of them and from outside.
#[test]
fn protection_follows_links_through_trash() {
    const ITEMS: usize = 6;
    let links = prop::collection::vec((0..2 * ITEMS + 1, 0..2 * ITEMS), 0..12);
    check(400, &links, |links| {
        let mut store = DataStore::new(ReplicaId::new(1).unwrap());
        let mut places = Vec::new();
        for _ in 0..ITEMS {
            let item = store.new_item_at(None, EntryId::ROOT, None).unwrap();
            places.extend([item, store.new_item_at(None, item, None).unwrap()]);
        }
        for (from, to) in links {
            let from = places.get(from).copied().unwrap_or(EntryId::LOST_AND_FOUND);
            store.new_link_at(places[to], from, None).unwrap();
        }
        for item in places.iter().step_by(2) {
            store.delete_entry(*item, Timestamp::from_millis(1)).unwrap();
        }
        assert_eq!(check_store_rules(&store), Ok(()));
        store.purge_all_trash_entries().unwrap();
        assert_eq!(check_store_rules(&store), Ok(()));
        assert_eq!(store.protected_trash_entries().len(), store.trash_item().inner_entry_count());
    });
}

/// One knows only of a link to an entry, another imports that entry as a link.
#[test]
fn a_link_to_a_link_that_merging_makes_breaks_no_rule() {
    let [one, two] = [1, 2].map(|number| EntryId::from_bytes([number; 16]));
    let mut stores = [1, 2].map(|number| DataStore::new(ReplicaId::new(number).unwrap()));
    for (store, (link, target)) in stores.iter_mut().zip([(one, two), (two, EntryId::ROOT)]) {
        let json = format!(r#"{{"Kind":"link","Id":"{link}","TargetId":"{target}"}}"#);
        store.import_entry_from_json_at(&json, EntryId::ROOT, None).unwrap();
    }
    let [here, there] = &mut stores;
    here.apply_remote_patch(&there.export_patch(here.version())).unwrap();
    assert!(here.entry(one).unwrap().target().unwrap().is_link());
    assert_eq!(check_store_rules(here), Ok(()));
}
