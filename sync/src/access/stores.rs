//! Which stores a token opens.

use std::fmt;

use crate::limits::{STORE_ID_BYTES_MAX, TOKEN_STORES_MAX};
use crate::store_id::StoreId;

/// Stores by name, or by how their names begin.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum StorePattern {
    /// This one.
    One(StoreId),
    /// Those whose names begin with this; all, if it is empty.
    Prefix(Box<str>),
}

/// What a token says does not name stores.
#[non_exhaustive]
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidStores {
    /// A pattern is none.
    #[error("not a store id, nor the beginning of one with * behind it")]
    Pattern,
    /// Not as many as a token may have.
    #[error("expected 1 to {TOKEN_STORES_MAX} stores")]
    Count,
    /// Neither one store nor several, or both.
    #[error("expected either one store or a list of them")]
    Claims,
}

impl StorePattern {
    /// Reads a pattern: with `*` at its end all stores that begin with what is before it, else one store.
    fn parse(text: &str) -> Result<Self, InvalidStores> {
        let Some(prefix) = text.strip_suffix('*') else {
            return StoreId::new(text).map(Self::One).map_err(|_| InvalidStores::Pattern);
        };
        if prefix.len() > STORE_ID_BYTES_MAX || prefix.chars().any(char::is_control) {
            return Err(InvalidStores::Pattern);
        }
        Ok(Self::Prefix(prefix.into()))
    }

    /// Whether `store` is one of them.
    fn contains(&self, store: &str) -> bool {
        match self {
            Self::One(one) => one.as_str() == store,
            Self::Prefix(prefix) => store.starts_with(&**prefix),
        }
    }

    /// Whether all of `other` are among them.
    fn covers(&self, other: &Self) -> bool {
        match other {
            Self::One(one) => self.contains(one.as_str()),
            Self::Prefix(longer) => {
                matches!(self, Self::Prefix(prefix) if longer.starts_with(&**prefix))
            }
        }
    }
}

impl fmt::Display for StorePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(store) => store.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

/// The stores that a token opens.
///
/// Invariants:
/// - 1 to [`TOKEN_STORES_MAX`] patterns. One store may have any name; among several none ends
///   with `*`, which would stand for more when it is written down.
/// - Sorted, and none is within another: the same patterns are equal however they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreSet(Vec<StorePattern>);

impl StoreSet {
    /// Reads patterns: with `*` at its end one stands for all stores that begin with what is before it,
    /// else for one store.
    ///
    /// # Errors
    /// If one is none, or there are none or too many.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, InvalidStores> {
        if texts.is_empty() || texts.len() > TOKEN_STORES_MAX {
            return Err(InvalidStores::Count);
        }
        let patterns = texts.iter().map(|text| StorePattern::parse(text.as_ref()));
        let mut patterns: Vec<_> = patterns.collect::<Result<_, _>>()?;
        patterns.sort_unstable();
        patterns.dedup();
        let all = patterns.clone();
        patterns.retain(|one| !all.iter().any(|other| other != one && other.covers(one)));
        Ok(Self(patterns))
    }

    /// Reads what a token says: exactly one of one store by name, and patterns.
    ///
    /// # Errors
    /// If that names no stores.
    pub fn from_claims<T: AsRef<str>>(
        store: Option<&str>,
        patterns: Option<&[T]>,
    ) -> Result<Self, InvalidStores> {
        match (store, patterns) {
            (Some(store), None) => {
                Ok(StoreId::new(store).map_err(|_| InvalidStores::Pattern)?.into())
            }
            (None, Some(patterns)) => Self::parse(patterns),
            _ => Err(InvalidStores::Claims),
        }
    }

    /// What a token says: one store by name, or patterns.
    #[must_use]
    pub fn to_claims(&self) -> (Option<String>, Option<Vec<String>>) {
        match self.single() {
            Some(store) => (Some(store.as_str().to_owned()), None),
            None => (None, Some(self.0.iter().map(ToString::to_string).collect())),
        }
    }

    /// All stores.
    #[must_use]
    pub fn all() -> Self {
        Self(vec![StorePattern::Prefix("".into())])
    }

    /// Whether `store` is one of them.
    #[must_use]
    pub fn contains(&self, store: &str) -> bool {
        self.0.iter().any(|pattern| pattern.contains(store))
    }

    /// Where among all ids, which begins behind `store`, the next ones may be that are among them; for one
    /// that is not.
    #[must_use]
    pub fn next_after(&self, store: &str) -> Option<&str> {
        let beginnings = self.0.iter().map(|pattern| match pattern {
            StorePattern::One(store) => store.as_str(),
            StorePattern::Prefix(prefix) => prefix,
        });
        beginnings.filter(|beginning| *beginning > store).min()
    }

    /// Whether each pattern of `other` is within one of these.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.0.iter().all(|inner| self.0.iter().any(|outer| outer.covers(inner)))
    }

    /// Whether some store may be among both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let is_shared =
            |(one, two): (&StorePattern, &StorePattern)| one.covers(two) || two.covers(one);
        self.0.iter().any(|one| other.0.iter().any(|two| is_shared((one, two))))
    }

    /// Whether all stores are among them, also those to come.
    #[must_use]
    pub fn is_all(&self) -> bool {
        self.covers(&Self::all())
    }

    /// The only store, if it is one by name.
    #[must_use]
    pub fn single(&self) -> Option<&StoreId> {
        match &*self.0 {
            [StorePattern::One(store)] => Some(store),
            _ => None,
        }
    }
}

