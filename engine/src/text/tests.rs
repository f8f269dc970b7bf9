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

    fn shown(&self) -> Vec<&Char> {
        self.0.iter().filter(|char| !char.deleted).collect()
    }

    /// How much shows before each visible character, and in the end.
    fn ends(&self) -> Vec<Lengths> {
        let mut ends = vec![Lengths::ZERO];
        for char in self.shown() {
            ends.push(ends[ends.len() - 1] + Lengths::of_char(char.char));
        }
        ends
    }

    fn resolve(&self, range: &Range<usize>, unit: TextUnit) -> Option<Splice> {
        let (shown, ends) = (self.shown(), self.ends());
        let from = ends.iter().position(|end| end.in_unit(unit) == range.start)?;
        let to = ends.iter().position(|end| end.in_unit(unit) == range.end)?;
        if to < from {
            return None;
        }
        let mut splice = Splice { origin: None, deleted: IdRanges::new() };
        splice.origin = from.checked_sub(1).map(|before| shown[before].stamp.op());
        for char in &shown[from..to] {
            push_range(&mut splice.deleted, IdRange { first: char.stamp.op(), len: 1 });
        }
        Some(splice)
    }
}

const UNITS: [TextUnit; 3] = [TextUnit::Utf8, TextUnit::Chars, TextUnit::Utf16];

#[derive(Clone, Debug)]
enum Edit {
    Insert {
        replica: usize,
        lamport_step: u64,
        origin: prop::sample::Index,
        text: String,
    },
    Delete {
        at: prop::sample::Index,
        len: u64,
    },
    /// Local edits behind each other, as somebody makes who types.
    Type {
        at: prop::sample::Index,
        deleted: usize,
        texts: Vec<String>,
        unit: usize,
    },
    /// Deleting one character after the other, forwards or backwards.
    Rub {
        at: prop::sample::Index,
        times: usize,
        backwards: bool,
        unit: usize,
    },
    /// A run of typing that arrives whole: each character is a change, later than the one before.
    Run {
        origin: prop::sample::Index,
        lamport_step: u64,
        text: String,
    },
    /// Edits that are made and then taken back.
    Undone(Vec<Self>),
    /// The text is written out and loaded.
    Reload,
    /// Edits of others that come all at once, so many of them announced.
    Patch {
        announced: usize,
        edits: Vec<Self>,
    },
}

fn any_edit() -> impl Strategy<Value = Edit> {
    let text = prop_oneof![3 => "[a-c]{1,3}", 1 => "[aé😀]{1,4}", 1 => "[x]{30,60}"];
    let index = any::<prop::sample::Index>;
    let texts = prop::collection::vec(text.clone(), 1..6);
    let simple = prop_oneof![
        1 => (index(), 1u64..4, "[pq]{2,24}").prop_map(|(origin, lamport_step, text)| {
            Edit::Run { origin, lamport_step, text }
        }),
        3 => (1usize..5, 0u64..3, index(), text).prop_map(|(replica, lamport_step, origin, text)| {
            Edit::Insert { replica, lamport_step, origin, text }
        }),
        1 => (index(), 1u64..12).prop_map(|(at, len)| Edit::Delete { at, len }),
        2 => (index(), 0usize..3, texts, 0usize..3)
            .prop_map(|(at, deleted, texts, unit)| Edit::Type { at, deleted, texts, unit }),
        1 => (index(), 1usize..9, any::<bool>(), 0usize..3)
            .prop_map(|(at, times, backwards, unit)| Edit::Rub { at, times, backwards, unit }),
    ];
    prop_oneof![
        12 => simple.clone(),
        1 => prop::collection::vec(simple, 1..5).prop_map(Edit::Undone),
        1 => Just(Edit::Reload),
    ]
}

/// Any of them, or a patch, of which nothing can be taken back.
fn any_edit_or_patch() -> impl Strategy<Value = Edit> {
    let from_others =
        |edit: &Edit| matches!(edit, Edit::Insert { .. } | Edit::Run { .. } | Edit::Delete { .. });
    let edits = prop::collection::vec(any_edit().prop_filter("no local edits", from_others), 1..12);
    let patch = (0usize..40, edits).prop_map(|(announced, edits)| Edit::Patch { announced, edits });
    prop_oneof![6 => any_edit(), 1 => patch]
}

/// Both texts, with the counters of four replicas.
struct Pair {
    list: List,
    text: Text,
    next: [u64; 5],
    /// When each made its last change.
    last: [u64; 5],
    lamport: u64,
    undo: Vec<TextUndo>,
    /// Whether nobody may read the text.
    is_in_patch: bool,
}

