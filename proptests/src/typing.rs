//! Somebody who types: keystrokes outside of any transaction, each of which is a change by itself.
//!
//! Most go on where the last one was, which is what the engine has a short way for, as long as nobody
//! watches. Whatever happens meanwhile, the text is what the keys make of what was there.

use std::ops::Range;

use arbitrary::Arbitrary;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::prop_oneof;
use sds_engine::{EntryId, Field, Replica, TextUnit, Value};

use crate::pool;
use crate::view::View;

/// Something that fingers do.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Key {
    /// Types a few characters, mostly one.
    Text(u8),
    /// Deletes the character before the cursor.
    Backspace,
    /// Deletes the character behind the cursor.
    Delete,
    /// Puts the cursor elsewhere in the text.
    Jump(u8),
}

impl Key {
    /// Typing and deleting in short stretches.
    fn any() -> impl Strategy<Value = Self> {
        prop_oneof![
            6 => any::<u8>().prop_map(Self::Text),
            3 => Just(Self::Backspace),
            2 => Just(Self::Delete),
            1 => any::<u8>().prop_map(Self::Jump),
        ]
    }
}

/// Keys in a row, and where.
#[derive(Clone, Debug, Arbitrary)]
pub struct Typing {
    /// Picks another text and a place in it; without, it goes on where the last keystroke was.
    pub place: Option<(u8, u8)>,
    /// Picks the unit in which places are told.
    pub unit: u8,
    /// What is typed.
    pub keys: Vec<Key>,
}

impl Typing {
    /// Up to a dozen keys, half of the time where the cursor is.
    pub fn any() -> impl Strategy<Value = Self> {
        let keys = prop::collection::vec(Key::any(), 1..12);
        (any::<Option<(u8, u8)>>(), any::<u8>(), keys).prop_map(|(place, unit, keys)| Self {
            place,
            unit,
            keys,
        })
    }
}

/// Where somebody types.
#[derive(Clone, Debug, Default)]
pub struct Cursor(Option<Place>);

#[derive(Clone, Debug)]
struct Place {
    entry: EntryId,
    field: Field,
    /// How many characters are before it.
    at: usize,
}

impl Cursor {
    /// Types, and panics unless the text is what it should be after each key. Returns how many changes
    /// that made.
    ///
    /// Where nothing shows a text it begins one; that one may not show if somebody has forged a life to
    /// come.
    pub fn type_in(&mut self, replica: &mut Replica, typing: &Typing) -> usize {
        let mut made = 0;
        if let Some((text, at)) = typing.place {
            made += self.go_to(replica, text, at.into());
        }
        let unit = [TextUnit::Utf16, TextUnit::Chars, TextUnit::Utf8][usize::from(typing.unit % 3)];
        let Some(place) = &mut self.0 else { return made };
        for key in &typing.keys {
            made += usize::from(place.press(replica, unit, *key));
        }
        made
    }

    fn go_to(&mut self, replica: &mut Replica, text: u8, at: usize) -> usize {
        let view = View::of_replica(replica);
        let texts: Vec<(EntryId, Field)> =
            view.entries().flat_map(|entry| view.texts(entry)).collect();
        let (entry, field) = pool::pick(&texts, text).unwrap_or((EntryId::ROOT, Field::Label));
        self.0 = Some(Place { entry, field: field.clone(), at });
        if texts.is_empty() {
            let set = replica.set(entry, field, Value::Text("begun".into()));
            set.expect("Root can be edited");
        }
        usize::from(texts.is_empty())
    }
}

impl Place {
    /// Presses a key. Whether that made a change; it makes none where there is no text any more, or
    /// nothing to delete.
    fn press(&mut self, replica: &mut Replica, unit: TextUnit, key: Key) -> bool {
        let Value::Text(old) = replica.value(self.entry, &self.field) else { return false };
        let mut chars: Vec<char> = old.chars().collect();
        self.at = self.at.min(chars.len());
        let (range, new) = match key {
            Key::Jump(at) => {
                self.at = usize::from(at) % (chars.len() + 1);
                return false;
            }
            Key::Text(text) => (self.at..self.at, typed(text)),
            Key::Backspace => (self.at.saturating_sub(1)..self.at, ""),
            Key::Delete => (self.at..chars.len().min(self.at + 1), ""),
        };
        let in_unit =
            units_before(&chars, range.start, unit)..units_before(&chars, range.end, unit);
        let done = replica.splice_by(self.entry, self.field.clone(), in_unit, unit, new);
        done.expect("what shows a text can be typed in");
        self.at = range.start + new.chars().count();
        let Range { start, end } = range;
        chars.splice(start..end, new.chars());
        let expected = Value::Text(chars.iter().collect());
        assert_eq!(replica.value(self.entry, &self.field), expected, "{key:?} at {}", self.at);
        start < end || !new.is_empty()
    }
}

/// A character of any width, or a few.
const fn typed(number: u8) -> &'static str {
    match number % 16 {
        0 => "\u{e9}",
        1 => "\u{1f600}",
        2 => "\u{4e2d}",
        3 => "two",
        4 => "\u{1f600}\u{e9}",
        5..10 => "n",
        _ => "o",
    }
}

/// How long so many of the characters are.
fn units_before(chars: &[char], count: usize, unit: TextUnit) -> usize {
    let before = chars.iter().take(count);
    match unit {
        TextUnit::Utf8 => before.map(|char| char.len_utf8()).sum(),
        TextUnit::Utf16 => before.map(|char| char.len_utf16()).sum(),
        TextUnit::Chars => before.count(),
    }
}
