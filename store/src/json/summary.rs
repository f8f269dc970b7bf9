//! What JSON holds, before it is imported.

use super::read::{JsonSource, records};
use super::record::Record;
use crate::error::StoreError;

/// What the JSON of a store or of an entry holds.
///
/// ```
/// use sds_store::JsonSummary;
///
/// # fn main() -> Result<(), sds_store::StoreError> {
/// let json = r#"{"Kind": "item", "ValueKind": "binary-reference"}"#;
/// let summary = JsonSummary::of(json)?;
/// assert_eq!((summary.entries, summary.nameless_values), (1, 1), "the content is not in there");
/// # Ok(())
/// # }
/// ```
#[non_exhaustive]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct JsonSummary {
    /// How many entries there are, the outermost one included.
    pub entries: usize,
    /// How many items have a value that is kept elsewhere, of which neither the content nor its name is
    /// there. An import leaves these values out.
    pub nameless_values: usize,
}

impl JsonSummary {
    /// Reads through the JSON. Costs its length.
    ///
    /// # Errors
    /// `invalid-argument` for what is not the JSON of an entry.
    pub fn of<'a>(json: impl Into<JsonSource<'a>>) -> Result<Self, StoreError> {
        let records = records(json.into())?;
        let nameless_values = records.iter().filter(|record| Record::is_nameless(record)).count();
        Ok(Self { entries: records.len(), nameless_values })
    }
}
