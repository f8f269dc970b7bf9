//! Cutting history: nothing that was deleted stays, and whoever was away can still come back.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::{any, prop};
use sds_engine::{
    EditError, EntryId, Field, IntegrateError, Patch, Replica, ReplicaId, TextUnit, Value, Version,
};
use sds_proptests::check::check;
use sds_proptests::dice::Dice;
use sds_proptests::fuzz::{self, CHECKSUM_BYTES};
use sds_proptests::snapshot::take_apart;
use sds_proptests::story::{Step, Story};

const ROOT: EntryId = EntryId::ROOT;
const TEXT: Field = Field::Value;

/// What a run of deleted characters may take after compression, in bytes.
const RUN_BYTES_MAX: usize = 6;
const DRAFTS: usize = 20;
const KEYSTROKES: usize = 4_000;

#[test]
fn the_same_draft_deleted_again_and_again_leaves_next_to_nothing() {
    check_deleted_drafts(|desk| type_draft(desk, &mut Dice::new(7)));
}

/// No draft can be compressed into another one here.
#[test]
fn different_drafts_that_were_deleted_leave_next_to_nothing() {
    let mut dice = Dice::new(7);
    check_deleted_drafts(|desk| type_draft(desk, &mut dice));
}

/// Deletes each draft that is typed, and cuts the history. What types one returns how many runs it makes.
fn check_deleted_drafts(mut type_one: impl FnMut(&mut Replica) -> usize) {
    let mut desk = Replica::new(id(1));
    desk.set(ROOT, TEXT, Value::Text(String::new())).unwrap();
    let mut runs = 0;
    for _ in 0..DRAFTS {
        runs += type_one(&mut desk);
        let len = desk.text_len(ROOT, &TEXT, TextUnit::Utf16).unwrap();
        desk.splice(ROOT, TEXT, 0..len, "").unwrap();
    }
    desk.splice(ROOT, TEXT, 0..0, "what stays").unwrap();
    let digest = desk.digest();
    let with_history = desk.snapshot().len();
    desk.compact();
    let cut = desk.snapshot();
    assert!(cut.len() <= 200 + runs * RUN_BYTES_MAX, "{} bytes, {runs} runs", cut.len());
    assert!(cut.len() * 2 < with_history, "{} of {with_history} bytes", cut.len());
    let state = desk.export(&Version::new());
    let (file, log) = take_apart(&cut);
    for bytes in [&state, &file] {
        assert!(has(bytes, b"what stays") && !has(bytes, b"qqqq"), "a deleted character");
    }
    assert!(!has(&log, b"qqqq"), "a deleted character");
    let mut loaded = Replica::from_snapshot(id(2), &cut).unwrap();
    assert_eq!(loaded.digest(), digest);
    loaded.assert_invariants();
}

/// Types here and there, with `q` alone, rubs out now and then; returns how many runs that makes: what
/// is typed after a jump or a deletion cuts the run that it goes into.
fn type_draft(desk: &mut Replica, dice: &mut Dice) -> usize {
    let (mut len, mut at, mut runs, mut is_cut) = (0, 0, 1, false);
    for _ in 0..KEYSTROKES {
        match dice.roll(30) {
            0 => (at, is_cut) = (dice.roll(len + 1), true),
            1..=6 if at > 0 => {
                desk.splice(ROOT, TEXT, at - 1..at, "").unwrap();
                (at, len, is_cut) = (at - 1, len - 1, true);
            }
            _ => {
                desk.splice(ROOT, TEXT, at..at, "q").unwrap();
                (at, len) = (at + 1, len + 1);
                runs += if std::mem::take(&mut is_cut) { 2 } else { 0 };
            }
        }
    }
    runs
}

