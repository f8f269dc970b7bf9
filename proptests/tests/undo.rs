//! Undoing brings back what was before, where nobody else edits; where others do, everybody ends up
//! with the same, and nobody loses what is his.

use std::collections::BTreeSet;

use proptest::prelude::{any, prop};
use sds_proptests::check::check;
use sds_proptests::dice::Dice;
use sds_proptests::store_rules::check_store_rules;
use sds_proptests::user::{Janitor, NOW, UserAct, UserTransaction, purge_here};
use sds_store::{DataStore, Entry, EntryId, ItemValue, ReplicaId, UndoOptions};
use serde_json::Value as Json;

#[test]
fn undoing_and_redoing_alone_goes_through_the_same_states() {
    let transactions = || prop::collection::vec(UserTransaction::any(), 1..12);
    check(200, &(transactions(), transactions()), |(before, transactions)| {
        let mut desk = store(1);
        before.iter().for_each(|transaction| transaction.make(&mut desk));
        desk.enable_undo(UndoOptions::default());
        let mut states = vec![State::of(&desk)];
        for transaction in &transactions {
            let version = desk.version().clone();
            transaction.make(&mut desk);
            if *desk.version() != version {
                states.push(State::of(&desk));
            }
        }
        for _ in 0..3 {
            walk(&mut desk, states.iter().rev(), |desk| desk.undo(NOW).unwrap());
            assert!(!desk.can_undo());
            walk(&mut desk, states.iter(), |desk| desk.redo(NOW).unwrap());
            assert!(!desk.can_redo());
        }
        check_store_rules(&desk).unwrap();
    });
}

/// Goes on until there is nothing left; each time to the next state, past those that look alike.
fn walk<'a>(
    desk: &mut DataStore,
    mut states: impl Iterator<Item = &'a State>,
    go: impl Fn(&mut DataStore) -> bool,
) {
    let expected = states.next().expect("a first state");
    assert_looks(desk, expected);
    while go(desk) {
        let mut expected = states.next().expect("a state for each step");
        // What has no visible effect may be passed over.
        while !looks(desk, expected) {
            expected = states.next().unwrap_or_else(|| panic!("{:#}\nis none of them", json(desk)));
        }
    }
    // What was created in Trash looks as if it never had been, and so may hide the states in between.
    if let Some(last) = states.last() {
        assert_looks(desk, last);
    }
}

/// What a store looks like.
struct State {
    json: Json,
    /// What only stands for the target of a link.
    placeholders: BTreeSet<EntryId>,
}

impl State {
    fn of(store: &DataStore) -> Self {
        let rescued = store.lost_and_found_item().inner_entries();
        let placeholders = rescued.filter(Entry::is_placeholder).map(|entry| entry.id());
        Self { json: json(store), placeholders: placeholders.collect() }
    }
}

fn assert_looks(desk: &DataStore, expected: &State) {
    assert!(looks(desk, expected), "{:#}\nbut expected\n{:#}", json(desk), expected.json);
}

/// Whether the store looks as expected, but for what has come to Trash instead of never having been, and for
/// placeholders that have become entries of their own: only purging would make them placeholders again.
fn looks(desk: &DataStore, expected: &State) -> bool {
    let State { json: mut found, placeholders } = State::of(desk);
    if !placeholders.is_subset(&expected.placeholders) {
        return false;
    }
    let expected = &expected.json;
    let mut known = BTreeSet::new();
    collect_ids(expected, &mut known);
    let inner = |item: &mut Json| -> Option<Vec<Json>> {
        Some(item.get_mut("innerEntries")?.as_array_mut()?.drain(..).collect())
    };
    let roots = found.get_mut("innerEntries").and_then(Json::as_array_mut).expect("a list");
    let is_trash = |one: &&mut Json| one["Id"] == EntryId::TRASH.to_string();
    let trash = roots.iter_mut().find(is_trash).expect("Trash is in Root");
    let mut kept = inner(trash).expect("a list");
    kept.retain(|one| known.contains(&one["Id"].to_string()));
    trash["innerEntries"] = Json::Array(kept);
    found == *expected
}

fn collect_ids(entry: &Json, ids: &mut BTreeSet<String>) {
    ids.insert(entry["Id"].to_string());
    let inner = entry["innerEntries"].as_array();
    inner.into_iter().flatten().for_each(|inner| collect_ids(inner, ids));
}