impl From<StoreId> for StoreSet {
    fn from(store: StoreId) -> Self {
        Self(vec![StorePattern::One(store)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(patterns: &[&str]) -> StoreSet {
        StoreSet::parse(patterns).unwrap()
    }

    #[test]
    fn patterns_name_one_store_or_all_with_a_beginning() {
        let rows = [
            ("a", "a", true),
            ("a", "ab", false),
            ("a*", "a", true),
            ("a*", "ab", true),
            ("a*", "A", false),
            ("a*", "ba", false),
            ("*", "anything", true),
            ("a*b", "a*b", true),
            ("a*b", "axb", false),
            ("é*", "éa", true),
            ("a**", "a*", true),
            ("a**", "ab", false),
        ];
        for (pattern, store, expected) in rows {
            assert_eq!(set(&[pattern]).contains(store), expected, "{pattern} {store}");
            assert_eq!(StorePattern::parse(pattern).unwrap().to_string(), pattern);
        }
    }

    #[test]
    fn patterns_have_the_bounds_of_store_ids() {
        let longest = "x".repeat(STORE_ID_BYTES_MAX);
        assert!(StorePattern::parse(&longest).is_ok());
        assert!(StorePattern::parse(&format!("{longest}*")).is_ok());
        for bad in ["", "a\n", "a\n*", &format!("{longest}x"), &format!("{longest}x*")] {
            assert_eq!(StorePattern::parse(bad), Err(InvalidStores::Pattern), "{bad:?}");
        }
        assert!(StoreSet::parse(&["a"; TOKEN_STORES_MAX]).is_ok());
        let many = StoreSet::parse(&["a"; TOKEN_STORES_MAX + 1]);
        assert_eq!(many, Err(InvalidStores::Count));
        assert_eq!(StoreSet::parse::<&str>(&[]), Err(InvalidStores::Count));
    }

    #[test]
    fn a_store_whose_name_ends_with_a_star_stays_one_store() {
        let star = StoreSet::from(StoreId::new("a*").unwrap());
        assert!(star.contains("a*") && !star.contains("ab"));
        let (store, patterns) = star.to_claims();
        let again = StoreSet::from_claims(store.as_deref(), patterns.as_deref()).unwrap();
        assert_eq!(again, star);
        assert!(!star.covers(&set(&["a*"])) && set(&["a*"]).covers(&star));
    }

    #[test]
    fn the_same_stores_are_one_set_however_they_are_written() {
        let rows: [(&[&str], &[&str]); 5] = [
            (&["s", "s"], &["s"]),
            (&["b", "a", "b"], &["a", "b"]),
            (&["ab", "a*", "abc*"], &["a*"]),
            (&["x", "*", "y*"], &["*"]),
            (&["a**", "a*", "a"], &["a*"]),
        ];
        for (written, expected) in rows {
            assert_eq!(set(written), set(expected), "{written:?}");
            let (store, patterns) = set(written).to_claims();
            let told = store.map_or_else(|| patterns.unwrap(), |store| vec![store]);
            assert_eq!(told, expected, "{written:?}");
        }
    }

    #[test]
    fn a_set_covers_what_it_contains_and_nothing_else() {
        let rows: [(&[&str], &[&str], bool); 9] = [
            (&["a"], &["a"], true),
            (&["a"], &["a", "b"], false),
            (&["a", "b"], &["b"], true),
            (&["a*"], &["a", "ab", "ab*"], true),
            (&["ab*"], &["a*"], false),
            (&["a"], &["a*"], false),
            (&["*"], &["*", "x"], true),
            (&["a*", "b*"], &["*"], false),
            (&["x", "*"], &["*"], true),
        ];
        for (outer, inner, expected) in rows {
            assert_eq!(set(outer).covers(&set(inner)), expected, "{outer:?} {inner:?}");
        }
        let rows: [(&[&str], &[&str], bool); 5] = [
            (&["a"], &["b", "a"], true),
            (&["a"], &["b"], false),
            (&["a*"], &["ab*"], true),
            (&["a*"], &["b*", "c"], false),
            (&["x", "a*"], &["abc"], true),
        ];
        for (one, two, expected) in rows {
            assert_eq!(set(one).overlaps(&set(two)), expected, "{one:?} {two:?}");
            assert_eq!(set(two).overlaps(&set(one)), expected, "{two:?} {one:?}");
        }
        assert!(set(&["x", "*"]).is_all() && !set(&["a*", "b*"]).is_all());
    }
}
