//! Metadata under keys of one's own.

use sds_engine::{EntryId, Field, Value, ValueRef};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::checks::{check_depth, check_len, check_length};
use super::finite::check_finite;
use crate::entry::TRASHED_AT;
use crate::error::StoreError;
use crate::limits::{INFO_KEY_LENGTH_MAX, INFO_VALUE_BYTES_MAX};
use crate::store::DataStore;

impl DataStore {
    /// Sets the metadata under `key` to anything that is JSON; of concurrent settings the newest wins.
    /// JSON's null is a value like any other.
    ///
    /// ```
    /// use sds_store::{DataStore, EntryId, ReplicaId};
    /// use serde_json::json;
    ///
    /// # fn main() -> Result<(), sds_store::StoreError> {
    /// let mut store = DataStore::new(ReplicaId::new(1).unwrap());
    /// let task = store.new_item_at(None, EntryId::ROOT, None)?;
    /// store.set_info(task, "done", &false)?;
    /// store.set_info(task, "tags", &["home", "soon"])?;
    /// assert_eq!(store.entry(task)?.info("tags"), Some(json!(["home", "soon"])));
    /// store.delete_info(task, "done")?;
    /// assert_eq!(store.entry(task)?.info_keys().collect::<Vec<_>>(), ["tags"]);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `not-found`; `invalid-argument` unless the key has 1 to 1,024 UTF-16 units and is not
    /// `_trashedAt`, for what JSON cannot say (infinities and what is no number too), past 262,144 bytes of
    /// JSON, or past a hundred levels of arrays and objects.
    pub fn set_info(
        &mut self,
        entry: EntryId,
        key: &str,
        value: &(impl Serialize + ?Sized),
    ) -> Result<(), StoreError> {
        let value = check_finite(value).and_then(|()| serde_json::to_value(value));
        let value = value.map_err(|_| {
            let rule = "must be something that JSON can say";
            StoreError::InvalidArgument { what: "info value", rule }
        })?;
        self.set_info_json(entry, key, value)
    }

    /// Removes the metadata under `key`; nothing happens if there is none.
    ///
    /// # Errors
    /// `not-found` for an unknown entry, `invalid-argument` for `_trashedAt`.
    pub fn delete_info(&mut self, entry: EntryId, key: &str) -> Result<(), StoreError> {
        self.require_entry(entry)?;
        check_free(key)?;
        let field = Field::Info(key.into());
        if matches!(self.replica().value_ref(entry, &field), ValueRef::None) {
            return Ok(());
        }
        self.set(entry, field, Value::None)
    }

    /// Sets metadata to a value that somebody else has written as JSON.
    ///
    /// # Errors
    /// As for [`DataStore::set_info`]; a value past the limit is not parsed.
    pub(crate) fn set_info_text(
        &mut self,
        entry: EntryId,
        key: &str,
        json: &str,
    ) -> Result<(), StoreError> {
        check_len("info value", json.len(), INFO_VALUE_BYTES_MAX)?;
        self.set_info_json(entry, key, parsed(json)?)
    }

    /// The same for what may have been merged, or made by another program, past the limits. What is past
    /// them is taken as it stands there.
    pub(crate) fn set_merged_info(
        &mut self,
        entry: EntryId,
        key: &str,
        json: &str,
    ) -> Result<(), StoreError> {
        check_free(key)?;
        let value = match json.len() {
            0..=INFO_VALUE_BYTES_MAX => value_of(parsed(json)?),
            _ if json.starts_with('"') => Value::Text(parsed(json)?),
            _ => Value::Json(json.to_owned()),
        };
        self.set(entry, Field::Info(key.into()), value)
    }

    /// Whether the metadata under `key` is what a JSON text says. Text past the limit is parsed only where
    /// what is here is as long.
    pub(crate) fn is_info(
        &self,
        entry: EntryId,
        key: &str,
        json: &str,
    ) -> Result<bool, StoreError> {
        let is_large = |len: usize| len > INFO_VALUE_BYTES_MAX;
        Ok(match self.replica().value_ref(entry, &Field::Info(key.into())) {
            ValueRef::None => false,
            ValueRef::Text(here) => {
                parsed::<String>(json).is_ok_and(|text| here.into_cow() == text)
            }
            ValueRef::Json(here) if is_large(json.len()) && !is_large(here.len()) => false,
            ValueRef::Json(_) => self.entry(entry)?.info(key) == Some(parsed(json)?),
            _ if is_large(json.len()) => false,
            _ => self.entry(entry)?.info(key) == Some(parsed(json)?),
        })
    }

    fn set_info_json(&mut self, entry: EntryId, key: &str, value: Json) -> Result<(), StoreError> {
        check_length("info key", key, 1, INFO_KEY_LENGTH_MAX)?;
        check_free(key)?;
        check_depth(&value)?;
        check_len("info value", value.to_string().len(), INFO_VALUE_BYTES_MAX)?;
        self.set(entry, Field::Info(key.into()), value_of(value))
    }
}

fn parsed<T: DeserializeOwned>(json: &str) -> Result<T, StoreError> {
    let rule = "must be JSON";
    serde_json::from_str(json).map_err(|_| StoreError::InvalidArgument { what: "info value", rule })
}

/// How metadata is kept.
fn value_of(value: Json) -> Value {
    match value {
        Json::Bool(value) => Value::Bool(value),
        Json::String(text) => Value::Text(text),
        Json::Number(number) => match (number.as_i64(), number.is_f64(), number.as_f64()) {
            (Some(number), ..) => Value::Int(number),
            (None, true, Some(number)) => Value::Float(number),
            _ => Value::Json(number.to_string()),
        },
        other => Value::Json(other.to_string()),
    }
}

/// That a key is nobody else's.
fn check_free(key: &str) -> Result<(), StoreError> {
    match key {
        TRASHED_AT => Err(StoreError::InvalidArgument {
            what: "info key",
            rule: "_trashedAt is set by deleting, and removed by restoring",
        }),
        _ => Ok(()),
    }
}
