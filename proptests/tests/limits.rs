//! At each bound of the format, and one past it.

use sds_engine::limits::{
    CHANGE_BYTES_MAX, CHANGE_OPS_MAX, COUNTER_MAX, INFO_KEY_BYTES_MAX, ORDER_KEY_BYTES_MAX,
};
use sds_engine::{
    Change, DecodeError, EditError, EntryId, Field, IdRange, Life, NewEntry, Op, OpId, OrderKey,
    Patch, Replica, ReplicaId, Value, Version,
};
use sds_proptests::model::Model;
use sds_proptests::view::{View, assert_matches_model};

#[test]
fn a_change_may_be_as_large_as_the_format_says_and_no_larger() {
    let mut desk = Replica::new(id(1));
    let note = desk.create_item(EntryId::ROOT, 0).unwrap();
    let before = (desk.version().clone(), View::of_replica(&desk));
    let too_large = desk.set(note, Field::Value, Value::Bytes(vec![1; CHANGE_BYTES_MAX]));
    assert!(matches!(too_large, Err(EditError::ChangeTooLarge { .. })), "{too_large:?}");
    assert_eq!((desk.version().clone(), View::of_replica(&desk)), before);

    let before = desk.version().clone();
    desk.set(note, Field::Value, Value::Bytes(vec![1; CHANGE_BYTES_MAX - 64])).unwrap();
    let made = Patch::decode(&desk.export(&before)).unwrap();
    let spare = CHANGE_BYTES_MAX - made.into_changes()[0].bytes().len();
    let largest = CHANGE_BYTES_MAX - 64 + spare;
    desk.set(note, Field::Value, Value::Bytes(vec![1; largest])).unwrap();
    let too_large = desk.set(note, Field::Value, Value::Bytes(vec![1; largest + 1]));
    assert!(matches!(too_large, Err(EditError::ChangeTooLarge { .. })), "{too_large:?}");
    let mut phone = Replica::new(id(2));
    phone.integrate(Patch::decode(&desk.export(&Version::new())).unwrap()).unwrap();
    assert_eq!(phone.digest(), desk.digest());
    assert!(matches!(
        Change::decode(&vec![0; CHANGE_BYTES_MAX + 1]),
        Err(DecodeError::TooLarge { .. })
    ));
}

#[test]
fn a_change_may_have_as_many_ops_as_the_format_says_and_no_more() {
    let skips = |count| Change::new(id(1), 0, vec![], &vec![Op::Skip { count: 1 }; count]);
    assert_eq!(skips(CHANGE_OPS_MAX).map(|change| change.ops().len()), Ok(CHANGE_OPS_MAX));
    assert!(skips(CHANGE_OPS_MAX + 1).is_err());

    let mut desk = Replica::new(id(1));
    let mut set = |count: usize| {
        desk.transact(|desk| {
            (0..count).try_for_each(|_| desk.set(EntryId::ROOT, Field::Label, Value::None))
        })
    };
    assert_eq!(set(CHANGE_OPS_MAX + 1), Err(EditError::TooManyOps { max: CHANGE_OPS_MAX }));
    // The gap that the failed one left is an op as well.
    assert_eq!(set(CHANGE_OPS_MAX - 1), Ok(()));
}

#[test]
fn counters_go_up_to_the_last_one() {
    let fill = |count| Change::new(id(1), 0, vec![], &[Op::Skip { count }]);
    assert!(fill(COUNTER_MAX + 2).is_err());
    for (count, room) in [(COUNTER_MAX + 1, 0), (COUNTER_MAX, 1), (COUNTER_MAX - 2, 3)] {
        let mut desk = Replica::new(id(1));
        desk.integrate(Patch::new(vec![fill(count).unwrap()])).unwrap();
        let text = |len: usize| Value::Text("x".repeat(len));
        let before = desk.version().clone();
        assert_eq!(desk.set(EntryId::ROOT, Field::Label, text(room + 1)), Err(EditError::OutOfIds));
        assert_eq!(*desk.version(), before);
        if room > 0 {
            desk.set(EntryId::ROOT, Field::Label, text(room)).unwrap();
        }
        assert_eq!(desk.create_item(EntryId::ROOT, 0), Err(EditError::OutOfIds));
        let changes = Patch::decode(&desk.export(&Version::new())).unwrap().into_changes();
        assert_matches_model(&mut desk, &changes);
    }
}

