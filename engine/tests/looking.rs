//! Looking at values without a copy, hearing which were set, and spreading keys.

use sds_engine::{
    BlobHash, BlobRef, EditError, EntryId, Field, Patch, Replica, ReplicaId, Value, ValueRef,
};

const ROOT: EntryId = EntryId::ROOT;
const BLOB: BlobRef = BlobRef { hash: BlobHash([7; 32]), size: 9, is_text: false };

fn replica(number: u64) -> Replica {
    Replica::new(ReplicaId::new(number).unwrap())
}

fn text(replica: &Replica, entry: EntryId) -> String {
    match replica.value_ref(entry, &Field::Value) {
        ValueRef::Text(text) => text.into_cow().into_owned(),
        other => format!("{other:?}"),
    }
}

#[test]
fn a_value_is_seen_as_it_is_read() {
    let mut desk = replica(1);
    let item = desk.create_item(ROOT, 0).unwrap();
    for written in ["", "plain", "\u{1f600}"] {
        desk.set(item, Field::Value, Value::Text(written.into())).unwrap();
        assert_eq!(text(&desk, item), written);
        desk.splice(item, Field::Value, 0..0, "before ").unwrap();
        assert_eq!(text(&desk, item), format!("before {written}"));
    }
    let others = [Value::None, Value::Int(3), Value::Bool(true), Value::Float(0.5)];
    for value in others {
        desk.set(item, Field::Value, value.clone()).unwrap();
        let seen = match desk.value_ref(item, &Field::Value) {
            ValueRef::None => Value::None,
            ValueRef::Int(number) => Value::Int(number),
            ValueRef::Bool(value) => Value::Bool(value),
            ValueRef::Float(number) => Value::Float(number),
            other => panic!("{other:?}"),
        };
        assert_eq!(seen, value);
    }
    assert!(matches!(desk.value_ref(EntryId::from_bytes([3; 16]), &Field::Value), ValueRef::None));
}

#[test]
fn values_that_are_set_are_marked_wherever_they_come_from() {
    let (mut desk, mut train) = (replica(1), replica(2));
    train.mark_values();
    let item = desk.create_item(ROOT, 0).unwrap();
    desk.set(item, Field::Value, Value::Blob(BLOB)).unwrap();
    let mut send = |desk: &Replica, marked: &[EntryId]| {
        train.integrate(Patch::decode(&desk.export(train.version())).unwrap()).unwrap();
        let mut found = train.take_marked_values();
        found.dedup();
        assert_eq!(found, marked);
        train.blob_values().collect::<Vec<_>>()
    };
    assert_eq!(send(&desk, &[item]), [(item, BLOB)]);
    desk.set(item, Field::Label, Value::Text("label".into())).unwrap();
    assert_eq!(send(&desk, &[]), [(item, BLOB)]);
    desk.purge(item).unwrap();
    assert_eq!(send(&desk, &[item]), []);
    assert!(desk.take_marked_values().is_empty(), "nobody asked for marks there");
    // What is taken back is marked, too.
    train.take_marked_values();
    let failed = train.transact(|train| {
        train.set(ROOT, Field::Value, Value::Blob(BLOB))?;
        assert_eq!(train.take_marked_values(), [ROOT]);
        Err::<(), _>(EditError::OutOfIds)
    });
    assert_eq!(failed, Err(EditError::OutOfIds));
    assert_eq!(train.take_marked_values(), [ROOT]);
}

#[test]
fn a_link_may_lead_to_what_is_not_here_yet() {
    let mut desk = replica(1);
    let target = EntryId::from_bytes([3; 16]);
    assert!(desk.create_link(target, ROOT, 0).is_err());
    desk.create_link_unchecked(target, ROOT, 0).unwrap();
    assert_eq!(desk.parent(target), Some(EntryId::LOST_AND_FOUND));
    assert!(!desk.is_alive(target));
}

#[test]
fn new_keys_keep_the_order_and_leave_alone_what_only_shows() {
    let (mut desk, mut train) = (replica(1), replica(2));
    let folder = desk.create_item(ROOT, 0).unwrap();
    train.integrate(Patch::decode(&desk.export(train.version())).unwrap()).unwrap();
    desk.purge(folder).unwrap();
    for index in 0..3 {
        train.create_item(folder, index).unwrap();
    }
    train.integrate(Patch::decode(&desk.export(train.version())).unwrap()).unwrap();
    // Among what is rescued, something that was put there.
    let found = EntryId::LOST_AND_FOUND;
    for index in [0, 1, 2, 3, 4, 6] {
        train.create_item(found, index).unwrap();
    }
    let (before, keys) = order(&train, found);
    train.rebalance(found).unwrap();
    let (after, new_keys) = order(&train, found);
    assert_eq!(after, before);
    assert!(new_keys.is_sorted());
    for (at, entry) in before.iter().enumerate() {
        let is_rescued = keys[at][0] == 0xfe && keys[at].len() == 17;
        assert_eq!(keys[at] == new_keys[at], is_rescued, "{entry:?}");
    }
    train.assert_invariants();
    assert!(train.rebalance(folder).is_err());
}

fn order(replica: &Replica, parent: EntryId) -> (Vec<EntryId>, Vec<Vec<u8>>) {
    let entries: Vec<EntryId> = replica.children(parent).collect();
    let keys = entries.iter().map(|entry| replica.order_key(*entry).unwrap()).collect();
    (entries, keys)
}

#[test]
fn a_blob_is_named_by_its_digits() {
    let name = BLOB.hash.to_string();
    assert_eq!(name.parse(), Ok(BLOB.hash));
    assert_eq!(name.to_uppercase().parse(), Ok(BlobHash([7; 32])));
    let wrong =
        ["", "07", &name[1..], &format!("{name}0"), &name.replace('7', "g"), &"\u{e9}".repeat(32)];
    assert!(wrong.iter().all(|text| text.parse::<BlobHash>().is_err()));
}

/// Goal: a lone change is made ready by a way of its own; it is the same as in a row of others, and says
/// which large contents it refers to.
#[test]
fn a_lone_change_is_the_one_that_a_row_of_changes_has() {
    let mut desk = replica(1);
    let mut lone = Vec::new();
    let mut seen = desk.version().clone();
    let item = desk.create_item(ROOT, 0).unwrap();
    let mut note = |desk: &Replica| {
        lone.extend(desk.decoded_changes_since(&seen).unwrap());
        seen.clone_from(desk.version());
    };
    note(&desk);
    for value in [Value::Text("typed".into()), Value::Blob(BLOB), Value::Int(3)] {
        desk.set(item, Field::Value, value).unwrap();
        note(&desk);
    }
    desk.set(item, Field::Label, Value::Text("a".into())).unwrap();
    note(&desk);
    for at in 1..20 {
        desk.splice(item, Field::Label, at..at, "b").unwrap();
        note(&desk);
    }
    assert_eq!(desk.decoded_changes_since(&sds_engine::Version::new()).unwrap(), lone);
    let blobs: Vec<usize> = lone.iter().map(|change| change.blobs().count()).collect();
    assert_eq!(blobs[..5], [0, 0, 1, 0, 0]);
    assert_eq!(lone[2].blobs().collect::<Vec<_>>(), [BLOB]);
}