#[test]
fn whoever_was_away_comes_back_with_what_was_made_there() {
    let (mut desk, mut train) = (Replica::new(id(1)), Replica::new(id(2)));
    let note = desk.create_item(ROOT, 0).unwrap();
    desk.set(note, TEXT, Value::Text("abc".into())).unwrap();
    give(&desk, &mut train);

    train.splice(note, TEXT, 3..3, " from the train").unwrap();
    let wagon = train.create_item(note, 0).unwrap();
    desk.splice(note, TEXT, 0..1, "A").unwrap();
    let shelf = desk.create_item(ROOT, 0).unwrap();
    desk.move_to(note, shelf, 0).unwrap();
    desk.compact();
    assert_eq!(desk.changes_since(train.version()), None, "the bytes are gone");

    give(&desk, &mut train);
    give(&train, &mut desk);
    for replica in [&desk, &train] {
        replica.assert_invariants();
        assert_eq!(replica.value(note, &TEXT), Value::Text("Abc from the train".into()));
        assert_eq!((replica.parent(note), replica.parent(wagon)), (Some(shelf), Some(note)));
    }
    assert_eq!(desk.digest(), train.digest());

    // Life goes on with changes alone.
    train.set(shelf, Field::Label, Value::Text("shelf".into())).unwrap();
    let patch = Patch::decode(&train.export(desk.version())).unwrap();
    assert!(!patch.has_state());
    desk.integrate(patch).unwrap();
    assert_eq!(desk.digest(), train.digest());
}

#[test]
fn a_state_can_be_looked_at_before_it_joins() {
    let (mut desk, mut phone) = (Replica::new(id(1)), Replica::new(id(2)));
    let [note, gone] = [(); 2].map(|()| desk.create_item(ROOT, 0).unwrap());
    desk.set(note, TEXT, Value::Text("abc".into())).unwrap();
    desk.set(note, Field::Label, Value::Text("note".into())).unwrap();
    desk.purge(gone).unwrap();
    give(&desk, &mut phone);
    phone.set(ROOT, Field::Label, Value::Text("theirs".into())).unwrap();
    give(&phone, &mut desk);
    let changes = Patch::decode(&desk.export(&Version::new())).unwrap();
    assert_eq!((changes.states().count(), changes.changes().count()), (0, 6));

    desk.compact();
    let bytes = desk.export(&Version::new());
    let patch = Patch::decode(&bytes).unwrap();
    let states: Vec<_> = patch.states().collect();
    let [state] = states[..] else { panic!("{patch:?}") };
    assert!(patch.has_state() && patch.changes().next().is_none());
    assert_eq!((state.version(), state.change_count()), (desk.version().clone(), 6));
    assert!(bytes.len() - state.bytes().len() < 16, "head and checksum");
    let mut found = BTreeMap::new();
    state.for_each_entry(|entry, fields| {
        found.insert(entry, fields.cloned().collect::<BTreeSet<_>>());
    });
    let expected = [
        (ROOT, BTreeSet::from([Field::Label])),
        (note, BTreeSet::from([TEXT, Field::Label])),
        (gone, BTreeSet::new()),
    ];
    assert_eq!(found, BTreeMap::from(expected));
    assert_eq!(state.entry_count(), 3);
}

/// Two copies of one file go on by themselves. Where the one has dropped its history, lengths and times of
/// changes tell them apart.
#[test]
fn a_state_that_tells_another_history_is_refused() {
    let text = |text: &str| Value::Text(text.into());
    let set = |copy: &mut Replica, value: Value| copy.set(ROOT, TEXT, value).unwrap();
    let numbers = |copy: &mut Replica, count: i64| {
        let all =
            |copy: &mut Replica| (0..count).try_for_each(|n| copy.set(ROOT, TEXT, Value::Int(n)));
        copy.transact(all).unwrap();
    };
    // The other has seen something newer, so that its change is later.
    let later = |copy: &mut Replica| {
        let mut phone = Replica::new(id(2));
        (0..9).for_each(|number| phone.set(ROOT, Field::Label, Value::Int(number)).unwrap());
        give(&phone, copy);
        set(copy, Value::Int(1));
    };
    check_copies(|one| set(one, Value::Int(1)), later, true);
    // At the last counter that both have, the times are the same.
    check_copies(|one| set(one, text("hello")), |other| set(other, text("goodbye")), true);
    let a_change_more_in_one = |copy: &mut Replica| numbers(copy, 6);
    check_copies(|one| set(one, text("hello")), a_change_more_in_one, true);
    let [unlike, alike] = [[2, 1, 2], [1, 2, 2]]
        .map(|lens| move |copy: &mut Replica| lens.iter().for_each(|len| numbers(copy, *len)));
    check_copies(unlike, alike, true);
    // One who only goes on tells no other history.
    check_copies(unlike, unlike, false);
    let ones = |count: usize| move |copy: &mut Replica| (0..count).for_each(|_| numbers(copy, 1));
    check_copies(ones(1), ones(3), false);
    check_copies(|_| {}, alike, false);
}

