//! What is noted of transactions, and what undoing them does to a replica. That it goes through the same
//! states, and gets on with others, is held by the properties.

use proptest::prelude::*;

use super::*;
use crate::TextUnit;
use crate::codec::Patch;
use crate::id::{Life, ReplicaId};
use crate::op::NewEntry;
use crate::value::Value;

const ROOT: EntryId = EntryId::ROOT;
const END: usize = usize::MAX;
const NOW: Timestamp = Timestamp::from_millis(7);

/// A replica whose transactions are noted.
struct Desk {
    replica: Replica,
    stand_ins: StandIns,
}

impl Desk {
    fn new() -> Self {
        let replica = Replica::new(ReplicaId::new(1).unwrap());
        Self { replica, stand_ins: StandIns::default() }
    }

    fn make(&mut self, edits: impl FnOnce(&mut Replica) -> Result<(), EditError>) -> Reversal {
        let transaction = self.replica.begin();
        edits(&mut self.replica).unwrap();
        let reversal = self.replica.commit_reversibly(transaction, &self.stand_ins).unwrap();
        self.assert_invariants();
        reversal
    }

    fn undo(&mut self, done: &[Reversal]) -> Option<Reversal> {
        let mentioned = || {
            let mut mentioned = Mentioned::default();
            done.iter().for_each(|one| one.mention(&mut mentioned));
            mentioned
        };
        let undone = self.replica.reverse(done, &mut self.stand_ins, mentioned, NOW).unwrap();
        self.assert_invariants();
        undone
    }

    fn assert_invariants(&self) {
        self.replica.assert_invariants();
        self.stand_ins.assert_invariants();
    }

    fn set(&mut self, text: &str) -> Reversal {
        self.make(|replica| replica.set(ROOT, Field::Value, Value::Text(text.into())))
    }

    fn splice(&mut self, range: std::ops::Range<usize>, text: &str) -> Reversal {
        self.make(|replica| replica.splice(ROOT, Field::Value, range, text))
    }

    fn text(&self) -> String {
        match self.replica.value(ROOT, &Field::Value) {
            Value::Text(text) => text,
            other => format!("{other:?}"),
        }
    }
}

#[test]
fn what_changes_nothing_is_not_noted() {
    let mut desk = Desk::new();
    assert!(desk.make(|_| Ok(())).is_empty());
    let taken_back = desk.make(|replica| {
        let inner = replica.begin();
        replica.create_item(ROOT, 0)?;
        replica.set(ROOT, Field::Label, Value::Text("x".into()))?;
        replica.roll_back(inner);
        Ok(())
    });
    assert!(taken_back.is_empty());
    assert!(desk.undo(&[taken_back]).is_none());
}

#[test]
fn an_inner_transaction_is_a_part_of_the_outer_one() {
    let mut desk = Desk::new();
    desk.set("a");
    let outer = desk.replica.begin();
    let inner = desk.replica.begin();
    desk.replica.splice(ROOT, Field::Value, 1..1, "b").unwrap();
    assert!(desk.replica.commit_reversibly(inner, &desk.stand_ins).unwrap().is_empty());
    let whole = desk.replica.commit_reversibly(outer, &desk.stand_ins).unwrap();
    desk.undo(&[whole]);
    assert_eq!(desk.text(), "a");
}

#[test]
fn inside_a_transaction_nothing_is_reversed() {
    let mut desk = Desk::new();
    let done = [desk.set("a")];
    let open = desk.replica.begin();
    let refused = desk.replica.reverse(&done, &mut desk.stand_ins, Mentioned::default, NOW);
    assert_eq!(refused.unwrap_err(), EditError::TransactionOpen);
    desk.replica.roll_back(open);
    assert_eq!(desk.text(), "a");
}

