//! Taking edits of a text back, as transactions that fail do.
//!
//! Rare, so plain: the runs are listed, cut wherever an edit begins or ends; what the edits did to each is
//! taken back, and the text is made anew from the list.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fate, IdRange, OpId, Piece, Text, TextUndo};
use crate::batch::to_usize;
use crate::id::ReplicaId;
use crate::value::{char_count, split_chars};

/// The id of a character, in an order in which those with consecutive ids are neighbours.
type Place = (ReplicaId, u64);

/// Characters with consecutive ids, none of which an edit cuts.
struct Part {
    first: OpId,
    len: u64,
    state: State,
}

enum State {
    Visible(String),
    Deleted,
    /// As if they had never been there.
    Gone,
}

impl Text {
    /// Takes edits back, the newest of which comes first. O(n log n) in the runs of the text and the
    /// edits.
    pub(crate) fn take_back(&mut self, edits: &[TextUndo]) {
        let cuts: BTreeSet<Place> = edits.iter().flat_map(|edit| ends(range_of(edit))).collect();
        let mut parts = Vec::new();
        for piece in self.pieces() {
            push_cut(&mut parts, piece, &cuts);
        }
        let places: BTreeMap<Place, usize> =
            parts.iter().enumerate().map(|(at, part)| (place(part.first), at)).collect();
        for edit in edits {
            let [from, to] = ends(range_of(edit));
            let touched = places.range(from..to).map(|(_, at)| *at);
            match edit {
                TextUndo::Inserted(_) => touched.for_each(|at| parts[at].state = State::Gone),
                TextUndo::Deleted { text, .. } => {
                    let mut rest = text.as_str();
                    for at in touched {
                        let (mine, behind) = split_chars(rest, to_usize(parts[at].len));
                        parts[at].state = State::Visible(mine.to_owned());
                        rest = behind;
                    }
                }
            }
        }
        *self = Self::from_pieces(parts.iter().filter_map(Part::piece));
    }
}

impl Part {
    fn piece(&self) -> Option<Piece<'_>> {
        let fate = match &self.state {
            State::Visible(text) => Fate::Visible(text),
            State::Deleted => Fate::Deleted(self.len),
            State::Gone => return None,
        };
        Some(Piece { first: self.first, fate })
    }
}

/// Adds the parts of a piece between cuts.
fn push_cut(parts: &mut Vec<Part>, piece: Piece<'_>, cuts: &BTreeSet<Place>) {
    let (mut text, len) = match piece.fate {
        Fate::Visible(text) => (Some(text), char_count(text)),
        Fate::Deleted(len) => (None, len),
    };
    let (mut first, end) = (piece.first, piece.first.plus(len));
    while first.counter < end.counter {
        let next = cuts.range(place(first.plus(1))..place(end)).next();
        let len = next.map_or(end.counter, |(_, counter)| *counter) - first.counter;
        let state = match &mut text {
            Some(rest) => {
                let (mine, behind) = split_chars(rest, to_usize(len));
                *rest = behind;
                State::Visible(mine.to_owned())
            }
            None => State::Deleted,
        };
        parts.push(Part { first, len, state });
        first = first.plus(len);
    }
}

/// The characters that an edit was about.
fn range_of(edit: &TextUndo) -> IdRange {
    match edit {
        TextUndo::Inserted(range) => *range,
        TextUndo::Deleted { first, text } => IdRange { first: *first, len: char_count(text) },
    }
}

/// Where a range begins, and where it ends.
fn ends(range: IdRange) -> [Place; 2] {
    [place(range.first), place(range.first.plus(range.len))]
}

const fn place(id: OpId) -> Place {
    (id.replica, id.counter)
}