fn check_copies(one: impl Fn(&mut Replica), other: impl Fn(&mut Replica), is_fork: bool) {
    let copy = |goes_on: &dyn Fn(&mut Replica)| {
        let mut copy = Replica::new(id(1));
        copy.transact(|copy| (0..4).try_for_each(|_| copy.set(ROOT, TEXT, Value::Int(0)))).unwrap();
        (0..6).for_each(|_| copy.set(ROOT, TEXT, Value::Int(0)).unwrap());
        goes_on(&mut copy);
        copy
    };
    let both: [&dyn Fn(&mut Replica); 2] = [&one, &other];
    for (mut here, mut there) in [(copy(both[0]), copy(both[1])), (copy(both[1]), copy(both[0]))] {
        there.compact();
        let before = (here.digest(), here.snapshot());
        let state = Patch::decode(&there.export(&Version::new())).unwrap();
        let done = here.integrate(state);
        assert_eq!(matches!(done, Err(IntegrateError::Forked { .. })), is_fork, "{done:?}");
        if is_fork {
            assert_eq!((here.digest(), here.snapshot()), before);
        }
    }
}

#[test]
fn a_transaction_can_be_taken_back_after_a_cut() {
    let mut desk = Replica::new(id(1));
    desk.set(ROOT, TEXT, Value::Text("abc".into())).unwrap();
    desk.compact();
    let before = desk.digest();
    let failed = desk.transact(|desk| {
        desk.splice(ROOT, TEXT, 1..2, "x")?;
        Err::<(), _>(EditError::OutOfIds)
    });
    assert_eq!(failed, Err(EditError::OutOfIds));
    assert_eq!(desk.digest(), before);
}

#[test]
fn damaged_states_are_refused_or_taken_in_as_a_whole() {
    let inputs = (prop::collection::vec(Step::honest(), 1..25), any::<u64>());
    check(64, &inputs, |(steps, seed)| {
        let mut replica = Replica::new(id(9));
        let patch = Patch::new(Story::new(2).run(&steps).changes());
        replica.integrate(patch).unwrap();
        replica.compact();
        let state = replica.export(&Version::new());
        let mut dice = Dice::new(seed);
        for _ in 0..16 {
            let mut damaged = state[..state.len() - CHECKSUM_BYTES].to_vec();
            for _ in 0..=dice.roll(3) {
                let at = dice.roll(damaged.len());
                damaged[at] = u8::try_from(dice.roll(256)).unwrap();
            }
            damaged.insert(0, 0);
            fuzz::decoding(&damaged);
        }
    });
}

#[test]
fn what_is_saved_during_a_transaction_is_what_was_before() {
    let mut desk = Replica::new(id(1));
    desk.set(ROOT, TEXT, Value::Text("abc".into())).unwrap();
    let before = desk.digest();
    for cut in [false, true] {
        if cut {
            desk.compact();
        }
        let transaction = desk.begin();
        desk.splice(ROOT, TEXT, 1..2, "x").unwrap();
        let item = desk.create_item(ROOT, 0).unwrap();
        let snapshot = desk.snapshot();
        let export = Patch::decode(&desk.export(&Version::new())).unwrap();
        assert!(desk.is_shown(item));
        desk.roll_back(transaction);
        let mut loaded = Replica::from_snapshot(id(2), &snapshot).unwrap();
        let mut told = Replica::new(id(3));
        told.integrate(export).unwrap();
        assert_eq!([loaded.digest(), told.digest()], [before; 2]);
        assert_eq!(desk.digest(), before);
    }
}

fn give(from: &Replica, to: &mut Replica) {
    to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
}

fn has(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}