#[test]
fn what_is_purged_is_not_noted() {
    let mut desk = Desk::new();
    let mut made = None;
    let purged = desk.make(|replica| {
        let item = replica.create_item(ROOT, 0)?;
        made = Some(item);
        replica.set(item, Field::Label, Value::Text("x".into()))?;
        replica.purge(item)?;
        replica.set(ROOT, Field::Label, Value::Text("y".into()))
    });
    desk.undo(&[purged]);
    assert!(!desk.replica.is_alive(made.unwrap()));
    assert_eq!(desk.replica.value(ROOT, &Field::Label), Value::None);
}

#[test]
fn what_lives_again_is_another_than_what_was_edited() {
    let mut desk = Desk::new();
    let item = EntryId::from_bytes([7; 16]);
    let label = || Value::Text("x".into());
    desk.make(|replica| replica.create_with_id(item, NewEntry::Item, ROOT, 0));
    let edited = desk.make(|replica| {
        replica.set(item, Field::Label, label())?;
        replica.move_to(item, EntryId::LOST_AND_FOUND, 0)
    });
    desk.make(|replica| replica.purge(item));
    desk.make(|replica| {
        replica.create_with_id(item, NewEntry::Item, EntryId::LOST_AND_FOUND, 0)?;
        replica.set(item, Field::Label, label())
    });
    assert_eq!(desk.replica.entries.state(EntryIx::new(3)).life(), Life::FIRST.next().unwrap());
    assert!(desk.undo(&[edited]).is_none());
    assert_eq!(desk.replica.value(item, &Field::Label), label());
}

#[test]
fn typing_in_a_row_is_one_reversal() {
    let mut desk = Desk::new();
    desk.set("[]");
    let mut typed = desk.splice(1..1, "a");
    for (at, key) in [(2, "b"), (3, "c")] {
        typed.absorb(desk.splice(at..at, key)).unwrap();
    }
    typed.absorb(desk.splice(3..4, "")).unwrap();
    assert_eq!(typed.fields[0].edits.len(), 2, "what came, and what went of it");
    let elsewhere = desk.make(|replica| replica.set(ROOT, Field::Label, Value::Int(1)));
    let elsewhere = typed.absorb(elsewhere).unwrap_err();
    let replaced = typed.absorb(desk.set("other")).unwrap_err();
    assert!(replaced.size() > elsewhere.size());
    desk.undo(&[typed, elsewhere, replaced]);
    assert_eq!(desk.text(), "[]");
}

#[test]
fn characters_that_come_and_go_keep_their_first_names() {
    let mut desk = Desk::new();
    desk.set("[]");
    let mut typed = desk.splice(1..1, "hello");
    let mut cut = desk.splice(2..5, "");
    for _ in 0..4 {
        let uncut = desk.undo(&[cut]).unwrap();
        assert_eq!(desk.text(), "[hello]");
        let untyped = desk.undo(&[typed]).unwrap();
        assert_eq!(desk.text(), "[]");
        typed = desk.undo(&[untyped]).unwrap();
        cut = desk.undo(&[uncut]).unwrap();
        assert_eq!(desk.text(), "[ho]");
    }
    assert!(desk.stand_ins.len() <= 5, "they do not pile up: {:?}", desk.stand_ins);
}

#[test]
fn an_undo_that_does_not_fit_leaves_everything_as_it_was() {
    let mut desk = Desk::new();
    let large = "x".repeat(crate::limits::CHANGE_BYTES_MAX / 2 + 1);
    let fields = [Field::Label, Field::Value];
    for field in fields.clone() {
        desk.make(|replica| replica.set(ROOT, field, Value::Text(large.clone())));
    }
    let done = [desk.make(|replica| {
        let set = |field| replica.set(ROOT, field, Value::None);
        fields.into_iter().try_for_each(set)
    })];
    let (before, stand_ins) = (desk.replica.digest(), desk.stand_ins.clone());
    let version = desk.replica.version().clone();
    let refused = desk.replica.reverse(&done, &mut desk.stand_ins, Mentioned::default, NOW);
    assert!(matches!(refused, Err(EditError::ChangeTooLarge { .. })), "{refused:?}");
    assert_eq!((desk.replica.digest(), desk.replica.version()), (before, &version));
    assert_eq!(desk.stand_ins, stand_ins);
}

