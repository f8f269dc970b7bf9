//! A mirror that is told nothing but deltas shows what the replica shows, also where states join and
//! where long texts are edited. That it does in every story is checked by [`Story`] itself.
//!
//! [`Story`]: sds_proptests::story::Story

use proptest::prelude::{any, prop};
use sds_engine::{EditError, EntryId, Field, Patch, Replica, ReplicaId, TextUnit, Value};
use sds_proptests::adversarial::{ForgedOp, Forgery};
use sds_proptests::check::check;
use sds_proptests::dice::Dice;
use sds_proptests::edit::Edit;
use sds_proptests::mirror::Mirror;
use sds_proptests::pool;
use sds_proptests::story::{Step, Story};

const TEXT: (EntryId, Field) = (EntryId::ROOT, Field::Value);

#[test]
fn a_state_that_joins_is_mirrored() {
    let edits = |most| prop::collection::vec(Edit::any(), 0..most);
    check(200, &(edits(20), edits(20), edits(20)), |(before, here, there)| {
        let [mut desk, mut phone] = devices();
        edit(&mut desk, &before);
        phone.integrate(patch(&desk, &phone)).unwrap();
        edit(&mut desk, &there);
        edit(&mut phone, &here);
        let mut mirror = Mirror::of(&mut phone);
        desk.compact();
        phone.integrate(patch(&desk, &phone)).unwrap();
        mirror.follow(&mut phone);
        phone.compact();
        let mut mirror = Mirror::of(&mut desk);
        desk.integrate(patch(&phone, &desk)).unwrap();
        mirror.follow(&mut desk);
        assert_eq!(desk.digest(), phone.digest());
    });
}

#[test]
fn texts_that_several_people_edit_are_mirrored() {
    check(200, &(any::<u64>(), 1..4usize), |(seed, rounds)| {
        let mut dice = Dice::new(seed);
        let [mut desk, mut phone] = devices();
        desk.set(TEXT.0, TEXT.1, Value::Text("a\u{1f600}\u{e9}".repeat(9))).unwrap();
        phone.integrate(patch(&desk, &phone)).unwrap();
        let mut mirrors = [Mirror::of(&mut desk), Mirror::of(&mut phone)];
        for _ in 0..rounds {
            for replica in [&mut desk, &mut phone] {
                write(replica, &mut dice);
            }
            if dice.roll(2) == 0 {
                mirrors[0].follow(&mut desk);
            }
            desk.integrate(patch(&phone, &desk)).unwrap();
            phone.integrate(patch(&desk, &phone)).unwrap();
            mirrors[0].follow(&mut desk);
            mirrors[1].follow(&mut phone);
        }
    });
}

#[test]
fn edits_of_a_text_that_does_not_show_yet_are_not_told() {
    // A text of a life to come is set, and then edited by an op of the present life.
    let life_nine = 146;
    let set = ForgedOp::Set { entry: 47, life: life_nine, field: 66, value: 50 };
    let delete = ForgedOp::Delete { entry: 215, life: 0, field: 114, set: 0, first: 0, len: 60 };
    let create = ForgedOp::Create { entry: 41, life: 36, link: None, parent: 0, key: 0 };
    let forge =
        |first, second| Step::Forge { at: 0, forgery: Forgery { seen: 255, first, second } };
    let steps = [forge(create, Some(set)), forge(delete, None)];
    drop(Story::new(2).run(&steps));
}

/// Splices a text here and there, in transactions of which some fail; at times sets another.
fn write(replica: &mut Replica, dice: &mut Dice) {
    for _ in 0..dice.roll(12) {
        let fails = dice.roll(6) == 0;
        let done = replica.transact(|replica| {
            let mut at = 0;
            for _ in 0..dice.roll(8) {
                let len = replica.text_len(TEXT.0, &TEXT.1, TextUnit::Chars).unwrap_or(0);
                // Mostly it goes on where the last one was.
                at = if dice.roll(4) == 0 { dice.roll(len + 1) } else { at.min(len) };
                let end = len.min(at + dice.roll(3));
                let new = pool::text(u8::try_from(dice.roll(8)).expect("one of eight"));
                replica.splice_by(TEXT.0, TEXT.1, at..end, TextUnit::Chars, new)?;
                at += new.chars().count();
            }
            if dice.roll(20) == 0 {
                replica.set(TEXT.0, TEXT.1, Value::Text("new".into()))?;
            }
            if fails { Err(EditError::OutOfIds) } else { Ok(()) }
        });
        assert_eq!(done.is_err(), fails);
    }
}

fn devices() -> [Replica; 2] {
    [1, 2].map(|number| Replica::new(ReplicaId::new(number).unwrap()))
}

fn edit(replica: &mut Replica, edits: &[Edit]) {
    edits.iter().for_each(|edit| drop(edit.make(replica, true)));
}

/// What the other lacks.
fn patch(from: &Replica, to: &Replica) -> Patch {
    Patch::decode(&from.export(to.version())).unwrap()
}