#[test]
fn undoing_while_others_edit_converges() {
    let acts = prop::collection::vec((0..3usize, UserAct::any()), 1..50);
    check(200, &acts, |acts| {
        let mut users = [store(1), store(2), store(3)];
        let mut janitor = Janitor::new(ReplicaId::new(4).unwrap());
        users.iter_mut().for_each(|user| user.enable_undo(UndoOptions::default().with_steps(8)));
        for (user, act) in &acts {
            match act {
                UserAct::Edit(transaction) => transaction.make(&mut users[*user]),
                UserAct::Undo => drop(users[*user].undo(NOW).unwrap()),
                UserAct::Redo => drop(users[*user].redo(NOW).unwrap()),
                UserAct::Group(true) => users[*user].begin_undo_group(),
                UserAct::Group(false) => users[*user].end_undo_group(),
                UserAct::Purge(number) => {
                    let patch = janitor.purge(&users[*user], *number);
                    users[*user].apply_remote_patch(&patch).unwrap();
                }
                UserAct::PurgeHere(number) => purge_here(&mut users[*user], *number),
                UserAct::Merge(from) => {
                    let snapshot = users[usize::from(*from) % 3].as_binary();
                    users[*user].merge_binary(&snapshot).unwrap();
                }
                UserAct::Receive(from) => receive(&mut users, *user, usize::from(*from) % 3),
            }
            check_store_rules(&users[*user]).unwrap();
            users[*user].assert_invariants();
        }
        // Undoing everything, in whatever state the others are, is fine too.
        users.iter_mut().for_each(|user| while user.undo(NOW).unwrap() {});
        for _ in 0..2 {
            (0..3).for_each(|to| (0..3).for_each(|from| receive(&mut users, to, from)));
        }
        let digests = users.each_mut().map(DataStore::digest);
        assert_eq!(digests, [digests[0]; 3]);
        users.iter().for_each(|user| check_store_rules(user).unwrap());
    });
}

/// Goal: what handlers answer late is in the way of nothing. Method: events are held back while edits are
/// made, and each answer is an edit of the same few items, which more edits than the one it answers concern.
#[test]
fn undoing_what_was_answered_late_goes_back_to_the_beginning() {
    check(200, &(any::<u64>(), 1..12usize), |(seed, count)| {
        let mut desk = store(1);
        let new = |desk: &mut DataStore| desk.new_item_at(None, EntryId::ROOT, None).unwrap();
        let items = [(); 4].map(|()| new(&mut desk));
        desk.enable_undo(UndoOptions::default());
        let before = State::of(&desk);
        let (mut dice, mut answers, mut left) = (Dice::new(seed), Dice::new(!seed), 2 * count);
        let answering = desk.on_change(move |store, _| {
            if left > 0 {
                left -= 1;
                edit(store, &items, &mut answers);
            }
        });
        desk.hold_events(|desk| (0..count).for_each(|_| edit(desk, &items, &mut dice)));
        drop(answering);
        desk.assert_invariants();
        let after = State::of(&desk);
        for _ in 0..2 {
            while desk.undo(NOW).unwrap() {}
            assert_looks(&desk, &before);
            while desk.redo(NOW).unwrap() {}
            assert_looks(&desk, &after);
            desk.assert_invariants();
        }
    });
}

/// Something with one of some items.
fn edit(store: &mut DataStore, items: &[EntryId; 4], dice: &mut Dice) {
    let [item, into] = [(); 2].map(|()| items[dice.roll(4)]);
    let text = ["a", "b", "c"][dice.roll(3)];
    match dice.roll(6) {
        0 => store.set_label(item, text).unwrap(),
        1 => store.set_info(item, text, &dice.roll(9)).unwrap(),
        2 => store.delete_entry(item, NOW).unwrap(),
        3 => store.write_value(item, text).unwrap(),
        4 => store.move_entry_to(item, EntryId::ROOT, Some(dice.roll(7))).unwrap(),
        // It may be inside already.
        _ => drop(store.move_entry_to(item, into, None)),
    }
}

fn receive(users: &mut [DataStore; 3], to: usize, from: usize) {
    let patch = users[from].export_patch(users[to].version());
    users[to].apply_remote_patch(&patch).unwrap();
}

