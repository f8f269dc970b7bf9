//! What a patch costs whose changes refer to each other in turns, or are here already.
//!
//! Sizes are such that going through everything for each change would take minutes.

use super::*;
use crate::batch::{Deps, Span};
use crate::codec::{Kind, encode_block, pack_sections};
use crate::id::{EntryId, Life};
use crate::op::{IdRange, Op};
use crate::replica::Replica;
use crate::value::{Field, Value};

const COUNT: u64 = 50_000;

fn op(replica: u64, counter: u64) -> OpId {
    OpId { replica: ReplicaId::new(replica).unwrap(), counter }
}

fn set(text: &str) -> Op {
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Value);
    Op::Set { entry, life, field, value: Value::Text(text.into()) }
}

/// An insertion into the text that replica 1 made first.
fn insert(origin: OpId, text: &str) -> Op {
    let (entry, life, field, set) = (EntryId::ROOT, Life::FIRST, Field::Value, op(1, 0));
    Op::Insert { entry, life, field, set, origin: Some(origin), text: text.into() }
}

fn delete(first: OpId, len: u64, backwards: bool) -> Op {
    let (entry, life, field, set) = (EntryId::ROOT, Life::FIRST, Field::Value, op(1, 0));
    Op::Delete { entry, life, field, set, range: IdRange { first, len }, backwards }
}

fn span(len: u64, count: u64, deps: &[OpId]) -> Span {
    Span { len, count, deps: Deps::from_slice(deps) }
}

fn batch(author: u64, spans: Vec<Span>, ops: impl IntoIterator<Item = Op>) -> Batch {
    let first = op(author, 0);
    let batch = Batch { author: first.replica, start: 0, spans, ops: OpList::joined(ops, first) };
    batch.assert_invariants();
    batch
}

/// A patch of batches as blocks, with these single changes.
fn patch(batches: &[&Batch], changes: &[Change]) -> Patch {
    let blocks: Vec<_> = batches.iter().map(|batch| encode_block(batch)).collect();
    let blocks = blocks.iter().map(|block| (Kind::Block, block.as_slice()));
    let changes = changes.iter().map(|change| (Kind::Change, &**change.bytes()));
    Patch::decode(&pack_sections(blocks.chain(changes))).unwrap()
}

fn replica() -> Replica {
    Replica::new(op(99, 0).replica)
}

fn text(replica: &Replica) -> String {
    match replica.value(EntryId::ROOT, &Field::Value) {
        Value::Text(text) => text,
        other => format!("{other:?}"),
    }
}

/// Changes of one author: a character, and texts each behind the one before, the second of them with deps.
fn typed(texts: &[&str], deps: &[OpId]) -> Vec<Change> {
    let author = op(1, 0).replica;
    let mut changes = vec![Change::new(author, 0, vec![], &[set("a")]).unwrap()];
    let mut at = 1;
    for (nth, text) in texts.iter().enumerate() {
        let deps = if nth == 1 { deps.to_vec() } else { vec![] };
        changes.push(Change::new(author, at, deps, &[insert(op(1, at - 1), text)]).unwrap());
        at += text.len() as u64;
    }
    changes
}

/// Changes in a row as one batch.
fn join(changes: &[Change]) -> Batch {
    let mut batches = changes.iter().cloned().map(Batch::of_change);
    let first = batches.next().unwrap();
    batches.fold(first, |mut whole, next| {
        whole.take(next);
        whole
    })
}

/// Two authors in turns, each behind the other's last character.
fn in_turns(count: u64) -> [Batch; 2] {
    let first = (1..count).map(|turn| insert(op(2, turn - 1), "a"));
    let second = (0..count).map(|turn| insert(op(1, turn), "b"));
    let first = std::iter::once(set("a")).chain(first);
    [batch(1, vec![span(1, count, &[])], first), batch(2, vec![span(1, count, &[])], second)]
}

#[test]
fn blocks_that_refer_to_each_other_in_turns_are_planned_in_one_go() {
    const TURNS: u64 = 200_000;
    let [a, b] = in_turns(TURNS);
    let arrival = |batch: &Batch| Arrival { batch: batch.clone(), block: None };
    let (version, arrivals) = (crate::version::Version::new(), [arrival(&a), arrival(&b)]);
    let mut ahead = Ahead::of(&version);
    let steps = Planner::new(&arrivals).run(&mut ahead);
    assert_eq!(steps.len() as u64, 2 * TURNS);
    assert!(ahead.has(op(1, TURNS - 1)) && ahead.has(op(2, TURNS - 1)));

    let [a, b] = in_turns(1_000);
    let mut replica = replica();
    let done = replica.integrate(patch(&[&b, &a], &[])).unwrap();
    assert_eq!((done.applied, done.waiting), (2_000, 0));
    assert_eq!(text(&replica), "ab".repeat(1_000));
    replica.assert_invariants();
}

