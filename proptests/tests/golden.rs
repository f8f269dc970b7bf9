//! The patch format, byte for byte: a patch with every kind of op and value, as it was first
//! written. What was stored once must be readable for ever.
//!
//! A new form is a new format version with a golden file of its own beside the old one. While
//! nothing was ever released, `SDS_BLESS=1 cargo test -p sds-proptests --test golden` writes the
//! files again.

use std::path::PathBuf;

use sds_engine::{
    Anchor, BlobHash, BlobRef, Change, DecodeError, EditError, EntryId, Field, IdRange, Life,
    NewEntry, Op, OpId, OrderKey, Patch, Replica, ReplicaId, Side, TextUnit, Timestamp, Value,
    Version,
};
use sds_proptests::fuzz::{CHECKSUM_BYTES, decode_patch, with_checksum};
use sds_proptests::model::Model;
use sds_proptests::snapshot;
use sds_proptests::view::assert_matches_model;

/// What one typed character takes as a patch, after a quarter of a million others.
const KEYSTROKE_BYTES: usize = 24;

const DESK: u64 = 0x1122_3344_5566_7788;
const PHONE: u64 = 0x99aa_bbcc_ddee_ff00;

#[test]
fn every_op_and_value_encodes_to_the_golden_bytes() {
    let bytes = Patch::new(changes()).encode();
    assert_golden("patch.v1.bin", &bytes);
}

#[test]
fn the_golden_patch_decodes_to_every_op_and_value() {
    let patch = Patch::decode(&golden("patch.v1.bin")).unwrap();
    assert_eq!(patch.into_changes(), changes());
}

#[test]
fn the_same_changes_in_blocks_encode_to_the_golden_bytes() {
    let bytes = Patch::in_blocks(changes()).encode();
    assert_golden("block.v1.bin", &bytes);
    let patch = Patch::decode(&golden("block.v1.bin")).unwrap();
    let mut found = patch.into_changes();
    found.sort_by_key(|change| (change.header().start > 0, change.header().replica));
    assert_eq!(found, changes());
}

#[test]
fn the_state_without_its_history_encodes_to_the_golden_bytes() {
    let mut replica = Replica::new(id(1));
    replica.integrate(Patch::new(changes())).unwrap();
    let digest = replica.digest();
    replica.compact();
    assert_golden("state.v1.bin", &replica.export(&Version::new()));
    let mut other = Replica::new(id(2));
    other.integrate(Patch::decode(&golden("state.v1.bin")).unwrap()).unwrap();
    assert_eq!(other.digest(), digest);
}

#[test]
fn what_the_state_does_not_tell_of_the_log_encodes_to_the_golden_bytes() {
    let mut replica = Replica::new(id(DESK));
    replica.integrate(Patch::new(changes())).unwrap();
    let note = replica.create_item(EntryId::ROOT, 0).unwrap();
    replica.set(note, Field::Value, Value::Text("draft".into())).unwrap();
    for (range, text) in
        [(5..5, "s of a letter"), (0..2, ""), (3..4, ""), (2..3, "😀n"), (5..9, "")]
    {
        replica.splice(note, Field::Value, range, text).unwrap();
    }
    let (state, log) = snapshot::take_apart(&replica.snapshot());
    assert_golden("log.v1.bin", &log);
    let loaded = snapshot::assemble(&state, &golden("log.v1.bin"));
    let loaded = Replica::from_snapshot(id(1), &loaded).unwrap();
    let history = replica.changes_since(&Version::new());
    assert!(history.is_some());
    assert_eq!(loaded.changes_since(&Version::new()), history);
}

#[test]
fn a_version_encodes_to_the_golden_bytes() {
    let mut replica = Replica::new(id(1));
    replica.integrate(Patch::new(changes())).unwrap();
    assert_golden("version.v1.bin", &replica.version().encode());
    assert_eq!(Version::decode(&golden("version.v1.bin")).as_ref(), Ok(replica.version()));
}

/// To each of what an anchor can stick to, one behind the other.
#[test]
fn anchors_encode_to_the_golden_bytes() {
    let mut desk = Replica::new(id(DESK));
    desk.set(EntryId::ROOT, Field::Value, Value::Text("abc".into())).unwrap();
    let anchor =
        |at, side| desk.anchor(EntryId::ROOT, &Field::Value, at, TextUnit::Chars, side).unwrap();
    let anchors = [
        anchor(0, Side::Before),
        anchor(3, Side::After),
        anchor(1, Side::Before),
        anchor(1, Side::After),
    ];
    let encoded = anchors.each_ref().map(Anchor::encode);
    assert_golden("anchors.v1.bin", &encoded.concat());
    let mut rest = golden("anchors.v1.bin");
    for anchor in anchors {
        let behind = rest.split_off(anchor.encode().len());
        assert_eq!(Anchor::decode(&rest).as_ref(), Ok(&anchor));
        rest = behind;
    }
}

