//! The digest: a sum of one hash per entry.

use sds_engine::{EntryId, Field, Stamp, Value};

use super::{Kind, Model};

pub(super) fn of(model: &Model) -> [u8; 32] {
    model.named().iter().fold([0; 32], |sum, entry| add(sum, hash(model, *entry)))
}

/// Addition modulo 2^256 of numbers written with the lowest byte first.
fn add(a: [u8; 32], b: [u8; 32]) -> [u8; 32] {
    let mut sum = [0; 32];
    let mut carry = 0;
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        let [low, high] = (u16::from(a) + u16::from(b) + carry).to_le_bytes();
        *sum = low;
        carry = u16::from(high);
    }
    sum
}

fn hash(model: &Model, entry: EntryId) -> [u8; 32] {
    let mut bytes = Vec::new();
    bytes.extend_from_slice(entry.as_bytes());
    bytes.extend_from_slice(&model.life(entry).to_le_bytes());
    let kind = model.kind(entry).filter(|_| model.is_alive(entry));
    match kind {
        None => bytes.push(0b00),
        Some(Kind::Item) => bytes.push(0b01),
        Some(Kind::Link(target)) => {
            bytes.push(0b11);
            bytes.extend_from_slice(target.as_bytes());
        }
    }
    write_placement(&mut bytes, model, entry);
    if model.is_alive(entry) {
        write_registers(&mut bytes, model, entry);
    }
    *blake3::hash(&bytes).as_bytes()
}

fn write_placement(bytes: &mut Vec<u8>, model: &Model, entry: EntryId) {
    let Some(placement) = model.placement(entry) else { return bytes.push(0) };
    bytes.push(1);
    bytes.extend_from_slice(placement.parent.as_bytes());
    let key_bytes = u16::try_from(placement.key.len()).expect("keys have at most 64 bytes");
    bytes.extend_from_slice(&key_bytes.to_le_bytes());
    bytes.extend_from_slice(&placement.key);
    bytes.extend_from_slice(&placement.life.to_le_bytes());
    match placement.stamp {
        None => bytes.push(0),
        Some(stamp) => {
            bytes.push(1);
            write_stamp(bytes, stamp);
        }
    }
    match placement.trashed_at {
        None => bytes.push(0),
        Some(time) => {
            bytes.push(1);
            bytes.extend_from_slice(&time.as_millis().to_le_bytes());
        }
    }
}

/// Fields are in order of their definition: label, type, value, then the info fields by key.
fn write_registers(bytes: &mut Vec<u8>, model: &Model, entry: EntryId) {
    for field in model.fields(entry) {
        let Some((stamp, value)) = model.register(entry, &field) else { continue };
        if value == Value::None {
            continue;
        }
        match &field {
            Field::Label => bytes.push(0),
            Field::Type => bytes.push(1),
            Field::Value => bytes.push(2),
            Field::Info(key) => {
                bytes.push(3);
                write_len(bytes, key.len());
                bytes.extend_from_slice(key.as_bytes());
            }
        }
        write_stamp(bytes, stamp);
        let value = encoded(&value);
        write_len(bytes, value.len());
        bytes.extend_from_slice(&value);
    }
}

fn write_stamp(bytes: &mut Vec<u8>, stamp: Stamp) {
    for number in [stamp.lamport, stamp.replica.as_u64(), stamp.counter] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
}

fn write_len(bytes: &mut Vec<u8>, len: usize) {
    let len = u32::try_from(len).expect("a change is far smaller than 4 GiB");
    bytes.extend_from_slice(&len.to_le_bytes());
}

/// A value as it stands in a change: a tag, then the content.
fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    match value {
        Value::None => bytes.push(0),
        Value::Bool(truth) => bytes.push(if *truth { 2 } else { 1 }),
        Value::Int(number) => {
            bytes.push(3);
            write_varint(&mut bytes, ((number << 1) ^ (number >> 63)).cast_unsigned());
        }
        Value::Float(number) => {
            bytes.push(4);
            bytes.extend_from_slice(&number.to_bits().to_le_bytes());
        }
        Value::Text(text) => write_sized(&mut bytes, 5, text.as_bytes()),
        Value::Bytes(content) => write_sized(&mut bytes, 6, content),
        Value::Json(text) => write_sized(&mut bytes, 7, text.as_bytes()),
        Value::Blob(blob) => {
            bytes.push(if blob.is_text { 9 } else { 8 });
            bytes.extend_from_slice(&blob.hash.0);
            write_varint(&mut bytes, blob.size);
        }
    }
    bytes
}

fn write_sized(bytes: &mut Vec<u8>, tag: u8, content: &[u8]) {
    bytes.push(tag);
    write_varint(bytes, content.len() as u64);
    bytes.extend_from_slice(content);
}

/// Seven bits a byte, lowest first, the top bit set on all but the last.
fn write_varint(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}
