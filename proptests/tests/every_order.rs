//! Every small history, delivered in every order that keeps causes before effects, gives the state
//! that the model says.
//!
//! A history is a first change that everybody has, and up to three further ones by three authors:
//! every choice of authors, of what each had seen, and of one op each out of a theme's list.
//! Shorter histories are among them, so what a replica shows half-way is covered too. Each history
//! is also delivered as one patch that is in reverse order.
//!
//! `SDS_HISTORY_CHANGES=4` makes histories one change longer. In a release build that takes some ten
//! minutes.

use std::collections::BTreeSet;

use sds_engine::{
    Change, EntryId, Field, IdRange, Life, NewEntry, Op, OpId, OrderKey, Patch, Replica, ReplicaId,
    Timestamp, Value,
};
use sds_proptests::check::report;
use sds_proptests::model::{History, Model};
use sds_proptests::view::View;

const A: EntryId = EntryId::from_bytes([0xa; 16]);
const B: EntryId = EntryId::from_bytes([0xb; 16]);
const C: EntryId = EntryId::from_bytes([0xc; 16]);
const LINK: EntryId = EntryId::from_bytes([0xd; 16]);
const NEW: EntryId = EntryId::from_bytes([0xe; 16]);

const EVERYBODY_HAS: u64 = 9;
const AUTHORS: [u64; 3] = [1, 2, 3];

type MakeOp = fn(&Past) -> Option<Op>;

#[test]
fn moves_in_every_order() {
    check_every_order(
        "moves",
        tree(),
        &[
            |past| past.into(A, B),
            |past| past.into(B, C),
            |past| past.into(C, EntryId::ROOT),
            |past| past.trash(A),
            |past| past.reorder(A, 0x20),
            |past| past.reorder(C, 0x21),
            |past| past.into(B, A),
            |past| past.into(A, LINK),
        ],
    );
}

#[test]
fn purges_and_rescues_in_every_order() {
    check_every_order(
        "purges",
        tree(),
        &[
            |past| past.purge(A),
            |past| past.purge(B),
            |past| past.into(B, A),
            |past| past.set(A, Value::Int(1)),
            |past| past.create(NEW, A, NewEntry::Item),
            |past| past.trash(LINK),
            |past| past.into(C, B),
            |past| Some(Op::Revive { entry: A, life: past.life(A) }),
        ],
    );
}

/// A reordering tells of the life that its author saw, and takes effect only where that put the entry.
#[test]
fn reorderings_across_lives_in_every_order() {
    check_every_order(
        "reorderings",
        tree(),
        &[
            |past| past.purge(A),
            |past| past.reorder(A, 0x21),
            |past| past.reorder(C, 0x22),
            |past| past.into(C, B),
            |past| Some(Op::Revive { entry: A, life: past.life(A) }),
        ],
    );
}

#[test]
fn creations_of_one_entry_in_every_order() {
    check_every_order(
        "creations",
        tree(),
        &[
            |past| past.create(NEW, A, NewEntry::Item),
            |past| past.create(NEW, EntryId::ROOT, NewEntry::Link { target: A }),
            |past| past.create(NEW, EntryId::TRASH, NewEntry::Link { target: NEW }),
            |past| past.create(LINK, A, NewEntry::Link { target: NEW }),
            |past| past.into(A, NEW),
            |past| past.purge(NEW),
            |past| past.purge(A),
            |past| past.set(NEW, Value::Text("n".into())),
        ],
    );
}

#[test]
fn edits_of_one_text_in_every_order() {
    check_every_order(
        "texts",
        text(),
        &[
            |past| past.insert(None, "x"),
            |past| past.insert(Some(First), "yz"),
            |past| past.insert(Some(Newest), "w"),
            |past| past.delete(First, 2),
            |past| past.set(A, Value::Text("new".into())),
            |past| past.purge(A),
            |past| past.delete(Newest, 1),
            |past| past.set(A, Value::None),
        ],
    );
}

/// A, B and a link to B in Root, C in A.
fn tree() -> Vec<Op> {
    let create = |entry, parent, kind| Op::Create {
        entry,
        life: Life::FIRST,
        kind,
        parent,
        key: OrderKey::new(&[0x20]).unwrap(),
    };
    vec![
        create(A, EntryId::ROOT, NewEntry::Item),
        create(B, EntryId::ROOT, NewEntry::Item),
        create(C, A, NewEntry::Item),
        create(LINK, EntryId::ROOT, NewEntry::Link { target: B }),
    ]
}

fn text() -> Vec<Op> {
    let (entry, life, field) = (A, Life::FIRST, Field::Label);
    vec![Op::Set { entry, life, field, value: Value::Text("abc".into()) }]
}

use Character::{First, Newest};

enum Character {
    First,
    Newest,
}

/// What the author of a change had seen.
struct Past {
    model: Model,
    history: History,
}

