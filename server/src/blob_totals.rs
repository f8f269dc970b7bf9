//! How many blobs stores have, and how many bytes together: read once, and then known.
//!
//! Reading it goes over the names of all blobs of a store. Whoever wants to know reads it outside
//! of any lock; what was read while a blob came is told, and not remembered.
//!
//! Invariant: N1. What is remembered of a store is what the file has, but for what is being kept
//! just now.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::BLOB_TOTALS_MAX;

/// The blobs of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BlobTotal {
    pub(crate) count: u64,
    pub(crate) bytes: u64,
}

/// What is known of stores, by number.
#[derive(Debug, Default)]
pub(crate) struct BlobTotals {
    known: Mutex<HashMap<u64, Known>>,
}

#[derive(Debug, Default)]
struct Known {
    total: Option<BlobTotal>,
    /// How many read it just now.
    readers: u32,
    /// How many blobs are being kept just now.
    keeping: u32,
    /// How many there ever were.
    kept: u64,
}

/// A blob of a store that is being kept. Dropped without [`done`](Self::done) nobody knows whether
/// it is.
#[derive(Debug)]
pub(crate) struct Keeping<'a> {
    totals: &'a BlobTotals,
    owner: u64,
    is_done: bool,
}

impl BlobTotals {
    /// The blobs of a store, which `read` reads as they are when it is called.
    ///
    /// # Errors
    /// What `read` fails with.
    pub(crate) fn get<E>(
        &self,
        owner: u64,
        read: impl FnOnce() -> Result<BlobTotal, E>,
    ) -> Result<BlobTotal, E> {
        let begun = {
            let mut all = self.lock();
            if all.len() >= BLOB_TOTALS_MAX {
                all.retain(|_, known| known.readers + known.keeping > 0);
            }
            let known = all.entry(owner).or_default();
            if let Some(total) = known.total {
                return Ok(total);
            }
            known.readers += 1;
            (known.keeping == 0).then_some(known.kept)
        };
        let total = read();
        if let Some(known) = self.lock().get_mut(&owner) {
            known.readers -= 1;
            if let Ok(total) = &total
                && begun == Some(known.kept)
            {
                known.total = Some(*total);
            }
        }
        total
    }

    /// Notes that a blob of a store is about to be kept.
    pub(crate) fn keep(&self, owner: u64) -> Keeping<'_> {
        let mut all = self.lock();
        let known = all.entry(owner).or_default();
        known.keeping += 1;
        known.kept += 1;
        drop(all);
        Keeping { totals: self, owner, is_done: false }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u64, Known>> {
        // No code under this lock can leave an entry half changed.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keeping<'_> {
    /// The file has one more blob of so many bytes, or no other than before.
    pub(crate) fn done(mut self, new: Option<u64>) {
        self.is_done = true;
        if let Some(known) = self.totals.lock().get_mut(&self.owner)
            && let (Some(total), Some(bytes)) = (&mut known.total, new)
        {
            total.count += 1;
            total.bytes = total.bytes.saturating_add(bytes);
        }
    }
}

impl Drop for Keeping<'_> {
    fn drop(&mut self) {
        if let Some(known) = self.totals.lock().get_mut(&self.owner) {
            known.keeping -= 1;
            if !self.is_done {
                known.total = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn read(totals: &BlobTotals, count: u64) -> u64 {
        let read = || Ok::<_, Infallible>(BlobTotal { count, bytes: 10 * count });
        let Ok(total) = totals.get(1, read);
        assert_eq!(total.bytes, 10 * total.count);
        total.count
    }

    #[test]
    fn what_was_read_is_known_and_goes_on_with_what_is_kept() {
        let totals = BlobTotals::default();
        assert_eq!((read(&totals, 3), read(&totals, 99)), (3, 3));
        totals.keep(1).done(Some(10));
        assert_eq!(read(&totals, 99), 4);
        totals.keep(1).done(None);
        assert_eq!(read(&totals, 99), 4, "the store had it already");
        drop(totals.keep(1));
        assert_eq!(read(&totals, 5), 5, "nobody knew");
    }

    #[test]
    fn what_was_read_while_a_blob_came_is_not_remembered() {
        let totals = BlobTotals::default();
        let during = totals.keep(1);
        assert_eq!(read(&totals, 3), 3);
        during.done(Some(10));
        assert_eq!(read(&totals, 4), 4, "it is read again");
        let totals = BlobTotals::default();
        let Ok(total) = totals.get(1, || {
            totals.keep(1).done(Some(10));
            Ok::<_, Infallible>(BlobTotal::default())
        });
        assert_eq!((total.count, read(&totals, 1)), (0, 1));
    }

    #[test]
    fn no_more_stores_are_remembered_than_there_may_be() {
        let totals = BlobTotals::default();
        let read = || Ok::<_, Infallible>(BlobTotal::default());
        let kept = totals.keep(0);
        for owner in 0..=BLOB_TOTALS_MAX as u64 {
            let Ok(_) = totals.get(owner, read);
        }
        assert!(totals.lock().len() <= BLOB_TOTALS_MAX);
        kept.done(None);
        assert_eq!(totals.lock()[&0].keeping, 0);
    }
}
