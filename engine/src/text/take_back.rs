//! Taking edits of a text back, as transactions that fail do.
//!
//! Rare, so plain: the runs are listed, the list is edited, and the text is made anew from it.

use super::{Fate, IdRange, OpId, Piece, Text, TextUndo};

/// A run outside the tree.
struct Part {
    first: OpId,
    len: u64,
    /// The characters, if they show.
    text: Option<String>,
}

impl Text {
    /// Takes edits back, the newest of which comes first. Costs the size of the text.
    pub(crate) fn take_back(&mut self, edits: &[TextUndo]) {
        let mut parts: Vec<Part> = self.pieces().map(Part::new).collect();
        for edit in edits {
            match edit {
                TextUndo::Inserted(range) => {
                    isolate(&mut parts, *range);
                    parts.retain(|part| !part.is_inside(*range));
                }
                TextUndo::Deleted { first, text } => restore(&mut parts, *first, text),
            }
        }
        *self = Self::from_pieces(parts.iter().map(Part::piece));
    }
}

impl Part {
    fn new(piece: Piece<'_>) -> Self {
        let Piece { first, fate } = piece;
        match fate {
            Fate::Deleted(len) => Self { first, len, text: None },
            Fate::Visible(text) => {
                Self { first, len: text.chars().count() as u64, text: Some(text.to_owned()) }
            }
        }
    }

    fn piece(&self) -> Piece<'_> {
        let fate = self.text.as_deref().map_or(Fate::Deleted(self.len), Fate::Visible);
        Piece { first: self.first, fate }
    }

    fn is_inside(&self, range: IdRange) -> bool {
        self.first.replica == range.first.replica
            && (range.first.counter..range.first.counter + range.len).contains(&self.first.counter)
    }

    /// Where `id` is inside of it, without its start.
    fn offset_of(&self, id: OpId) -> Option<u64> {
        let offset = id.counter.checked_sub(self.first.counter)?;
        (id.replica == self.first.replica && (1..self.len).contains(&offset)).then_some(offset)
    }
}

/// Cuts parts so that none lies across an end of `range`.
fn isolate(parts: &mut Vec<Part>, range: IdRange) {
    for id in [range.first, range.first.plus(range.len)] {
        let cut = |(at, part): (usize, &Part)| part.offset_of(id).map(|offset| (at, offset));
        let Some((at, offset)) = parts.iter().enumerate().find_map(cut) else { continue };
        let part = &mut parts[at];
        let text = part.text.as_mut().map(|text| text.split_off(prefix(text, offset).len()));
        let rest = Part { first: id, len: part.len - offset, text };
        part.len = offset;
        parts.insert(at + 1, rest);
    }
}

fn restore(parts: &mut Vec<Part>, first: OpId, text: &str) {
    let range = IdRange { first, len: text.chars().count() as u64 };
    isolate(parts, range);
    // They stood together when they were deleted, and do again: what came later is taken back.
    let mut rest = text;
    for part in parts.iter_mut().filter(|part| part.is_inside(range)) {
        let mine = prefix(rest, part.len);
        rest = &rest[mine.len()..];
        part.text = Some(mine.to_owned());
    }
}

/// The first `chars` characters.
fn prefix(text: &str, chars: u64) -> &str {
    let chars = usize::try_from(chars).unwrap_or(usize::MAX);
    let end = text.char_indices().nth(chars).map_or(text.len(), |(byte, _)| byte);
    &text[..end]
}
