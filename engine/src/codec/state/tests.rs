//! States that no ops can have led to.
#![expect(clippy::indexing_slicing, reason = "the tests know what they have made")]

use smallvec::{SmallVec, smallvec};

use super::super::fields::write_field;
use super::entries::{HEAD_BITS, ID_RAW, SPLICED};
use super::*;
use crate::id::{EntryId, Life};
use crate::limits::STATE_RUN_CHARS_MAX;
use crate::state::{
    ContentRecord, Creation, FieldRecord, LifeRecord, MoveRecord, RunRecord, TextRecord,
};
use crate::tree::OrderKey;
use crate::value::{Field, ValueView};

fn author() -> ReplicaId {
    ReplicaId::new(5).unwrap()
}

fn op(counter: u64) -> OpId {
    OpId { replica: author(), counter }
}

/// Times of one author with so many counters, all of one change.
fn times_of(len: u64) -> Times {
    let pieces = vec![Piece { start: 0, lamport: 1, len, count: 1 }];
    Times { author: author(), pieces, is_head: true }
}

/// Root, with a field that somebody has set.
fn root_with(set: u64, content: ContentRecord<'_>) -> EntryRecord<'_> {
    let (field, life) = (FieldNames::VALUE, Life::FIRST);
    EntryRecord {
        id: EntryId::ROOT,
        life,
        lives: smallvec![LifeRecord { life, creation: Creation::None }],
        moves: SmallVec::new(),
        fields: smallvec![FieldRecord { field, life, set: op(set), content }],
    }
}

/// Writes and reads a state of one entry.
fn read_back(times: &[Times], entry: EntryRecord<'_>) -> Result<(), DecodeError> {
    let state = encode_state(times, &FieldNames::new(), 1, std::iter::once(entry));
    StateReader::new(&state.bytes)?.read_entries(|_, _| {}).map(drop)
}

/// The same with a text of these runs of counters, all visible.
fn read_runs(runs: &[(u64, u64)]) -> Result<(), DecodeError> {
    let run = |&(first, len)| RunRecord { first: op(first), len, is_deleted: false };
    let len: u64 = runs.iter().map(|(_, len)| len).sum();
    let text = "x".repeat(usize::try_from(len).unwrap());
    let text = TextRecord { runs: runs.iter().map(run).collect(), text };
    read_back(&[times_of(100)], root_with(99, ContentRecord::Text(text)))
}

#[test]
fn a_character_that_stands_in_a_text_twice_is_refused() {
    let rows: [(&[(u64, u64)], bool); 7] = [
        (&[(10, 5)], true),
        (&[(10, 5), (30, 2), (15, 5)], true),
        (&[(30, 5), (10, 5), (25, 5)], true),
        (&[(10, 5), (30, 2), (14, 5)], false),
        (&[(10, 5), (10, 5)], false),
        (&[(10, 5), (30, 2), (15, 5), (12, 1)], false),
        (&[(30, 5), (10, 5), (26, 5)], false),
    ];
    for (runs, is_fine) in rows {
        let found = read_runs(runs);
        assert_eq!(found.is_ok(), is_fine, "{runs:?} {found:?}");
    }
}

/// Each character of a text has a counter; to type behind one that nobody made would refer to an op
/// that never comes.
#[test]
fn a_text_has_no_more_characters_than_its_author_has_counters() {
    let rows = [
        ("", 3, true),
        ("", 4, false),
        ("a", 3, true),
        ("ab", 3, false),
        ("ab", 2, true),
        ("abc", 2, false),
        ("\u{1f600}\u{1f600}", 2, true),
        ("\u{1f600}bc", 2, false),
    ];
    for (text, set, is_fine) in rows {
        let found =
            read_back(&[times_of(4)], root_with(set, ContentRecord::Value(ValueView::Text(text))));
        assert_eq!(found.is_ok(), is_fine, "{text:?} at {set}: {found:?}");
    }
}

/// Authors of as many counters as there can be.
fn crowd(count: u64) -> Vec<Times> {
    let pieces = || vec![Piece { start: 0, lamport: 1, len: COUNTER_MAX + 1, count: 1 }];
    let times = |author| Times { author, pieces: pieces(), is_head: true };
    (1..=count).filter_map(ReplicaId::new).map(times).collect()
}

/// Reads a state of a text with a run of so many counters by each author, all visible or all deleted, of
/// which nothing is there to be seen.
fn read_forged(times: &[Times], len: u64, is_deleted: bool) -> Result<(), DecodeError> {
    let authors: Vec<ReplicaId> = times.iter().map(|one| one.author).collect();
    let mut columns = ColumnWriter::default();
    times.iter().for_each(|one| write_times(columns.to(Column::Changes), one));
    let names = FieldNames::new();
    let mut writer = EntryWriter::new(columns, &authors, &names);
    writer.sink.to(Column::Entry).varint(ID_RAW);
    writer.sink.to(Column::Entry).raw(EntryId::ROOT.as_bytes());
    writer.sink.to(Column::Tag).varint(1 << HEAD_BITS);
    // No lives, no moves.
    (0..2).for_each(|_| writer.sink.to(Column::Number).varint(0));
    writer.sink.to(Column::Field).varint(SPLICED.into());
    write_field(writer.sink.to(Column::Field), &Field::Value);
    let first = |author: &ReplicaId| OpId { replica: *author, counter: 0 };
    writer.op(first(&authors[0]));
    writer.sink.to(Column::Number).varint(authors.len() as u64);
    for author in &authors {
        writer.sink.to(Column::Number).varint(len << 2);
        writer.op(first(author));
        writer.skip_to(first(author).plus(len));
    }
    let all = len.wrapping_mul(authors.len() as u64);
    let turns = if is_deleted { vec![0, all] } else { vec![all] };
    turns.into_iter().for_each(|turn| writer.sink.to(Column::Value).varint(turn));
    writer.sink.to(Column::Number).varint(0);
    let mut bytes = Writer::new();
    bytes.count(authors.len());
    authors.iter().for_each(|author| bytes.replica(*author));
    bytes.count(1);
    let state = InColumns::new(bytes, writer.into_sink());
    StateReader::new(&state.bytes)?.read_entries(|_, _| {}).map(drop)
}

/// Deleted characters take no bytes by themselves, but memory for each stretch of their ids.
#[test]
fn a_run_of_a_state_has_a_bound() {
    assert_eq!(read_forged(&crowd(1), 9, true), Ok(()));
    assert_eq!(read_forged(&crowd(3), STATE_RUN_CHARS_MAX, true), Ok(()));
    for len in [STATE_RUN_CHARS_MAX + 1, 1 << 56] {
        let found = read_forged(&crowd(1), len, true);
        assert!(matches!(found, Err(DecodeError::Malformed { .. })), "{len} {found:?}");
    }
}

#[test]
fn a_longer_run_is_told_in_several() {
    let times = crowd(1);
    let first = |counter| OpId { replica: times[0].author, counter };
    let longest = STATE_RUN_CHARS_MAX;
    let run = |from, len, is_deleted| RunRecord { first: first(from), len, is_deleted };
    let whole = [
        run(0, longest - 1, true),
        run(longest - 1, 3, false),
        run(longest + 2, 2 * longest, true),
    ];
    let told = [
        run(0, longest - 1, true),
        run(longest - 1, 1, false),
        run(longest, 2, false),
        run(longest + 2, longest - 2, true),
        run(2 * longest, longest, true),
        run(3 * longest, 2, true),
    ];
    let read = |runs: &[RunRecord]| {
        let text = TextRecord { runs: runs.to_vec(), text: "abc".to_owned() };
        let mut entry = root_with(0, ContentRecord::Text(text));
        entry.fields[0].set = first(0);
        let state = encode_state(&times, &FieldNames::new(), 1, std::iter::once(entry));
        let mut found = Vec::new();
        let each = |record: &EntryRecord<'_>, _: &FieldNames| {
            if let Some(ContentRecord::Text(text)) = record.fields.first().map(|one| &one.content) {
                found.clone_from(&text.runs);
            }
        };
        StateReader::new(&state.bytes).unwrap().read_entries(each).unwrap();
        (state.bytes, found)
    };
    let (bytes, found) = read(&whole);
    assert_eq!(found, told);
    assert_eq!(read(&found), (bytes, found));
}

