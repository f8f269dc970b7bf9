//! Random stories in which a delta is under way, and transactions inside of each other: after each step the
//! replica is sound, and what is not noted shows as it did at the last look.

use proptest::prelude::*;

use super::*;
use crate::id::{EntryId, ReplicaId};
use crate::op::NewEntry;
use crate::value::Field;
use crate::{Patch, Replica, Transaction};

const CAST: u8 = 5;

#[derive(Clone, Debug)]
enum Step {
    Edit(Edit),
    /// The same by somebody else.
    Theirs(Edit),
    Begin,
    Commit,
    RollBack,
    Send,
    Receive,
    Look,
}

/// What is done to which entries.
#[derive(Clone, Debug)]
enum Edit {
    Create(u8, u8, usize),
    CreateLink(u8, u8, usize),
    Move(u8, u8, usize),
    Trash(u8, i64),
    Purge(u8),
    Set(u8, bool, String),
    Splice(u8, bool, usize, usize, String),
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let (entry, index) = (|| 0..CAST, || 0usize..4);
    let text = || "[a-c]{0,3}";
    prop_oneof![
        4 => (entry(), 0..CAST + 3, index()).prop_map(|(a, b, at)| Edit::Create(a, b, at)),
        1 => (entry(), entry(), index()).prop_map(|(a, b, at)| Edit::CreateLink(a, b, at)),
        4 => (entry(), 0..CAST + 3, index()).prop_map(|(a, b, at)| Edit::Move(a, b, at)),
        2 => (entry(), 0i64..3).prop_map(|(a, time)| Edit::Trash(a, time)),
        1 => entry().prop_map(Edit::Purge),
        2 => (entry(), any::<bool>(), text()).prop_map(|(a, field, text)| Edit::Set(a, field, text)),
        4 => (entry(), any::<bool>(), index(), index(), text())
            .prop_map(|(a, field, at, len, text)| Edit::Splice(a, field, at, len, text)),
    ]
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        10 => any_edit().prop_map(Step::Edit),
        4 => any_edit().prop_map(Step::Theirs),
        2 => Just(Step::Begin),
        1 => Just(Step::Commit),
        1 => Just(Step::RollBack),
        1 => Just(Step::Send),
        2 => Just(Step::Receive),
        1 => Just(Step::Look),
    ]
}

fn entry_of(number: u8) -> EntryId {
    let system = [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND];
    let number = usize::from(number);
    let made = |number| EntryId::from_bytes([u8::try_from(number).unwrap() + 1; 16]);
    number.checked_sub(CAST.into()).map_or_else(|| made(number), |at| system[at])
}

const fn field_of(is_label: bool) -> Field {
    if is_label { Field::Label } else { Field::Value }
}

/// Does something, unless it cannot be done.
fn edit(replica: &mut Replica, edit: &Edit) {
    drop(match edit {
        Edit::Create(one, into, at) => {
            replica.create_with_id(entry_of(*one), NewEntry::Item, entry_of(*into), *at)
        }
        Edit::CreateLink(one, to, at) => {
            let kind = NewEntry::Link { target: entry_of(*to) };
            replica.create_with_id(entry_of(*one), kind, EntryId::ROOT, *at)
        }
        Edit::Move(one, into, at) => replica.move_to(entry_of(*one), entry_of(*into), *at),
        Edit::Trash(one, time) => replica.trash(entry_of(*one), Timestamp::from_millis(*time)),
        Edit::Purge(one) => replica.purge(entry_of(*one)),
        Edit::Set(one, is_label, text) => {
            replica.set(entry_of(*one), field_of(*is_label), Value::Text(text.clone()))
        }
        Edit::Splice(one, is_label, at, len, text) => {
            replica.splice(entry_of(*one), field_of(*is_label), *at..at + len, text)
        }
    });
}

/// What showed at the last look.
struct Looked {
    entries: HashMap<EntryId, Known>,
    values: HashMap<(EntryId, Field), Value>,
}

