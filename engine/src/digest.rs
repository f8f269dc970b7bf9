//! One hash over everything that merging decides: same changes, same digest.
//!
//! The sum modulo 2^256 of a blake3 for each entry that any op has named, so that it costs only the
//! entries that changed since it was last asked for. `docs/format.md` gives the bytes.

use std::fmt;

use crate::codec::{Writer, field_number, value_kind, write_content};
use crate::display::Facts;
use crate::entries::EntryIx;
use crate::id::Stamp;
use crate::op::NewEntry;
use crate::registers::RegisterView;
use crate::value::Field;

/// Equal for replicas with the same changes; different, but for a collision, when anything that was
/// merged differs. Made by [`Replica::digest`](crate::Replica::digest).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest's bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of an entry as a number, and whether it is out of date. One that adds nothing is zero.
#[derive(Clone, Copy, Debug, Default)]
struct Summand {
    hash: [u64; 4],
    is_dirty: bool,
}

/// The sum so far, and which entries it is out of date for. Before anybody asks for a digest, it is
/// out of date for all.
#[derive(Clone, Debug, Default)]
pub(crate) struct DigestSum {
    sum: [u64; 4],
    summands: Vec<Summand>,
    dirty: Vec<EntryIx>,
}

impl DigestSum {
    /// Notes that the entry has changed.
    pub(crate) fn mark(&mut self, entry: EntryIx) {
        // Who is not among them is new, and so dirty without a mark.
        if let Some(summand) = self.summands.get_mut(entry.at())
            && !summand.is_dirty
        {
            summand.is_dirty = true;
            self.dirty.push(entry);
        }
    }

    /// The digest of so many entries, after hashing those again with `hash` that are out of date; an
    /// entry without one drops out.
    pub(crate) fn digest(
        &mut self,
        entries: usize,
        hash: impl Fn(EntryIx) -> Option<blake3::Hash>,
    ) -> Digest {
        let new = (self.summands.len()..entries).map(EntryIx::new);
        self.dirty.extend(new);
        self.summands.resize(entries, Summand::default());
        for entry in std::mem::take(&mut self.dirty) {
            let new = hash(entry).map(|hash| words(hash.as_bytes())).unwrap_or_default();
            let summand = Summand { hash: new, is_dirty: false };
            let old = std::mem::replace(&mut self.summands[entry.at()], summand);
            self.sum = add(add(self.sum, negate(old.hash)), new);
        }
        let mut bytes = [0; 32];
        for (place, word) in bytes.chunks_exact_mut(8).zip(self.sum) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        Digest(bytes)
    }
}

/// The hash of one entry, if any op has named it.
pub(crate) fn hash_entry(entry: EntryIx, facts: Facts<'_>) -> Option<blake3::Hash> {
    let state = facts.entries.state(entry);
    if !state.is_known() {
        return None;
    }
    let is_alive = facts.is_alive(entry);
    let target = match state.kind() {
        NewEntry::Link { target } if is_alive => Some(target),
        _ => None,
    };
    let mut writer = Writer::new();
    writer.raw(facts.entries.id(entry).as_bytes());
    writer.raw(&state.life().number().to_le_bytes());
    writer.byte(u8::from(is_alive) | u8::from(target.is_some()) << 1);
    if let Some(target) = target {
        writer.raw(target.as_bytes());
    }
    write_placement(&mut writer, entry, facts);
    if is_alive {
        for (field, register) in state.registers(facts.entries.names()) {
            write_register(&mut writer, field, register);
        }
    }
    Some(blake3::hash(writer.as_slice()))
}

fn write_placement(writer: &mut Writer, entry: EntryIx, facts: Facts<'_>) {
    let Some(place) = facts.tree.placement(entry) else { return writer.byte(0) };
    writer.byte(1);
    writer.raw(facts.entries.id(place.parent).as_bytes());
    // An order key has at most 64 bytes.
    writer.raw(&u16::try_from(place.key.len()).unwrap_or(u16::MAX).to_le_bytes());
    writer.raw(place.key);
    writer.raw(&place.life.number().to_le_bytes());
    match place.stamp {
        None => writer.byte(0),
        Some(stamp) => {
            writer.byte(1);
            write_stamp(writer, stamp);
        }
    }
    match place.trashed_at {
        None => writer.byte(0),
        Some(time) => {
            writer.byte(1);
            writer.raw(&time.as_millis().to_le_bytes());
        }
    }
}

fn write_register(writer: &mut Writer, field: &Field, register: RegisterView<'_>) {
    writer.byte(field_number(field));
    if let Field::Info(key) = field {
        write_sized(writer, key.as_bytes());
    }
    write_stamp(writer, register.stamp);
    let mut value = Writer::new();
    let content = register.value();
    value.byte(value_kind(content.view()));
    write_content(&mut value, content.view());
    write_sized(writer, value.as_slice());
}

fn write_stamp(writer: &mut Writer, stamp: Stamp) {
    writer.raw(&stamp.lamport.to_le_bytes());
    writer.raw(&stamp.replica.as_u64().to_le_bytes());
    writer.raw(&stamp.counter.to_le_bytes());
}

/// Length in four bytes, then the bytes. Nothing in a change is longer than a change.
fn write_sized(writer: &mut Writer, bytes: &[u8]) {
    writer.raw(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    writer.raw(bytes);
}

fn words(bytes: &[u8; 32]) -> [u64; 4] {
    let mut words = [0; 4];
    for (word, chunk) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = chunk.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

fn add(a: [u64; 4], b: [u64; 4]) -> [u64; 4] {
    let mut sum = [0; 4];
    let mut carry = false;
    for ((sum, a), b) in sum.iter_mut().zip(a).zip(b) {
        let (low, first) = a.overflowing_add(b);
        let (word, second) = low.overflowing_add(u64::from(carry));
        *sum = word;
        carry = first || second;
    }
    sum
}

fn negate(a: [u64; 4]) -> [u64; 4] {
    add(a.map(|word| !word), [1, 0, 0, 0])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_the_negative_gives_nothing() {
        for a in [[0; 4], [1, 0, 0, 0], [u64::MAX; 4], [0, 7, u64::MAX, 3]] {
            assert_eq!(add(a, negate(a)), [0; 4]);
        }
        assert_eq!(add([u64::MAX, 0, 0, 0], [1, 0, 0, 0]), [0, 1, 0, 0], "carries");
    }

    #[test]
    fn an_entry_that_drops_out_leaves_the_sum_as_it_was() {
        let mut sum = DigestSum::default();
        let empty = sum.digest(3, |_| None);
        sum.mark(EntryIx::TRASH);
        assert_ne!(sum.digest(3, |_| Some(blake3::hash(b"x"))), empty);
        assert_ne!(sum.digest(4, |_| Some(blake3::hash(b"y"))), empty);
        sum.mark(EntryIx::TRASH);
        sum.mark(EntryIx::new(3));
        assert_eq!(sum.digest(4, |_| None), empty);
    }
}