#[test]
fn making_a_change_of_absurd_numbers_is_an_error() {
    let huge = |count| Op::Skip { count };
    for ops in [vec![huge(u64::MAX)], vec![huge(u64::MAX), huge(2)], vec![huge(1 << 63); 2]] {
        for start in [0, 1, 1 << 63, u64::MAX] {
            assert!(Change::new(id(1), start, vec![], &ops).is_err());
        }
    }
    let own = EntryId::created_by(OpId { replica: id(1), counter: COUNTER_MAX });
    for start in [COUNTER_MAX + 1, 1 << 63, u64::MAX] {
        let revive = Op::Revive { entry: own, life: Life::FIRST };
        assert!(Change::new(id(1), start, vec![], &[revive]).is_err());
    }
    let first = OpId { replica: id(1), counter: 0 };
    let (entry, life, field, set) = (EntryId::ROOT, Life::FIRST, Field::Label, first);
    for len in [0, 6, u64::MAX] {
        let (range, backwards) = (IdRange { first, len }, false);
        let delete = Op::Delete { entry, life, field: field.clone(), set, range, backwards };
        assert!(Change::new(id(1), 5, vec![], &[delete]).is_err(), "{len}");
    }
}

#[test]
fn a_replica_can_be_edited_however_many_authors_it_heard_of() {
    let changes = (1..=5_000).map(|author| {
        let value = Value::Int(1);
        let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Label);
        Change::new(id(author), 0, vec![], &[Op::Set { entry, life, field, value }]).unwrap()
    });
    let mut phone = Replica::new(id(u64::MAX));
    phone.integrate(Patch::new(changes.collect())).unwrap();
    phone.create_item(EntryId::ROOT, 0).unwrap();
    let mut cat = Replica::new(id(u64::MAX - 1));
    cat.integrate(Patch::decode(&phone.export(&Version::new())).unwrap()).unwrap();
    assert_eq!(cat.digest(), phone.digest());
}

#[test]
fn the_last_life_of_an_entry_cannot_be_ended() {
    let entry = EntryId::from_bytes([1; 16]);
    let purge = |life| {
        let entries = vec![(entry, Life::new(life).unwrap())];
        Change::new(id(1), 0, vec![], &[Op::Purge { entries }])
    };
    let last = Life::LAST.number();
    assert!(purge(last).is_err());
    let purged = purge(last - 1).unwrap();
    let mut phone = Replica::new(id(2));
    phone.integrate(Patch::new(vec![purged])).unwrap();
    phone.create_with_id(entry, NewEntry::Item, EntryId::ROOT, 0).unwrap();
    assert_eq!(phone.purge(entry), Err(EditError::OutOfIds));
    assert!(phone.is_alive(entry));
    let changes = Patch::decode(&phone.export(&Version::new())).unwrap().into_changes();
    assert_eq!(Model::of(&changes).life(entry), last);
    assert_matches_model(&mut phone, &changes);
}

#[test]
fn info_keys_have_one_byte_to_the_greatest_number_of_them() {
    let mut desk = Replica::new(id(1));
    for (len, fits) in
        [(0, false), (1, true), (INFO_KEY_BYTES_MAX, true), (INFO_KEY_BYTES_MAX + 1, false)]
    {
        let field = Field::Info("k".repeat(len).into());
        let set = desk.set(EntryId::ROOT, field.clone(), Value::Int(1));
        assert_eq!(set.is_ok(), fits, "{len}");
        let value = Value::Int(1);
        let (entry, life) = (EntryId::ROOT, Life::FIRST);
        let change = Change::new(id(2), 0, vec![], &[Op::Set { entry, life, field, value }]);
        assert_eq!(change.is_ok(), fits, "{len}");
    }
}

#[test]
fn there_is_always_room_between_two_siblings() {
    let longest = |last: u8| {
        let mut bytes = [0x80; ORDER_KEY_BYTES_MAX];
        bytes[ORDER_KEY_BYTES_MAX - 1] = last;
        OrderKey::new(&bytes).unwrap()
    };
    // Neighbours without room between them: equal keys, and keys as long as can be.
    let keys = [1, 1, 1, 2, 2, 3].map(longest);
    let (parent, life, kind) = (EntryId::ROOT, Life::FIRST, NewEntry::Item);
    let ops: Vec<Op> = (1..)
        .zip(keys)
        .map(|(n, key)| Op::Create { entry: EntryId::from_bytes([n; 16]), life, kind, parent, key })
        .collect();
    for index in 0..=8 {
        let mut phone = Replica::new(id(2));
        let crowd = Change::new(id(1), 0, vec![], &ops).unwrap();
        phone.integrate(Patch::new(vec![crowd])).unwrap();
        for _ in 0..40 {
            let mut expected: Vec<_> = phone.children(EntryId::ROOT).collect();
            let new = phone.create_item(EntryId::ROOT, index).unwrap();
            expected.insert(index, new);
            assert_eq!(phone.children(EntryId::ROOT).collect::<Vec<_>>(), expected);
        }
        let changes = Patch::decode(&phone.export(&Version::new())).unwrap().into_changes();
        assert_matches_model(&mut phone, &changes);
    }
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}
