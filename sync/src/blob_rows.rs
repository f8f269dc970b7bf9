//! Large contents in rows of a redb file: the tables that a store's file and a relay's file share.
//!
//! | table | key | value |
//! |---|---|---|
//! | `blobs` | owner (u64), SHA-256 | size in bytes (u64), number of the content (u64) |
//! | `blob_parts` | owner (u64), SHA-256 | the same, of one whose bytes are not all here yet |
//! | `blob_contents` | number of a content (u64) | how many bytes of it are here (u64) |
//! | `blob_rows` | number of a content (u64), number from 0 without gaps (u32) | [`ROW_BYTES`]; the last one the rest |
//!
//! An owner is a store of a relay; a store's own file has the owner 0. A content comes in by parts, so
//! that none is ever whole in memory, and what came survives a kill. It gets its name in one
//! transaction, after its hash was checked.
//!
//! Invariants:
//! - B1. What `blobs` names is whole, and its bytes are those of the name.
//! - B2. A content that neither `blobs` nor `blob_parts` names is being written, or garbage; garbage is
//!   found without a look at any row.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

use std::collections::BTreeSet;

use redb::{Key, ReadTransaction, ReadableTable, TableDefinition, Value, WriteTransaction};
use sds_engine::BlobHash;
use sha2::{Digest, Sha256};

use crate::database::Failure;
use crate::limits::BLOB_CHUNK_BYTES_MAX;

/// How many bytes are in a row. With key and header just under a power of two, for redb gives a
/// value pages of that many bytes: one of 2^18 bytes would take 2^19.
pub const ROW_BYTES: usize = (256 << 10) - 512;

/// How many rows are removed in one transaction.
const SWEEP_ROWS: u32 = 64;

type Names = TableDefinition<'static, (u64, &'static [u8; 32]), (u64, u64)>;

const BLOBS: Names = TableDefinition::new("blobs");
const PARTS: Names = TableDefinition::new("blob_parts");
const CONTENTS: TableDefinition<'static, u64, u64> = TableDefinition::new("blob_contents");
const ROWS: TableDefinition<'static, (u64, u32), &'static [u8]> = TableDefinition::new("blob_rows");

/// A content by its number, and how many bytes it has or is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The number.
    pub number: u64,
    /// How many bytes it has when it is whole.
    pub size: u64,
}

/// Does the same with tables of any kind, to copy a file or to look at all of it.
pub trait TableVisitor {
    /// Does it with one table.
    ///
    /// # Errors
    /// What it fails with.
    fn visit<K: Key + 'static, V: Value + 'static>(
        &mut self,
        table: TableDefinition<'static, K, V>,
    ) -> Result<(), Failure>;
}

/// Lets `visitor` do what it does with each table.
///
/// # Errors
/// What the visitor fails with.
pub fn visit(visitor: &mut impl TableVisitor) -> Result<(), Failure> {
    visitor.visit(BLOBS)?;
    visitor.visit(PARTS)?;
    visitor.visit(CONTENTS)?;
    visitor.visit(ROWS)
}

/// Makes the tables.
///
/// # Errors
/// If the file cannot be written.
pub fn initialize(write: &WriteTransaction) -> Result<(), Failure> {
    write.open_table(BLOBS)?;
    write.open_table(PARTS)?;
    write.open_table(CONTENTS)?;
    write.open_table(ROWS)?;
    Ok(())
}

/// The blob of this name, if it is here, whole.
///
/// # Errors
/// If the file cannot be read.
pub fn find(
    read: &ReadTransaction,
    owner: u64,
    hash: &BlobHash,
) -> Result<Option<Content>, Failure> {
    let found = read.open_table(BLOBS)?.get((owner, &hash.0))?;
    Ok(found.map(|found| content(found.value())))
}

/// All blobs of an owner, in order of hash.
///
/// # Errors
/// If the file cannot be read.
pub fn list(read: &ReadTransaction, owner: u64) -> Result<Vec<(BlobHash, Content)>, Failure> {
    names(&read.open_table(BLOBS)?, owner)
}

/// A number that no content has.
///
/// # Errors
/// If the file cannot be read.
pub fn next_number(read: &ReadTransaction) -> Result<u64, Failure> {
    let contents = read.open_table(CONTENTS)?;
    Ok(contents.last()?.map_or(1, |(number, _)| number.value().saturating_add(1)))
}

/// How many bytes of a content are here.
///
/// # Errors
/// If the file cannot be read.
pub fn held(read: &ReadTransaction, number: u64) -> Result<u64, Failure> {
    Ok(read.open_table(CONTENTS)?.get(number)?.map_or(0, |held| held.value()))
}

