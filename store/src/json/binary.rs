//! An entry as bytes: its JSON, compressed with gzip.

use std::io::Write;

use flate2::Compression;
use flate2::bufread::GzDecoder;
use flate2::write::GzEncoder;
use sds_engine::EntryId;

use super::read::JsonSource;
use super::write::JsonOptions;
use crate::entry::Entry;
use crate::error::StoreError;
use crate::store::DataStore;

impl Entry<'_> {
    /// The entry, with all inside, as gzip of its JSON, without the contents of blobs.
    #[must_use]
    pub fn as_binary(&self) -> Vec<u8> {
        self.as_binary_with(JsonOptions::default())
    }

    /// The same, with the contents of blobs if the options say so.
    #[must_use]
    pub fn as_binary_with(&self, options: JsonOptions) -> Vec<u8> {
        let mut packed = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory does not fail.
        drop(self.write_json_with(&mut packed, options));
        drop(packed.flush());
        packed.finish().unwrap_or_default()
    }
}

impl DataStore {
    /// Creates a copy of an entry with all inside from its bytes ([`Entry::as_binary`]), as
    /// [`DataStore::new_entry_from_json_at`] does from JSON.
    ///
    /// # Errors
    /// As there; `invalid-argument` also for bytes that are no gzip, or unfold to more than
    /// [`IMPORT_BYTES_MAX`](crate::limits::IMPORT_BYTES_MAX).
    pub fn new_entry_from_binary_at(
        &mut self,
        binary: &[u8],
        outer: EntryId,
        index: Option<usize>,
    ) -> Result<EntryId, StoreError> {
        let mut unpacked = GzDecoder::new(binary);
        self.new_entry_from_json_at(JsonSource::Reader(&mut unpacked), outer, index)
    }
}
