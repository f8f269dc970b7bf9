//! The visible text of a register, character by character.

use sds_engine::{EntryId, Field, Op, OpId, Stamp};

/// A character of a text, shown or deleted.
#[derive(Clone, Debug)]
pub struct Character {
    /// When it was inserted; its id.
    pub stamp: Stamp,
    /// What it is.
    pub content: char,
    /// Whether somebody has deleted it.
    pub deleted: bool,
}

/// The characters of the text that the `Set` with stamp `set` began, with every splice that names it.
///
/// `ops` are in stamp order. A receiver has to skip what is newer than an insertion that comes
/// late; the model meets that rule too, but there is never anything to skip.
pub(crate) fn characters(
    ops: &[(Stamp, Op)],
    set: Stamp,
    entry: EntryId,
    field: &Field,
    initial: &str,
) -> Vec<Character> {
    let mut text = Vec::new();
    insert(&mut text, set, None, initial);
    for (stamp, op) in ops {
        match op {
            Op::Insert { entry: of, field: at, set: on, origin, text: new, .. }
                if *of == entry && at == field && *on == set.op() =>
            {
                insert(&mut text, *stamp, *origin, new);
            }
            Op::Delete { entry: of, field: at, set: on, range, .. }
                if *of == entry && at == field && *on == set.op() =>
            {
                for character in &mut text {
                    let id = character.stamp.op();
                    character.deleted |= id.replica == range.first.replica
                        && id.counter >= range.first.counter
                        && id.counter - range.first.counter < range.len;
                }
            }
            _ => {}
        }
    }
    text
}

/// Puts `new` after the character `origin`, or at the start; nowhere if there is no such character.
fn insert(text: &mut Vec<Character>, first: Stamp, origin: Option<OpId>, new: &str) {
    let mut at = match origin {
        None => 0,
        Some(origin) => match text.iter().position(|character| character.stamp.op() == origin) {
            None => return,
            Some(place) => place + 1,
        },
    };
    while text.get(at).is_some_and(|character| character.stamp > first) {
        at += 1;
    }
    for (content, counter) in new.chars().zip(first.counter..) {
        let stamp = Stamp { counter, ..first };
        text.insert(at, Character { stamp, content, deleted: false });
        at += 1;
    }
}
