//! States and snapshots that claim what no edits have led to.

use smallvec::smallvec;

use super::*;
use crate::batch::{Deps, Span};
use crate::change::Change;
use crate::codec::{Patch, pack_sections};
use crate::error::EditError;
use crate::id::Life;
use crate::limits::{BLOCK_CHANGES_MAX, LAMPORT_MAX, PATCH_LAMPORT_MAX};
use crate::op::{IdRange, Op, OpList};
use crate::registers::FieldNames;
use crate::state::{ContentRecord, FieldRecord, Piece, RunRecord, TextRecord};
use crate::value::{Field, Value};
use crate::version::Version;

const TEXT: Field = Field::Value;

fn desk() -> Replica {
    let mut desk = Replica::new(ReplicaId::new(1).unwrap());
    desk.set(EntryId::ROOT, TEXT, Value::Text("some text".into())).unwrap();
    desk.splice(EntryId::ROOT, TEXT, 4..4, "thing").unwrap();
    desk
}

/// The snapshot of a replica with a log that tells changes as often as asked.
fn telling_times(desk: &Replica, batch: &Batch, times: usize) -> Vec<u8> {
    let told = Told::new(desk, &|_| batch.start);
    let sections: Vec<_> = (0..times)
        .map(|_| (Kind::Log, encode_remainder(batch, &mut Graves::up_to(usize::MAX, &told))))
        .collect();
    let log = pack(&sections, None);
    let head = LogHead::of(vec![batch.start], &log);
    [pack(&[(Kind::State, desk.encode_state())], Some(&head)), log].concat()
}

/// What is told again takes next to no bytes, and as much memory as the first time.
#[test]
fn a_log_tells_each_change_once() {
    let desk = desk();
    let batch = desk.history.batch(desk.id(), 0, desk.version().next(desk.id())).unwrap();
    let once = unpacked(&telling_times(&desk, &batch, 1)).unwrap();
    assert_eq!(once, std::slice::from_ref(&batch));
    for times in 2..5 {
        let more = unpacked(&telling_times(&desk, &batch, times));
        assert!(matches!(more, Err(DecodeError::Malformed { .. })), "{more:?}");
    }
}

/// A few bytes of times tell of any number of changes, and one deletion can be all of them.
#[test]
fn what_is_told_is_no_more_than_a_block_may_hold() {
    let author = ReplicaId::new(1).unwrap();
    let telling = |count: u64| {
        let mut desk = Replica::new(author);
        let pieces = vec![Piece { start: 0, lamport: 1, len: 1, count: 2 * count }];
        desk.history.join(&[Times { author, pieces, is_head: true }]);
        let first = OpId { replica: author, counter: 0 };
        let delete = Op::Delete {
            entry: EntryId::ROOT,
            life: Life::FIRST,
            field: TEXT,
            set: first,
            range: IdRange { first, len: count },
            backwards: false,
        };
        let spans = vec![Span { len: 1, count, deps: Deps::new() }];
        let ops = OpList::joined([delete], first.plus(count));
        let batch = Batch { author, start: count, spans, ops };
        unpacked(&telling_times(&desk, &batch, 1))
    };
    assert_eq!(telling(BLOCK_CHANGES_MAX).map(|batches| batches.len()), Ok(1));
    let more = telling(BLOCK_CHANGES_MAX + 1);
    assert!(matches!(more, Err(DecodeError::Malformed { .. })), "{more:?}");
}

fn unpacked(snapshot: &[u8]) -> Result<Vec<Batch>, DecodeError> {
    let mut batches = Vec::new();
    Replica::unpack_log(snapshot, |batch| batches.push(batch)).map(|()| batches)
}

/// A state may say of any op that it typed characters, which then were deleted.
#[test]
fn a_history_is_saved_whatever_a_forged_state_says() {
    const GAP: u64 = 1 << 24;
    let mut desk = desk();
    let next = desk.version().next(desk.id());
    let gap = Change::new(desk.id(), next, vec![], &[Op::Skip { count: GAP }]).unwrap();
    desk.integrate(Patch::new(vec![gap])).unwrap();
    let forger = ReplicaId::new(2).unwrap();
    let first = |replica, counter| OpId { replica, counter };
    let theirs = vec![Piece { start: 0, lamport: 9, len: 9, count: 1 }];
    let mut times = desk.history.times();
    times.push(Times { author: forger, pieces: theirs, is_head: true });
    let run = |first, len, is_deleted| RunRecord { first, len, is_deleted };
    let runs = vec![run(first(forger, 0), 9, false), run(first(desk.id(), next), GAP, true)];
    let content = ContentRecord::Text(TextRecord { runs, text: "forgeries".into() });
    let mut names = FieldNames::new();
    let (field, life) = (names.name(&TEXT), Life::FIRST);
    let fields = smallvec![FieldRecord { field, life, set: first(forger, 0), content }];
    let (lives, moves) = (smallvec![], smallvec![]);
    let record = EntryRecord { id: EntryId::ROOT, life, lives, moves, fields };
    let state = encode_state(&times, &names, 1, std::iter::once(record));
    let patch = Patch::decode(&pack_sections([(Kind::State, state.bytes.as_slice())])).unwrap();
    desk.integrate(patch).unwrap();
    let joined = desk.version().clone();
    for at in [3, 6, 1, 0] {
        desk.splice(EntryId::ROOT, TEXT, at..at + 1, "").unwrap();
    }
    let mut since = Version::new();
    since.advance(forger, joined.next(forger));
    let history = desk.changes_since(&since);
    assert!(history.as_ref().is_some_and(|changes| changes.len() == 7));
    let loaded = Replica::from_snapshot(desk.id(), &desk.snapshot()).unwrap();
    assert_eq!(loaded.changes_since(&since), history);
}

