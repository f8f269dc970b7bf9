//! What a state tells of the ops that led to it, so that the log beside it in a snapshot need only hold
//! the rest.
//!
//! A state keeps every move, the value that each field has now, and the id of every character of a
//! text that still counts. So most ops can be had from it as they were: creations and moves; what was
//! set and not replaced since; what was typed, but for the characters that were deleted. Where each
//! character was inserted follows from the order that they stand in (`state`). Where changes begin it
//! knows too, for the sake of their times.
//!
//! Which guesses are right is up to the writer, who has the ops: it compares each with what the state
//! tells, and writes out those that differ. The guesses need only be the same wherever the same state
//! is.
//!
//! Not here: how the rest is written (`codec::remainder`), which characters a deletion meant
//! (`graves`), the characters of one text (`texts`).

mod graves;
mod texts;

use hashbrown::{HashMap, HashSet};

use crate::batch::Span;
use crate::entries::EntryIx;
use crate::id::{Life, OpId, ReplicaId, Stamp};
use crate::op::{NewEntry, Op};
use crate::registers::FieldIx;
use crate::replica::Replica;
use crate::state::Creation;
use crate::tree::{MoveIx, OrderKey};
use crate::value::Value;
pub(crate) use graves::{Extent, Graves};
use texts::ToldText;

/// What a replica's state tells of the ops that are in its log.
#[derive(Debug)]
pub(crate) struct Told<'a> {
    replica: &'a Replica,
    /// What is known of each author's ops, in order of their counters.
    known: HashMap<ReplicaId, Vec<Known>>,
    texts: Vec<ToldText<'a>>,
    text_of_set: HashMap<OpId, usize>,
}

/// What is known of the op with a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Known {
    at: u64,
    what: What,
}

/// What an op did. A `Set` comes before the characters that it brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Create(MoveIx),
    Move(MoveIx),
    Set(EntryIx, FieldIx),
    /// It set a text that was spliced since.
    Text(usize),
    /// It typed a run of a text, or a part of it.
    Chars {
        text: usize,
        run: usize,
    },
}

/// What a state does not tell of a text: characters that are gone.
pub(crate) trait Lost {
    /// How many characters a `Set` brought.
    fn set_len(&mut self) -> Option<u64>;
    /// Says which characters come next that still show; nothing if that cannot be.
    fn shown(&mut self, text: &str) -> Option<()>;
    /// Adds the next characters, which were deleted.
    fn gone(&mut self, count: u64, into: &mut String) -> Option<()>;
}

impl<'a> Told<'a> {
    /// Looks through the state of a replica, whose log begins where `floor` says for each author. Costs
    /// the state.
    pub(crate) fn new(replica: &'a Replica, floor: &dyn Fn(ReplicaId) -> u64) -> Self {
        let mut told =
            Self { replica, known: HashMap::new(), texts: Vec::new(), text_of_set: HashMap::new() };
        told.add_moves(floor);
        for entry in replica.entries.indexes() {
            told.add_fields(entry, floor);
        }
        for known in told.known.values_mut() {
            known.sort_unstable();
        }
        told
    }

    fn add(&mut self, op: OpId, what: What) {
        self.known.entry(op.replica).or_default().push(Known { at: op.counter, what });
    }

    /// The oldest placement that an entry got in a life is its creation, if it was created.
    fn add_moves(&mut self, floor: &dyn Fn(ReplicaId) -> u64) {
        let tree = &self.replica.tree;
        let mut moves: Vec<(Stamp, MoveIx, EntryIx)> =
            tree.moves().map(|(ix, entry, stamp)| (stamp, ix, entry)).collect();
        moves.sort_unstable_by_key(|(stamp, ..)| *stamp);
        let mut created: HashSet<(EntryIx, Life)> = HashSet::new();
        for (stamp, ix, entry) in moves {
            let (_, life) = tree.target(ix);
            let is_first = !tree.is_within(ix) && created.insert((entry, life));
            if stamp.counter >= floor(stamp.replica) {
                self.add(stamp.op(), if is_first { What::Create(ix) } else { What::Move(ix) });
            }
        }
    }

    fn add_fields(&mut self, entry: EntryIx, floor: &dyn Fn(ReplicaId) -> u64) {
        let replica = self.replica;
        replica.entries.state(entry).each_register(|register| {
            let set = register.stamp.op();
            let Some(text) = register.spliced() else {
                if set.counter >= floor(set.replica) {
                    self.add(set, What::Set(entry, register.field));
                }
                return;
            };
            let field = replica.entries.names().field(register.field).clone();
            let clock = |op: OpId| replica.history.stamp(op);
            let about = (replica.entries.id(entry), register.life, field, set);
            let text = ToldText::new(about, text.pieces(), &clock, floor);
            let ix = self.texts.len();
            if set.counter >= floor(set.replica) {
                self.add(set, What::Text(ix));
            }
            for (run, first) in text.run_starts() {
                if first.counter >= floor(first.replica) {
                    self.add(first, What::Chars { text: ix, run });
                }
            }
            self.text_of_set.insert(set, ix);
            self.texts.push(text);
        });
    }

    fn known_of(&self, author: ReplicaId) -> &[Known] {
        self.known.get(&author).map_or(&[], Vec::as_slice)
    }

    /// Where the op with this id is among what is known of its author, if anything is known of it.
    fn find(&self, id: OpId) -> Option<usize> {
        let known = self.known_of(id.replica);
        let at = known.partition_point(|one| one.at < id.counter);
        if known.get(at).is_some_and(|one| one.at == id.counter) {
            return Some(at);
        }
        let before = at.checked_sub(1)?;
        let What::Chars { text, run } = known.get(before)?.what else { return None };
        self.texts.get(text)?.run(run)?.has(id).then_some(before)
    }