#[test]
fn the_state_of_the_golden_patch_has_the_golden_digest() {
    let model = Model::of(&changes());
    assert_golden("digest.v1.bin", &model.digest());
    let mut replica = Replica::new(id(1));
    replica.integrate(Patch::new(changes())).unwrap();
    assert_matches_model(&mut replica, &changes());
    assert_eq!(replica.digest().as_bytes(), golden("digest.v1.bin").as_slice());
}

#[test]
fn the_worked_example_is_true() {
    let mut replica = Replica::new(id(0x0102_0304_0506_0708));
    let item = replica.transact(|replica| {
        let item = replica.create_item(EntryId::ROOT, usize::MAX)?;
        replica.set(item, Field::Label, Value::Text("Hi".into()))?;
        Ok::<_, EditError>(item)
    });
    assert_eq!(item.unwrap().to_string(), "01020304-0506-8070-a000-000000000000");
    // The bytes in docs/format.md.
    let expected = [
        0xda, 0x81, 0x08, 0x07, 0x06, 0x05, 0x04, 0x03, 0x02, 0x01, 0x00, 0x0c, 0x21, 0x04, 0x05,
        0x43, 0x06, 0x05, 0x14, 0x02, 0x48, 0x69, 0x64, 0x2a, 0x9a, 0x3f,
    ];
    assert_eq!(replica.export(&Version::new()), expected);
}

#[test]
fn a_lone_keystroke_fits_in_its_bytes() {
    let mut desk = Replica::new(id(DESK));
    let note = desk
        .transact(|desk| {
            let note = desk.create_item(EntryId::ROOT, usize::MAX)?;
            desk.set(note, Field::Label, Value::Text("Novel".into()))?;
            desk.set(note, Field::Value, Value::Text("x".repeat(260_000)))?;
            Ok::<_, EditError>(note)
        })
        .unwrap();
    desk.splice(note, Field::Value, 9_000..9_000, "a").unwrap();
    let before = desk.version().clone();
    desk.splice(note, Field::Value, 9_001..9_001, "b").unwrap();
    let keystroke = desk.export(&before);
    assert!(keystroke.len() <= KEYSTROKE_BYTES, "{} bytes: {keystroke:02x?}", keystroke.len());
}

#[test]
fn newer_formats_and_ops_are_errors_that_say_so() {
    let mut newer = golden("patch.v1.bin");
    newer[1] = 2;
    assert_eq!(Patch::decode(&newer), Err(DecodeError::FormatTooNew { found: 2, newest: 1 }));

    let skip = Change::new(id(DESK), 0, vec![], &[Op::Skip { count: 1 }]).unwrap();
    let mut unknown = skip.bytes().to_vec();
    let tag = unknown.len() - 2;
    unknown[tag] = 30;
    let expected = DecodeError::OpTooNew { replica: id(DESK), kind: 30 };
    assert_eq!(Change::decode(&unknown), Err(expected));
}

/// Of four changes the second and the third type one run; the third also creates an item.
#[test]
fn of_a_block_with_a_newer_op_the_changes_before_it_are_taken() {
    let mut desk = Replica::new(id(DESK));
    desk.set(EntryId::ROOT, Field::Value, Value::Text("a".into())).unwrap();
    desk.splice(EntryId::ROOT, Field::Value, 1..1, "b").unwrap();
    desk.transact(|desk| {
        desk.splice(EntryId::ROOT, Field::Value, 2..2, "c")?;
        desk.create_item(EntryId::ROOT, 0)
    })
    .unwrap();
    desk.set(EntryId::ROOT, Field::Label, Value::Int(1)).unwrap();
    let changes = Patch::decode(&desk.export(&Version::new())).unwrap().into_changes();
    let block = Patch::in_blocks(changes.clone()).encode();
    let tags = [6, 13, 0x21, 6];
    let at = block.windows(tags.len()).position(|bytes| bytes == tags).unwrap();
    for (tag, known) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        let mut bytes = block[..block.len() - CHECKSUM_BYTES].to_vec();
        bytes[at + tag] = 30;
        let bytes = with_checksum(&bytes);
        let patch = decode_patch(&bytes).unwrap();
        assert_eq!(patch.changes().collect::<Vec<_>>(), changes[..known], "{tag}");
        assert_eq!(patch.newer().collect::<Vec<_>>(), [op(DESK, changes[known].header().start)]);
        assert_eq!(patch.encode(), bytes);
        let mut phone = Replica::new(id(PHONE));
        let done = phone.integrate(patch).unwrap();
        assert_eq!((done.applied, done.newer), (known, 1));
        assert_matches_model(&mut phone, &changes[..known]);
    }
}

