//! The name of a store, and of its file.

use std::fmt;
use std::fmt::Write;
use std::str::FromStr;

use crate::limits::STORE_ID_BYTES_MAX;

/// What follows the name of a store's file.
const EXTENSION: &str = ".sds";

/// Names that some file systems give to devices, whatever follows the dot.
const DEVICE_NAMES: [&str; 22] = [
    "con", "prn", "aux", "nul", "com1", "com2", "com3", "com4", "com5", "com6", "com7", "com8",
    "com9", "lpt1", "lpt2", "lpt3", "lpt4", "lpt5", "lpt6", "lpt7", "lpt8", "lpt9",
];

/// The name of a store: a short text without control characters, such as a UUID.
///
/// Invariant: 1 to [`STORE_ID_BYTES_MAX`] bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StoreId(Box<str>);

/// The text cannot name a store. Whoever chose it is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a store id: expected 1 to {STORE_ID_BYTES_MAX} bytes without control characters")]
pub struct InvalidStoreId;

impl StoreId {
    /// The store with this name.
    ///
    /// # Errors
    /// If the text is empty, too long, or has control characters.
    pub fn new(text: &str) -> Result<Self, InvalidStoreId> {
        if text.is_empty() || text.len() > STORE_ID_BYTES_MAX || text.chars().any(char::is_control)
        {
            return Err(InvalidStoreId);
        }
        Ok(Self(text.into()))
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the store's file: no two ids share one, even where upper and lower case are the
    /// same to the file system.
    ///
    /// Lower-case letters, digits and `-` stand for themselves; every other byte is `_` and two
    /// hexadecimal digits. So is the first letter of a device name such as `con`.
    #[must_use]
    pub fn file_name(&self) -> String {
        let is_device = DEVICE_NAMES.contains(&self.as_str());
        let mut name = String::with_capacity(self.0.len() + EXTENSION.len());
        for (index, byte) in self.0.bytes().enumerate() {
            let plain = byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if plain && !(is_device && index == 0) {
                name.push(char::from(byte));
            } else {
                // Writing to a string never fails.
                let _ = write!(name, "_{byte:02x}");
            }
        }
        name.push_str(EXTENSION);
        name
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for StoreId {
    type Err = InvalidStoreId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn file_name(id: &str) -> String {
        StoreId::new(id).unwrap().file_name()
    }

    #[test]
    fn usual_ids_are_their_own_file_names() {
        assert_eq!(
            file_name("0b4f2f2e-7f3e-4a53-9f0e-000000000001"),
            "0b4f2f2e-7f3e-4a53-9f0e-000000000001.sds"
        );
        assert_eq!(file_name("a_b"), "a_5fb.sds");
        assert_eq!(file_name("Ab"), "_41b.sds");
        assert_eq!(file_name("con"), "_63on.sds");
    }

    #[test]
    fn different_ids_never_share_a_file_even_without_regard_to_case() {
        let ids = [
            "a/b", "a_b", "a%b", "a b", "ab", "aB", "AB", "Ab", "a_2fb", "a_5fb", "..", ".", "con",
            "CON", "_63on", "é", "e\u{301}", "a.sds", "a",
        ];
        let names: BTreeSet<String> =
            ids.iter().map(|id| file_name(id).to_ascii_lowercase()).collect();
        assert_eq!(names.len(), ids.len());
        assert!(names.iter().all(|name| !name.contains('/') && !name.starts_with('.')));
    }

    #[test]
    fn the_longest_id_fits_a_file_name_and_one_more_byte_is_refused() {
        let longest = "é".repeat(STORE_ID_BYTES_MAX / 2);
        assert!(file_name(&longest).len() <= 255);
        assert_eq!(StoreId::new(&format!("{longest}a")), Err(InvalidStoreId));
        assert_eq!(StoreId::new(""), Err(InvalidStoreId));
        assert_eq!(StoreId::new("a\nb"), Err(InvalidStoreId));
    }
}