#[test]
fn undoing_ones_own_typing_leaves_what_others_typed() {
    const BASE: &str = "0123456789";
    check(200, &(any::<u64>(), 1..40usize), |(seed, count)| {
        let mut dice = Dice::new(seed);
        let mut users = [store(1), store(2), store(3)];
        let item = users[0].new_item_at(None, EntryId::ROOT, None).unwrap();
        users[0].write_value(item, BASE).unwrap();
        (1..3).for_each(|to| receive(&mut users, to, 0));
        users[0].enable_undo(UndoOptions::default());
        let mut typed = Vec::new();
        for _ in 0..count {
            let user = dice.roll(3);
            let len = text(&users[user], item).len();
            let at = dice.roll(len + 1);
            match dice.roll(8) {
                0 | 1 => {
                    let from = dice.roll(3);
                    receive(&mut users, user, from);
                }
                2 if user == 0 => drop(users[0].undo(NOW).unwrap()),
                3 if user == 0 => drop(users[0].redo(NOW).unwrap()),
                4 if user == 0 => {
                    users[0].change_value(item, at..len.min(at + dice.roll(5)), "").unwrap();
                }
                _ if user == 0 => users[0].change_value(item, at..at, "abc").unwrap(),
                _ => {
                    let new = ["", "xy", "XYZ"][user];
                    typed.extend(new.chars());
                    users[user].change_value(item, at..at, new).unwrap();
                }
            }
        }
        while users[0].undo(NOW).unwrap() {}
        (1..3).for_each(|from| receive(&mut users, 0, from));
        let left = text(&users[0], item);
        let base: String = left.chars().filter(char::is_ascii_digit).collect();
        assert_eq!(base, BASE, "in {left}");
        let mut others: Vec<char> = left.chars().filter(|char| !char.is_ascii_digit()).collect();
        others.sort_unstable();
        typed.sort_unstable();
        assert_eq!(others, typed, "in {left}");
    });
}

/// Others type into whatever is there, and one user replaces it whole. Nobody types into what somebody
/// is replacing at that moment, since that is gone for good.
#[test]
fn undoing_ones_own_values_leaves_what_others_typed() {
    check(200, &(any::<u64>(), 1..40usize), |(seed, count)| {
        let mut dice = Dice::new(seed);
        let mut users = [store(1), store(2), store(3)];
        let item = users[0].new_item_at(None, EntryId::ROOT, None).unwrap();
        users[0].write_value(item, "").unwrap();
        (1..3).for_each(|to| receive(&mut users, to, 0));
        users[0].enable_undo(UndoOptions::default());
        let mut typed = Vec::new();
        for number in 0..count {
            let user = dice.roll(4) % 3;
            let len = text(&users[user], item).len();
            let at = dice.roll(len + 1);
            match dice.roll(6) {
                _ if user > 0 => {
                    let new = char::from(b'A' + u8::try_from(number % 26).unwrap()).to_string();
                    typed.push(new.clone());
                    users[user].change_value(item, at..at, &new).unwrap();
                }
                0 | 1 => users[0].write_value(item, ["abc", "x", ""][number % 3]).unwrap(),
                2 => users[0].change_value(item, at..at, "yz").unwrap(),
                3 => users[0].change_value(item, at..len.min(at + 2), "").unwrap(),
                4 => drop(users[0].undo(NOW).unwrap()),
                _ => drop(users[0].redo(NOW).unwrap()),
            }
            (1..3).for_each(|from| receive(&mut users, 0, from));
            (1..3).for_each(|to| receive(&mut users, to, 0));
        }
        while users[0].undo(NOW).unwrap() {}
        let left = text(&users[0], item);
        let mut others: Vec<String> =
            left.chars().filter(char::is_ascii_uppercase).map(String::from).collect();
        others.sort_unstable();
        typed.sort_unstable();
        assert_eq!(others, typed, "in {left}");
        (1..3).for_each(|to| receive(&mut users, to, 0));
        let digests = users.each_mut().map(DataStore::digest);
        assert_eq!(digests, [digests[0]; 3]);
    });
}

fn text(store: &DataStore, item: EntryId) -> String {
    match store.entry_with_id(item).unwrap().value() {
        ItemValue::Text(text) => text,
        other => panic!("{other:?}"),
    }
}

fn store(number: u64) -> DataStore {
    DataStore::new(ReplicaId::new(number).unwrap())
}

fn json(store: &DataStore) -> Json {
    let mut bytes = Vec::new();
    store.write_json(&mut bytes).unwrap();
    serde_json::from_slice(&bytes).unwrap()
}