impl Past {
    fn of(changes: &[Change]) -> Self {
        let history = History::of(changes);
        Self { model: Model::of_history(&history), history }
    }

    fn life(&self, entry: EntryId) -> Life {
        Life::new(self.model.life(entry)).unwrap()
    }

    fn into(&self, entry: EntryId, parent: EntryId) -> Option<Op> {
        let (life, key) = (self.life(entry), key(0x30));
        Some(Op::Move { entry, life, parent, key, trashed_at: None })
    }

    fn trash(&self, entry: EntryId) -> Option<Op> {
        let (life, key, parent) = (self.life(entry), key(0x30), EntryId::TRASH);
        Some(Op::Move { entry, life, parent, key, trashed_at: Some(Timestamp::from_millis(5)) })
    }

    fn reorder(&self, entry: EntryId, at: u8) -> Option<Op> {
        let parent = self.model.placement(entry)?.parent;
        Some(Op::Reorder { entry, life: self.life(entry), parent, key: key(at) })
    }

    fn create(&self, entry: EntryId, parent: EntryId, kind: NewEntry) -> Option<Op> {
        Some(Op::Create { entry, life: self.life(entry), kind, parent, key: key(0x40) })
    }

    fn set(&self, entry: EntryId, value: Value) -> Option<Op> {
        Some(Op::Set { entry, life: self.life(entry), field: Field::Label, value })
    }

    /// Ends the lives of all that is displayed in the entry.
    fn purge(&self, entry: EntryId) -> Option<Op> {
        let mut below = BTreeSet::from([entry]);
        let mut ahead = vec![entry];
        while let Some(entry) = ahead.pop() {
            ahead.extend(self.model.children(entry));
            below.insert(entry);
        }
        let entries = below.into_iter().map(|entry| (entry, self.life(entry)));
        Some(Op::Purge { entries: entries.collect() })
    }

    fn insert(&self, after: Option<Character>, text: &str) -> Option<Op> {
        let (entry, life, field) = (A, self.life(A), Field::Label);
        let (set, characters) = self.text()?;
        let origin = match after {
            None => None,
            Some(which) => Some(pick(&characters, &which)?),
        };
        Some(Op::Insert { entry, life, field, set, origin, text: text.into() })
    }

    fn delete(&self, first: Character, len: u64) -> Option<Op> {
        let (entry, life, field) = (A, self.life(A), Field::Label);
        let (set, characters) = self.text()?;
        let range = IdRange { first: pick(&characters, &first)?, len };
        Some(Op::Delete { entry, life, field, set, range, backwards: false })
    }

    /// The `Set` whose text A shows, and the characters ever inserted, oldest first.
    fn text(&self) -> Option<(OpId, Vec<OpId>)> {
        let (set, value) = self.model.register(A, &Field::Label)?;
        matches!(value, Value::Text(_)).then_some(())?;
        let set = set.op();
        let mut ops: Vec<_> = self.history.ops().collect();
        ops.sort_by_key(|(stamp, _)| *stamp);
        let in_text = ops.into_iter().filter(|(stamp, op)| {
            stamp.op() == set || matches!(op, Op::Insert { set: of, .. } if *of == set)
        });
        let characters =
            in_text.flat_map(|(stamp, op)| (0..op.span()).map(move |at| stamp.op().plus(at)));
        Some((set, characters.collect()))
    }
}

fn pick(characters: &[OpId], which: &Character) -> Option<OpId> {
    match which {
        First => characters.first().copied(),
        Newest => characters.last().copied(),
    }
}