/// The bytes of a content from `offset`: `max` of them, or what there is.
///
/// # Errors
/// If the file cannot be read, or a row is not as it was written.
pub fn read(
    read: &ReadTransaction,
    number: u64,
    offset: u64,
    max: usize,
) -> Result<Vec<u8>, Failure> {
    let held = held(read, number)?;
    let wanted = usize::try_from(held.saturating_sub(offset)).unwrap_or(usize::MAX).min(max);
    let mut bytes = Vec::with_capacity(wanted);
    if wanted == 0 {
        return Ok(bytes);
    }
    let (first, skipped) = place(offset)?;
    let rows = read.open_table(ROWS)?;
    let mut skipped = skipped;
    for row in rows.range((number, first)..=(number, u32::MAX))? {
        let (_, value) = row?;
        let rest = value.value().get(skipped..).ok_or(DAMAGED)?;
        let part = rest.get(..rest.len().min(wanted - bytes.len())).ok_or(DAMAGED)?;
        bytes.extend_from_slice(part);
        skipped = 0;
        if bytes.len() == wanted {
            return Ok(bytes);
        }
    }
    Err(DAMAGED)
}

/// Whether the bytes of a content are those of this name. Reads it all.
///
/// # Errors
/// If the file cannot be read, or a row is not as it was written.
pub fn is_sound(
    read: &ReadTransaction,
    hash: &BlobHash,
    content: Content,
) -> Result<bool, Failure> {
    let mut hasher = Sha256::new();
    let mut done = 0;
    while done < content.size {
        let bytes = self::read(read, content.number, done, BLOB_CHUNK_BYTES_MAX)?;
        if bytes.is_empty() {
            return Ok(false);
        }
        hasher.update(&bytes);
        done += bytes.len() as u64;
    }
    Ok(done == content.size && hasher.finalize().as_slice() == hash.0)
}

/// How many bytes are here of the part of this name and size.
///
/// # Errors
/// If the file cannot be read.
pub fn part_len(
    read: &ReadTransaction,
    owner: u64,
    hash: &BlobHash,
    size: u64,
) -> Result<u64, Failure> {
    let part = read.open_table(PARTS)?.get((owner, &hash.0))?.map(|part| content(part.value()));
    match part {
        Some(part) if part.size == size => held(read, part.number),
        _ => Ok(0),
    }
}

/// A part to go on with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Its content.
    pub content: Content,
    /// How many bytes of it are here.
    pub held: u64,
    /// The contents that gave way to it, which are garbage now.
    pub garbage: Vec<u64>,
}

/// The part of this name, with `fresh` as its content if there is none. One of another size gives way
/// to it, and so do the parts begun first, until there are no more than `max` in all; but none that
/// `is_live` says is being written. None if there is no room so.
///
/// # Errors
/// If the file cannot be written.
pub fn resume(
    write: &WriteTransaction,
    owner: u64,
    hash: &BlobHash,
    fresh: Content,
    max: usize,
    is_live: impl Fn(u64) -> bool,
) -> Result<Option<Part>, Failure> {
    let known = write.open_table(PARTS)?.get((owner, &hash.0))?.map(|part| content(part.value()));
    if let Some(part) = known
        && part.size == fresh.size
        && let Some(held) = write.open_table(CONTENTS)?.get(part.number)?.map(|held| held.value())
        && held <= part.size
    {
        return Ok(Some(Part { content: part, held, garbage: Vec::new() }));
    }
    if known.is_some_and(|part| is_live(part.number)) {
        return Ok(None);
    }
    let Some(mut garbage) = make_room(write, owner, hash, max, is_live)? else { return Ok(None) };
    garbage.extend(known.map(|part| part.number));
    write.open_table(PARTS)?.insert((owner, &hash.0), (fresh.size, fresh.number))?;
    write.open_table(CONTENTS)?.insert(fresh.number, 0)?;
    Ok(Some(Part { content: fresh, held: 0, garbage }))
}

/// The parts of an owner: those begun first come first.
///
/// # Errors
/// If the file cannot be read.
pub fn parts(write: &WriteTransaction, owner: u64) -> Result<Vec<(BlobHash, Content)>, Failure> {
    let mut parts = names(&write.open_table(PARTS)?, owner)?;
    parts.sort_by_key(|(_, content)| content.number);
    Ok(parts)
}

/// Whether anybody has parts. Cheap if not.
///
/// # Errors
/// If the file cannot be read.
pub fn has_parts(read: &ReadTransaction) -> Result<bool, Failure> {
    Ok(read.open_table(PARTS)?.first()?.is_some())
}

