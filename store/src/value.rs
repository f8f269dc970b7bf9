//! What an item holds, as its users see it.

use std::fmt;
use std::sync::Arc;

use sds_engine::BlobRef;
use serde::{Deserialize, Serialize};

/// How an item's value is kept.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ValueKind {
    /// There is none.
    None,
    /// Text inside the changes; its characters can be edited.
    Literal,
    /// Text kept as a blob.
    LiteralReference,
    /// Bytes inside the changes.
    Binary,
    /// Bytes kept as a blob.
    BinaryReference,
}

impl ValueKind {
    /// The name used in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Literal => "literal",
            Self::LiteralReference => "literal-reference",
            Self::Binary => "binary",
            Self::BinaryReference => "binary-reference",
        }
    }

    /// The kind of this name.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let all = [
            Self::None,
            Self::Literal,
            Self::LiteralReference,
            Self::Binary,
            Self::BinaryReference,
        ];
        all.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the value is a text, wherever it is kept.
    #[must_use]
    pub const fn is_literal(self) -> bool {
        matches!(self, Self::Literal | Self::LiteralReference)
    }

    /// Whether the value is bytes, wherever they are kept.
    #[must_use]
    pub const fn is_binary(self) -> bool {
        matches!(self, Self::Binary | Self::BinaryReference)
    }
}

impl fmt::Display for ValueKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An item's value, as far as it is at hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ItemValue {
    /// There is none.
    None,
    /// A text, kept inline or as a blob.
    Text(String),
    /// Bytes, kept inline or as a blob.
    Bytes(#[serde(with = "base64_text")] Arc<[u8]>),
    /// A blob that has not been fetched.
    Pending(BlobRef),
}

impl ItemValue {
    /// The text, if the value is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    /// The bytes, if the value is no text.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        if let Self::Bytes(bytes) = self { Some(bytes) } else { None }
    }
}

/// A value to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NewValue {
    /// No value.
    None,
    /// A text; past the limit for inline texts it is kept as a blob.
    Text(String),
    /// Bytes; past the limit for inline bytes they are kept as a blob.
    Bytes(#[serde(with = "base64_text")] Vec<u8>),
}

impl From<&str> for NewValue {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<&String> for NewValue {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<String> for NewValue {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&[u8]> for NewValue {
    fn from(bytes: &[u8]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl<const N: usize> From<&[u8; N]> for NewValue {
    fn from(bytes: &[u8; N]) -> Self {
        Self::Bytes(bytes.to_vec())
    }
}

impl From<Vec<u8>> for NewValue {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}

impl<T: Into<Self>> From<Option<T>> for NewValue {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::None, Into::into)
    }
}

/// Bytes as base64 under serde.
mod base64_text {
    use base64::Engine;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: &impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes.as_ref()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: From<Vec<u8>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(T::from).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use sds_engine::BlobHash;
    use serde::de::DeserializeOwned;
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::anchor::TextField;

    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T, expected: Json) {
        let found = serde_json::to_value(&value).unwrap();
        assert_eq!(found, expected);
        assert_eq!(serde_json::from_value::<T>(found).unwrap(), value);
    }

    #[test]
    fn values_come_back_from_what_serde_makes_of_them() {
        let blob = BlobRef { hash: BlobHash([7; 32]), size: 9, is_text: true };
        let named = serde_json::to_value(blob).unwrap();
        check(ItemValue::None, json!("None"));
        check(ItemValue::Text("a\u{e9}".into()), json!({"Text": "a\u{e9}"}));
        check(ItemValue::Bytes([0, 255].into()), json!({"Bytes": "AP8="}));
        check(ItemValue::Pending(blob), json!({"Pending": named}));
        check(NewValue::None, json!("None"));
        check(NewValue::Text(String::new()), json!({"Text": ""}));
        check(NewValue::Bytes(vec![]), json!({"Bytes": ""}));
        for (kind, name) in [
            (ValueKind::None, "none"),
            (ValueKind::Literal, "literal"),
            (ValueKind::LiteralReference, "literal-reference"),
            (ValueKind::Binary, "binary"),
            (ValueKind::BinaryReference, "binary-reference"),
        ] {
            check(kind, json!(name));
            assert_eq!((kind.name(), ValueKind::named(name)), (name, Some(kind)));
        }
        for field in [TextField::Label, TextField::Value] {
            let json = serde_json::to_value(field).unwrap();
            check(field, json);
        }
        assert!(serde_json::from_value::<ItemValue>(json!({"Bytes": "no base64"})).is_err());
    }
}
