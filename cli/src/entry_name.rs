//! How entries are named at the command line: by id, or the system items by word.

use std::fmt;
use std::str::FromStr;

use sds_store::{EntryId, NotAnEntryId};

/// An entry as it was named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct EntryName(pub(crate) EntryId);

impl FromStr for EntryName {
    type Err = NotAnEntryId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(match text.to_ascii_lowercase().as_str() {
            "root" => EntryId::ROOT,
            "trash" => EntryId::TRASH,
            "lost-and-found" | "lostandfound" => EntryId::LOST_AND_FOUND,
            id => id.parse()?,
        }))
    }
}

impl fmt::Display for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn system_items_have_names() {
        for (name, id) in [
            ("root", EntryId::ROOT),
            ("Trash", EntryId::TRASH),
            ("lost-and-found", EntryId::LOST_AND_FOUND),
            ("LostAndFound", EntryId::LOST_AND_FOUND),
            ("00000000-0000-4000-8000-000000000001", EntryId::TRASH),
        ] {
            assert_eq!(name.parse(), Ok(EntryName(id)));
        }
        assert_eq!("attic".parse::<EntryName>(), Err(NotAnEntryId));
    }
}