/// Gives up the parts begun first of those that are not being written, so that with one of this name
/// there are no more than `max`. Says whose contents are garbage then; none, and has done nothing, if
/// too many are being written.
fn make_room(
    write: &WriteTransaction,
    owner: u64,
    hash: &BlobHash,
    max: usize,
    is_live: impl Fn(u64) -> bool,
) -> Result<Option<Vec<u64>>, Failure> {
    let mut others = parts(write, owner)?;
    others.retain(|(other, _)| other != hash);
    let surplus = (others.len() + 1).saturating_sub(max);
    others.retain(|(_, content)| !is_live(content.number));
    if others.len() < surplus {
        return Ok(None);
    }
    others.truncate(surplus);
    for (other, content) in &others {
        forget_part(write, owner, other, content.number)?;
    }
    Ok(Some(others.into_iter().map(|(_, content)| content.number).collect()))
}

/// Gives up a part, unless it has another content by now. The content is garbage then.
///
/// # Errors
/// If the file cannot be written.
pub fn forget_part(
    write: &WriteTransaction,
    owner: u64,
    hash: &BlobHash,
    number: u64,
) -> Result<(), Failure> {
    let mut parts = write.open_table(PARTS)?;
    let is_it = parts.get((owner, &hash.0))?.is_some_and(|part| part.value().1 == number);
    if is_it {
        parts.remove((owner, &hash.0))?;
    }
    Ok(())
}

/// Appends to a content of which `offset` bytes are here, or begins it; not if another number of bytes
/// is here. Says whether it did.
///
/// # Errors
/// If the file cannot be written, or the last row is not as it was written.
pub fn append(
    write: &WriteTransaction,
    number: u64,
    offset: u64,
    mut bytes: &[u8],
) -> Result<bool, Failure> {
    let mut contents = write.open_table(CONTENTS)?;
    let held = contents.get(number)?.map_or(0, |held| held.value());
    if held != offset {
        return Ok(false);
    }
    contents.insert(number, held + bytes.len() as u64)?;
    let mut rows = write.open_table(ROWS)?;
    let (mut index, filled) = place(offset)?;
    if filled > 0 && !bytes.is_empty() {
        let begun = rows.get((number, index))?.map(|row| row.value().to_vec());
        let mut row = begun.filter(|row| row.len() == filled).ok_or(DAMAGED)?;
        let (head, rest) = bytes.split_at(bytes.len().min(ROW_BYTES - filled));
        row.extend_from_slice(head);
        rows.insert((number, index), row.as_slice())?;
        (bytes, index) = (rest, index + 1);
    }
    for row in bytes.chunks(ROW_BYTES) {
        rows.insert((number, index), row)?;
        index += 1;
    }
    Ok(true)
}

/// Gives a content, whose bytes are all here and have this hash, its name. A blob that has the name
/// already stays, and the content is garbage, unless it is to be replaced. Says what is there then.
///
/// # Errors
/// If the file cannot be written.
pub fn keep(
    write: &WriteTransaction,
    owner: u64,
    hash: &BlobHash,
    fresh: Content,
    replaces: bool,
) -> Result<Content, Failure> {
    let mut parts = write.open_table(PARTS)?;
    let part = parts.get((owner, &hash.0))?.map(|part| content(part.value()));
    if part == Some(fresh) {
        parts.remove((owner, &hash.0))?;
    }
    let mut blobs = write.open_table(BLOBS)?;
    let former = blobs.get((owner, &hash.0))?.map(|former| content(former.value()));
    if let Some(former) = former
        && !replaces
    {
        return Ok(former);
    }
    blobs.insert((owner, &hash.0), (fresh.size, fresh.number))?;
    // Nothing was appended to one without bytes.
    write.open_table(CONTENTS)?.insert(fresh.number, fresh.size)?;
    Ok(fresh)
}

/// Takes the name of a content away, unless it has gone to another one. The content is garbage then.
///
/// # Errors
/// If the file cannot be written.
pub fn release(
    write: &WriteTransaction,
    owner: u64,
    hash: &BlobHash,
    number: u64,
) -> Result<(), Failure> {
    let mut blobs = write.open_table(BLOBS)?;
    let is_it = blobs.get((owner, &hash.0))?.is_some_and(|found| found.value().1 == number);
    if is_it {
        blobs.remove((owner, &hash.0))?;
    }
    Ok(())
}

