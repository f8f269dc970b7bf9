//! What an item holds, as its users see it.

use std::sync::Arc;

use sds_engine::BlobRef;

/// How an item's value is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// An item's value, as far as it is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ItemValue {
    /// There is none.
    None,
    /// A text, kept inline or as a blob.
    Text(String),
    /// Bytes, kept inline or as a blob.
    Bytes(Arc<[u8]>),
    /// A blob that has not been fetched.
    Pending(BlobRef),
}
