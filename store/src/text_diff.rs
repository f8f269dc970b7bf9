//! From one text to another by few edits, so that a text which a program hands over whole still
//! merges with what others type at the same time.
//!
//! Words are compared, not characters: single letters that two different words happen to share would
//! be kept, and mix with foreign edits to nonsense. Inside a word that changed, what it begins and
//! ends with alike is kept. The search for the shortest way is cut short on long texts that differ
//! much (Myers' algorithm with git's heuristics), so that it costs about the length of the texts.

use std::ops::Range;

use imara_diff::{Algorithm, Diff, InternedInput, TokenSource};

/// An edit: a range of UTF-16 units of the old text, and what takes its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TextEdit<'a> {
    pub(crate) range: Range<usize>,
    pub(crate) text: &'a str,
}

/// The edits that make `new` of `old`, the last first, so that each leaves the places of the others
/// as they are.
pub(crate) fn edits<'a>(old: &str, new: &'a str) -> Vec<TextEdit<'a>> {
    let input = InternedInput::new(Words(old), Words(new));
    let diff = Diff::compute(Algorithm::Myers, &input);
    let (old_at, new_at) = (offsets(old), offsets(new));
    let mut edits = Vec::new();
    // Where the last hunk began, in bytes and in units, so that each unit is counted once.
    let (mut bytes, mut units) = (0, 0);
    for hunk in diff.hunks() {
        let was = span(&old_at, hunk.before);
        units += utf16_len(&old[bytes..was.start]);
        bytes = was.start;
        let (was, is) = (&old[was], &new[span(&new_at, hunk.after)]);
        let (same, was_end, is_end) = differing(was, is);
        let from = units + utf16_len(&was[..same]);
        let range = from..from + utf16_len(&was[same..was_end]);
        edits.push(TextEdit { range, text: &is[same..is_end] });
    }
    edits.reverse();
    edits
}

pub(crate) fn utf16_len(text: &str) -> usize {
    if text.is_ascii() { text.len() } else { text.encode_utf16().count() }
}

/// Where two texts begin to differ, and where they end to: bytes of the common start, of the old text
/// and of the new one.
fn differing(old: &str, new: &str) -> (usize, usize, usize) {
    let pairs = old.char_indices().zip(new.chars());
    let same = |((_, a), b): &((usize, char), char)| a == b;
    let start = pairs.take_while(same).last().map_or(0, |((at, last), _)| at + last.len_utf8());
    let ends = old[start..].chars().rev().zip(new[start..].chars().rev());
    let end: usize = ends.take_while(|(a, b)| a == b).map(|(last, _)| last.len_utf8()).sum();
    (start, old.len() - end, new.len() - end)
}

/// A text as words, and single characters between them.
#[derive(Clone, Copy)]
struct Words<'a>(&'a str);

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let first = self.0.chars().next()?;
        let is_word = |one: char| one.is_alphanumeric() || one == '_';
        let len = if is_word(first) {
            self.0.find(|one| !is_word(one)).unwrap_or(self.0.len())
        } else {
            first.len_utf8()
        };
        let (word, rest) = self.0.split_at(len);
        self.0 = rest;
        Some(word)
    }
}

impl<'a> TokenSource for Words<'a> {
    type Token = &'a str;
    type Tokenizer = Self;

    fn tokenize(&self) -> Self {
        *self
    }

    fn estimate_tokens(&self) -> u32 {
        u32::try_from(self.0.len() / 4).unwrap_or(0)
    }
}

/// Where each word begins, and the end.
fn offsets(text: &str) -> Vec<usize> {
    let mut at = 0;
    let mut offsets = vec![0];
    offsets.extend(Words(text).map(|word| {
        at += word.len();
        at
    }));
    offsets
}

/// The bytes of a range of words.
fn span(offsets: &[usize], words: Range<u32>) -> Range<usize> {
    offsets[words.start as usize]..offsets[words.end as usize]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    /// The text after the edits.
    fn edited(old: &str, edits: &[TextEdit<'_>]) -> String {
        let mut units: Vec<u16> = old.encode_utf16().collect();
        for edit in edits {
            drop(units.splice(edit.range.clone(), edit.text.encode_utf16()));
        }
        String::from_utf16(&units).unwrap()
    }

    #[test]
    fn only_what_differs_is_edited() {
        let check = |old: &str, new: &str, expected: &[(Range<usize>, &str)]| {
            let found = edits(old, new);
            let found: Vec<_> = found.iter().map(|edit| (edit.range.clone(), edit.text)).collect();
            assert_eq!(found, expected, "{old:?} to {new:?}");
        };
        check("", "", &[]);
        check("same", "same", &[]);
        check("", "new", &[(0..0, "new")]);
        check("old", "", &[(0..3, "")]);
        check("the color is red", "the colour is dark red", &[(12..12, " dark"), (8..8, "u")]);
        check("\u{1f600} one two", "\u{1f600} one three two", &[(7..7, "three ")]);
        check("cat", "dog", &[(0..3, "dog")]);
    }

    #[test]
    fn long_texts_that_differ_everywhere_do_not_take_long() {
        let old: String = (0..60_000).map(|at| format!("{} ", at * 7 % 65_537)).collect();
        let new: String = (0..60_000).map(|at| format!("{} ", at * 11 % 65_537)).collect();
        let found = edits(&old, &new);
        assert_eq!(edited(&old, &found), new);
    }

    proptest! {
        #[test]
        fn the_edits_make_the_new_text(old in "[ab \u{e9}\u{1f600}_.]{0,40}", new in "[ab \u{e9}\u{1f600}_.]{0,40}") {
            prop_assert_eq!(edited(&old, &edits(&old, &new)), new);
        }

        #[test]
        fn any_two_texts_will_do(old in any::<String>(), new in any::<String>()) {
            prop_assert_eq!(edited(&old, &edits(&old, &new)), new);
        }
    }
}