/// How many blobs an owner has, and how many bytes they have together. Reads their names.
///
/// # Errors
/// If the file cannot be read.
pub fn total(read: &ReadTransaction, owner: u64) -> Result<(u64, u64), Failure> {
    let (mut count, mut bytes) = (0, 0);
    for row in read.open_table(BLOBS)?.range((owner, &[0; 32])..=(owner, &[u8::MAX; 32]))? {
        count += 1;
        bytes += row?.1.value().0;
    }
    Ok((count, bytes))
}

/// The parts of an owner's blobs, of which there are only a few: of each the content as it is when it is
/// whole.
///
/// # Errors
/// If the file cannot be read.
pub fn parts_of(read: &ReadTransaction, owner: u64) -> Result<Vec<(BlobHash, Content)>, Failure> {
    names(&read.open_table(PARTS)?, owner)
}

/// Takes the name of some blob or part of an owner away; says which content is garbage then, or that
/// the owner has none.
///
/// # Errors
/// If the file cannot be written.
pub fn release_any(write: &WriteTransaction, owner: u64) -> Result<Option<u64>, Failure> {
    for names in [BLOBS, PARTS] {
        let mut names = write.open_table(names)?;
        let all = (owner, &[0; 32])..=(owner, &[u8::MAX; 32]);
        let first = names.range(all)?.next().transpose()?;
        let first = first.map(|(key, value)| (*key.value().1, value.value().1));
        if let Some((hash, number)) = first {
            names.remove((owner, &hash))?;
            return Ok(Some(number));
        }
    }
    Ok(None)
}

/// The contents that nothing names (B2).
///
/// # Errors
/// If the file cannot be read.
pub fn garbage(read: &ReadTransaction) -> Result<Vec<u64>, Failure> {
    let mut named = BTreeSet::new();
    for names in [BLOBS, PARTS] {
        for row in read.open_table(names)?.iter()? {
            named.insert(row?.1.value().1);
        }
    }
    let mut garbage = Vec::new();
    for row in read.open_table(CONTENTS)?.iter()? {
        let number = row?.0.value();
        if !named.contains(&number) {
            garbage.push(number);
        }
    }
    Ok(garbage)
}

/// Removes some rows of garbage, the last first; whether nothing of it is left.
///
/// # Errors
/// If the file cannot be written.
pub fn sweep(write: &WriteTransaction, number: u64) -> Result<bool, Failure> {
    let mut contents = write.open_table(CONTENTS)?;
    let Some(held) = contents.get(number)?.map(|held| held.value()) else { return Ok(true) };
    let rows = held.div_ceil(ROW_BYTES as u64);
    let left = rows.saturating_sub(SWEEP_ROWS.into());
    let mut table = write.open_table(ROWS)?;
    for index in left..rows {
        table.remove((number, u32::try_from(index).map_err(|_| TOO_LARGE)?))?;
    }
    if left == 0 {
        contents.remove(number)?;
    } else {
        contents.insert(number, left * ROW_BYTES as u64)?;
    }
    Ok(left == 0)
}

const DAMAGED: Failure = Failure::Corrupt("a part of a blob is missing");
const TOO_LARGE: Failure = Failure::Corrupt("a blob is larger than any may be");

/// In which row a byte is, and where in it.
fn place(offset: u64) -> Result<(u32, usize), Failure> {
    let row = u32::try_from(offset / ROW_BYTES as u64).map_err(|_| TOO_LARGE)?;
    let within = usize::try_from(offset % ROW_BYTES as u64).map_err(|_| TOO_LARGE)?;
    Ok((row, within))
}

const fn content((size, number): (u64, u64)) -> Content {
    Content { number, size }
}

fn names(
    table: &impl ReadableTable<(u64, &'static [u8; 32]), (u64, u64)>,
    owner: u64,
) -> Result<Vec<(BlobHash, Content)>, Failure> {
    let mut names = Vec::new();
    for row in table.range((owner, &[0; 32])..=(owner, &[u8::MAX; 32]))? {
        let (key, value) = row?;
        names.push((BlobHash(*key.value().1), content(value.value())));
    }
    Ok(names)
}

/// What tests look at and do beside the rules.
#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// How many contents there are, of any kind.
    pub(crate) fn content_count(read: &ReadTransaction) -> Result<usize, Failure> {
        Ok(read.open_table(CONTENTS)?.iter()?.count())
    }

    /// Changes a byte of a content.
    pub(crate) fn damage(write: &WriteTransaction, number: u64) -> Result<(), Failure> {
        let mut rows = write.open_table(ROWS)?;
        let row = rows.get((number, 0))?.map(|row| row.value().to_vec());
        let mut row = row.ok_or(DAMAGED)?;
        row[0] ^= 1;
        rows.insert((number, 0), row.as_slice())?;
        Ok(())
    }
}