/// The lengths of what shows can have a sum of 2^64.
#[test]
fn visible_characters_without_a_text_are_refused() {
    for (count, len) in [(256, 1 << 56), (1, 1 << 56), (2, 1)] {
        let found = read_forged(&crowd(count), len, false);
        assert!(matches!(found, Err(DecodeError::Malformed { .. })), "{count} {len} {found:?}");
    }
}

#[test]
fn a_system_entry_has_one_life_and_only_fields_and_an_order() {
    let next = Life::FIRST.next().unwrap();
    let record = || root_with(0, ContentRecord::Value(ValueView::Bool(true)));
    let life = |life, creation| LifeRecord { life, creation };
    let link = Creation::Link { target: EntryId::TRASH, op: op(0) };
    let place = |parent, life, is_within| MoveRecord {
        op: op(1),
        life,
        parent,
        key: OrderKey::new(&[0x80]).unwrap(),
        is_within,
        trashed_at: None,
    };
    let trash = |one| EntryRecord { id: EntryId::TRASH, moves: smallvec![one], ..record() };
    let mut later_field = record();
    later_field.fields[0].life = next;
    let with_life = |one| EntryRecord { lives: smallvec![one], ..record() };
    let rows = [
        (record(), true),
        (EntryRecord { lives: smallvec![], ..record() }, true),
        (trash(place(EntryId::ROOT, Life::FIRST, true)), true),
        (later_field, false),
        (with_life(life(next, Creation::None)), false),
        (with_life(life(Life::FIRST, Creation::Item)), false),
        (with_life(life(Life::FIRST, link)), false),
        (EntryRecord { life: next, lives: smallvec![], ..record() }, false),
        (trash(place(EntryId::ROOT, next, true)), false),
        (trash(place(EntryId::ROOT, Life::FIRST, false)), false),
        (trash(place(EntryId::LOST_AND_FOUND, Life::FIRST, true)), false),
    ];
    for (number, (entry, is_fine)) in rows.into_iter().enumerate() {
        let found = read_back(&[times_of(9)], entry);
        assert_eq!(found.is_ok(), is_fine, "{number}: {found:?}");
    }
}
