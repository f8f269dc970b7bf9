//! What a field may hold.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

/// Which property of an entry a register is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// What the entry is called.
    Label,
    /// MIME type of the value.
    Type,
    /// The content.
    Value,
    /// Free metadata under a key of 1 to `INFO_KEY_BYTES_MAX` UTF-8 bytes.
    Info(Box<str>),
}

impl Field {
    /// How many bytes the field's own key has.
    pub(crate) fn size(&self) -> usize {
        match self {
            Self::Info(key) => key.len(),
            _ => 0,
        }
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label => f.write_str("Label"),
            Self::Type => f.write_str("Type"),
            Self::Value => f.write_str("Value"),
            Self::Info(key) => write!(f, "Info.{key}"),
        }
    }
}

/// SHA-256 of a blob: its name everywhere.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The text is not a blob's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a blob's hash: expected 64 hexadecimal digits")]
pub struct NotABlobHash;

impl FromStr for BlobHash {
    type Err = NotABlobHash;

    fn from_str(text: &str) -> Result<Self, NotABlobHash> {
        let mut hash = [0; 32];
        if text.len() != 2 * hash.len() || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(NotABlobHash);
        }
        for (byte, digits) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| NotABlobHash)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| NotABlobHash)?;
        }
        Ok(Self(hash))
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A content kept outside the changes, named by its hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlobRef {
    /// SHA-256 of the bytes.
    pub hash: BlobHash,
    /// Length in bytes.
    pub size: u64,
    /// Whether the bytes are UTF-8 text rather than binary.
    pub is_text: bool,
}

/// The value of a register.
///
/// Setting one replaces it whole. A text can also be spliced: then concurrent splices merge.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: what a field holds that was never set, or was cleared.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A floating-point number; two are equal when their bits are.
    Float(f64),
    /// A text that can be spliced.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// Any other JSON value, as its text; the engine does not look inside.
    Json(String),
    /// A blob by reference.
    Blob(BlobRef),
}

/// The same, borrowed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ValueView<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Json(&'a str),
    Blob(BlobRef),
}

impl ValueView<'_> {
    pub(crate) fn to_value(self) -> Value {
        match self {
            Self::None => Value::None,
            Self::Bool(value) => Value::Bool(value),
            Self::Int(number) => Value::Int(number),
            Self::Float(number) => Value::Float(number),
            Self::Text(text) => Value::Text(text.to_owned()),
            Self::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Self::Json(text) => Value::Json(text.to_owned()),
            Self::Blob(blob) => Value::Blob(blob),
        }
    }

    /// How many bytes the value's content has, about.
    pub(crate) const fn size(self) -> usize {
        match self {
            Self::Text(text) | Self::Json(text) => text.len(),
            Self::Bytes(bytes) => bytes.len(),
            Self::Blob(_) => size_of::<BlobRef>(),
            Self::None | Self::Bool(_) | Self::Int(_) | Self::Float(_) => 0,
        }
    }
}

impl Value {
    pub(crate) fn view(&self) -> ValueView<'_> {
        match self {
            Self::None => ValueView::None,
            Self::Bool(value) => ValueView::Bool(*value),
            Self::Int(number) => ValueView::Int(*number),
            Self::Float(number) => ValueView::Float(*number),
            Self::Text(text) => ValueView::Text(text),
            Self::Bytes(bytes) => ValueView::Bytes(bytes),
            Self::Json(text) => ValueView::Json(text),
            Self::Blob(blob) => ValueView::Blob(*blob),
        }
    }

    /// How many bytes the value's content has, about.
    pub(crate) fn size(&self) -> usize {
        self.view().size()
    }

    /// How many counters setting this value takes: one for each character of a text, at least one.
    pub(crate) fn span(&self) -> u64 {
        match self {
            Self::Text(text) => char_count(text).max(1),
            _ => 1,
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Float(a), Self::Float(b)) => a.total_cmp(b) == Ordering::Equal,
            (Self::Text(a), Self::Text(b)) | (Self::Json(a), Self::Json(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Blob(a), Self::Blob(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

/// The text cut behind so many characters, or as many as there are. Costs the first part.
pub(crate) fn split_chars(text: &str, chars: usize) -> (&str, &str) {
    let is_ascii = text.as_bytes().get(..chars).is_some_and(<[u8]>::is_ascii);
    let at = if is_ascii {
        chars
    } else {
        text.char_indices().nth(chars).map_or(text.len(), |(byte, _)| byte)
    };
    text.split_at(at)
}

/// Number of Unicode scalar values.
pub(crate) fn char_count(text: &str) -> u64 {
    // Most texts are ASCII, where bytes are characters.
    (if text.is_ascii() { text.len() } else { text.chars().count() }) as u64
}
