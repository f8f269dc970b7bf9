//! Two states of one text become one: the union of their characters and of their deletions.
//!
//! Both have the characters in the order of the same tree, in which each character is below its origin
//! and newer siblings come first. So what both know stands in the same order on both sides. Where each
//! side has something that the other does not know, the newer goes first: were the older one to go
//! first, then it would be an ancestor of what the other side has there, and known to it.

use super::{Fate, Piece, Text};
use crate::id::{OpId, Stamp};
use crate::state::TextRecord;
use crate::value::split_chars;

/// Characters with consecutive ids on one side.
#[derive(Clone, Copy, Debug)]
struct Head<'a> {
    first: OpId,
    len: u64,
    /// What shows; none if they were deleted.
    text: Option<&'a str>,
}

/// What decides in which order characters that only one side knows come.
pub(crate) struct Sides<'a> {
    /// Whether this side had an op.
    pub(crate) here: &'a dyn Fn(OpId) -> bool,
    /// Whether the other side had an op.
    pub(crate) there: &'a dyn Fn(OpId) -> bool,
    pub(crate) clock: &'a dyn Fn(OpId) -> Stamp,
}

impl Text {
    /// The text with what another state of it has.
    pub(crate) fn join(&self, theirs: &TextRecord, sides: &Sides<'_>) -> Self {
        let mut mine = self.pieces().map(Head::of_piece);
        let mut others = heads_of(theirs);
        let mut joined: Vec<Head<'_>> = Vec::new();
        let (mut here, mut there) = (mine.next(), others.next());
        while let Some(a) = here {
            let Some(b) = there else {
                joined.push(a);
                here = mine.next();
                continue;
            };
            let is_new_here = !(sides.here)(b.first);
            if a.first == b.first {
                let len = a.len.min(b.len);
                let (a, rest_of_a) = a.cut(len);
                let (b, rest_of_b) = b.cut(len);
                joined.push(Head { text: b.text.and(a.text), ..a });
                (here, there) =
                    (rest_of_a.or_else(|| mine.next()), rest_of_b.or_else(|| others.next()));
            } else if is_new_here && ((sides.there)(a.first) || is_newer(&b, &a, sides)) {
                joined.push(b);
                there = others.next();
            } else {
                let known = known_part(&a, sides.there);
                let (a, rest) = a.cut(known);
                joined.push(a);
                here = rest.or_else(|| mine.next());
            }
        }
        let is_new = |head: &Head<'_>| !(sides.here)(head.first);
        joined.extend(there.into_iter().chain(others).filter(is_new));
        Self::from_pieces(joined.into_iter().map(Head::piece))
    }
}

/// How much of a run goes out at once: as far as the other side knows it, or does not.
fn known_part(head: &Head<'_>, knows: &dyn Fn(OpId) -> bool) -> u64 {
    if !knows(head.first) {
        return head.len;
    }
    // Whoever knows a character knows those that its author typed before.
    let (mut known, mut unknown) = (0, head.len);
    while unknown - known > 1 {
        let middle = known + (unknown - known) / 2;
        if knows(head.first.plus(middle)) { known = middle } else { unknown = middle }
    }
    unknown
}

fn is_newer(a: &Head<'_>, b: &Head<'_>, sides: &Sides<'_>) -> bool {
    (sides.clock)(a.first) > (sides.clock)(b.first)
}

fn heads_of(record: &TextRecord) -> impl Iterator<Item = Head<'_>> {
    let mut rest = record.text.as_str();
    record.runs.iter().map(move |run| {
        let text = (!run.is_deleted).then(|| {
            let (text, after) = split(rest, run.len);
            rest = after;
            text
        });
        Head { first: run.first, len: run.len, text }
    })
}

impl<'a> Head<'a> {
    fn of_piece(piece: Piece<'a>) -> Self {
        let (len, text) = match piece.fate {
            Fate::Visible(text) => (crate::value::char_count(text), Some(text)),
            Fate::Deleted(len) => (len, None),
        };
        Self { first: piece.first, len, text }
    }

    fn piece(self) -> Piece<'a> {
        let fate = self.text.map_or(Fate::Deleted(self.len), Fate::Visible);
        Piece { first: self.first, fate }
    }

    /// The first characters, and the others if there are any.
    fn cut(self, len: u64) -> (Self, Option<Self>) {
        if len >= self.len {
            return (self, None);
        }
        let texts = self.text.map(|text| split(text, len));
        let rest = Self {
            first: self.first.plus(len),
            len: self.len - len,
            text: texts.map(|(_, after)| after),
        };
        (Self { len, text: texts.map(|(before, _)| before), ..self }, Some(rest))
    }
}

fn split(text: &str, chars: u64) -> (&str, &str) {
    split_chars(text, usize::try_from(chars).unwrap_or(usize::MAX))
}

/// The pieces of a text from elsewhere.
pub(crate) fn pieces_of(record: &TextRecord) -> impl Iterator<Item = Piece<'_>> {
    heads_of(record).map(Head::piece)
}
