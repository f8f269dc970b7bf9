//! What somebody shows of themselves, and its bytes: JSON, with the names that the reference has.

use std::ops::Range;

use sds_engine::{Anchor, EntryId};
use sds_store::{DataStore, Side, StoreError, TextField};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::limits::PRESENCE_BYTES_MAX;

/// What somebody shows of themselves to all who have the store open.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PresenceState {
    /// What to call them.
    #[serde(rename = "UserName", default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The colour to show them in, as CSS has it.
    #[serde(rename = "UserColor", default, skip_serializing_if = "Option::is_none")]
    pub color: Option<String>,
    /// Where they are.
    #[serde(rename = "UserFocus", default, skip_serializing_if = "Option::is_none")]
    pub focus: Option<Focus>,
    /// Whatever an application shows beyond that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<Json>,
}

/// Where somebody is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Focus {
    /// The entry.
    #[serde(rename = "EntryId")]
    pub entry: EntryId,
    /// Which part of it.
    #[serde(rename = "Property", default)]
    pub property: FocusProperty,
    /// Where in its text, if it is one that can be edited.
    #[serde(rename = "Cursor", default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<Cursor>,
}

/// A part of an entry.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FocusProperty {
    /// The value of an item.
    #[default]
    Value,
    /// What the entry is called.
    Label,
    /// Its metadata.
    Info,
}

/// A selection in a text, or a cursor if both ends are one: it stays where it is while others edit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cursor {
    /// Its start.
    #[serde(with = "anchor_text")]
    pub from: Anchor,
    /// Its end.
    #[serde(with = "anchor_text")]
    pub to: Anchor,
}

/// The state is larger than [`PRESENCE_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{size} bytes of presence, where {PRESENCE_BYTES_MAX} are allowed: show less")]
pub struct PresenceTooLarge {
    /// How many bytes it has as JSON.
    pub size: usize,
}

impl Cursor {
    /// The selection of a range of UTF-16 units of a text.
    ///
    /// # Errors
    /// As [`DataStore::anchor`].
    pub fn of(
        store: &DataStore,
        entry: EntryId,
        text: TextField,
        range: Range<usize>,
    ) -> Result<Self, StoreError> {
        // Sticking to what is before it, a cursor stays behind what its owner has typed.
        let from = store.anchor(entry, text, range.start, Side::Before)?;
        let to = store.anchor(entry, text, range.end, Side::Before)?;
        Ok(Self { from, to })
    }

    /// Where the selection is now, in UTF-16 units; none if its text is not here, or was replaced.
    #[must_use]
    pub fn range(&self, store: &DataStore) -> Option<Range<usize>> {
        let (from, to) = (store.anchor_position(&self.from)?, store.anchor_position(&self.to)?);
        Some(from.min(to)..from.max(to))
    }
}

impl PresenceState {
    /// The state as it travels.
    ///
    /// # Errors
    /// If it is too large.
    pub fn encode(&self) -> Result<Vec<u8>, PresenceTooLarge> {
        // Nothing in a state fails to be JSON.
        let bytes = serde_json::to_vec(self).unwrap_or_default();
        let size = bytes.len();
        if size > PRESENCE_BYTES_MAX { Err(PresenceTooLarge { size }) } else { Ok(bytes) }
    }

    /// Reads what somebody else shows; none if it is too large or nothing of the kind. Fields that
    /// are not known are passed over.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > PRESENCE_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }
}

/// Anchors as hexadecimal digits.
mod anchor_text {
    use sds_engine::Anchor;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(anchor: &Anchor, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_str(&hex::encode(anchor.encode()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Anchor, D::Error> {
        let bytes = hex::decode(String::deserialize(from)?).map_err(D::Error::custom)?;
        Anchor::decode(&bytes).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use sds_engine::{ReplicaId, Version};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_follows_the_edits_of_others_on_every_copy() {
        let mut desk = DataStore::new(ReplicaId::new(1).unwrap());
        let mut phone = DataStore::new(ReplicaId::new(2).unwrap());
        let note = desk.new_item_at(None, EntryId::ROOT, None).unwrap();
        desk.write_value(note, "milk, bread").unwrap();
        phone.apply_remote_patch(&desk.export_patch(&Version::new())).unwrap();
        let cursor = Cursor::of(&desk, note, TextField::Value, 6..11).unwrap();
        let focus = Focus { entry: note, property: FocusProperty::Value, cursor: Some(cursor) };
        let state = PresenceState { focus: Some(focus), ..PresenceState::default() };
        phone.change_value(note, 0..0, "buy ").unwrap();
        let came = PresenceState::decode(&state.encode().unwrap()).unwrap();
        assert_eq!(came, state);
        let shown = came.focus.unwrap().cursor.unwrap().range(&phone).unwrap();
        assert_eq!(shown, 10..15);
        phone.write_value(note, "something else").unwrap();
        let shown = state.focus.unwrap().cursor.unwrap().range(&phone);
        assert_eq!(shown, None);
    }

    #[test]
    fn what_applications_add_is_kept_and_what_is_too_large_refused() {
        let custom = json!({ "tool": "pen", "page": [1, 2] });
        let mut state = PresenceState { custom: Some(custom), ..PresenceState::default() };
        state.name = Some("Ann".to_owned());
        let bytes = state.encode().unwrap();
        let json = json!({ "UserName": "Ann", "custom": { "tool": "pen", "page": [1, 2] } });
        assert_eq!(serde_json::from_slice::<Json>(&bytes).unwrap(), json);
        assert_eq!(PresenceState::decode(&bytes), Some(state.clone()));
        let newer = br#"{"UserName":"Ann","custom":{"tool":"pen","page":[1,2]},"Mood":"fine"}"#;
        assert_eq!(PresenceState::decode(newer), Some(state.clone()));
        state.name = Some("x".repeat(PRESENCE_BYTES_MAX));
        assert!(state.encode().is_err());
        let large = vec![b' '; PRESENCE_BYTES_MAX + 1];
        for bad in [b"".as_slice(), b"{", b"7", b"{\"UserName\":7}", &large] {
            assert_eq!(PresenceState::decode(bad), None);
        }
        let deep = format!("{{\"custom\":{}{}}}", "[".repeat(1_500), "]".repeat(1_500));
        assert_eq!(PresenceState::decode(deep.as_bytes()), None);
    }
}
