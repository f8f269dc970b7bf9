//! Pages: runs of changes of a store's log as they are on disk.
//!
//! | bytes | what |
//! |---|---|
//! | 1 | 0: the body as it is; 1: as raw DEFLATE |
//! | 4, 4, 4 | how many changes; how many bytes the body has, and how many it takes here (u32 LE) |
//! | | the body: of each change its length (u32 LE) and its bytes |
//! | 8 | of the blake3 of all that |
//!
//! A page is in rows of [`PART_BYTES`], the last one the rest. What is appended in one transaction
//! is a page as it is; older ones are packed into larger ones.

use std::io::Read;
use std::sync::Arc;

use flate2::Compression;
use flate2::read::{DeflateDecoder, DeflateEncoder};
use redb::{ReadableTable, Table};
use sds_engine::limits::CHANGE_BYTES_MAX;
use sds_sync::database::Failure;
use sds_sync::log_value::{seal, unseal};

use crate::limits::PAGE_BYTES_GOAL;

/// How many bytes of a page are in a row: with its key just under a power of two, since redb gives
/// large values pages of that many bytes.
pub(crate) const PART_BYTES: usize = (64 << 10) - 512;

const HEAD_BYTES: usize = 13;
const CHECKSUM_BYTES: usize = sds_sync::log_value::CHECKSUM_BYTES;
const LENGTH_BYTES: usize = 4;

/// The largest body: one change fits whatever is there before it.
const BODY_BYTES_MAX: usize = PAGE_BYTES_GOAL + CHANGE_BYTES_MAX + LENGTH_BYTES;

const DAMAGED: Failure = Failure::Corrupt("a page of the log does not match its checksum");

pub(crate) type PagesTable<'a> = Table<'a, (u64, u64, u32), &'static [u8]>;

/// The head of a page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) is_packed: bool,
    /// How many changes it has.
    pub(crate) count: u32,
    body: usize,
    stored: usize,
}

/// Changes in order.
pub(crate) type Changes = Arc<[Arc<[u8]>]>;

