//! Whatever the bytes, a decoder gives a value or an error; and what it gives encodes to the bytes
//! that it came from, so that no change has two forms.

use proptest::prelude::{any, prop};
use sds_engine::{
    Anchor, Change, DecodeError, EntryId, Field, IdRange, Life, NewEntry, Op, OpId, OrderKey,
    Patch, Replica, ReplicaId, Timestamp, Version,
};
use sds_proptests::check::check;
use sds_proptests::dice::Dice;
use sds_proptests::fuzz::{self, CHECKSUM_BYTES};
use sds_proptests::snapshot;
use sds_proptests::story::{Step, Story};
use sds_proptests::view::assert_matches_model;

#[test]
fn damaged_patches_are_errors_or_patches_of_the_same_bytes() {
    let inputs = (prop::collection::vec(Step::any(), 1..25), any::<u64>());
    check(128, &inputs, |(steps, seed)| {
        let story = Story::new(2).run(&steps);
        let patch = Patch::new(story.changes()).encode();
        let mut dice = Dice::new(seed);
        for _ in 0..64 {
            let mut damaged = patch.clone();
            damage(&mut damaged, &mut dice);
            assert_one_form(&damaged);
            repair_checksum(&mut damaged);
            assert_one_form(&damaged);
        }
    });
}

#[test]
fn damaged_blocks_are_refused_or_taken_in() {
    let inputs = (prop::collection::vec(Step::any(), 1..25), any::<u64>());
    check(128, &inputs, |(steps, seed)| {
        let story = Story::new(2).run(&steps);
        let patch = Patch::in_blocks(story.changes()).encode();
        let mut dice = Dice::new(seed);
        for _ in 0..16 {
            let mut damaged = patch[..patch.len() - CHECKSUM_BYTES].to_vec();
            damage(&mut damaged, &mut dice);
            damaged.insert(0, 0);
            fuzz::decoding(&damaged);
        }
    });
}

#[test]
fn damaged_changes_are_errors_or_changes_of_the_same_bytes_and_can_be_integrated() {
    let inputs = (prop::collection::vec(Step::any(), 1..25), any::<u64>());
    check(128, &inputs, |(steps, seed)| {
        let changes = Story::new(2).run(&steps).changes();
        let mut dice = Dice::new(seed);
        for _ in 0..64 {
            let mut damaged = changes.clone();
            let at = dice.roll(damaged.len());
            let Some(victim) = damaged.get_mut(at) else { return };
            let mut bytes = victim.bytes().to_vec();
            damage(&mut bytes, &mut dice);
            let Ok(change) = fuzz::decode_change(&bytes) else { continue };
            *victim = change;
            let mut replica = Replica::new(ReplicaId::new(100).unwrap());
            // Damage may well give a change the counters of another one.
            if replica.integrate(Patch::new(damaged.clone())).is_ok() {
                assert_matches_model(&mut replica, &damaged);
            }
        }
    });
}

#[test]
fn any_bytes_are_an_anchor_or_an_error() {
    // The form's first bytes are tried often, so that what comes after them is, too.
    let head = prop::collection::vec(0u8..5, 2);
    let inputs = (any::<bool>(), head, prop::collection::vec(any::<u8>(), 0..60));
    check(4000, &inputs, |(is_raw, head, rest)| {
        let mut bytes = if is_raw { Vec::new() } else { [head, vec![7; 16], vec![1]].concat() };
        bytes.extend(rest);
        if let Ok(anchor) = Anchor::decode(&bytes) {
            assert_eq!(anchor.encode(), bytes);
        }
    });
}

#[test]
fn any_bytes_are_a_version_or_an_error() {
    check(2000, &prop::collection::vec(any::<u8>(), 0..60), |bytes| {
        if let Ok(version) = Version::decode(&bytes) {
            assert!(bytes.is_empty() || version.encode() == bytes);
        }
    });
}

#[test]
fn damaged_snapshots_are_errors_or_replicas() {
    let inputs = (prop::collection::vec(Step::honest(), 1..15), any::<u64>());
    check(64, &inputs, |(steps, seed)| {
        let id = ReplicaId::new(100).unwrap();
        let mut replica = Replica::new(id);
        replica.integrate(Patch::new(Story::new(2).run(&steps).changes())).unwrap();
        let snapshot = replica.snapshot();
        let mut dice = Dice::new(seed);
        for _ in 0..16 {
            let mut damaged = snapshot.clone();
            damage(&mut damaged, &mut dice);
            if let Ok(mut loaded) = Replica::from_snapshot(id, &damaged) {
                // Only what the compression does not look at can differ.
                assert_eq!(loaded.digest(), replica.digest());
            }
        }
    });
}

#[test]
fn forged_snapshots_are_errors_or_replicas() {
    let inputs = (prop::collection::vec(Step::any(), 1..25), any::<u64>());
    check(128, &inputs, |(steps, seed)| {
        let mut replica = Replica::new(ReplicaId::new(100).unwrap());
        replica.integrate(Patch::new(Story::new(2).run(&steps).changes())).unwrap();
        let (state, log) = snapshot::take_apart(&replica.snapshot());
        fuzz::load(&snapshot::assemble(&state, &log));
        let mut dice = Dice::new(seed);
        for _ in 0..16 {
            let (mut state, mut log) = (state.clone(), log.clone());
            match dice.roll(4) {
                0 => damage(&mut state, &mut dice),
                1 => {
                    damage(&mut state, &mut dice);
                    damage(&mut log, &mut dice);
                }
                _ => damage(&mut log, &mut dice),
            }
            fuzz::load(&snapshot::assemble(&state, &log));
        }
    });
}

