//! F: moving.

use crate::stores::*;

#[test]
fn f55_an_entry_moves_to_another_container() {
    let mut store = store(1);
    let [from, to] = [0; 2].map(|_| item(&mut store, ROOT));
    let moved = item(&mut store, from);
    let other = item(&mut store, to);
    store.move_entry_to(moved, to, Some(0)).unwrap();
    assert_eq!(outer(&store, moved), Some(to));
    assert_eq!(inner(&store, to), [moved, other]);
    assert_eq!(inner(&store, from), []);
    assert_eq!(code(store.move_entry_to(unknown(), to, None)), "not-found");
    let link = store.new_link_at(to, ROOT, None).unwrap();
    for bad in [link, unknown()] {
        assert_eq!(code(store.move_entry_to(moved, bad, None)), "invalid-argument");
        assert!(!store.entry(moved).unwrap().may_be_moved_to(bad));
    }
}

#[test]
fn f56_nothing_moves_into_itself() {
    let mut store = store(1);
    let a = item(&mut store, ROOT);
    let b = item(&mut store, a);
    let c = item(&mut store, b);
    for target in [a, b, c] {
        assert!(!store.entry(a).unwrap().may_be_moved_to(target));
        assert_eq!(code(store.move_entry_to(a, target, None)), "move-would-cycle");
    }
    assert!(store.entry(c).unwrap().may_be_moved_to(a));
    assert_eq!(store.entry(c).unwrap().outer_item_ids().collect::<Vec<_>>(), [b, a, ROOT]);
}

#[test]
fn f57_system_items_stay_in_root() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    for target in [ROOT, folder, TRASH] {
        assert_eq!(code(store.move_entry_to(ROOT, target, None)), "move-would-cycle");
    }
    for system in [TRASH, LOST_AND_FOUND] {
        assert!(!store.entry(system).unwrap().may_be_moved_to(folder));
        assert_eq!(code(store.move_entry_to(system, folder, None)), "move-would-cycle");
        assert!(store.entry(system).unwrap().may_be_moved_to(ROOT));
    }
    store.move_entry_to(TRASH, ROOT, None).unwrap();
    assert_eq!(inner(&store, ROOT), [LOST_AND_FOUND, folder, TRASH]);
}

#[test]
fn f58_two_folders_moved_into_each_other_stay_in_sight() {
    let (mut one, mut two) = twins(|store| {
        item(store, ROOT);
        item(store, ROOT);
    });
    let [a, b] = inner(&one, ROOT)[2..] else { panic!("two") };
    one.move_entry_to(a, b, None).unwrap();
    two.move_entry_to(b, a, None).unwrap();
    exchange(&mut one, &mut two);
    for store in [&one, &two] {
        for entry in [a, b] {
            let chain: Vec<_> = store.entry(entry).unwrap().outer_item_ids().collect();
            assert_eq!(chain.last(), Some(&ROOT));
            assert!(chain.len() <= 2);
            assert!(store.as_json().contains(&entry.to_string()));
        }
    }
}