/// Three changes: The desk's with every op, The phone's on top of it, The desk's on top of both.
fn changes() -> Vec<Change> {
    let seen_by_bob = vec![op(DESK, first_ops().iter().map(Op::span).sum::<u64>() - 1)];
    let first = Change::new(id(DESK), 0, vec![], &first_ops()).unwrap();
    let second = Change::new(id(PHONE), 0, seen_by_bob, &second_ops()).unwrap();
    let (next, seen) = (first.header().end(), vec![second.header().last()]);
    let third = Change::new(id(DESK), next, seen, &third_ops()).unwrap();
    vec![first, second, third]
}

fn first_ops() -> Vec<Op> {
    let values = [
        Value::None,
        Value::Bool(false),
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::Int(300),
        Value::Float(-0.5),
        Value::Text(String::new()),
        Value::Bytes(vec![0, 0xff, 0x80]),
        Value::Json("{\"a\":[null]}".into()),
        Value::Blob(BlobRef { hash: BlobHash([7; 32]), size: 1 << 40, is_text: false }),
        Value::Blob(BlobRef { hash: BlobHash([8; 32]), size: 0, is_text: true }),
    ];
    let kept = values.into_iter().enumerate().map(|(at, value)| Op::Set {
        entry: own_item(),
        life: Life::FIRST,
        field: Field::Info(format!("k{at}").into()),
        value,
    });
    let item = Op::Create {
        entry: own_item(),
        life: Life::FIRST,
        kind: NewEntry::Item,
        parent: EntryId::ROOT,
        key: key(&[0x80]),
    };
    let link = Op::Create {
        entry: foreign(),
        life: Life::FIRST,
        kind: NewEntry::Link { target: own_item() },
        parent: EntryId::LOST_AND_FOUND,
        key: key(&[0x80, 0x01]),
    };
    let label = Op::Set {
        entry: own_item(),
        life: Life::FIRST,
        field: Field::Label,
        value: Value::Text("a\u{e9}\u{4e2d}\u{1f600}".into()),
    };
    let mime = Op::Set {
        entry: own_item(),
        life: Life::FIRST,
        field: Field::Type,
        value: Value::Text("text/plain".into()),
    };
    [item, link, label, mime].into_iter().chain(kept).collect()
}

fn second_ops() -> Vec<Op> {
    let (entry, life, field, set) = (own_item(), Life::FIRST, Field::Label, op(DESK, 2));
    vec![
        Op::Insert {
            entry,
            life,
            field: field.clone(),
            set,
            origin: Some(op(DESK, 3)),
            text: "x\u{1f680}".into(),
        },
        Op::Insert { entry, life, field: field.clone(), set, origin: None, text: "<".into() },
        Op::Delete {
            entry,
            life,
            field: field.clone(),
            set,
            range: IdRange { first: op(DESK, 2), len: 1 },
            backwards: false,
        },
        Op::Delete {
            entry,
            life,
            field,
            set,
            range: IdRange { first: op(PHONE, 0), len: 2 },
            backwards: true,
        },
        Op::Reorder { entry, life, parent: EntryId::ROOT, key: key(&[0x81; 64]) },
        Op::Skip { count: 1000 },
        Op::Purge { entries: vec![(foreign(), Life::FIRST), (other(), life_number(6))] },
    ]
}

fn third_ops() -> Vec<Op> {
    vec![
        Op::Revive { entry: other(), life: life_number(7) },
        Op::Move {
            entry: own_item(),
            life: Life::FIRST,
            parent: other(),
            key: key(&[1]),
            trashed_at: None,
        },
        Op::Move {
            entry: other(),
            life: life_number(7),
            parent: EntryId::TRASH,
            key: key(&[0xfe, 1]),
            trashed_at: Some(Timestamp::from_millis(-1)),
        },
        Op::Set {
            entry: other(),
            life: life_number(7),
            field: Field::Value,
            value: Value::Int(-1),
        },
    ]
}

fn own_item() -> EntryId {
    EntryId::created_by(op(DESK, 0))
}

fn foreign() -> EntryId {
    EntryId::from_bytes([0xf0; 16])
}

fn other() -> EntryId {
    EntryId::created_by(op(0xdead_beef, 5))
}

fn life_number(number: u32) -> Life {
    Life::new(number).unwrap()
}

fn key(bytes: &[u8]) -> OrderKey {
    OrderKey::new(bytes).unwrap()
}

fn op(replica: u64, counter: u64) -> OpId {
    OpId { replica: id(replica), counter }
}

fn id(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn assert_golden(name: &str, bytes: &[u8]) {
    if std::env::var_os("SDS_BLESS").is_some() {
        std::fs::write(path(name), bytes).unwrap();
    }
    let golden = golden(name);
    let differs = golden.iter().zip(bytes).position(|(golden, now)| golden != now);
    assert_eq!(differs, None, "{name}: the first byte that differs");
    assert_eq!(golden.len(), bytes.len(), "{name}: the length");
}

fn golden(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap()
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden").join(name)
}
