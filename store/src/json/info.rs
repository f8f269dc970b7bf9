//! Metadata that was read from JSON and is to be set: kept as text, since a parsed value may take forty times
//! as much room. Each value is parsed when it is set, and those past the limit of edits never.

use std::fmt;
use std::ops::Range;
use std::rc::Rc;

use sds_engine::limits::CHANGE_BYTES_MAX;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::limits::INFO_VALUE_DEPTH_MAX;

/// The most bytes of JSON that one value may have: more can be in no change.
pub(super) const VALUE_TEXT_MAX: usize = CHANGE_BYTES_MAX;

/// Keys and values of one entry, one behind the other, and where each ends.
#[derive(Debug, Default)]
pub(super) struct Fields {
    text: String,
    ends: Vec<(usize, usize)>,
}

impl Fields {
    /// Adds a key with its value as JSON.
    pub(super) fn push(&mut self, key: &str, json: &str) {
        self.text.push_str(key);
        let key_end = self.text.len();
        self.text.push_str(json);
        self.ends.push((key_end, self.text.len()));
    }

    fn get(&self, at: usize) -> Option<(&str, &str)> {
        let start = at.checked_sub(1).map_or(Some(0), |before| Some(self.ends.get(before)?.1))?;
        let (key_end, end) = *self.ends.get(at)?;
        Some((self.text.get(start..key_end)?, self.text.get(key_end..end)?))
    }

    /// Whether two keys are the same.
    pub(super) fn has_key_twice(&self) -> bool {
        let key = |at: usize| self.get(at).map(|(key, _)| key);
        let mut order: Vec<usize> = (0..self.ends.len()).collect();
        order.sort_unstable_by_key(|at| key(*at));
        order.windows(2).any(|pair| matches!(pair, [one, next] if key(*one) == key(*next)))
    }
}

/// Some of the metadata of an entry, in order.
#[derive(Clone, Debug)]
pub(super) struct Info {
    fields: Rc<Fields>,
    range: Range<usize>,
}

impl From<Fields> for Info {
    fn from(fields: Fields) -> Self {
        let range = 0..fields.ends.len();
        Self { fields: Rc::new(fields), range }
    }
}

impl Info {
    pub(super) fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// Each key with its value as JSON.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.range.clone().filter_map(|at| self.fields.get(at))
    }

    /// About how many bytes it takes in a change.
    pub(super) fn size(&self) -> usize {
        self.iter().map(|(key, json)| key.len() + json.len()).sum()
    }

    /// Takes out what is more than so many bytes, about.
    pub(super) fn split_off(&mut self, bytes: usize) -> Self {
        let mut left = bytes;
        let is_more = |(key, json): (&str, &str)| {
            let is_more = left == 0;
            left = left.saturating_sub(key.len() + json.len());
            is_more
        };
        let kept = self.iter().position(is_more).unwrap_or(self.range.len());
        let at = self.range.start + kept;
        let rest = Self { fields: Rc::clone(&self.fields), range: at..self.range.end };
        self.range.end = at;
        rest
    }
}

/// Whether a text is one value of JSON that can be set: not nested too deep, and with numbers that are
/// some. Builds nothing.
pub(super) fn is_sound(json: &[u8]) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(json);
    Sound { depth: 1 }.deserialize(&mut reader).and_then(|()| reader.end()).is_ok()
}

/// Looks at a value, and at what is inside it.
#[derive(Clone, Copy)]
struct Sound {
    /// How deep an array or object would be here.
    depth: usize,
}

impl Sound {
    fn inside<E: Error>(self) -> Result<Self, E> {
        if self.depth > INFO_VALUE_DEPTH_MAX {
            return Err(E::custom("is nested too deep"));
        }
        Ok(Self { depth: self.depth + 1 })
    }
}

impl<'de> DeserializeSeed<'de> for Sound {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Sound {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while list.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_set_is_sound_and_nothing_else() {
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        let rows = [
            ("{\"a\":[1,-2,2.5e3,null,true,\"x\"]}", true),
            (&*deep(INFO_VALUE_DEPTH_MAX), true),
            (&deep(INFO_VALUE_DEPTH_MAX + 1), false),
            (&deep(10_000), false),
            ("1e999", false),
            ("[1,", false),
            ("1 2", false),
        ];
        for (json, expected) in rows {
            assert_eq!(is_sound(json.as_bytes()), expected, "{}", &json[..json.len().min(40)]);
        }
    }

    #[test]
    fn metadata_is_cut_where_it_is_too_much() {
        let mut fields = Fields::default();
        for key in ["a", "b", "c"] {
            fields.push(key, "100");
        }
        assert!(!fields.has_key_twice());
        let mut info = Info::from(fields);
        let mut rest = info.split_off(5);
        assert_eq!(info.iter().collect::<Vec<_>>(), [("a", "100"), ("b", "100")]);
        assert_eq!((info.size(), rest.size()), (8, 4));
        assert!(rest.split_off(usize::MAX).is_empty());
        assert_eq!(rest.iter().collect::<Vec<_>>(), [("c", "100")]);
        let mut twice = Fields::default();
        ["x", "a", "x"].into_iter().for_each(|key| twice.push(key, "1"));
        assert!(twice.has_key_twice());
    }
}