/// Each character is deleted by somebody before the next one is typed, so that the deletions are one
/// run of which only a change at a time can take effect.
#[test]
fn a_run_of_deletions_takes_effect_as_far_as_its_characters_are_there() {
    const TURNS: u64 = 70_000;
    let typed = (1..TURNS).map(|turn| insert(op(1, turn - 1), "a"));
    let turn = |turn| span(1, 1, &[op(2, turn - 1)]);
    let spans = std::iter::once(span(1, 1, &[])).chain((1..TURNS).map(turn)).collect();
    let a = batch(1, spans, std::iter::once(set("a")).chain(typed));
    let deleted = [delete(op(1, 0), TURNS, false)];
    let b = batch(2, vec![span(1, TURNS, &[])], deleted);
    let mut replica = replica();
    let done = replica.integrate(patch(&[&a, &b], &[])).unwrap();
    assert_eq!((done.applied as u64, done.waiting), (2 * TURNS, 0));
    assert_eq!(text(&replica), "");
}

#[test]
fn deletions_wait_for_their_characters_in_the_order_in_which_they_were_made() {
    for backwards in [false, true] {
        let [a, b] = [
            batch(
                1,
                vec![span(1, 1, &[]), span(9, 1, &[])],
                [set("a"), insert(op(1, 0), "bcdefghij")],
            ),
            batch(2, vec![span(2, 5, &[])], [delete(op(1, 0), 10, backwards)]),
        ];
        let edit = |next: u64| {
            let mut found = None;
            OpWalk::new(&b).edits_until(10, |edit| found = Some(edit.first_missing(|_| next)));
            found.unwrap()
        };
        let last = op(1, 9);
        assert_eq!(edit(10), None);
        assert_eq!(edit(0), Some((0, op(1, 0))), "the text itself");
        let expected = if backwards { (0, last) } else { (5, op(1, 5)) };
        assert_eq!(edit(5), Some(expected));
        assert_eq!(edit(9), Some(if backwards { (0, last) } else { (9, last) }));

        let mut replica = replica();
        let [first, second] = &a.changes().collect::<Vec<_>>()[..] else { panic!("two changes") };
        replica.integrate(patch(&[&b], std::slice::from_ref(first))).unwrap();
        assert_eq!(replica.backlog.changes().len(), 5);
        replica.integrate(patch(&[], std::slice::from_ref(second))).unwrap();
        assert_eq!((replica.backlog.changes().len(), text(&replica).as_str()), (0, ""));
        replica.assert_invariants();
    }
}

#[test]
fn changes_that_came_before_are_compared_piece_by_piece() {
    // Characters in front of each other are ops of their own; those behind each other are one.
    for origin in [|_| 0, |turn: u64| turn - 1] {
        let typed = (1..COUNT).map(|turn| insert(op(1, origin(turn)), "a"));
        let ops = std::iter::once(set("a")).chain(typed);
        let whole = batch(1, vec![span(1, COUNT, &[])], ops);
        let singles: Vec<Change> = whole.changes().collect();

        // They waited.
        let mut late = replica();
        let done = late.integrate(patch(&[], &singles[1..])).unwrap();
        assert_eq!(done.waiting as u64, COUNT - 1);
        let done = late.integrate(patch(&[&whole], &[])).unwrap();
        assert_eq!((done.applied as u64, done.waiting), (COUNT, 0));

        // They come twice in one patch.
        let mut twice = replica();
        let done = twice.integrate(patch(&[&whole], &singles)).unwrap();
        assert_eq!((done.applied as u64, done.known as u64), (COUNT, COUNT));

        // They are in the log, in one block.
        let done = twice.integrate(patch(&[], &singles)).unwrap();
        assert_eq!((done.applied, done.known as u64), (0, COUNT));
        assert_eq!(late.digest(), twice.digest());
    }
}