#[test]
fn a_patch_cut_short_anywhere_is_an_error() {
    let bytes = std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/golden/patch.v1.bin")).unwrap();
    for end in 1..bytes.len() {
        let mut cut = bytes[..end].to_vec();
        assert!(Patch::decode(&cut).is_err(), "{end} bytes");
        repair_checksum(&mut cut);
        assert_one_form(&cut);
    }
}

#[test]
fn foreign_files_are_told_from_damaged_ones() {
    let wrong_magic = |bytes: &[u8]| {
        assert!(matches!(Patch::decode(bytes), Err(DecodeError::WrongMagic { .. })), "{bytes:?}");
    };
    wrong_magic(b"PK\x03\x04 and more");
    wrong_magic(b"{\"json\":1}");
    let mut patch = Patch::default().encode();
    assert_eq!(Patch::decode(&patch), Ok(Patch::default()));
    let last = patch.len() - 1;
    patch[last] ^= 1;
    assert_eq!(Patch::decode(&patch), Err(DecodeError::WrongChecksum));
    let id = ReplicaId::new(1).unwrap();
    let not_a_snapshot = Replica::from_snapshot(id, b"PK\x03\x04 and more");
    assert!(matches!(not_a_snapshot, Err(DecodeError::WrongMagic { .. })), "{not_a_snapshot:?}");
}

#[test]
fn an_entry_has_one_name_in_a_change() {
    let id = |number| ReplicaId::new(number).unwrap();
    let deps = vec![OpId { replica: id(2), counter: 9 }];
    let by = |replica, counter| EntryId::created_by(OpId { replica: id(replica), counter });
    let names = [EntryId::ROOT, EntryId::TRASH, EntryId::LOST_AND_FOUND, by(1, 3), by(2, 4)];
    for named in names {
        let unnamed = EntryId::from_bytes([0x77; 16]);
        let create = Op::Create {
            entry: by(1, 7),
            life: Life::FIRST,
            kind: NewEntry::Item,
            parent: unnamed,
            key: OrderKey::new(&[0x80]).unwrap(),
        };
        let change = Change::new(id(1), 7, deps.clone(), &[create]).unwrap();
        let in_full = change.bytes().windows(16).position(|bytes| bytes == unnamed.as_bytes());
        let mut bytes = change.bytes().to_vec();
        let place = in_full.unwrap();
        bytes[place..place + 16].copy_from_slice(named.as_bytes());
        let decoded = fuzz::decode_change(&bytes);
        assert!(matches!(decoded, Err(DecodeError::Malformed { .. })), "{named:?}: {decoded:?}");
    }
}

#[test]
fn a_change_holds_the_ops_that_it_was_made_of_or_is_an_error() {
    let id = |number| ReplicaId::new(number).unwrap();
    let stranger = OpId { replica: id(3), counter: 1 };
    let (entry, life, field) = (EntryId::ROOT, Life::FIRST, Field::Label);
    let own = OpId { replica: id(1), counter: 0 };
    let insert = |set, origin| Op::Insert {
        entry,
        life,
        field: field.clone(),
        set,
        origin,
        text: "x".into(),
    };
    let trash = Op::Move {
        entry: EntryId::from_bytes([1; 16]),
        life,
        parent: EntryId::ROOT,
        key: OrderKey::new(&[1]).unwrap(),
        trashed_at: Some(Timestamp::from_millis(1)),
    };
    let delete = |first| Op::Delete {
        entry,
        life,
        field: field.clone(),
        set: own,
        range: IdRange { first, len: 1 },
        backwards: false,
    };
    for op in [insert(stranger, None), insert(own, Some(stranger)), delete(stranger), trash] {
        if let Ok(change) = Change::new(id(1), 5, vec![], std::slice::from_ref(&op)) {
            assert_eq!(change.ops(), [op]);
        }
    }
}

/// What decodes is written again to the very same bytes, from nothing but its parts.
fn assert_one_form(bytes: &[u8]) {
    let Ok(patch) = fuzz::decode_patch(bytes) else { return };
    assert!(bytes.is_empty() || patch.encode() == bytes);
    for change in patch.changes() {
        let header = change.header();
        let again =
            Change::new(header.replica, header.start, header.deps.clone(), change.ops()).unwrap();
        assert_eq!(again.ops(), change.ops());
        assert_eq!(again.bytes(), change.bytes(), "{change:?}");
    }
}

/// Changes, adds or removes a few bytes; often to one that means something, as small numbers do.
fn damage(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.roll(3) {
        let at = dice.roll(bytes.len());
        let byte = u8::try_from(dice.roll([256, 16][dice.clone().roll(2)])).unwrap();
        match dice.roll(4) {
            0 if at < bytes.len() => drop(bytes.remove(at)),
            1 => bytes.insert(at, byte),
            2 if at < bytes.len() => bytes[at] ^= 1 << dice.roll(8),
            _ if at < bytes.len() => bytes[at] = byte,
            _ => {}
        }
    }
}

fn repair_checksum(patch: &mut Vec<u8>) {
    let content = patch.len().saturating_sub(CHECKSUM_BYTES);
    patch.truncate(content);
    let checksum = blake3::hash(patch);
    patch.extend_from_slice(&checksum.as_bytes()[..CHECKSUM_BYTES]);
}
