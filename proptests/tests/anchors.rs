//! Texts and anchors of several replicas that edit one text at the same time, against the naive rule:
//! an anchor is where its character is, or where it was.
//!
//! After each step, the replica that it touched must read its text as the model does, in every unit,
//! and hold every anchor that was ever made where the model has its character.

use proptest::prelude::{Strategy, any, prop};
use proptest::prop_oneof;
use sds_engine::{
    Anchor, Change, EditError, EntryId, Field, OpId, Patch, Replica, ReplicaId, Side, TextUnit,
    Value, Version,
};
use sds_proptests::check::check;
use sds_proptests::model::{Character, Model};

const UNITS: [TextUnit; 3] = [TextUnit::Utf8, TextUnit::Chars, TextUnit::Utf16];
const TEXTS: [&str; 6] = ["x", "word", "é", "a😀b", "😀", "a longer piece of text"];
const ROOT: EntryId = EntryId::ROOT;
const FIELD: Field = Field::Value;

/// Something that happens; `at` picks a replica, `place` a position in its text.
#[derive(Clone, Debug)]
enum Step {
    /// A replacement, then typing on behind it. A failing one is taken back.
    Splice {
        at: usize,
        place: usize,
        deleted: usize,
        text: usize,
        more: usize,
        fails: bool,
    },
    Anchor {
        at: usize,
        place: usize,
        is_before: bool,
    },
    Send {
        from: usize,
        to: usize,
    },
    Set {
        at: usize,
    },
    Reload {
        at: usize,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let place = || 0usize..40;
    let fails = prop::bool::weighted(0.1);
    prop_oneof![
        32 => (0usize..3, place(), 0usize..5, 0..TEXTS.len(), 0usize..4, fails).prop_map(
            |(at, place, deleted, text, more, fails)| {
                Step::Splice { at, place, deleted, text, more, fails }
            }
        ),
        16 => (0usize..3, place(), any::<bool>())
            .prop_map(|(at, place, is_before)| Step::Anchor { at, place, is_before }),
        16 => (0usize..3, 0usize..3).prop_map(|(from, to)| Step::Send { from, to }),
        4 => (0usize..3).prop_map(|at| Step::Reload { at }),
        1 => (0usize..3).prop_map(|at| Step::Set { at }),
    ]
}

/// An anchor, and what the naive rule knows it by.
struct Held {
    anchor: Anchor,
    set: OpId,
    side: Side,
    char: Option<OpId>,
}

struct Party {
    replicas: Vec<Replica>,
    held: Vec<Held>,
}

impl Party {
    fn new() -> Self {
        let ids = [0x7a11, u64::MAX, 1];
        let replica = |id| Replica::new(ReplicaId::new(id).expect("not zero"));
        let mut party = Self { replicas: ids.map(replica).into(), held: Vec::new() };
        party.step(&Step::Set { at: 0 });
        party.step(&Step::Send { from: 0, to: 1 });
        party.step(&Step::Send { from: 0, to: 2 });
        party
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Splice { at, place, deleted, text, more, fails } => {
                self.splice(at, place..place + deleted, (TEXTS[text], more), fails);
            }
            Step::Anchor { at, place, is_before } => {
                self.hold(at, place, if is_before { Side::Before } else { Side::After });
            }
            Step::Send { from, to } => {
                let patch = self.replicas[from].export(self.replicas[to].version());
                let patch = Patch::decode(&patch).expect("what a replica exports");
                self.replicas[to].integrate(patch).expect("an honest patch");
                self.assert_alike(to);
            }
            Step::Set { at } => {
                let text = Value::Text("some text, 😀 and more".into());
                self.replicas[at].set(ROOT, FIELD, text).expect("Root has a value");
                self.assert_alike(at);
            }
            Step::Reload { at } => {
                let replica = &self.replicas[at];
                let loaded = Replica::from_snapshot(replica.id(), &replica.snapshot());
                self.replicas[at] = loaded.expect("a snapshot");
                self.assert_alike(at);
            }
        }
    }

    fn splice(
        &mut self,
        at: usize,
        chars: std::ops::Range<usize>,
        (text, more): (&str, usize),
        fails: bool,
    ) {
        let replica = &mut self.replicas[at];
        let len = replica.text_len(ROOT, &FIELD, TextUnit::Chars).expect("a text");
        let unit = UNITS[(chars.start + more) % 3];
        let [from, to] = [chars.start, chars.end].map(|place| {
            let place = place % (len + 1);
            replica.text_position(ROOT, &FIELD, place, TextUnit::Chars, unit).expect("inside")
        });
        let range = from.min(to)..from.max(to);
        let mut end = range.start;
        let done = replica.transact(|replica| {
            replica.splice_by(ROOT, FIELD, range, unit, text)?;
            for _ in 0..more {
                end += length(text, unit);
                replica.splice_by(ROOT, FIELD, end..end, unit, text)?;
            }
            if fails { Err(EditError::NotText(ROOT)) } else { Ok(()) }
        });
        assert_eq!(done.is_err(), fails);
        self.assert_alike(at);
    }