impl Pair {
    fn new(start: &str) -> Self {
        let set = stamp(1, 1, 0);
        let mut list = List::default();
        list.insert(None, set, start);
        let next = [0, start.chars().count() as u64, 0, 0, 0];
        Self {
            list,
            text: Text::new(set.op(), start),
            next,
            last: [1; 5],
            lamport: 1,
            undo: Vec::new(),
            is_in_patch: false,
        }
    }

    fn edit(&mut self, edit: &Edit) {
        match edit {
            Edit::Insert { replica, lamport_step, origin, text } => {
                // Without a step it is a late arrival: no later than its author's last change.
                self.lamport += lamport_step;
                let lamport = if *lamport_step == 0 { self.last[*replica] } else { self.lamport };
                let stamp = stamp(lamport, *replica as u64, self.next[*replica]);
                // A change has one time, and what it builds on is older.
                let is_older = |known: &Stamp| {
                    known.lamport < stamp.lamport
                        || *known < stamp && known.replica == stamp.replica
                };
                let stamps = self.list.0.iter().map(|char| char.stamp);
                let older: Vec<Stamp> = stamps.filter(is_older).collect();
                let choice = origin.index(older.len() + 1);
                self.insert(choice.checked_sub(1).map(|at| older[at].op()), stamp, text);
            }
            Edit::Run { origin, lamport_step, text } => {
                self.insert_run(origin, *lamport_step, text)
            }
            Edit::Delete { at, len } => {
                if !self.list.0.is_empty() {
                    let first = self.list.0[at.index(self.list.0.len())].stamp.op();
                    self.delete(IdRange { first, len: *len });
                    // Somebody's counters, which are no characters.
                    self.next[1 + at.index(4)] += len;
                }
            }
            Edit::Type { at, deleted, texts, unit } => self.type_on(at, *deleted, texts, *unit),
            Edit::Rub { at, times, backwards, unit } => self.rub(at, *times, *backwards, *unit),
            Edit::Undone(edits) => {
                let (before, known) = (self.list.clone(), std::mem::take(&mut self.undo));
                edits.iter().for_each(|edit| self.edit(edit));
                self.undo.reverse();
                self.text.take_back(&self.undo);
                (self.list, self.undo) = (before, known);
            }
            Edit::Reload => self.text = Text::from_pieces(self.text.pieces()),
            Edit::Patch { announced, edits } => {
                let clock = self.list.clock();
                self.text.expect_edits(*announced, &clock);
                self.is_in_patch = true;
                for edit in edits {
                    self.edit(edit);
                    self.text.assert_invariants(&self.list.clock());
                }
                self.is_in_patch = false;
                self.text.settle();
            }
        }
    }

    /// The list gets the characters one by one, the text all at once.
    fn insert_run(&mut self, origin: &prop::sample::Index, step: u64, text: &str) {
        let older: Vec<OpId> = self.list.0.iter().map(|char| char.stamp.op()).collect();
        let choice = origin.index(older.len() + 1);
        let origin = choice.checked_sub(1).map(|at| older[at]);
        self.lamport += 1;
        let first = stamp(self.lamport, 3, self.next[3]);
        let mut before = origin;
        for char in text.chars() {
            let stamp = stamp(self.lamport, 3, self.next[3]);
            self.list.insert(before, stamp, char.encode_utf8(&mut [0; 4]));
            before = Some(stamp.op());
            self.next[3] += 1;
            self.last[3] = self.lamport;
            self.lamport += step;
        }
        let clock = self.list.clock();
        self.undo.extend(self.text.insert(origin, first, text, &clock));
    }

    /// Replaces some characters at a random position, then types on behind.
    fn type_on(&mut self, at: &prop::sample::Index, deleted: usize, texts: &[String], unit: usize) {
        let shown = self.list.shown().len();
        let (mut from, unit) = (at.index(shown + 1), UNITS[unit]);
        let mut to = shown.min(from + deleted);
        for text in texts {
            // Each is a change of its own.
            self.lamport += 1;
            self.splice(from..to, unit, text);
            from += text.chars().count();
            to = from;
        }
    }

    fn rub(&mut self, at: &prop::sample::Index, times: usize, backwards: bool, unit: usize) {
        let mut at = at.index(self.list.shown().len() + 1);
        for _ in 0..times {
            if backwards && at > 0 {
                at -= 1;
            }
            if at < self.list.shown().len() {
                self.splice(at..at + 1, UNITS[unit], "");
            }
        }
    }

    /// A local edit of a range of characters, which is resolved in another unit.
    fn splice(&mut self, chars: Range<usize>, unit: TextUnit, text: &str) {
        let ends = self.list.ends();
        let range = ends[chars.start].in_unit(unit)..ends[chars.end].in_unit(unit);
        let stamp = stamp(self.lamport, 2, self.next[2]);
        if let Some(typed) = self.text.type_on(&range, unit, text, stamp) {
            return self.follow(&chars, typed, stamp);
        }
        let splice = self.resolve(&range, unit, !text.is_empty()).expect("a range of characters");
        splice.deleted.iter().for_each(|range| self.delete(*range));
        if !text.is_empty() {
            self.insert(splice.origin, stamp, text);
        }
    }

