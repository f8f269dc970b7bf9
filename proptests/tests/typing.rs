//! Much typing of several people that arrives in one patch, as after a day without network: the text,
//! which the engine takes apart for that, is what the naive model makes of it, also where it is replaced
//! or goes for good halfway.

use proptest::prelude::any;
use sds_engine::{Change, EntryId, Field, NewEntry, Patch, Replica, ReplicaId, Value, Version};
use sds_proptests::check::{check, report};
use sds_proptests::dice::Dice;
use sds_proptests::typing::{Cursor, Key, Typing};
use sds_proptests::view::{View, assert_matches_model};

/// An engine with nodes of the usual size takes a text apart from so many edits on.
const KEYS_MIN: usize = 128;
const WRITERS: usize = 3;
const NOTE: EntryId = EntryId::from_bytes([0x11; 16]);

#[test]
fn a_day_of_typing_in_one_patch_gives_what_the_model_says() {
    check(48, &any::<u64>(), |seed| {
        let mut dice = Dice::new(seed);
        let mut writers = writers();
        let mut reader = Replica::new(id(WRITERS));
        give(&writers[0], &mut reader);
        for _ in 0..=dice.roll(2) {
            write_for_a_day(&mut writers, &mut dice);
            let changes = everything(&writers);
            let unseen = |change: &&Change| !reader.version().has(change.header().last());
            let mut news: Vec<Change> = changes.iter().filter(unseen).cloned().collect();
            dice.shuffle(&mut news);
            news.sort_by_key(|change| change.header().start);
            reader.integrate(Patch::in_blocks(news)).unwrap();
            assert_matches_model(&mut reader, &changes);
            for writer in &mut writers {
                give(&reader, writer);
                assert_matches_model(writer, &changes);
            }
        }
        let mut late = Replica::new(id(WRITERS + 1));
        give(&reader, &mut late);
        assert_eq!(View::of_replica(&late), View::of_replica(&reader));
        assert_eq!(late.digest(), reader.digest());
    });
    report(&format!("blocks of {KEYS_MIN} keystrokes and more"));
}

/// Each types, mostly into the one text that there is; at times somebody hears of another, sets another
/// text, or purges the note.
fn write_for_a_day(writers: &mut [Replica], dice: &mut Dice) {
    let mut cursors = [(); WRITERS].map(|()| Cursor::default());
    let disturber = dice.roll(WRITERS + 1);
    for part in 0..4 {
        for number in 0..WRITERS {
            let place = (part == 0 || dice.roll(3) == 0).then(|| (0, number_below(dice, 256)));
            let keys = (0..KEYS_MIN / 4 + dice.roll(9)).map(|_| key(dice)).collect();
            let typing = Typing { place, unit: number_below(dice, 3), keys };
            cursors[number].type_in(&mut writers[number], &typing);
        }
        if part == 1 && disturber < WRITERS {
            disturb(&mut writers[disturber], dice);
        }
        if dice.roll(3) == 0 {
            let (from, to) = (dice.roll(WRITERS), dice.roll(WRITERS));
            let bytes = writers[from].export(writers[to].version());
            writers[to].integrate(Patch::decode(&bytes).unwrap()).unwrap();
        }
    }
}

fn disturb(writer: &mut Replica, dice: &mut Dice) {
    match dice.roll(4) {
        _ if !writer.is_shown(NOTE) => begin(writer, "once more"),
        0 => writer.set(NOTE, Field::Value, Value::Text("another".into())).unwrap(),
        1 => writer.set(NOTE, Field::Value, Value::Int(1)).unwrap(),
        2 => writer.purge(NOTE).unwrap(),
        _ => {
            writer.purge(NOTE).unwrap();
            begin(writer, "in another life");
        }
    }
}

fn begin(writer: &mut Replica, text: &str) {
    writer.create_with_id(NOTE, NewEntry::Item, EntryId::ROOT, 0).unwrap();
    writer.set(NOTE, Field::Value, Value::Text(text.into())).unwrap();
}

fn key(dice: &mut Dice) -> Key {
    match dice.roll(12) {
        0 => Key::Jump(number_below(dice, 256)),
        1..=3 => Key::Backspace,
        4 => Key::Delete,
        _ => Key::Text(number_below(dice, 256)),
    }
}

/// They have the same note with a text.
fn writers() -> Vec<Replica> {
    let mut writers: Vec<Replica> = (0..WRITERS).map(|number| Replica::new(id(number))).collect();
    begin(&mut writers[0], "in the beginning");
    let bytes = writers[0].export(&Version::new());
    for writer in &mut writers[1..] {
        writer.integrate(Patch::decode(&bytes).unwrap()).unwrap();
    }
    writers
}

/// All that somebody has made.
fn everything(writers: &[Replica]) -> Vec<Change> {
    let all = writers
        .iter()
        .flat_map(|writer| Patch::decode(&writer.export(&Version::new())).unwrap().into_changes());
    let mut all: Vec<Change> = all.collect();
    all.sort_by_key(|change| (change.header().replica, change.header().start));
    all.dedup();
    all
}

fn give(from: &Replica, to: &mut Replica) {
    to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
}

fn number_below(dice: &mut Dice, sides: usize) -> u8 {
    u8::try_from(dice.roll(sides)).unwrap()
}

fn id(number: usize) -> ReplicaId {
    // Of two that write at one time neither the first nor the last always wins.
    let numbers = [7, u64::MAX, 1, 5, 6];
    ReplicaId::new(numbers[number]).unwrap()
}
