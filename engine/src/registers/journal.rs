//! How to take back what the ops of a transaction did to entries.

use hashbrown::HashMap;

use crate::entries::EntryIx;
use crate::registers::{FieldIx, Lives, Register};
use crate::text::TextUndo;

/// How to take back what an op did to an entry.
#[derive(Clone, Debug)]
pub(crate) enum Undo {
    /// No op had named the entry, and nothing was known of it.
    Unknown,
    /// Which lives had been touched.
    Lives(Lives),
    /// Everything, before a purge.
    Whole(Lives, Vec<Register>),
    /// The winning value of a field.
    Field(FieldIx, Option<Register>),
    /// An edit of the text in a field.
    Text(FieldIx, TextUndo),
}

/// What is taken back at once.
#[derive(Debug)]
pub(crate) enum TakeBack {
    /// Edits of the text in a field, the newest first.
    Edits(FieldIx, Vec<TextUndo>),
    /// Anything else.
    One(Undo),
}

/// Records, which are in order, to be taken back one after the other. Edits of one text go together,
/// whatever lies between them and leaves the field alone, since each group costs the size of the text.
pub(crate) fn in_groups(records: Vec<(EntryIx, Undo)>) -> Vec<(EntryIx, TakeBack)> {
    let mut groups: Vec<(EntryIx, TakeBack)> = Vec::new();
    // Where the edits of a text are, and from where on those of an entry may be gone on with.
    let mut edited: HashMap<(EntryIx, FieldIx), usize> = HashMap::new();
    let mut whole: HashMap<EntryIx, usize> = HashMap::new();
    for (entry, undo) in records.into_iter().rev() {
        match undo {
            Undo::Text(field, edit) => {
                let from = whole.get(&entry).copied().unwrap_or_default();
                let known = edited.get(&(entry, field)).filter(|at| **at >= from);
                if let Some((_, TakeBack::Edits(_, edits))) =
                    known.and_then(|at| groups.get_mut(*at))
                {
                    edits.push(edit);
                    continue;
                }
                edited.insert((entry, field), groups.len());
                groups.push((entry, TakeBack::Edits(field, vec![edit])));
                continue;
            }
            Undo::Field(field, _) => drop(edited.remove(&(entry, field))),
            Undo::Unknown | Undo::Whole(..) => drop(whole.insert(entry, groups.len())),
            Undo::Lives(_) => {}
        }
        groups.push((entry, TakeBack::One(undo)));
    }
    groups
}

/// Where undo records of a transaction go; nowhere for changes from elsewhere, which stay.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Option<Vec<(EntryIx, Undo)>>);

impl Journal {
    /// A journal that keeps what it is told.
    pub(crate) const fn recording() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether it keeps what it is told.
    pub(crate) const fn is_recording(&self) -> bool {
        self.0.is_some()
    }

    /// How many records there are.
    pub(crate) fn len(&self) -> usize {
        self.0.as_ref().map_or(0, Vec::len)
    }

    /// Takes out the records from number `from` on, oldest first.
    pub(crate) fn split_off(&mut self, from: usize) -> Vec<(EntryIx, Undo)> {
        self.0.as_mut().map(|records| records.split_off(from)).unwrap_or_default()
    }

    pub(crate) fn note(&mut self, entry: EntryIx, undo: impl FnOnce() -> Undo) {
        if let Some(records) = &mut self.0 {
            records.push((entry, undo()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{OpId, ReplicaId};
    use crate::op::IdRange;

    #[test]
    fn edits_of_a_text_go_together_unless_something_replaces_it_in_between() {
        let [one, two] = [EntryIx::ROOT, EntryIx::TRASH];
        let [label, value] = [FieldIx::new(0), FieldIx::new(1)];
        let edit = |entry, field, counter| {
            let first = OpId { replica: ReplicaId::new(1).unwrap(), counter };
            (entry, Undo::Text(field, TextUndo::Inserted(IdRange { first, len: 1 })))
        };
        let mut records = Vec::new();
        records.push((one, Undo::Unknown));
        records.extend([edit(one, label, 0), edit(two, label, 1)]);
        records.push((one, Undo::Whole(Lives::Unknown, Vec::new())));
        records.extend([edit(one, label, 2), edit(one, value, 3), edit(two, label, 4)]);
        records.push((one, Undo::Field(value, None)));
        records.extend([edit(one, value, 5), edit(one, label, 6), edit(one, value, 7)]);
        let counters = |edits: &[TextUndo]| {
            let counter = |edit: &TextUndo| match edit {
                TextUndo::Inserted(range) => range.first.counter,
                TextUndo::Deleted { first, .. } => first.counter,
            };
            edits.iter().map(counter).collect::<Vec<_>>()
        };
        let groups = in_groups(records);
        type Group = (EntryIx, Option<(FieldIx, Vec<u64>)>);
        let found: Vec<Group> = groups
            .iter()
            .map(|(entry, group)| match group {
                TakeBack::Edits(field, edits) => (*entry, Some((*field, counters(edits)))),
                TakeBack::One(_) => (*entry, None),
            })
            .collect();
        let expected = [
            (one, Some((value, vec![7, 5]))),
            (one, Some((label, vec![6, 2]))),
            (one, None),
            (two, Some((label, vec![4, 1]))),
            (one, Some((value, vec![3]))),
            (one, None),
            (one, Some((label, vec![0]))),
            (one, None),
        ];
        assert_eq!(found, expected);
    }
}
