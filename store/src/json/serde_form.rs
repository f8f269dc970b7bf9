//! Entries under serde, and as `serde_json::Value`: the same objects as in the text.

use serde::ser::{Error, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use serde_json::Value as Json;

use crate::entry::Entry;
use crate::error::StoreError;
use crate::limits::VALUE_DEPTH_MAX;
use crate::store::DataStore;

impl DataStore {
    /// The whole store as a JSON value. [`DataStore::as_json`] has no bound to depth.
    ///
    /// # Errors
    /// `too-deep` if entries are nested deeper than [`VALUE_DEPTH_MAX`].
    pub fn as_json_value(&self) -> Result<Json, StoreError> {
        self.root_item().as_json_value()
    }
}

impl Entry<'_> {
    /// The entry, with all inside, as a JSON value. [`Entry::as_json`] has no bound to depth.
    ///
    /// # Errors
    /// `too-deep` if entries are nested deeper than [`VALUE_DEPTH_MAX`].
    pub fn as_json_value(&self) -> Result<Json, StoreError> {
        serde_json::to_value(self).map_err(|_| StoreError::TooDeep { max: VALUE_DEPTH_MAX })
    }

    /// Whether no more than so many levels of entries are inside, this one included.
    fn is_within(&self, depth_max: usize) -> bool {
        let mut rest = vec![(*self, 1)];
        while let Some((entry, depth)) = rest.pop() {
            if depth > depth_max {
                return false;
            }
            rest.extend(entry.inner_entries().map(|inner| (inner, depth + 1)));
        }
        true
    }
}

/// The whole store, as [`Entry`] does.
impl Serialize for DataStore {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.root_item().serialize(serializer)
    }
}

/// The object that the entry is in JSON, without the contents of blobs. Fails for entries nested deeper
/// than [`VALUE_DEPTH_MAX`], since serializers go through them by recursion.
impl Serialize for Entry<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !self.is_within(VALUE_DEPTH_MAX) {
            let error = StoreError::TooDeep { max: VALUE_DEPTH_MAX };
            return Err(S::Error::custom(error));
        }
        Shallow(*self).serialize(serializer)
    }
}

/// An entry that is known to be nested no deeper than a stack.
struct Shallow<'a>(Entry<'a>);

impl Serialize for Shallow<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (key, value) in &self.0.json_head() {
            map.serialize_entry(key, value)?;
        }
        if self.0.is_item() {
            map.serialize_entry("innerEntries", &Inside(self.0))?;
        }
        for (key, value) in &self.0.json_value(false) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// What is inside an entry.
struct Inside<'a>(Entry<'a>);

impl Serialize for Inside<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.inner_entry_count()))?;
        for inner in self.0.inner_entries() {
            list.serialize_element(&Shallow(inner))?;
        }
        list.end()
    }
}
