use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Puts entries in the order of these numbers, and equal ones in that of their indexes.
struct Numbers(Vec<u64>);

impl Order for Numbers {
    fn prefix(&self, Sibling { entry, .. }: Sibling) -> u64 {
        // So coarse that many are alike.
        self.0[entry.at()] >> 3
    }

    fn compare(&self, one: Sibling, other: Sibling) -> Ordering {
        (self.0[one.entry.at()], one.entry).cmp(&(self.0[other.entry.at()], other.entry))
    }
}

/// A sibling, some with a move and some without.
fn sibling(at: usize) -> Sibling {
    Sibling { entry: EntryIx::new(at), by: (!at.is_multiple_of(3)).then(|| MoveIx::new(at)) }
}

const CONTAINERS: [EntryIx; 2] = [EntryIx::ROOT, EntryIx::TRASH];

proptest! {
    #[test]
    fn siblings_agree_with_a_sorted_set(
        numbers in prop::collection::vec(0u64..60, 40),
        steps in prop::collection::vec((0usize..3, 0usize..40, 0usize..40), 0..300),
    ) {
        let order = Numbers(numbers);
        let mut siblings = Siblings::<()>::default();
        siblings.grow(40);
        let mut sets = [BTreeSet::new(), BTreeSet::new()];
        for (container, entry, near) in steps {
            let one = (order.0[entry], entry);
            siblings.remove(EntryIx::new(entry));
            for set in &mut sets {
                set.remove(&one);
            }
            if let Some(set) = sets.get_mut(container) {
                let near = Some(EntryIx::new(near));
                siblings.insert(CONTAINERS[container], sibling(entry), near, &order);
                set.insert(one);
            }
            siblings.assert_invariants(&order);
        }
        for (container, set) in CONTAINERS.into_iter().zip(&sets) {
            let expected: Vec<Sibling> = set.iter().map(|(_, entry)| sibling(*entry)).collect();
            prop_assert_eq!(siblings.len(container), expected.len());
            prop_assert!(siblings.iter(container).eq(expected.iter().copied()));
            prop_assert!(siblings.iter(container).rev().eq(expected.iter().rev().copied()));
            for (index, one) in expected.iter().enumerate() {
                prop_assert_eq!(siblings.at(container, index), Some(*one));
                prop_assert_eq!(siblings.index_of(one.entry), Some(index));
            }
            prop_assert_eq!(siblings.at(container, expected.len()), None);
            for entry in 0..40 {
                let place = (order.0[entry], entry);
                let before = |one: Sibling| (order.0[one.entry.at()], one.entry.at()) < place;
                prop_assert_eq!(siblings.rank(container, before), set.range(..place).count());
            }
        }
    }
}

#[test]
fn an_iterator_meets_itself_in_the_middle() {
    let order = Numbers((0..10).collect());
    let mut siblings = Siblings::<()>::default();
    siblings.grow(10);
    (1..=9).for_each(|at| siblings.insert(EntryIx::ROOT, sibling(at), None, &order));
    let mut iter = siblings.iter(EntryIx::ROOT);
    assert_eq!(iter.nth(3), Some(sibling(4)));
    assert_eq!(iter.next_back(), Some(sibling(9)));
    assert_eq!(iter.len(), 4);
    let rest: Vec<Sibling> = iter.by_ref().rev().collect();
    assert_eq!(rest, [8, 7, 6, 5].map(sibling));
    assert_eq!((iter.next(), iter.next_back(), iter.nth(5)), (None, None, None));
}

#[test]
fn many_entries_at_once_are_in_the_order_of_one_by_one() {
    let order = Numbers((0..200).map(|at| at * 37 % 101).collect());
    for count in [0, 3, 30, 150] {
        let (mut together, mut apart) = (Siblings::<()>::default(), Siblings::<()>::default());
        together.grow(200);
        apart.grow(200);
        let new = (3..3 + count).map(|at| (EntryIx::new(at * at % 7), sibling(at)));
        together.insert_all(new.clone().collect(), &order);
        new.for_each(|(container, one)| apart.insert(container, one, None, &order));
        together.assert_invariants(&order);
        for container in (0..7).map(EntryIx::new) {
            assert!(together.iter(container).eq(apart.iter(container)), "{count}: {container:?}");
        }
    }
}
