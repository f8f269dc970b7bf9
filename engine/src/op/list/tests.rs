//! Runs are cut and put together without loss, and have one form.

use proptest::prelude::*;

use super::*;
use crate::value::Field;

fn id(counter: u64) -> OpId {
    OpId { replica: ReplicaId::new(7).unwrap(), counter }
}

fn delete(first: u64, len: u64, backwards: bool) -> Op {
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
    Op::Delete {
        entry,
        life,
        field,
        set: id(0),
        range: IdRange { first: id(first), len },
        backwards,
    }
}

fn insert(origin: u64, text: &str) -> Op {
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
    Op::Insert { entry, life, field, set: id(0), origin: Some(id(origin)), text: text.into() }
}

/// One op for each counter.
fn apart(ops: &[Op], start: OpId) -> Vec<Op> {
    let list = list(ops);
    let mut parts = OpParts::new(&list, start);
    let mut units = Vec::new();
    for end in 1.. {
        let Some((_, op)) = parts.next_until(start.counter + end) else { break };
        units.push(op.to_op());
    }
    units
}

fn list(ops: &[Op]) -> OpList {
    let mut list = OpList::new();
    ops.iter().for_each(|op| list.push(op.clone()));
    list
}

fn join_runs(ops: Vec<Op>, start: OpId) -> Vec<Op> {
    OpList::joined(ops, start).to_ops()
}

fn ops_of(steps: &[(u64, u64, bool)], start: OpId) -> Vec<Op> {
    let mut at = start;
    let mut ops = Vec::new();
    for (place, len, flag) in steps.iter().copied() {
        let op = match place {
            0 => insert(
                at.counter - 1,
                ["\u{e9}", "\u{e9}x", "\u{e9}xy"][usize::try_from(len).unwrap() - 1],
            ),
            1 => insert(3, "ab"),
            5 => Op::Skip { count: 1 },
            _ => delete(10 + place, len, flag && len > 1),
        };
        at = at.plus(op.span());
        ops.push(op);
    }
    ops
}

proptest! {
    #[test]
    fn ops_have_one_form_however_they_were_cut(
        steps in prop::collection::vec((0u64..6, 1u64..4, any::<bool>()), 1..12),
        cut in 0usize..20,
    ) {
        let start = id(100);
        let ops = ops_of(&steps, start);
        let joined = join_runs(ops.clone(), start);
        let units = apart(&ops, start);
        prop_assert_eq!(&join_runs(units.clone(), start), &joined);
        prop_assert_eq!(&apart(&joined, start), &units, "nothing is lost");
        let cut = cut.min(units.len());
        let mut halves = join_runs(units[..cut].to_vec(), start);
        halves.extend(join_runs(units[cut..].to_vec(), start.plus(cut as u64)));
        prop_assert_eq!(&join_runs(halves, start), &joined);
        prop_assert!(list(&joined).is_joined(start));
        prop_assert_eq!(list(&ops).is_joined(start), joined == ops);
    }

    #[test]
    fn what_is_cut_anywhere_is_all_there(
        steps in prop::collection::vec((0u64..6, 1u64..4, any::<bool>()), 1..12),
        cut in 0u64..40,
    ) {
        let start = id(100);
        let mut first = list(&ops_of(&steps, start));
        let units = apart(&first.to_ops(), start);
        let rest = first.split_off(start, start.counter + cut);
        let middle = start.plus(first.span().unwrap());
        prop_assert_eq!(middle.counter, start.counter + cut.min(units.len() as u64));
        let mut both = apart(&first.to_ops(), start);
        both.extend(apart(&rest.to_ops(), middle));
        prop_assert_eq!(&both, &units);
        first.extend_joined(rest, middle, drop);
        prop_assert_eq!(&apart(&first.to_ops(), start), &units);
    }
}

/// What is done to a list, with steps of which ops are made.
#[derive(Clone, Debug)]
enum Act {
    Push(Vec<(u64, u64, bool)>),
    Extend(Vec<(u64, u64, bool)>),
    /// What is cut off is put back, or stays away.
    Cut(u64, bool),
}

fn any_act() -> impl Strategy<Value = Act> {
    let steps = || prop::collection::vec((0u64..6, 1u64..4, any::<bool>()), 1..6);
    prop_oneof![
        steps().prop_map(Act::Push),
        steps().prop_map(Act::Extend),
        (0u64..40, any::<bool>()).prop_map(|(at, is_put_back)| Act::Cut(at, is_put_back)),
    ]
}

proptest! {
    #[test]
    fn a_list_is_sound_whatever_is_done_to_it(acts in prop::collection::vec(any_act(), 1..12)) {
        let start = id(100);
        let (mut whole, mut units) = (OpList::new(), Vec::new());
        for act in acts {
            let end = start.plus(whole.span().unwrap());
            match act {
                Act::Push(steps) => {
                    let mut at = end;
                    for op in ops_of(&steps, end) {
                        let span = op.span();
                        whole.push_joined(op, at);
                        whole.assert_invariants();
                        at = at.plus(span);
                    }
                    units.extend(apart(&ops_of(&steps, end), end));
                }
                Act::Extend(steps) => {
                    let more = list(&ops_of(&steps, end));
                    more.assert_invariants();
                    whole.extend_joined(more, end, drop);
                    units.extend(apart(&ops_of(&steps, end), end));
                }
                Act::Cut(at, is_put_back) => {
                    let at = start.counter + at.min(units.len() as u64);
                    let rest = whole.split_off(start, at);
                    whole.assert_invariants();
                    rest.assert_invariants();
                    let middle = OpId { counter: at, ..start };
                    prop_assert!(rest.is_joined(middle));
                    if is_put_back {
                        whole.extend_joined(rest, middle, drop);
                    } else {
                        units.truncate(usize::try_from(at - start.counter).unwrap());
                    }
                }
            }
            whole.assert_invariants();
            prop_assert!(whole.is_joined(start));
            prop_assert_eq!(&apart(&whole.to_ops(), start), &units);
        }
    }
}

/// Deleting what is deleted already, as no honest author does, may begin with what continues a run and go on
/// with what continues only the rest.
#[test]
fn what_continues_the_rest_of_an_op_is_joined_to_it() {
    let start = id(20);
    let mut whole = list(&[delete(13, 1, false)]);
    whole.extend_joined(list(&[delete(12, 2, false), delete(12, 1, false)]), start.plus(1), drop);
    assert_eq!(whole.to_ops(), [delete(12, 2, true), delete(12, 2, true)]);
    let mut whole = list(&[delete(12, 2, false), delete(12, 1, false)]);
    assert!(whole.is_joined(start));
    assert_eq!(whole.split_off(start, 21).to_ops(), [delete(12, 2, true)]);
    assert_eq!(whole.to_ops(), [delete(12, 1, false)]);
}

#[test]
fn backspaces_become_one_run() {
    let ops = vec![delete(9, 1, false), delete(8, 1, false), delete(7, 1, false)];
    assert_eq!(join_runs(ops, id(20)), [delete(7, 3, true)]);
    let ops = vec![delete(5, 1, false), delete(4, 2, false)];
    assert_eq!(join_runs(ops, id(20)), [delete(4, 2, true), delete(5, 1, false)]);
}