    /// The text, and the run in it, that a character of the log belongs to.
    fn run_of(&self, id: OpId) -> Option<(usize, usize)> {
        let known = self.known_of(id.replica);
        let after = known.partition_point(|one| one.at <= id.counter);
        let What::Chars { text, run } = known.get(after.checked_sub(1)?)?.what else { return None };
        self.texts.get(text)?.run(run)?.has(id).then_some((text, run))
    }

    /// The changes of an author from one counter to another, of which these name deps.
    pub(crate) fn spans(
        &self,
        author: ReplicaId,
        range: (u64, u64),
        links: &[(u64, OpId)],
    ) -> Option<Vec<Span>> {
        self.replica.history.spans(author, range, links)
    }

    /// How many characters of the log are gone.
    pub(crate) fn gone_count(&self) -> u64 {
        self.texts.iter().map(|text| text.gone_count).fold(0, u64::saturating_add)
    }

    /// Whether anything is known of an op.
    pub(crate) fn knows(&self, id: OpId) -> bool {
        self.find(id).is_some()
    }

    /// The first counter from that of `id` on of which anything is known, before `end`; else `end`.
    pub(crate) fn next_known(&self, id: OpId, end: u64) -> u64 {
        if self.knows(id) {
            return id.counter;
        }
        let known = self.known_of(id.replica);
        let at = known.partition_point(|one| one.at < id.counter);
        known.get(at).map_or(end, |one| end.min(one.at))
    }

    /// The op that begins at `id`, as far as the state tells, and ends before the counter `end`.
    pub(crate) fn op(&self, id: OpId, end: u64, lost: &mut impl Lost) -> Option<Op> {
        let at = self.find(id)?;
        match self.known_of(id.replica).get(at)?.what {
            What::Create(ix) => self.moved(ix, true),
            What::Move(ix) => self.moved(ix, false),
            What::Set(entry, field) => {
                let state = self.replica.entries.state(entry);
                let register = state.register(field)?;
                let field = self.replica.entries.names().field(field).clone();
                let (entry, life) = (self.replica.entries.id(entry), register.life);
                Some(Op::Set { entry, life, field, value: register.value() })
            }
            What::Text(text) => {
                let told = self.texts.get(text)?;
                let len = lost.set_len().filter(|len| *len <= end - id.counter)?;
                let value = Value::Text(self.chars(at + 1, text, id, len, lost)?);
                let (entry, life, field) = (told.entry, told.life, told.field.clone());
                Some(Op::Set { entry, life, field, value })
            }
            What::Chars { text, run } => {
                let told = self.texts.get(text)?;
                let origin = told.run(run)?.origin_of(id);
                let len = self.typed_len(at, text, id, end);
                let chars = self.chars(at, text, id, len, lost)?;
                Some(told.insert(origin, chars))
            }
        }
    }

    fn moved(&self, ix: MoveIx, is_first: bool) -> Option<Op> {
        let Replica { tree, entries, .. } = self.replica;
        let (stamp, (parent, life)) = (tree.stamp(ix)?, tree.target(ix));
        let (of, parent) = (tree.entry(ix), entries.id(parent));
        let (entry, key) = (entries.id(of), OrderKey::new(tree.key(ix))?);
        if tree.is_within(ix) {
            return Some(Op::Reorder { entry, life, parent, key });
        }
        let records = entries.state(of).life_records();
        let creation = records.iter().find(|one| one.life == life).map(|one| one.creation);
        let kind = match creation {
            Some(Creation::Item) if is_first => Some(NewEntry::Item),
            Some(Creation::Link { target, op }) if op == stamp.op() => {
                Some(NewEntry::Link { target })
            }
            _ => None,
        };
        Some(match kind {
            Some(kind) => Op::Create { entry, life, kind, parent, key },
            None => Op::Move { entry, life, parent, key, trashed_at: tree.time(ix) },
        })
    }

    /// How many characters were typed in one go from `id` on, which is in the run at `known`.
    fn typed_len(&self, known: usize, text: usize, id: OpId, end: u64) -> u64 {
        let mut at = id.counter;
        let told = self.texts.get(text);
        for one in self.known_of(id.replica).get(known..).unwrap_or_default() {
            let What::Chars { text: of, run } = one.what else { break };
            let Some(run) = told.and_then(|told| told.run(run)).filter(|_| of == text) else {
                break;
            };
            let goes_on = at == id.counter
                || run.first.counter == at && run.origin == Some(OpId { counter: at - 1, ..id });
            if !goes_on || at >= end {
                break;
            }
            at = run.end().min(end);
        }
        at - id.counter
    }

    /// So many characters of a text with consecutive ids; the first is in the run at `known`.
    fn chars(
        &self,
        known: usize,
        text: usize,
        id: OpId,
        len: u64,
        lost: &mut impl Lost,
    ) -> Option<String> {
        let mut chars = String::new();
        let (mut at, end, mut known) = (id.counter, id.counter + len, known);
        while at < end {
            let What::Chars { text: of, run } = self.known_of(id.replica).get(known)?.what else {
                return None;
            };
            let run = self.texts.get(text).filter(|_| of == text)?.run(run)?;
            let part = run.part(at, end)?;
            match part.shown {
                Some(shown) => {
                    lost.shown(shown)?;
                    chars.push_str(shown);
                }
                None => lost.gone(part.len, &mut chars)?,
            }
            at += part.len;
            known += 1;
        }
        Some(chars)
    }
}