fn key(byte: u8) -> OrderKey {
    OrderKey::new(&[byte]).unwrap()
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

/// A history under construction. The first change is at place 0 and everybody has seen it.
#[derive(Clone)]
struct Draft {
    changes: Vec<Change>,
    /// Places of the changes that each change's author had seen, as bits; downwards closed.
    seen: Vec<usize>,
}

#[derive(Default)]
struct Count {
    histories: u64,
    deliveries: u64,
}

fn check_every_order(theme: &str, first: Vec<Op>, ops: &[MakeOp]) {
    let most = std::env::var("SDS_HISTORY_CHANGES").ok().and_then(|count| count.parse().ok());
    let first = Change::new(id(EVERYBODY_HAS), 0, vec![], &first).unwrap();
    let draft = Draft { changes: vec![first], seen: vec![0] };
    let mut count = Count::default();
    extend(&draft, most.unwrap_or(3), ops, &mut count);
    let Count { histories, deliveries } = count;
    report(&format!("every order, {theme}: {histories} histories, {deliveries} deliveries"));
}

fn extend(draft: &Draft, more: usize, ops: &[MakeOp], count: &mut Count) {
    check_history(draft, count);
    if more == 0 {
        return;
    }
    let places = draft.changes.len();
    for author in AUTHORS {
        for seen in (1..1 << places).filter(|seen| draft.is_possible(author, *seen)) {
            let known: Vec<Change> = draft.chosen(seen).cloned().collect();
            let past = Past::of(&known);
            for op in ops.iter().filter_map(|make| make(&past)) {
                let mut longer = draft.clone();
                longer.changes.push(past.change(author, op));
                longer.seen.push(seen);
                extend(&longer, more - 1, ops, count);
            }
        }
    }
}

impl Past {
    fn change(&self, author: u64, op: Op) -> Change {
        let version = self.history.version();
        let others = version.iter().filter(|(replica, _)| *replica != id(author));
        let deps = others.map(|(replica, next)| OpId { replica, counter: next - 1 }).collect();
        Change::new(id(author), version.next(id(author)), deps, &[op]).unwrap()
    }
}

impl Draft {
    fn chosen(&self, seen: usize) -> impl Iterator<Item = &Change> {
        self.changes.iter().enumerate().filter(move |(at, _)| seen >> at & 1 == 1).map(|(_, it)| it)
    }

    /// Whether `author` may have seen exactly these: everything that they build on, everything of
    /// its own, the first change. Of changes that did not see each other the lower author's comes
    /// first, so that no history is drafted twice.
    fn is_possible(&self, author: u64, seen: usize) -> bool {
        let places = 0..self.changes.len();
        let is_seen = |at: &usize| seen >> at & 1 == 1;
        let is_closed = places.clone().filter(is_seen).all(|at| self.seen[at] & !seen == 0);
        let has_own = places.clone().filter(|at| self.author(*at) == author).all(|at| is_seen(&at));
        let last = self.changes.len() - 1;
        is_seen(&0) && is_closed && has_own && (is_seen(&last) || self.author(last) < author)
    }

    /// Whatever somebody has who cut the history joins with what another has that lacks it, whatever
    /// else that is.
    fn assert_states_join(&self, expected: &(View, [u8; 32])) {
        let all = (1 << self.changes.len()) - 1;
        for cut in (1..=all).filter(|seen| self.closed(*seen) == *seen) {
            let mut desk = self.replica(cut);
            desk.compact();
            let mut phone = self.replica(self.closed(all & !cut | 1));
            let state = Patch::decode(&desk.export(phone.version())).unwrap();
            phone.integrate(state).unwrap();
            let state = (View::of_replica(&phone), *phone.digest().as_bytes());
            assert_eq!(state, *expected, "{cut:b} cut of {:#?}", self.changes);
            phone.assert_invariants();
        }
    }

    /// These changes and all that they build on.
    fn closed(&self, seen: usize) -> usize {
        let chosen = (0..self.changes.len()).filter(|at| seen >> at & 1 == 1);
        chosen.fold(seen, |closed, at| closed | self.seen[at])
    }

    fn replica(&self, seen: usize) -> Replica {
        let mut replica = Replica::new(id(100));
        replica.integrate(Patch::new(self.chosen(seen).cloned().collect())).unwrap();
        replica
    }

    fn author(&self, at: usize) -> u64 {
        self.changes[at].header().replica.as_u64()
    }
}

fn check_history(draft: &Draft, count: &mut Count) {
    let model = Model::of(&draft.changes);
    model.assert_promises();
    let expected = (View::of_model(&model), model.digest());
    for_each_order(draft, &mut Vec::new(), 0, &mut |order| {
        let mut replica = Replica::new(id(100));
        for at in order {
            let patch = Patch::new(vec![draft.changes[*at].clone()]);
            assert_eq!(replica.integrate(patch).unwrap().applied, 1);
        }
        let state = (View::of_replica(&replica), *replica.digest().as_bytes());
        assert_eq!(state, expected, "order {order:?} of {:#?}", draft.changes);
        count.deliveries += 1;
    });
    let mut replica = Replica::new(id(100));
    let reversed: Vec<Change> = draft.changes.iter().rev().cloned().collect();
    replica.integrate(Patch::new(reversed)).unwrap();
    let state = (View::of_replica(&replica), *replica.digest().as_bytes());
    assert_eq!(state, expected, "as one patch: {:#?}", draft.changes);
    replica.assert_invariants();
    draft.assert_states_join(&expected);
    count.histories += 1;
}

/// Every order in which each change comes after those that its author had seen.
fn for_each_order(
    draft: &Draft,
    order: &mut Vec<usize>,
    delivered: usize,
    check: &mut impl FnMut(&[usize]),
) {
    if order.len() == draft.changes.len() {
        return check(order);
    }
    for at in 0..draft.changes.len() {
        if delivered >> at & 1 == 0 && draft.seen[at] & !delivered == 0 {
            order.push(at);
            for_each_order(draft, order, delivered | 1 << at, check);
            order.pop();
        }
    }
}