impl Head {
    fn decode(bytes: &[u8]) -> Result<Self, Failure> {
        let (form, rest) = bytes.split_first().ok_or(DAMAGED)?;
        let (count, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (body, rest) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let (stored, _) = rest.split_first_chunk().ok_or(DAMAGED)?;
        let size = |bytes: &[u8; 4]| usize::try_from(u32::from_le_bytes(*bytes));
        let head = Self {
            is_packed: *form == 1,
            count: u32::from_le_bytes(*count),
            body: size(body).map_err(|_| DAMAGED)?,
            stored: size(stored).map_err(|_| DAMAGED)?,
        };
        let is_sound =
            *form <= 1 && head.count > 0 && head.body <= BODY_BYTES_MAX && head.stored <= head.body;
        if is_sound { Ok(head) } else { Err(DAMAGED) }
    }

    const fn encoded_len(self) -> usize {
        HEAD_BYTES + self.stored + CHECKSUM_BYTES
    }
}

/// The bytes of a page of these changes, packed if that makes it smaller and is asked for.
///
/// # Errors
/// If there are more than fit a page.
pub(crate) fn encode(changes: &[Arc<[u8]>], packs: bool) -> Result<Vec<u8>, Failure> {
    let too_large = |_| Failure::Corrupt("more changes than a page holds");
    let bytes: usize = changes.iter().map(|change| change.len() + LENGTH_BYTES).sum();
    let mut body = Vec::with_capacity(bytes);
    for change in changes {
        body.extend(u32::try_from(change.len()).map_err(too_large)?.to_le_bytes());
        body.extend_from_slice(change);
    }
    let mut packed = Vec::new();
    if packs {
        let encoded = DeflateEncoder::new(&*body, Compression::fast()).read_to_end(&mut packed);
        encoded.map_err(|error| Failure::from(redb::Error::Io(error)))?;
    }
    let is_packed = packs && packed.len() < body.len();
    let stored = if is_packed { &packed } else { &body };
    let mut page = Vec::with_capacity(HEAD_BYTES + stored.len() + CHECKSUM_BYTES);
    page.push(u8::from(is_packed));
    for size in [changes.len(), body.len(), stored.len()] {
        page.extend(u32::try_from(size).map_err(too_large)?.to_le_bytes());
    }
    page.extend_from_slice(stored);
    Ok(seal(&page))
}

/// The changes of a page.
///
/// # Errors
/// [`Failure::Corrupt`] if these are not the bytes of one.
pub(crate) fn decode(page: &[u8]) -> Result<Changes, Failure> {
    let page = unseal(page).map_err(|_| DAMAGED)?;
    let head = Head::decode(page)?;
    let stored = page.get(HEAD_BYTES..).filter(|stored| stored.len() == head.stored);
    let stored = stored.ok_or(DAMAGED)?;
    if !head.is_packed {
        return split(stored, head);
    }
    let mut body = Vec::with_capacity(head.body);
    // One byte more than there may be shows that there is more.
    let limit = head.body as u64 + 1;
    DeflateDecoder::new(stored).take(limit).read_to_end(&mut body).map_err(|_| DAMAGED)?;
    split(&body, head)
}

fn split(mut body: &[u8], head: Head) -> Result<Changes, Failure> {
    if body.len() != head.body {
        return Err(DAMAGED);
    }
    let mut changes = Vec::new();
    while let Some((length, rest)) = body.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| DAMAGED)?;
        let (change, rest) = rest.split_at_checked(length).ok_or(DAMAGED)?;
        changes.push(change.into());
        body = rest;
    }
    let is_whole = body.is_empty() && changes.len() as u64 == u64::from(head.count);
    if is_whole { Ok(changes.into()) } else { Err(DAMAGED) }
}

/// The head of the page at `position`, if one begins there.
pub(crate) fn head(
    pages: &impl ReadableTable<(u64, u64, u32), &'static [u8]>,
    number: u64,
    position: u64,
) -> Result<Option<Head>, Failure> {
    pages.get((number, position, 0))?.map(|part| Head::decode(part.value())).transpose()
}

/// The bytes of the page at `position`, if one begins there.
pub(crate) fn read(
    pages: &impl ReadableTable<(u64, u64, u32), &'static [u8]>,
    number: u64,
    position: u64,
) -> Result<Option<Vec<u8>>, Failure> {
    let Some(first) = pages.get((number, position, 0))? else { return Ok(None) };
    let len = Head::decode(first.value())?.encoded_len();
    let mut page = Vec::with_capacity(len);
    page.extend_from_slice(first.value());
    for part in 1..parts_of(len)? {
        let bytes = pages.get((number, position, part))?.ok_or(DAMAGED)?;
        page.extend_from_slice(bytes.value());
    }
    Ok(Some(page))
}

/// Writes a page.
pub(crate) fn write(
    pages: &mut PagesTable<'_>,
    number: u64,
    position: u64,
    page: &[u8],
) -> Result<(), Failure> {
    for (part, bytes) in (0..).zip(page.chunks(PART_BYTES)) {
        pages.insert((number, position, part), bytes)?;
    }
    Ok(())
}

/// Removes the page of these bytes.
pub(crate) fn remove(
    pages: &mut PagesTable<'_>,
    number: u64,
    position: u64,
    len: usize,
) -> Result<(), Failure> {
    for part in 0..parts_of(len)? {
        pages.remove((number, position, part))?;
    }
    Ok(())
}

/// The position of the page that the change at `position` is in, or of the last one before it.
pub(crate) fn page_at(
    pages: &impl ReadableTable<(u64, u64, u32), &'static [u8]>,
    number: u64,
    position: u64,
) -> Result<Option<u64>, Failure> {
    let until = (number, 0, 0)..=(number, position, u32::MAX);
    Ok(pages.range(until)?.next_back().transpose()?.map(|(key, _)| key.value().1))
}

