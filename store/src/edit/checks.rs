//! Arguments against their limits.

use serde_json::Value as Json;

use crate::error::StoreError;
use crate::limits::INFO_VALUE_DEPTH_MAX;
use crate::text_diff::utf16_len;

/// That a text has at least `min` and at most `max` UTF-16 units.
pub(super) fn check_length(
    what: &'static str,
    text: &str,
    min: usize,
    max: usize,
) -> Result<(), StoreError> {
    let len = utf16_len(text);
    if len < min {
        return Err(StoreError::InvalidArgument { what, rule: "must not be empty" });
    }
    check_len(what, len, max)
}

pub(super) const fn check_len(
    what: &'static str,
    len: usize,
    max: usize,
) -> Result<(), StoreError> {
    if len <= max { Ok(()) } else { Err(StoreError::TooLong { what, len, max }) }
}

/// That a text which was merged past its limit may still be made shorter, but no longer.
pub(super) fn check_growth(
    what: &'static str,
    (before, after): (usize, usize),
    max: usize,
) -> Result<(), StoreError> {
    check_len(what, after, max.max(before))
}

/// That a value is not nested deeper than whoever reads it can follow. Not by recursion: the value may
/// be of any depth.
pub(crate) fn check_depth(value: &Json) -> Result<(), StoreError> {
    let mut rest = vec![(value, 1)];
    while let Some((value, depth)) = rest.pop() {
        let is_nested = value.is_array() || value.is_object();
        if is_nested && depth > INFO_VALUE_DEPTH_MAX {
            return Err(StoreError::InvalidArgument {
                what: "info value",
                rule: "is nested too deep",
            });
        }
        match value {
            Json::Array(inner) => rest.extend(inner.iter().map(|one| (one, depth + 1))),
            Json::Object(inner) => rest.extend(inner.values().map(|one| (one, depth + 1))),
            _ => {}
        }
    }
    Ok(())
}