impl Looked {
    fn at(replica: &Replica) -> Self {
        let ids = |entry| replica.entries.id(entry);
        let entries = replica.entries.indexes().map(|entry| (ids(entry), replica.known(entry)));
        let fields = [Field::Label, Field::Value];
        let all = replica
            .entries
            .indexes()
            .flat_map(|entry| fields.iter().map(move |field| (ids(entry), field.clone())));
        let values = all.map(|(entry, field)| {
            let value = replica.value(entry, &field);
            ((entry, field), value)
        });
        Self { entries: entries.collect(), values: values.collect() }
    }

    /// D1, and that what is noted is how it was.
    fn assert_noted(&self, replica: &Replica) {
        let noted = replica.watch.0.as_deref().unwrap();
        let now = Self::at(replica);
        for (id, known) in now.entries {
            let entry = replica.entries.find(id).unwrap();
            let before = self.entries.get(&id).cloned().unwrap_or_default();
            if let Some(known) = noted.entries.get(&entry) {
                assert_eq!(*known, before, "{id:?}");
                continue;
            }
            assert_eq!(known.appearance, before.appearance, "{id:?}");
            assert_eq!(known.place, before.place, "{id:?}");
            let time = noted.times.get(&entry).copied().unwrap_or(known.trashed_at);
            assert_eq!(time, before.trashed_at, "{id:?}");
        }
        for ((id, field), value) in now.values {
            let entry = replica.entries.find(id).unwrap();
            let place = replica.entries.names().find(&field).map(|field| (entry, field));
            let before = match place.and_then(|place| noted.fields.get(&place)).cloned() {
                Some(KnownField::Replaced(before)) => before,
                Some(edited) => Value::Text(edited.text_before(|| value)),
                None => value,
            };
            let known = self.values.get(&(id, field.clone())).cloned();
            assert_eq!(before, known.unwrap_or(Value::None), "{id:?} {field:?}");
        }
    }
}

fn send(from: &Replica, to: &mut Replica) {
    to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
}

fn tell(steps: &[Step]) {
    let [mut desk, mut phone] = [1, 2].map(|id| Replica::new(ReplicaId::new(id).unwrap()));
    desk.record_deltas(true);
    let mut open: Vec<Transaction> = Vec::new();
    let mut looked = Looked::at(&desk);
    let mut next = desk.next_counter();
    for step in steps {
        match step {
            Step::Edit(one) => edit(&mut desk, one),
            Step::Theirs(one) => edit(&mut phone, one),
            Step::Begin => open.push(desk.begin()),
            Step::Commit => open.pop().into_iter().for_each(|one| desk.commit(one).unwrap()),
            Step::RollBack => open.pop().into_iter().for_each(|one| desk.roll_back(one)),
            Step::Send if open.is_empty() => send(&desk, &mut phone),
            Step::Receive if open.is_empty() => send(&phone, &mut desk),
            Step::Send | Step::Receive => {}
            Step::Look => {
                drop(desk.take_delta());
                looked = Looked::at(&desk);
            }
        }
        desk.assert_invariants();
        looked.assert_noted(&desk);
        assert!(desk.next_counter() >= next, "an id was given out before");
        next = desk.next_counter();
    }
}

proptest! {
    #[test]
    fn what_is_not_noted_shows_as_it_did(steps in prop::collection::vec(any_step(), 0..40)) {
        tell(&steps);
    }
}

/// A deletion that comes late, below a reordering inside Trash, changes nothing but the time.
#[test]
fn a_time_of_deletion_that_changes_alone_is_noted() {
    const TRASH: u8 = CAST + 1;
    tell(&[
        Step::Edit(Edit::Create(0, CAST, 0)),
        Step::Send,
        Step::Edit(Edit::Trash(0, 1)),
        Step::Edit(Edit::Create(1, TRASH, 0)),
        Step::Edit(Edit::Move(0, TRASH, 0)),
        Step::Theirs(Edit::Trash(0, 2)),
        Step::Look,
        Step::Receive,
    ]);
}