/// Cuts changes into runs that make a page each.
pub(crate) fn cut(changes: &[Arc<[u8]>], changes_max: usize) -> Vec<&[Arc<[u8]>]> {
    let mut runs = Vec::new();
    let (mut from, mut size) = (0, 0);
    for (at, change) in changes.iter().enumerate() {
        if at > from && (size + change.len() > PAGE_BYTES_GOAL || at - from == changes_max) {
            runs.extend(changes.get(from..at));
            (from, size) = (at, 0);
        }
        size += change.len();
    }
    runs.extend(changes.get(from..).filter(|rest| !rest.is_empty()));
    runs
}

fn parts_of(len: usize) -> Result<u32, Failure> {
    u32::try_from(len.div_ceil(PART_BYTES)).map_err(|_| DAMAGED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changes(count: usize, len: usize) -> Vec<Arc<[u8]>> {
        (0..count).map(|at| vec![at.to_le_bytes()[0] % 7; len].into()).collect()
    }

    #[test]
    fn a_page_is_read_as_it_was_written_and_every_damage_noticed() {
        for (count, len, packs) in [(1, 0, false), (1, 3, true), (40, 30, false), (40, 30, true)] {
            let changes = changes(count, len);
            let page = encode(&changes, packs).unwrap();
            assert_eq!(*decode(&page).unwrap(), *changes);
            for bit in 0..page.len() * 8 {
                let mut damaged = page.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert!(decode(&damaged).is_err(), "bit {bit}");
            }
            for cut in 0..page.len() {
                assert!(decode(&page[..cut]).is_err(), "cut to {cut}");
            }
        }
    }

    #[test]
    fn sound_checksums_do_not_make_a_page() {
        let check = |mut head: Vec<u8>, body: &[u8]| {
            head.extend_from_slice(body);
            assert!(decode(&seal(&head)).is_err(), "{head:?}");
        };
        let head = |form: u8, sizes: [u32; 3]| {
            let mut head = vec![form];
            sizes.iter().for_each(|size| head.extend(size.to_le_bytes()));
            head
        };
        check(head(2, [1, 5, 5]), &[1, 0, 0, 0, 9]);
        check(head(0, [2, 5, 5]), &[1, 0, 0, 0, 9]);
        check(head(0, [1, 6, 5]), &[1, 0, 0, 0, 9]);
        check(head(0, [1, 5, 5]), &[2, 0, 0, 0, 9]);
        check(head(0, [0, 0, 0]), &[]);
        check(head(1, [1, u32::MAX, 5]), &[1, 0, 0, 0, 9]);
        check(head(1, [1, 5, 5]), &[1, 0, 0, 0, 9]);
        // A bomb: more bytes than its head says.
        let mut bomb = Vec::new();
        DeflateEncoder::new(&[0; 100_000][..], Compression::fast()).read_to_end(&mut bomb).unwrap();
        let stored = u32::try_from(bomb.len()).unwrap();
        check(head(1, [1, 1_000, stored]), &bomb);
    }

    #[test]
    fn runs_are_within_a_page_or_one_change() {
        let check = |sizes: &[usize], expected: &[usize]| {
            let changes: Vec<Arc<[u8]>> = sizes.iter().map(|size| vec![0; *size].into()).collect();
            let runs: Vec<_> = cut(&changes, 3).iter().map(|run| run.len()).collect();
            assert_eq!(runs, expected, "{sizes:?}");
        };
        check(&[], &[]);
        check(&[1, 1, 1, 1], &[3, 1]);
        check(&[PAGE_BYTES_GOAL - 1, 1, 1], &[2, 1]);
        check(&[1, PAGE_BYTES_GOAL + 1, 1], &[1, 1, 1]);
    }
}