/// Goal: an undo that fails halfway has not changed what is known of texts of others and where they are.
/// Method: two large texts with something of others were replaced, and others have typed into what did.
#[test]
fn what_stands_for_others_is_as_before_when_an_undo_does_not_fit() {
    let mut desk = Desk::new();
    let mut phone = Replica::new(ReplicaId::new(2).unwrap());
    let send = |from: &Replica, to: &mut Replica| {
        to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
    };
    let fields = [Field::Label, Field::Value];
    let large = "x".repeat(crate::limits::CHANGE_BYTES_MAX / 2 + 1);
    let set = |replica: &mut Replica, text: &str| {
        let set = |field| replica.set(ROOT, field, Value::Text(text.into()));
        fields.clone().into_iter().try_for_each(set)
    };
    let mut type_there = |desk: &mut Desk| {
        send(&desk.replica, &mut phone);
        fields.iter().for_each(|field| phone.splice(ROOT, field.clone(), 0..0, "!").unwrap());
        send(&phone, &mut desk.replica);
    };
    for field in &fields {
        desk.make(|replica| replica.set(ROOT, field.clone(), Value::Text(large.clone())));
    }
    type_there(&mut desk);
    let done = [desk.make(|replica| set(replica, "small"))];
    let refused = |desk: &mut Desk| {
        let before = desk.stand_ins.clone();
        let refused = desk.replica.reverse(&done, &mut desk.stand_ins, Mentioned::default, NOW);
        assert!(matches!(refused, Err(EditError::ChangeTooLarge { .. })), "{refused:?}");
        assert_eq!(desk.stand_ins, before);
    };
    refused(&mut desk);
    type_there(&mut desk);
    refused(&mut desk);
}

#[test]
fn a_restored_order_is_that_of_before_on_every_replica() {
    let mut desk = Desk::new();
    let mut made = Vec::new();
    desk.make(|replica| {
        made = (0..5).map(|_| replica.create_item(ROOT, END)).collect::<Result<_, _>>()?;
        Ok(())
    });
    let before: Vec<_> = desk.replica.children(ROOT).collect();
    let moved = desk.make(|replica| {
        replica.move_to(made[4], ROOT, 0)?;
        replica.move_to(made[0], made[1], 0)?;
        replica.move_to(made[2], ROOT, END)
    });
    let mut phone = Replica::new(ReplicaId::new(2).unwrap());
    let send = |from: &Replica, to: &mut Replica| {
        to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
    };
    send(&desk.replica, &mut phone);
    let theirs = phone.create_item(ROOT, 1).unwrap();
    desk.undo(&[moved]);
    assert_eq!(desk.replica.children(ROOT).collect::<Vec<_>>(), before);
    send(&phone, &mut desk.replica);
    send(&desk.replica, &mut phone);
    assert_eq!(desk.replica.digest(), phone.digest());
    let with_theirs: Vec<_> = phone.children(ROOT).filter(|entry| *entry != theirs).collect();
    assert_eq!(with_theirs, before);
}

