//! What those are told who open a store: the large ones of these versions are kept for a while, so
//! that many who open one at a time share the bytes.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

use crate::limits::{LEAVING_FREE_BYTES, TOLD_VERSIONS_BYTES_MAX};

/// Store number, and how many changes its log has: what there is follows from these.
pub(super) type ToldKey = (u64, u64);

/// The versions that somebody was told of late, the last one first.
#[derive(Debug, Default)]
pub(super) struct ToldVersions(Mutex<VecDeque<(ToldKey, Bytes)>>);

impl ToldVersions {
    pub(super) fn find(&self, key: ToldKey) -> Option<Bytes> {
        self.with(|told| {
            let at = told.iter().position(|(known, _)| *known == key)?;
            let entry = told.remove(at)?;
            told.push_front(entry);
            told.front().map(|(_, version)| version.clone())
        })
    }

    /// Keeps a version if it is large; gives back the bytes to be shared.
    pub(super) fn keep(&self, key: ToldKey, version: Vec<u8>) -> Bytes {
        let version = Bytes::from(version);
        if version.len() <= LEAVING_FREE_BYTES {
            return version;
        }
        self.with(|told| {
            if let Some((_, same)) = told.iter().find(|(known, _)| *known == key) {
                // Somebody else was faster.
                return same.clone();
            }
            // An older one of the store is of no use to those who come from now on.
            told.retain(|((number, _), _)| *number != key.0);
            told.push_front((key, version.clone()));
            let mut bytes: usize = told.iter().map(|(_, version)| version.len()).sum();
            while bytes > TOLD_VERSIONS_BYTES_MAX
                && let Some((_, oldest)) = told.pop_back()
            {
                bytes -= oldest.len();
            }
            version
        })
    }

    fn with<T>(&self, work: impl FnOnce(&mut VecDeque<(ToldKey, Bytes)>) -> T) -> T {
        // No code under this lock can leave an entry half made.
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn large(size: usize) -> Vec<u8> {
        vec![7; size]
    }

    #[test]
    fn who_opens_a_large_store_as_it_is_shares_what_it_is_told() {
        let told = ToldVersions::default();
        let first = told.keep((1, 5), large(LEAVING_FREE_BYTES + 1));
        let second = told.keep((1, 5), large(LEAVING_FREE_BYTES + 1));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_eq!(told.find((1, 5)).unwrap().as_ptr(), first.as_ptr());
        told.keep((1, 6), large(LEAVING_FREE_BYTES + 1));
        assert_eq!(told.find((1, 5)), None, "it is not as it was");
        told.keep((2, 1), large(LEAVING_FREE_BYTES));
        assert_eq!(told.find((2, 1)), None, "a small one is not kept");
    }

    #[test]
    fn only_so_many_bytes_are_kept() {
        let told = ToldVersions::default();
        let half = TOLD_VERSIONS_BYTES_MAX / 2;
        told.keep((1, 1), large(half));
        told.keep((2, 1), large(half));
        assert!(told.find((1, 1)).is_some(), "the bound is free");
        told.keep((3, 1), large(half));
        let is_kept = |number| told.find((number, 1)).is_some();
        assert_eq!([1, 2, 3].map(is_kept), [true, false, true], "the one told longest ago goes");
        let larger = told.keep((4, 1), large(TOLD_VERSIONS_BYTES_MAX + 1));
        assert_eq!(larger.len(), TOLD_VERSIONS_BYTES_MAX + 1);
        assert!(![1, 3, 4].into_iter().any(is_kept));
    }
}
