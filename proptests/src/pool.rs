//! The few names, keys, texts and values that random stories draw from. Few, so that they meet.

use sds_engine::{BlobHash, BlobRef, EntryId, Field, OrderKey, Value};

/// Entry ids that no op of the engine gives: the system entries and three foreign UUIDs.
pub const ENTRIES: [EntryId; 6] = [
    EntryId::ROOT,
    EntryId::TRASH,
    EntryId::LOST_AND_FOUND,
    EntryId::from_bytes([0x11; 16]),
    EntryId::from_bytes([0x22; 16]),
    EntryId::from_bytes([0xee; 16]),
];

/// The one that `number` picks; none of nothing.
#[must_use]
pub fn pick<T: Clone>(from: &[T], number: u8) -> Option<T> {
    from.get(usize::from(number).checked_rem(from.len())?).cloned()
}

/// Order keys that meet: equal to those of system entries, prefixes of each other, the extremes.
#[must_use]
pub fn keys() -> Vec<OrderKey> {
    let longest = [0x41; sds_engine::limits::ORDER_KEY_BYTES_MAX];
    let keys: [&[u8]; 8] =
        [&[0x41], &[0x42], &[0x41, 0, 1], &[0x80], &[1], &[0, 1], &[0xfe, 0xff, 0xff], &longest];
    keys.iter().filter_map(|bytes| OrderKey::new(bytes)).collect()
}

/// One of five fields.
#[must_use]
pub fn field(number: u8) -> Field {
    match number % 6 {
        0 | 1 => Field::Label,
        2 => Field::Type,
        3 => Field::Value,
        4 => Field::Info("color".into()),
        _ => Field::Info("\u{e9}".into()),
    }
}

/// Every field that [`field`] gives.
#[must_use]
pub fn fields() -> Vec<Field> {
    (1..6).map(field).collect()
}

/// A value of any kind, half of them texts.
#[must_use]
pub fn value(number: u8) -> Value {
    match number % 20 {
        0 => Value::None,
        1 => Value::Bool(false),
        2 => Value::Bool(true),
        3 => Value::Int(i64::from(number) - 128),
        4 => Value::Int(i64::MIN),
        5 => Value::Float(if number < 128 { f64::NAN } else { -0.0 }),
        6 => Value::Bytes(vec![number; usize::from(number % 4)]),
        7 => Value::Json(String::from("[1,{}]")),
        8 | 9 => Value::Blob(BlobRef {
            hash: BlobHash([number; 32]),
            size: u64::from(number),
            is_text: number.is_multiple_of(2),
        }),
        _ => Value::Text(text(number / 16).to_owned()),
    }
}

/// A short text, of characters of one to four bytes and one to two UTF-16 units; maybe empty.
#[must_use]
pub const fn text(number: u8) -> &'static str {
    match number % 8 {
        0 => "",
        1 => "a",
        2 => "bc",
        3 => "\u{e9}",
        4 => "\u{1f600}",
        5 => "x\u{1f600}\u{4e2d}z",
        6 => "hello",
        _ => "\u{301}",
    }
}
