//! A state on its way in a patch, to be looked at before it is joined.

use std::sync::Arc;

use super::StateReader;
use crate::error::DecodeError;
use crate::id::EntryId;
use crate::limits::PATCH_LAMPORT_MAX;
use crate::state::{Piece, Times};
use crate::value::Field;
use crate::version::Version;

/// A state in a patch: what stands for changes whose bytes are gone
/// ([`Replica::compact`](crate::Replica::compact)). It was read to its end, so that joining it cannot fail
/// for its form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatchState {
    times: Vec<Times>,
    entry_count: usize,
    bytes: Arc<[u8]>,
}

impl PatchState {
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let reader = StateReader::new(bytes)?;
        let entry_count = reader.entry_count();
        let times = reader.read_entries(|_, _| {})?;
        let newest = times.iter().filter_map(|one| one.pieces.last()).map(Piece::newest).max();
        if newest.is_some_and(|newest| newest > PATCH_LAMPORT_MAX) {
            return Err(DecodeError::Malformed { at: 0, what: "times out of range" });
        }
        Ok(Self { times, entry_count, bytes: bytes.into() })
    }

    /// The ops that it stands for: whoever joins it has seen them all.
    #[must_use]
    pub fn version(&self) -> Version {
        let mut version = Version::new();
        self.times.iter().for_each(|one| version.advance(one.author, one.next()));
        version
    }

    /// How many changes it stands for.
    #[must_use]
    pub fn change_count(&self) -> u64 {
        let pieces = self.times.iter().flat_map(|one| &one.pieces);
        pieces.fold(0, |sum, piece| piece.count.saturating_add(sum))
    }

    /// How many entries it tells of, those included that were purged.
    #[must_use]
    pub const fn entry_count(&self) -> usize {
        self.entry_count
    }

    /// Hands over each entry with the fields that it holds. Reads the state once more.
    pub fn for_each_entry(&self, mut each: impl FnMut(EntryId, &mut dyn Iterator<Item = &Field>)) {
        // It could be read before.
        let read = StateReader::new(&self.bytes).and_then(|reader| {
            reader.read_entries(|entry, names| {
                each(entry.id, &mut entry.fields.iter().map(|record| names.field(record.field)));
            })
        });
        debug_assert!(read.is_ok(), "{read:?}");
    }

    /// The state's bytes, as they stand in the patch.
    #[must_use]
    pub const fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    pub(crate) fn into_parts(self) -> (Vec<Times>, Arc<[u8]>) {
        (self.times, self.bytes)
    }
}