    /// Does in the list what was done in the text where the last edit was.
    fn follow(&mut self, chars: &Range<usize>, typed: Typed<'_>, stamp: Stamp) {
        let shown = self.list.shown();
        match typed.op {
            TextOp::Insert { origin, text } => {
                assert_eq!(typed.span, text.chars().count() as u64);
                assert_eq!(chars.start, chars.end);
                assert_eq!(origin, Some(shown[chars.start - 1].stamp.op()));
                let range = IdRange { first: stamp.op(), len: typed.span };
                self.undo.push(TextUndo::Inserted(range));
                self.next[2] += typed.span;
                self.last[2] = stamp.lamport;
                self.list.insert(origin, stamp, text);
            }
            TextOp::Delete { range, .. } => {
                assert_eq!((typed.span, chars.len() as u64), (range.len, range.len));
                let gone = &shown[chars.clone()];
                assert_eq!(gone[0].stamp.op(), range.first);
                assert_eq!(gone[gone.len() - 1].stamp.op(), range.first.plus(range.len - 1));
                let text = gone.iter().map(|char| char.char).collect();
                self.undo.push(TextUndo::Deleted { first: range.first, text });
                self.list.delete(range);
            }
        }
    }

    fn insert(&mut self, origin: Option<OpId>, stamp: Stamp, text: &str) {
        let replica = usize::try_from(stamp.replica.as_u64()).expect("a small id");
        self.next[replica] += text.chars().count() as u64;
        self.last[replica] = stamp.lamport;
        self.list.insert(origin, stamp, text);
        let clock = self.list.clock();
        // Asking where edits are moves nothing, but the text remembers it; so only some ask.
        let asks = stamp.counter.is_multiple_of(2) && !self.is_in_patch;
        let mut before = if asks { self.text.visible() } else { String::new() };
        let undo = self.text.insert(origin, stamp, text, &clock);
        if asks && undo.is_some() {
            let at = self.text.place_of_insertion(text);
            assert_eq!(at, Lengths::of(&before[..at.bytes]));
            before.insert_str(at.bytes, text);
            assert_eq!(before, self.text.visible());
        }
        self.undo.extend(undo);
    }

    fn delete(&mut self, range: IdRange) {
        let asks = range.first.counter.is_multiple_of(2) && !self.is_in_patch;
        let mut before = if asks { self.text.visible() } else { String::new() };
        self.text.delete(range, asks, |gone| {
            self.undo.push(gone.undo());
            if asks {
                let at = gone.at.expect("it was asked for");
                assert_eq!(at, Lengths::of(&before[..at.bytes]));
                let range = at.bytes..at.bytes + gone.text.len();
                assert_eq!(&before[range.clone()], gone.text);
                before.replace_range(range, "");
            }
        });
        assert!(!asks || before == self.text.visible());
        self.list.delete(range);
    }

    /// What the text resolves, which is what the list does.
    fn resolve(&mut self, range: &Range<usize>, unit: TextUnit, inserts: bool) -> Option<Splice> {
        let (found, expected) =
            (self.text.resolve(range, unit, inserts), self.list.resolve(range, unit));
        if let (Some(found), Some(expected)) = (&found, &expected) {
            assert_eq!(found.deleted, expected.deleted, "{range:?} {unit:?}");
            if inserts || range.is_empty() {
                assert_eq!(found.origin, expected.origin, "{range:?} {unit:?}");
            }
        }
        assert_eq!(found.is_some(), expected.is_some(), "{range:?} {unit:?}");
        expected
    }