    fn hold(&mut self, at: usize, place: usize, side: Side) {
        let replica = &self.replicas[at];
        let (characters, set) = naive(replica);
        let shown: Vec<OpId> =
            characters.iter().filter(|char| !char.deleted).map(|char| char.stamp.op()).collect();
        let place = place % (shown.len() + 1);
        let beside = match side {
            Side::Before => place.checked_sub(1),
            Side::After => Some(place),
        };
        let char = beside.and_then(|at| shown.get(at)).copied();
        let anchor = replica.anchor(ROOT, &FIELD, place, TextUnit::Chars, side).expect("inside");
        assert_eq!(Anchor::decode(&anchor.encode()).as_ref(), Ok(&anchor));
        self.held.push(Held { anchor, set, side, char });
    }

    /// Panics unless a replica reads its text, and finds every anchor, as the model does.
    fn assert_alike(&self, at: usize) {
        let replica = &self.replicas[at];
        replica.assert_invariants();
        let (characters, set) = naive(replica);
        let shown = characters.iter().filter(|char| !char.deleted);
        let text: String = shown.map(|char| char.content).collect();
        for unit in UNITS {
            let len = length(&text, unit);
            assert_eq!(replica.text_len(ROOT, &FIELD, unit), Some(len));
            let slice = replica.text_slice(ROOT, &FIELD, 0..len, unit).expect("all of it");
            assert_eq!(slice, text.as_str());
            assert_eq!(slice.to_string(), text);
            for held in &self.held {
                let expected = (held.set == set).then(|| held.position(&characters, unit));
                let found = replica.anchor_position(&held.anchor, unit);
                assert_eq!(found, expected.flatten(), "{:?}", held.anchor);
            }
        }
        assert_slices(replica, &text);
    }
}

impl Held {
    /// Where the anchor is, in the plainest way; none if its character is not there.
    fn position(&self, characters: &[Character], unit: TextUnit) -> Option<usize> {
        let shown = |until: usize| -> usize {
            let before = characters[..until].iter().filter(|char| !char.deleted);
            before.map(|char| length(char.content.encode_utf8(&mut [0; 4]), unit)).sum()
        };
        let Some(char) = self.char else {
            return Some(if self.side == Side::Before { 0 } else { shown(characters.len()) });
        };
        let at = characters.iter().position(|known| known.stamp.op() == char)?;
        Some(if self.side == Side::Before { shown(at + 1) } else { shown(at) })
    }
}

/// Every character of the replica's text, and the `Set` that made it, as the model has them.
fn naive(replica: &Replica) -> (Vec<Character>, OpId) {
    let changes: Vec<Change> = replica
        .changes_since(&Version::new())
        .expect("nothing was dropped")
        .iter()
        .map(|bytes| Change::decode(bytes).expect("a change of a replica"))
        .collect();
    let model = Model::of(&changes);
    let (set, _) = model.register(ROOT, &FIELD).expect("a text");
    (model.characters(ROOT, &FIELD).expect("a text"), set.op())
}

/// Every slice of a short text is what `str` says, in each unit.
fn assert_slices(replica: &Replica, text: &str) {
    let ends: Vec<usize> =
        text.char_indices().map(|(byte, _)| byte).chain([text.len()]).take(12).collect();
    for unit in UNITS {
        for from in 0..8 {
            for to in from..10 {
                let byte = |at| ends.iter().copied().find(|end| length(&text[..*end], unit) == at);
                let expected = byte(from).zip(byte(to)).map(|(from, to)| &text[from..to]);
                let slice = replica.text_slice(ROOT, &FIELD, from..to, unit).ok();
                assert_eq!(slice.map(|slice| slice.to_string()).as_deref(), expected);
            }
        }
    }
}

fn length(text: &str, unit: TextUnit) -> usize {
    match unit {
        TextUnit::Utf8 => text.len(),
        TextUnit::Chars => text.chars().count(),
        TextUnit::Utf16 => text.encode_utf16().count(),
    }
}

#[test]
fn texts_and_anchors_are_where_the_model_has_them() {
    check(200, &prop::collection::vec(any_step(), 1..40), |steps| {
        let mut party = Party::new();
        steps.iter().for_each(|step| party.step(step));
        // In the end all have the same changes, so each anchor is at one place.
        for (from, to) in [(0, 1), (1, 2), (2, 1), (1, 0)] {
            party.step(&Step::Send { from, to });
        }
        for held in &party.held {
            let places = party.replicas.iter();
            let mut places =
                places.map(|replica| replica.anchor_position(&held.anchor, TextUnit::Utf16));
            let first = places.next();
            assert!(places.all(|place| Some(place) == first), "{:?}", held.anchor);
        }
    });
}
