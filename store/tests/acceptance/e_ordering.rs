//! E: ordering.

use crate::stores::*;

#[test]
fn e48_items_stand_in_the_order_of_their_creation() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let made = [0; 3].map(|_| item(&mut store, folder));
    assert_eq!(inner(&store, folder), made);
}

#[test]
fn e49_an_index_is_where_the_entry_stands_afterwards() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    let [a, b] = [0; 2].map(|_| item(&mut store, folder));
    let first = store.new_item_at(None, folder, Some(0)).unwrap();
    let second = store.new_item_at(None, folder, Some(1)).unwrap();
    let last = store.new_item_at(None, folder, Some(9_999)).unwrap();
    assert_eq!(inner(&store, folder), [first, second, a, b, last]);
    // The final index, also where the entry itself stood before it.
    store.move_entry_to(first, folder, Some(1)).unwrap();
    assert_eq!(inner(&store, folder), [second, first, a, b, last]);
    store.move_entry_to(last, folder, Some(1)).unwrap();
    assert_eq!(inner(&store, folder), [second, last, first, a, b]);
    store.move_entry_to(second, folder, None).unwrap();
    assert_eq!(inner(&store, folder), [last, first, a, b, second]);
    for (index, entry) in inner(&store, folder).into_iter().enumerate() {
        assert_eq!(store.entry(entry).unwrap().index(), Some(index));
    }
}

#[test]
fn e50_length_index_and_iteration_agree() {
    let mut store = store(1);
    let folder = item(&mut store, ROOT);
    (0..100).for_each(|at| drop(store.new_item_at(None, folder, Some(at * 7 % (at + 1)))));
    let entry = store.entry(folder).unwrap();
    let listed: Vec<_> = entry.inner_entries().collect();
    assert_eq!((entry.inner_entry_count(), listed.len()), (100, 100));
    for (index, inner) in listed.iter().enumerate() {
        assert_eq!(entry.inner_entry_at(index), Some(*inner));
        assert_eq!(inner.index(), Some(index));
    }
    assert_eq!(entry.inner_entry_at(100), None);
    assert!(entry.inner_entries().rev().eq(listed.into_iter().rev()));
}

#[test]
fn e50_rebalancing_changes_keys_and_no_order() {
    let (mut a, mut b) = twins(|store| {
        let folder = item(store, ROOT);
        let mut between = item(store, folder);
        // Always at the same gap, from both sides.
        for at in 0..300 {
            let index = store.entry(between).unwrap().index().unwrap() + at % 2;
            between = store.new_item_at(None, folder, Some(index)).unwrap();
        }
    });
    let folder = inner(&a, ROOT)[2];
    let before = inner(&a, folder);
    let longest = |store: &sds_store::DataStore| {
        let entries = store.entry(folder).unwrap().inner_entries();
        entries.map(|entry| entry.order_key().unwrap().len()).max().unwrap()
    };
    let was = longest(&a);
    // Meanwhile somebody takes one away, and somebody inserts.
    let [gone, put_before] = [before[100], before[200]];
    b.move_entry_to(gone, ROOT, None).unwrap();
    let index = b.entry(put_before).unwrap().index();
    let new = b.new_item_at(None, folder, index).unwrap();
    a.rebalance_inner_entries_of(folder).unwrap();
    assert_eq!(inner(&a, folder), before);
    assert!(longest(&a) < was, "{} < {was}", longest(&a));
    exchange(&mut a, &mut b);
    assert_eq!(outer(&a, gone), Some(ROOT), "rebalancing takes nothing back");
    let kept: Vec<_> = before.iter().copied().filter(|entry| *entry != gone).collect();
    let now: Vec<_> = inner(&a, folder).into_iter().filter(|entry| *entry != new).collect();
    assert_eq!(now, kept);
    let link = a.new_link_at(folder, ROOT, None).unwrap();
    for bad in [link, unknown()] {
        assert_eq!(code(a.rebalance_inner_entries_of(bad)), "invalid-argument");
    }
    for system in [ROOT, TRASH, LOST_AND_FOUND] {
        a.rebalance_inner_entries_of(system).unwrap();
    }
    exchange(&mut a, &mut b);
}

#[test]
fn e52_concurrent_insertions_at_one_gap_both_stay() {
    let (mut a, mut b) = twins(|store| {
        let folder = item(store, ROOT);
        item(store, folder);
        item(store, folder);
    });
    let folder = inner(&a, ROOT)[2];
    let ends = inner(&a, folder);
    let of_a: Vec<_> = (1..4).map(|at| a.new_item_at(None, folder, Some(at)).unwrap()).collect();
    let of_b: Vec<_> = (1..4).map(|at| b.new_item_at(None, folder, Some(at)).unwrap()).collect();
    exchange(&mut a, &mut b);
    let all = inner(&a, folder);
    let either_first = [&of_a[..], &of_b[..]].concat() == all[1..7]
        || [&of_b[..], &of_a[..]].concat() == all[1..7];
    assert!(either_first, "what one inserted in a row stays in a row");
    assert_eq!([all[0], all[7]], ends[..]);
}
