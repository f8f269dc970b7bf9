//! Packing: what was appended in small pages becomes large ones, compressed, so that a long log is
//! small and quick to read.
//!
//! One step takes a bounded number of pages, and is one transaction, so that appends do not wait
//! for long. Positions stay what they are: whoever is in the middle of a store reads on. The last
//! packed page takes more until it is full.

use std::sync::Arc;

use redb::{ReadableTable, WriteTransaction};
use sds_engine::ChangeHeader;
use sds_sync::database::Failure;
use sds_sync::{StorageError, StoreId};

use super::StoreLog;
use super::appending::first_starts;
use super::deleting::store_id;
use super::page::{self, PagesTable};
use super::tables::{PAGES, STARTS, STATES, STORES, State, number_of, state};
use crate::limits::{LOOSE_PAGES_MAX, PAGE_BYTES_GOAL, STEP_CHANGES_MAX};

impl StoreLog {
    /// Up to `max` stores of which there is something to pack, as [`pack`](Self::pack) has it.
    /// Looks at all stores.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn to_pack(&self, loose_max: u64, max: usize) -> Result<Vec<StoreId>, StorageError> {
        self.database.read(|read| {
            let states = read.open_table(STATES)?;
            let mut due = Vec::new();
            for row in read.open_table(STORES)?.iter()? {
                let (id, number) = row?;
                // One that is damaged keeps no other from being packed.
                let is_due = |state: State| state.is_due(loose_max);
                if due.len() < max && state(&states, number.value()).is_ok_and(is_due) {
                    due.extend(store_id(id.value()));
                }
            }
            Ok(due)
        })
    }

    /// Packs some of the log of `store`, if `loose_max` of its pages, or as many bytes as a page
    /// has, are as they were appended. Says whether it did: then there may be more to pack. Takes a
    /// few milliseconds.
    ///
    /// # Errors
    /// If the file cannot be read or written, or a page is damaged; then nothing has changed.
    pub fn pack(&self, store: &StoreId, loose_max: u64) -> Result<bool, StorageError> {
        let due = self.database.read(|read| {
            let Some(number) = number_of(read, store)? else { return Ok(None) };
            let state = state(&read.open_table(STATES)?, number)?;
            Ok(state.is_due(loose_max).then_some(number))
        })?;
        match due {
            Some(number) => self.write_log(|write| pack_some(write, number, loose_max)),
            None => Ok(false),
        }
    }
}

impl State {
    const fn is_due(&self, loose_max: u64) -> bool {
        self.loose_pages >= loose_max || self.loose_bytes >= PAGE_BYTES_GOAL as u64
    }
}

fn pack_some(write: &WriteTransaction, number: u64, loose_max: u64) -> Result<bool, Failure> {
    let mut states = write.open_table(STATES)?;
    let mut state = state(&states, number)?;
    if !state.is_due(loose_max) {
        return Ok(false);
    }
    let mut pages = write.open_table(PAGES)?;
    let mut taken = Taken::default();
    let from = state.open_page;
    while from + (taken.changes.len() as u64) < state.packed_until {
        taken.take(&mut pages, number, from)?;
    }
    let packed = taken.changes.len();
    let (mut loose_pages, mut loose_bytes) = (0, 0);
    while loose_pages < LOOSE_PAGES_MAX
        && loose_bytes < PAGE_BYTES_GOAL as u64
        && from + (taken.changes.len() as u64) < state.end
    {
        loose_bytes += taken.take(&mut pages, number, from)?;
        loose_pages += 1;
    }
    if taken.changes.len() == packed {
        return Err(Failure::Corrupt("the state of a store is not that of its log"));
    }
    let mut starts = write.open_table(STARTS)?;
    for (replica, start) in taken.starts {
        starts.remove((number, replica, start))?;
    }
    let mut position = from;
    for run in page::cut(&taken.changes, STEP_CHANGES_MAX) {
        state.open_page = position;
        page::write(&mut pages, number, position, &page::encode(run, true)?)?;
        for (replica, start) in first_starts(headers(run)?.into_iter()) {
            starts.insert((number, replica.as_u64(), start), position)?;
        }
        position += run.len() as u64;
    }
    state.packed_until = position;
    let last = usize::try_from(position - state.open_page).unwrap_or(usize::MAX);
    let last = taken.changes.iter().rev().take(last);
    let (count, size) = (last.len(), last.map(|change| change.len()).sum::<usize>());
    if count >= STEP_CHANGES_MAX || size >= PAGE_BYTES_GOAL / 2 {
        state.open_page = position;
    }
    state.loose_pages = state.loose_pages.saturating_sub(loose_pages);
    state.loose_bytes = state.loose_bytes.saturating_sub(loose_bytes);
    states.insert(number, state.to_row())?;
    Ok(true)
}

/// What is taken out, to be packed.
#[derive(Default)]
struct Taken {
    changes: Vec<Arc<[u8]>>,
    /// The rows that say where they are.
    starts: Vec<(u64, u64)>,
}

impl Taken {
    /// Takes out the page that is next, counted from position `from`; says how many bytes its
    /// changes have.
    fn take(&mut self, pages: &mut PagesTable<'_>, number: u64, from: u64) -> Result<u64, Failure> {
        let position = from + self.changes.len() as u64;
        let missing = Failure::Corrupt("a page of the log is missing");
        let bytes = page::read(pages, number, position)?.ok_or(missing)?;
        let changes = page::decode(&bytes)?;
        page::remove(pages, number, position, bytes.len())?;
        let starts = first_starts(headers(&changes)?.into_iter());
        self.starts.extend(starts.into_iter().map(|(replica, start)| (replica.as_u64(), start)));
        self.changes.extend(changes.iter().cloned());
        Ok(changes.iter().map(|change| change.len() as u64).sum())
    }
}

fn headers(changes: &[Arc<[u8]>]) -> Result<Vec<(sds_engine::ReplicaId, u64)>, Failure> {
    let unreadable = |_| Failure::Corrupt("a change in the log cannot be read");
    let header = |change: &Arc<[u8]>| {
        let header = ChangeHeader::decode(change).map_err(unreadable)?;
        Ok((header.replica, header.start))
    };
    changes.iter().map(header).collect()
}
