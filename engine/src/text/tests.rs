//! The tree of runs against a plain list of characters: every edit, then every reading.

use proptest::prelude::*;

use super::*;
use crate::id::ReplicaId;

/// A character as the definition of RGA has it.
#[derive(Clone, Debug)]
struct Char {
    stamp: Stamp,
    char: char,
    deleted: bool,
}

/// A text as a list of characters.
#[derive(Clone, Debug, Default)]
struct List(Vec<Char>);

impl List {
    fn insert(&mut self, origin: Option<OpId>, stamp: Stamp, text: &str) {
        let place = origin.map(|origin| self.0.iter().position(|char| char.stamp.op() == origin));
        let Some(mut at) = place.map_or(Some(0), |place| place.map(|place| place + 1)) else {
            return;
        };
        while self.0.get(at).is_some_and(|next| next.stamp > stamp) {
            at += 1;
        }
        for (nth, char) in text.chars().enumerate() {
            let stamp = Stamp { counter: stamp.counter + nth as u64, ..stamp };
            self.0.insert(at + nth, Char { stamp, char, deleted: false });
        }
    }

    fn delete(&mut self, range: IdRange) {
        for char in &mut self.0 {
            let id = char.stamp.op();
            let counters = range.first.counter..range.first.counter + range.len;
            if id.replica == range.first.replica && counters.contains(&id.counter) {
                char.deleted = true;
            }
        }
    }

    fn visible(&self) -> String {
        self.0.iter().filter(|char| !char.deleted).map(|char| char.char).collect()
    }

    fn clock(&self) -> impl Fn(OpId) -> Stamp + use<> {
        let stamps: Vec<Stamp> = self.0.iter().map(|char| char.stamp).collect();
        move |id| *stamps.iter().find(|stamp| stamp.op() == id).expect("a known character")
    }

    fn resolve(&self, range: &Range<usize>) -> Option<Splice> {
        let shown: Vec<&Char> = self.0.iter().filter(|char| !char.deleted).collect();
        let mut ends = vec![0];
        for char in &shown {
            ends.push(ends[ends.len() - 1] + char.char.len_utf16());
        }
        let from = ends.iter().position(|end| *end == range.start)?;
        let to = ends.iter().position(|end| *end == range.end).filter(|to| *to >= from)?;
        let mut splice = Splice { origin: None, deleted: IdRanges::new() };
        splice.origin = from.checked_sub(1).map(|before| shown[before].stamp.op());
        for char in &shown[from..to] {
            push_range(&mut splice.deleted, IdRange { first: char.stamp.op(), len: 1 });
        }
        Some(splice)
    }
}

#[derive(Clone, Debug)]
enum Edit {
    Insert { replica: usize, lamport_step: u64, origin: prop::sample::Index, text: String },
    Delete { at: prop::sample::Index, len: u64 },
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let text = prop_oneof![3 => "[a-c]{1,3}", 1 => "[aé😀]{1,4}", 1 => "[x]{30,60}"];
    let place = any::<prop::sample::Index>();
    prop_oneof![
        3 => (1usize..5, 0u64..3, place, text).prop_map(|(replica, lamport_step, origin, text)| {
            Edit::Insert { replica, lamport_step, origin, text }
        }),
        1 => (any::<prop::sample::Index>(), 1u64..12)
            .prop_map(|(at, len)| Edit::Delete { at, len }),
    ]
}

/// Both texts, with the counters of four replicas.
struct Pair {
    list: List,
    text: Text,
    next: [u64; 5],
    lamport: u64,
    undo: Vec<TextUndo>,
}

impl Pair {
    fn new(start: &str) -> Self {
        let set = stamp(1, 1, 0);
        let mut list = List::default();
        list.insert(None, set, start);
        let next = [0, start.chars().count() as u64, 0, 0, 0];
        Self { list, text: Text::new(set.op(), start), next, lamport: 1, undo: Vec::new() }
    }

    fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Insert { replica, lamport_step, origin, text } => {
                self.lamport += lamport_step;
                let counter = self.next[*replica];
                let stamp = stamp(self.lamport, *replica as u64, counter);
                // A change has one time, and what it builds on is older.
                let older: Vec<OpId> = self
                    .list
                    .0
                    .iter()
                    .filter(|char| {
                        char.stamp.lamport < stamp.lamport
                            || char.stamp < stamp && char.stamp.replica == stamp.replica
                    })
                    .map(|char| char.stamp.op())
                    .collect();
                let choice = origin.index(older.len() + 1);
                let origin = choice.checked_sub(1).map(|at| older[at]);
                self.next[*replica] += text.chars().count() as u64;
                self.list.insert(origin, stamp, text);
                let clock = self.list.clock();
                self.undo.extend(self.text.insert(origin, stamp, text, &clock));
            }
            Edit::Delete { at, len } => {
                if self.list.0.is_empty() {
                    return;
                }
                let first = self.list.0[at.index(self.list.0.len())].stamp.op();
                let range = IdRange { first, len: *len };
                self.text.delete(range, |undo| self.undo.push(undo()));
                self.list.delete(range);
            }
        }
    }

    fn assert_equal(&self) {
        self.text.assert_invariants(&self.list.clock());
        let visible = self.list.visible();
        assert_eq!(self.text.visible(), visible);
        assert_eq!(self.text.shown(), Lengths::of(&visible));
    }
}

fn stamp(lamport: u64, replica: u64, counter: u64) -> Stamp {
    Stamp { lamport, replica: ReplicaId::new(replica).unwrap(), counter }
}

proptest! {
    #[test]
    fn runs_agree_with_a_list_of_characters(
        start in "[a-z😀]{0,40}",
        edits in prop::collection::vec(any_edit(), 0..60),
        ranges in prop::collection::vec((0usize..90, 0usize..12), 8),
    ) {
        let mut pair = Pair::new(&start);
        for edit in &edits {
            pair.edit(edit);
            pair.assert_equal();
        }
        for (from, len) in ranges {
            let range = from..from + len;
            prop_assert_eq!(pair.text.resolve(&range, TextUnit::Utf16, true), pair.list.resolve(&range), "{:?}", range);
        }
    }

    #[test]
    fn edits_taken_back_leave_the_text_as_it_was(
        edits in prop::collection::vec(any_edit(), 0..30),
        more in prop::collection::vec(any_edit(), 1..30),
    ) {
        let mut pair = Pair::new("some text to begin with");
        edits.iter().for_each(|edit| pair.edit(edit));
        let before = pair.list.clone();
        pair.undo.clear();
        more.iter().for_each(|edit| pair.edit(edit));
        pair.undo.reverse();
        pair.text.take_back(&pair.undo);
        pair.list = before;
        pair.assert_equal();
    }
}

#[test]
fn a_long_text_makes_a_tree_of_many_levels_and_typing_extends_runs() {
    let mut pair = Pair::new(&"abc😀".repeat(200));
    assert!(pair.text.tree.levels() > 3);
    pair.assert_equal();
    let before = pair.text.tree.run_count();
    let clock = |id: OpId| stamp(5, id.replica.as_u64(), id.counter);
    for counter in 800..900 {
        let origin = Some(stamp(1, 1, counter - 1).op());
        pair.text.insert(origin, stamp(5, 1, counter), "x", &clock);
    }
    assert!(pair.text.visible().ends_with(&"x".repeat(100)));
    // Sixteen bytes fit a leaf here, and a run does not cross leaves.
    assert!(pair.text.tree.run_count() - before <= 15, "typing makes no runs of single characters");
}

#[test]
fn ranges_that_end_inside_a_character_or_past_the_end_do_not_resolve() {
    let mut pair = Pair::new("a😀b");
    for range in [2..2, 1..2, 0..5, 5..5, 9..9] {
        assert_eq!(pair.text.resolve(&range, TextUnit::Utf16, true), None, "{range:?}");
    }
    assert!(pair.text.resolve(&(1..3), TextUnit::Utf16, true).is_some());
}
