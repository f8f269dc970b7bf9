use super::*;
use crate::id::ReplicaId;

/// The nth entry that is not a system entry.
fn entry(number: usize) -> EntryIx {
    EntryIx::new(EntryIx::LOST_AND_FOUND.at() + number)
}

fn entries() -> Entries {
    let mut entries = Entries::new();
    for byte in 1..=9 {
        entries.name(EntryId::from_bytes([byte; 16]));
    }
    entries
}

fn stamp(lamport: u64) -> Stamp {
    Stamp { lamport, replica: ReplicaId::new(1).unwrap(), counter: lamport }
}

#[derive(Clone, Copy)]
struct Step {
    lamport: u64,
    entry: EntryIx,
    parent: EntryIx,
    kind: MoveKind,
}

fn into(lamport: u64, child: usize, parent: EntryIx) -> Step {
    Step { lamport, entry: entry(child), parent, kind: MoveKind::Into { trashed_at: None } }
}

fn integrate(tree: &mut MoveTree, steps: &[Step]) {
    let key = &OrderKey::new(&[7]).unwrap();
    let mut moves: Vec<MoveIx> = steps
        .iter()
        .map(|&Step { lamport, entry, parent, kind }| {
            let op = MoveOp { entry, life: Life::FIRST, parent, key, kind };
            tree.record(stamp(lamport), &op)
        })
        .collect();
    tree.integrate(&mut moves, &mut SmallVec::new(), |_, _| {});
    tree.assert_invariants(&entries());
}

fn tree_of(steps: &[Step]) -> MoveTree {
    let mut tree = MoveTree::new();
    steps.iter().for_each(|step| integrate(&mut tree, &[*step]));
    tree
}

/// Where all entries are.
fn placements(tree: &MoveTree) -> Vec<Option<Placement<'_>>> {
    entries().indexes().map(|entry| tree.placement(entry)).collect()
}

fn parent(tree: &MoveTree, entry: EntryIx) -> EntryIx {
    tree.placement(entry).unwrap().parent
}

#[test]
fn a_late_move_takes_effect_at_its_turn() {
    let start = [into(1, 1, EntryIx::ROOT), into(2, 2, EntryIx::ROOT)];
    let (a_into_b, b_into_a) = (into(3, 1, entry(2)), into(4, 2, entry(1)));
    let early = tree_of(&[start[0], start[1], a_into_b, b_into_a]);
    let late = tree_of(&[start[0], start[1], b_into_a, a_into_b]);
    assert_eq!(placements(&early), placements(&late));
    assert_eq!(parent(&early, entry(2)), EntryIx::ROOT, "the later one fails");
    assert_eq!(parent(&early, entry(1)), entry(2));
}

#[test]
fn a_reordering_does_not_pull_an_entry_back() {
    let reorder = Step { kind: MoveKind::Within, ..into(4, 1, EntryIx::ROOT) };
    let (first, second) = (into(1, 1, EntryIx::ROOT), into(2, 2, EntryIx::ROOT));
    let tree = tree_of(&[first, second, reorder, into(3, 1, entry(2))]);
    assert_eq!(parent(&tree, entry(1)), entry(2));
}

#[test]
fn a_reordering_keeps_a_time_of_deletion_that_arrives_late() {
    let time = Some(Timestamp::from_millis(5));
    let into_trash = |lamport, trashed_at| Step {
        kind: MoveKind::Into { trashed_at },
        ..into(lamport, 1, EntryIx::TRASH)
    };
    let reorder = Step { kind: MoveKind::Within, ..into(4, 1, EntryIx::TRASH) };
    let mut tree = tree_of(&[into_trash(1, None), reorder]);
    let mut changed = SmallVec::new();
    let key = &OrderKey::new(&[7]).unwrap();
    let Step { entry, parent, kind, .. } = into_trash(2, time);
    let late = tree.record(stamp(2), &MoveOp { entry, life: Life::FIRST, parent, key, kind });
    tree.integrate(&mut [late], &mut changed, |_, _| {});
    tree.assert_invariants(&entries());
    assert_eq!(changed.as_slice(), [entry], "though the reordering still is its placement");
    assert_eq!(tree.placement(entry).unwrap().trashed_at, time);
}

#[test]
fn late_moves_of_a_leaf_take_effect_among_its_own() {
    let moves = [
        into(1, 1, EntryIx::ROOT),
        into(2, 9, EntryIx::ROOT),
        into(3, 9, entry(1)),
        into(4, 9, EntryIx::TRASH),
        into(5, 1, EntryIx::TRASH),
    ];
    let in_order = tree_of(&moves);
    for late in 1..5 {
        let mut others = moves.to_vec();
        let last = others.remove(late);
        others.push(last);
        assert_eq!(placements(&tree_of(&others)), placements(&in_order), "move {late} last");
        let mut together = tree_of(&moves[3..]);
        integrate(&mut together, &moves[..3]);
        assert_eq!(placements(&together), placements(&in_order), "three at once");
    }
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    let Some(last) = count.checked_sub(1) else { return vec![Vec::new()] };
    let with_last = |order: Vec<usize>| {
        (0..count).map(move |at| {
            let mut order = order.clone();
            order.insert(at, last);
            order
        })
    };
    orders(last).into_iter().flat_map(with_last).collect()
}

#[test]
fn creations_take_effect_like_moves_whatever_came_before_them() {
    let moves = [
        into(1, 1, EntryIx::ROOT),
        into(2, 2, entry(1)),
        into(3, 2, EntryIx::ROOT),
        into(4, 1, entry(2)),
        into(5, 2, entry(1)),
    ];
    let (in_order, older) = (tree_of(&moves), tree_of(&moves[..3]));
    for order in orders(moves.len()) {
        for created in
            [[true; 5], [true, true, false, true, false], [false, true, true, false, true]]
        {
            let created = order.iter().map(|at| {
                let kind = if created[*at] { MoveKind::Creation } else { moves[*at].kind };
                Step { kind, ..moves[*at] }
            });
            let mut tree = tree_of(&created.collect::<Vec<_>>());
            assert_eq!(placements(&tree), placements(&in_order), "{order:?}");
            if order[..3].iter().all(|at| *at < 3) {
                tree.remove_from(stamp(4));
                assert_eq!(placements(&tree), placements(&older), "{order:?} without the newest");
                tree.assert_invariants(&entries());
            }
        }
    }
}

#[test]
fn a_removed_move_leaves_no_trace() {
    let first = into(1, 1, EntryIx::ROOT);
    let mut tree = tree_of(&[first]);
    integrate(&mut tree, &[into(2, 1, EntryIx::TRASH), into(3, 2, entry(1))]);
    assert_eq!(tree.moved_from(stamp(2)).as_slice(), [entry(2), entry(1)]);
    tree.remove_from(stamp(2));
    assert_eq!(placements(&tree), placements(&tree_of(&[first])));
    tree.assert_invariants(&entries());
}

#[test]
fn what_is_above_is_found_from_either_side() {
    let chain: Vec<Step> = (2..=9).map(|at| into(at as u64, at, entry(at - 1))).collect();
    let tree = tree_of(&chain);
    for above in 1..=9 {
        for below in 1..=9 {
            let found = tree.is_at_or_above(entry(above), entry(below));
            assert_eq!(found, above <= below, "{above} above {below}");
        }
    }
}
