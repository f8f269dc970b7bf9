//! What each entry is and holds: its lives, its kind, its fields.
//!
//! A field keeps the value with the greatest (life, stamp); the losers leave no trace. Only what
//! belongs to the current life counts, and a purge begins the next one.
//!
//! Invariants, checked by `assert_invariants`:
//! - R1. No life before the current one is kept, neither touched nor in a field.
//! - R2. Lives are in order, each at most once.
//!
//! Not here: where the entry is (`tree`), whether and where it shows (`display`).

mod all_lives;
mod fields;
mod joining;
mod journal;
mod lives;
mod loose;
mod names;
mod packed;
mod pages;
mod state;
mod states;
mod watching;

use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::id::{Life, OpId, Stamp};
use crate::op::Op;
use crate::text::{Fate, Piece, Text, TextContent, TextForm};
use crate::value::{Value, ValueView};
use crate::value_ref::ValueRef;
pub(crate) use journal::{Journal, TakeBack, Undo, in_groups};
use lives::Lives;
pub(crate) use lives::Touch;
pub(crate) use names::{FieldIx, FieldMap, FieldNames};
pub(crate) use state::EntryState;
pub(crate) use states::States;

/// The winning value of a field.
#[derive(Clone, Debug)]
pub(crate) struct Register {
    pub(crate) stamp: Stamp,
    content: Content,
    pub(crate) life: Life,
    pub(crate) field: FieldIx,
}

/// What a register holds. What is set often takes little room.
#[derive(Clone, Debug)]
enum Content {
    Nothing,
    Int(i64),
    /// A text as it was set.
    Plain(Box<str>),
    /// A text that was spliced since.
    Spliced(Box<Text>),
    /// Any other value, as it was set.
    Other(Box<Value>),
}

impl Content {
    fn of(value: ValueView<'_>) -> Self {
        match value {
            ValueView::None => Self::Nothing,
            ValueView::Int(number) => Self::Int(number),
            ValueView::Text(text) => Self::Plain(text.into()),
            other => Self::Other(Box::new(other.to_value())),
        }
    }

    fn view(&self) -> ContentView<'_> {
        ContentView::Value(match self {
            Self::Nothing => ValueView::None,
            Self::Int(number) => ValueView::Int(*number),
            Self::Plain(text) => ValueView::Text(text),
            Self::Spliced(text) => return ContentView::Spliced(text),
            Self::Other(value) => value.view(),
        })
    }
}

/// A register to look at, however it is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RegisterView<'a> {
    pub(crate) stamp: Stamp,
    pub(crate) life: Life,
    pub(crate) field: FieldIx,
    content: ContentView<'a>,
}

#[derive(Clone, Copy, Debug)]
enum ContentView<'a> {
    /// A value as it was set.
    Value(ValueView<'a>),
    Spliced(&'a Text),
}

impl<'a> RegisterView<'a> {
    /// A copy to keep.
    pub(crate) fn to_register(self) -> Register {
        let Self { stamp, life, field, .. } = self;
        let content = match self.content {
            ContentView::Value(value) => Content::of(value),
            ContentView::Spliced(text) => Content::Spliced(Box::new(text.clone())),
        };
        Register { stamp, content, life, field }
    }

    /// The value as it reads now.
    pub(crate) fn value(self) -> Value {
        match self.content {
            ContentView::Value(value) => value.to_value(),
            ContentView::Spliced(text) => Value::Text(text.visible()),
        }
    }

    /// The same, borrowed.
    pub(crate) fn value_ref(self) -> ValueRef<'a> {
        match (self.content, self.text()) {
            (_, Some(text)) => ValueRef::Text(text.chunks()),
            (ContentView::Value(value), None) => ValueRef::of_other(value),
            (ContentView::Spliced(_), None) => ValueRef::None,
        }
    }

    /// What decides which register of a field counts: the greatest.
    const fn rank(&self) -> (Life, Stamp) {
        (self.life, self.stamp)
    }

    /// How many bytes the value has, about.
    pub(crate) fn size(&self) -> usize {
        match self.content {
            ContentView::Value(value) => value.size(),
            ContentView::Spliced(text) => text.shown().bytes,
        }
    }

    /// Whether the value takes no memory of its own.
    const fn is_scalar(&self) -> bool {
        matches!(self.content, ContentView::Value(ValueView::None | ValueView::Int(_)))
    }

    const fn is_blob(&self) -> bool {
        matches!(self.content, ContentView::Value(ValueView::Blob(_)))
    }

    /// Whether the field holds nothing.
    pub(crate) const fn is_none(&self) -> bool {
        matches!(self.content, ContentView::Value(ValueView::None))
    }

    /// The text that the field holds, if it holds one.
    pub(crate) fn text(self) -> Option<TextContent<'a>> {
        let form = match self.content {
            ContentView::Spliced(text) => TextForm::Spliced(text),
            ContentView::Value(ValueView::Text(text)) => TextForm::Plain(text),
            ContentView::Value(_) => return None,
        };
        Some(TextContent { set: self.stamp.op(), form })
    }

    /// Hands over the characters of the text that the field holds, in order.
    pub(crate) fn for_each_piece(self, mut each: impl FnMut(Piece<'a>)) {
        match self.content {
            ContentView::Value(ValueView::Text(text)) => {
                each(Piece { first: self.stamp.op(), fate: Fate::Visible(text) });
            }
            ContentView::Spliced(text) => text.pieces().for_each(each),
            ContentView::Value(_) => {}
        }
    }

    /// The text that the field holds, if it was spliced.
    pub(crate) const fn spliced(&self) -> Option<&'a Text> {
        match self.content {
            ContentView::Spliced(text) => Some(text),
            ContentView::Value(_) => None,
        }
    }
}

impl Register {
    /// See [`RegisterView::rank`].
    const fn rank(&self) -> (Life, Stamp) {
        (self.life, self.stamp)
    }

    pub(crate) fn view(&self) -> RegisterView<'_> {
        let Self { stamp, life, field, .. } = *self;
        RegisterView { stamp, life, field, content: self.content.view() }
    }

    /// The text that the field holds, if it holds one. It is taken apart.
    #[inline]
    fn text_mut(&mut self) -> Option<&mut Text> {
        if matches!(self.content, Content::Plain(_)) {
            self.take_apart();
        }
        match &mut self.content {
            Content::Spliced(text) => Some(text),
            _ => None,
        }
    }

    #[cold]
    fn take_apart(&mut self) {
        if let Content::Plain(text) = &self.content {
            self.content = Content::Spliced(Box::new(Text::new(self.stamp.op(), text)));
        }
    }
}

// There is one for each field that holds much.
const _: () = assert!(size_of::<Register>() <= 56);

/// The text in a field that a `Set` made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TextPlace {
    pub(crate) entry: EntryIx,
    pub(crate) field: FieldIx,
    pub(crate) set: OpId,
}

/// An op on its way into an entry's state.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Applying<'a> {
    pub(crate) entry: EntryIx,
    pub(crate) op: &'a Op,
    pub(crate) stamp: Stamp,
}

/// Where an op leaves traces besides the state that it changes.
#[derive(Debug)]
pub(crate) struct Traces<'a> {
    pub(crate) journal: &'a mut Journal,
    pub(crate) watch: &'a mut Watch,
}