#[test]
fn what_is_mentioned_is_asked_for_once() {
    let mut desk = Desk::new();
    let fields: Vec<Field> = (0..9).map(|key| Field::Info(format!("{key}").into())).collect();
    let set = |replica: &mut Replica, text: &str| {
        let mut fields = fields.iter();
        fields.try_for_each(|field| replica.set(ROOT, field.clone(), Value::Text(text.into())))
    };
    desk.make(|replica| set(replica, "some text"));
    let gone = desk.make(|replica| {
        fields.iter().try_for_each(|field| replica.splice(ROOT, field.clone(), 2..5, ""))
    });
    let replaced = desk.make(|replica| set(replica, "another"));
    let asked = std::cell::Cell::new(0);
    let mentioned = || {
        asked.set(asked.get() + 1);
        let mut mentioned = Mentioned::default();
        gone.mention(&mut mentioned);
        mentioned
    };
    desk.replica.reverse(&[replaced], &mut desk.stand_ins, mentioned, NOW).unwrap().unwrap();
    assert_eq!(asked.get(), 1);
    desk.undo(std::slice::from_ref(&gone)).unwrap();
    assert!(
        fields
            .iter()
            .all(|field| desk.replica.value(ROOT, field) == Value::Text("some text".into()))
    );
}

#[derive(Clone, Debug)]
enum Step {
    Set(String),
    Splice(usize, usize, String),
    /// The same by somebody else.
    Theirs(usize, usize, String),
    Undo,
    Redo,
    /// A step that nobody can undo any more is forgotten, and what stands for what it speaks of.
    Forget,
}

fn any_step() -> impl Strategy<Value = Step> {
    let splice = || (0usize..6, 0usize..4, "[a-c]{0,3}");
    prop_oneof![
        2 => "[x-z]{1,4}".prop_map(Step::Set),
        3 => splice().prop_map(|(at, len, text)| Step::Splice(at, len, text)),
        3 => splice().prop_map(|(at, len, text)| Step::Theirs(at, len, text)),
        4 => Just(Step::Undo),
        2 => Just(Step::Redo),
        1 => Just(Step::Forget),
    ]
}

proptest! {
    /// What stands for what is sound after each step of a text's story, however often things come and go.
    #[test]
    fn what_stands_for_others_is_sound(steps in prop::collection::vec(any_step(), 0..30)) {
        let mut desk = Desk::new();
        let mut phone = Replica::new(ReplicaId::new(2).unwrap());
        let send = |from: &Replica, to: &mut Replica| {
            to.integrate(Patch::decode(&from.export(to.version())).unwrap()).unwrap();
        };
        desk.set("begin");
        let (mut back, mut forth): (Vec<Reversal>, Vec<Reversal>) = (Vec::new(), Vec::new());
        for step in steps {
            let mentioned = |all: &[&[Reversal]]| {
                let mut mentioned = Mentioned::default();
                all.iter().copied().flatten().for_each(|one| one.mention(&mut mentioned));
                mentioned
            };
            match step {
                Step::Set(text) => {
                    back.push(desk.set(&text));
                    forth.clear();
                }
                Step::Splice(at, len, text) => {
                    let end = desk.text().len();
                    let from = at.min(end);
                    back.push(desk.splice(from..end.min(from + len), &text));
                    forth.clear();
                }
                Step::Theirs(at, len, text) => {
                    send(&desk.replica, &mut phone);
                    let end = phone.text_len(ROOT, &Field::Value, TextUnit::Utf16).unwrap();
                    let from = at.min(end);
                    phone.splice(ROOT, Field::Value, from..end.min(from + len), &text).unwrap();
                    send(&phone, &mut desk.replica);
                }
                Step::Undo | Step::Redo => {
                    let (from, to) = match step {
                        Step::Undo => (&mut back, &mut forth),
                        _ => (&mut forth, &mut back),
                    };
                    let Some(done) = from.pop() else { continue };
                    let all = || mentioned(&[from, to, std::slice::from_ref(&done)]);
                    let done = std::slice::from_ref(&done);
                    let undone = desk.replica.reverse(done, &mut desk.stand_ins, all, NOW).unwrap();
                    to.extend(undone);
                }
                Step::Forget => {
                    if !back.is_empty() {
                        back.remove(0);
                    }
                    desk.stand_ins.retain(&mentioned(&[&back, &forth]));
                }
            }
            desk.assert_invariants();
        }
    }
}