    /// Compares every reading of both texts: positions in all units, and characters.
    fn assert_reads_alike(&self) {
        let (shown, ends) = (self.list.shown(), self.list.ends());
        for unit in UNITS {
            for position in 0..ends[ends.len() - 1].in_unit(unit) + 2 {
                let at = ends.iter().position(|end| end.in_unit(unit) == position);
                assert_eq!(self.text.measure(position, unit), at.map(|at| ends[at]));
                let char =
                    |at: Option<usize>| at.and_then(|at| shown.get(at)).map(|char| char.stamp.op());
                let before = at.map(|at| char(at.checked_sub(1)));
                assert_eq!(self.text.char_beside(position, unit, Side::Before), before);
                let after = at.map(|at| char(Some(at)));
                assert_eq!(self.text.char_beside(position, unit, Side::After), after);
            }
        }
        let mut before = Lengths::ZERO;
        for char in &self.list.0 {
            let shown = if char.deleted { Lengths::ZERO } else { Lengths::of_char(char.char) };
            let place = CharPosition { before, shown };
            assert_eq!(self.text.position_of(char.stamp.op()), Some(place), "{char:?}");
            before += shown;
        }
        assert_eq!(self.text.position_of(stamp(0, 1, 1 << 40).op()), None);
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
        edits in prop::collection::vec(any_edit_or_patch(), 0..60),
        ranges in prop::collection::vec((0usize..90, 0usize..12, 0usize..3, any::<bool>()), 8),
    ) {
        let mut pair = Pair::new(&start);
        for edit in &edits {
            pair.edit(edit);
            pair.assert_equal();
        }
        pair.assert_reads_alike();
        for (from, len, unit, inserts) in ranges {
            pair.resolve(&(from..from + len), UNITS[unit], inserts);
            pair.assert_equal();
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

#[test]
fn a_text_is_loaded_from_pieces_of_any_length() {
    let piece = |counter, fate| Piece { first: stamp(1, 1, counter).op(), fate };
    let long = "0123456789é".repeat(20);
    let whole = [
        piece(0, Fate::Visible(&long)),
        piece(220, Fate::Deleted(300)),
        piece(520, Fate::Visible("a")),
        piece(521, Fate::Visible("b")),
    ];
    let clock = |id: OpId| stamp(1, 1, id.counter);
    let mut text = Text::from_pieces(whole);
    text.assert_invariants(&clock);
    assert_eq!(text.visible(), format!("{long}ab"));
    assert_eq!(text.position_of(stamp(1, 1, 400).op()).unwrap().before.chars, 220);
    // Before and after the first edit, which builds the index.
    for _ in 0..2 {
        let again = Text::from_pieces(text.pieces());
        again.assert_invariants(&clock);
        assert_eq!(chars(&again), chars(&text));
        text.delete(IdRange { first: stamp(1, 1, 100).op(), len: 430 }, false, |_| {});
        text.assert_invariants(&clock);
    }
    assert_eq!(text.shown().chars, 100);
}

/// Each character by itself, if it shows.
fn chars(text: &Text) -> Vec<(OpId, Option<char>)> {
    let mut chars = Vec::new();
    for Piece { first, fate } in text.pieces() {
        let ids = (0..).map(|at| first.plus(at));
        match fate {
            Fate::Visible(text) => chars.extend(ids.zip(text.chars().map(Some))),
            Fate::Deleted(len) => chars.extend(ids.zip((0..len).map(|_| None))),
        }
    }
    chars
}

#[test]
fn a_deletion_of_ids_that_are_not_here_ends_soon() {
    let mut pair = Pair::new("some text");
    for (first, len) in [(0, u64::MAX), (5, 1 << 56), (1 << 50, 1 << 40)] {
        pair.text.delete(IdRange { first: stamp(1, 1, first).op(), len }, false, |_| {});
        pair.text.delete(IdRange { first: stamp(1, 9, first).op(), len }, false, |_| {});
    }
    assert_eq!(pair.text.visible(), "");
    pair.text.assert_invariants(&pair.list.clock());
}

/// Thousands insert at one place without knowing of each other: each has to pass those that are newer, which
/// costs a look at a few leaves and not one at each of them. Asking for a stamp is what a look is counted by.
#[test]
fn passing_rivals_costs_few_looks() {
    const RIVALS: u64 = 4_000;
    let looks = std::cell::Cell::new(0_usize);
    let time =
        |id: OpId| stamp(1 + u64::from(id.replica.as_u64() > 1), id.replica.as_u64(), id.counter);
    let clock = |id: OpId| {
        looks.set(looks.get() + 1);
        time(id)
    };
    let origin = stamp(1, 1, 0).op();
    for number in [|n: u64| n, |n| RIVALS + 1 - n, |n| n * 2_654_435_761 % 1_000_003] {
        let mut text = Text::new(origin, "<>");
        let mut order: Vec<u64> = (2..RIVALS + 2).map(number).map(|n| n + 10).collect();
        let mut most = 0;
        for replica in &order {
            looks.set(0);
            text.insert(Some(origin), stamp(2, *replica, 0), "x", &clock).unwrap();
            most = most.max(looks.get());
        }
        text.assert_invariants(&time);
        assert!(most <= 200, "{most} looks for one of {RIVALS}");
        // The greatest is the first, and the text itself is older than all.
        order.sort_unstable();
        let found: Vec<u64> = chars(&text).iter().map(|(id, _)| id.replica.as_u64()).collect();
        let rivals = order.into_iter().rev();
        assert_eq!(found, std::iter::once(1).chain(rivals).chain([1]).collect::<Vec<_>>());
    }
}