/// Goal: however known changes are cut and wherever they are, a difference in one of them is found.
#[test]
fn whatever_differs_from_what_is_there_is_a_fork() {
    let texts = ["bc", "d", "efg", "h"];
    let changes = typed(&texts, &[]);
    let whole = join(&changes);
    let parts: Vec<(usize, usize)> =
        (0..5).flat_map(|from| (from + 1..=5).map(move |to| (from, to))).collect();
    let all_at_once = || patch(&[&whole], &[]);
    for (from, to) in parts {
        let same = join(&changes[from..to]);
        let (mut known, mut waiting) = (replica(), replica());
        known.integrate(all_at_once()).unwrap();
        let done = known.integrate(patch(&[&same], &[])).unwrap();
        assert_eq!((done.applied, done.known), (0, to - from));
        assert!(replica().integrate(patch(&[&whole, &same], &[])).is_ok());
        waiting.integrate(patch(&[], &changes[1..])).unwrap();
        assert!(waiting.integrate(patch(&[&same], &[])).is_ok());

        // Another character, and other boundaries of changes.
        let forged = [["bc", "d", "eXg", "h"], ["b", "cd", "efg", "h"], ["bc", "defg", "h", "i"]];
        for forged in forged {
            let forged = typed(&forged, &[]);
            let other = join(&forged[from..to]);
            // What comes behind all others is new.
            let is_other =
                |one: &Change| one.header().start < whole.end() && !changes.contains(one);
            let is_fork = forged[from..to].iter().any(is_other);
            let (mut fresh, mut waiting) = (replica(), replica());
            assert_eq!(known.integrate(patch(&[&other], &[])).is_err(), is_fork, "{other:?}");
            assert_eq!(fresh.integrate(patch(&[&whole, &other], &[])).is_err(), is_fork);
            waiting.integrate(patch(&[], &changes[1..])).unwrap();
            assert_eq!(waiting.integrate(patch(&[&other], &[])).is_err(), is_fork, "{other:?}");
        }
    }
}

/// Goal: once history is cut, a difference is still found in what the log has, and before that where it
/// shows in the boundaries or times of changes.
#[test]
fn a_fork_is_found_across_a_cut() {
    // Of later times than most of the changes that are cut.
    let foreign =
        [0, 1, 2, 3].map(|at| Change::new(op(2, 0).replica, at, vec![], &[set("x")]).unwrap());
    let honest = typed(&["bc", "d", "efg", "h"], &[]);
    let cut = || {
        let mut replica = replica();
        replica.integrate(patch(&[], &foreign)).unwrap();
        replica.integrate(patch(&[], &honest[..3])).unwrap();
        replica.compact();
        replica.integrate(patch(&[], &honest[3..])).unwrap();
        replica
    };
    let same = cut().integrate(patch(&[&join(&honest)], &[])).unwrap();
    assert_eq!((same.applied, same.known), (0, honest.len()));
    let more = typed(&["bc", "d", "efg", "h", "i"], &[]);
    let more = cut().integrate(patch(&[&join(&more)], &[])).unwrap();
    assert_eq!((more.applied, more.known), (1, honest.len()));

    let other_text = typed(&["bc", "d", "eXg", "h", "i"], &[]);
    let other_boundaries = typed(&["b", "cd", "efg", "h", "i"], &[]);
    let across_the_cut = typed(&["bc", "defg", "h", "i"], &[]);
    let later = typed(&["bc", "d", "efg", "h", "i"], &[op(2, 3)]);
    for forged in [other_text, other_boundaries, across_the_cut, later] {
        let (mut whole, mut singly) = (cut(), cut());
        let before = whole.snapshot();
        let refused = whole.integrate(patch(&[&join(&forged)], &[]));
        assert!(matches!(refused, Err(IntegrateError::Forked { .. })), "{forged:?}");
        assert!(singly.integrate(patch(&[], &forged)).is_err(), "{forged:?}");
        assert_eq!(whole.snapshot(), before);
    }
}

/// Neither contradicts the history, which knows nothing of their author.
#[test]
fn two_states_of_one_patch_that_contradict_each_other_are_refused() {
    let state_of = |values: &[&str]| {
        let mut copy = Replica::new(op(1, 0).replica);
        for value in values {
            copy.set(EntryId::ROOT, Field::Value, Value::Text((*value).into())).unwrap();
        }
        copy.encode_state().bytes
    };
    let check = |states: &[&[&str]], fork: Option<OpId>| {
        let states: Vec<_> = states.iter().map(|values| state_of(values)).collect();
        let sections = states.iter().map(|state| (Kind::State, state.as_slice()));
        let patch = Patch::decode(&pack_sections(sections)).unwrap();
        let mut replica = replica();
        let done = replica.integrate(patch);
        assert_eq!(done.as_ref().err(), fork.map(|at| IntegrateError::Forked { at }).as_ref());
        assert_eq!(replica.version().is_empty(), fork.is_some());
        replica.assert_invariants();
    };
    check(&[&["a", "bc"], &["a", "b"]], Some(op(1, 1)));
    check(&[&["a", "b", "c"], &["a"], &["a", "bc"]], Some(op(1, 1)));
    check(&[&["a"], &["a", "bc", "d"], &["a", "bc"]], None);
}