fn forger() -> ReplicaId {
    ReplicaId::new(9).unwrap()
}

/// A state that says only this of when somebody made a change.
fn state_of_times(lamport: u64, is_head: bool) -> Vec<u8> {
    let pieces = vec![Piece { start: 0, lamport, len: 1, count: 1 }];
    let times = [Times { author: forger(), pieces, is_head }];
    let state = encode_state(&times, &FieldNames::new(), 0, std::iter::empty());
    pack_sections([(Kind::State, state.bytes.as_slice())])
}

#[test]
fn whatever_times_a_patch_brings_its_own_snapshot_can_be_read() {
    assert!(Patch::decode(&state_of_times(PATCH_LAMPORT_MAX + 1, true)).is_err());
    let patch = Patch::decode(&state_of_times(PATCH_LAMPORT_MAX, true)).unwrap();
    let mut desk = desk();
    let mut phone = Replica::new(ReplicaId::new(2).unwrap());
    desk.integrate(patch.clone()).unwrap();
    for text in ["a", "b", "c"] {
        desk.set(EntryId::ROOT, TEXT, Value::Text(text.into())).unwrap();
    }
    let loaded = Replica::from_snapshot(desk.id(), &desk.snapshot()).unwrap();
    assert_eq!(
        (loaded.version(), loaded.history.newest()),
        (desk.version(), desk.history.newest())
    );
    phone.integrate(patch).unwrap();
    phone.integrate(Patch::decode(&desk.export(phone.version())).unwrap()).unwrap();
    assert_eq!(phone.digest(), desk.digest());
    phone.assert_invariants();
    assert!(Replica::from_snapshot(phone.id(), &phone.snapshot()).is_ok());
}

#[test]
fn edits_end_before_times_that_a_snapshot_cannot_hold() {
    let mut desk = desk();
    let pieces = vec![Piece { start: 0, lamport: LAMPORT_MAX - 4, len: 1, count: 1 }];
    desk.history.join(&[Times { author: forger(), pieces, is_head: true }]);
    let at_most = 4;
    desk.splice(EntryId::ROOT, TEXT, 0..0, "a").unwrap();
    desk.splice(EntryId::ROOT, TEXT, 1..1, "b").unwrap();
    desk.set(EntryId::ROOT, Field::Label, Value::None).unwrap();
    desk.transact(|desk| desk.splice(EntryId::ROOT, TEXT, 2..2, "c")).unwrap();
    assert_eq!(desk.history.newest(), LAMPORT_MAX - 4 + at_most);
    let version = desk.version().clone();
    let failed = [
        desk.splice(EntryId::ROOT, TEXT, 3..3, "d"),
        desk.set(EntryId::ROOT, Field::Label, Value::None),
        desk.transact(|desk| desk.splice(EntryId::ROOT, TEXT, 3..3, "d")),
    ];
    assert!(failed.iter().all(|one| *one == Err(EditError::OutOfIds)), "{failed:?}");
    assert_eq!(*desk.version(), version);
    let loaded = Replica::from_snapshot(desk.id(), &desk.snapshot()).unwrap();
    assert_eq!((loaded.version(), loaded.history.newest()), (&version, LAMPORT_MAX));
}

/// Others take the time of a change from its deps.
#[test]
fn a_change_on_top_of_a_forged_state_has_the_same_time_everywhere() {
    let mut desk = desk();
    let mut phone = Replica::new(ReplicaId::new(2).unwrap());
    phone.integrate(Patch::decode(&desk.export(phone.version())).unwrap()).unwrap();
    desk.integrate(Patch::decode(&state_of_times(1_000, false)).unwrap()).unwrap();
    let joined = desk.version().clone();
    desk.set(EntryId::ROOT, Field::Label, Value::Text("new".into())).unwrap();
    desk.assert_invariants();
    let change = desk.decoded_changes_since(&joined).unwrap();
    let op = change[0].header().last();
    phone.integrate(Patch::new(change)).unwrap();
    phone.integrate(Patch::decode(&desk.export(phone.version())).unwrap()).unwrap();
    phone.assert_invariants();
    assert_eq!((phone.history.lamport(op), phone.version()), (1_001, desk.version()));
    assert_eq!(phone.history.lamport(op), desk.history.lamport(op));
    assert_eq!(phone.digest(), desk.digest());
}

/// Each author of such a state takes some twenty bytes.
#[test]
fn a_state_may_claim_more_changes_than_numbers_go() {
    let mut forger = Replica::new(ReplicaId::MAX);
    for number in 2..=600 {
        let author = ReplicaId::new(number).unwrap();
        let pieces = vec![Piece { start: 0, lamport: 1, len: 1, count: 1 << 55 }];
        forger.history.join(&[Times { author, pieces, is_head: false }]);
    }
    let state = pack_sections([(Kind::State, forger.encode_state().bytes.as_slice())]);
    let mut desk = desk();
    desk.integrate(Patch::decode(&state).unwrap()).unwrap();
    let mut phone = Replica::new(ReplicaId::MAX);
    phone.integrate(Patch::decode(&desk.export(&Version::new())).unwrap()).unwrap();
    assert_eq!(phone.version(), desk.version());
}
