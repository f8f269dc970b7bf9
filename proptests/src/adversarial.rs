//! Well-formed changes that no honest author would make.
//!
//! A [`Forgery`] is a recipe of small numbers; [`Forgery::make`] turns it into a change by looking
//! up what the numbers mean in what the forger has seen. So a recipe can be drawn at random, and
//! still mostly touches what other changes touch: moves in circles, splices after characters of
//! another text, lives out of the blue, equal order keys, parents that are links or unknown.

use std::collections::BTreeSet;

use arbitrary::Arbitrary;
use proptest::prelude::{Just, Strategy, any, prop};
use proptest::prop_oneof;
use sds_engine::{
    Change, EntryId, IdRange, Life, NewEntry, Op, OpId, OrderKey, ReplicaId, Timestamp,
};

use crate::model::{History, Model};
use crate::pool;

/// The recipe of one forged change.
#[derive(Clone, Debug, Arbitrary)]
pub struct Forgery {
    /// Which of the replicas seen the change admits to have seen: a bit for each.
    pub seen: u8,
    /// The first op; there is always one.
    pub first: ForgedOp,
    /// Another op in the same change.
    pub second: Option<ForgedOp>,
}

/// The recipe of one forged op: the numbers pick among what is known.
#[derive(Clone, Debug, Arbitrary)]
#[expect(missing_docs, reason = "the fields are those of `Op`, as numbers that pick")]
pub enum ForgedOp {
    Create { entry: u8, life: u8, link: Option<u8>, parent: u8, key: u8 },
    Move { entry: u8, life: u8, parent: u8, key: u8 },
    Trash { entry: u8, life: u8, key: u8, time: u8 },
    Reorder { entry: u8, life: u8, parent: u8, key: u8 },
    Set { entry: u8, life: u8, field: u8, value: u8 },
    Insert { entry: u8, life: u8, field: u8, set: u8, origin: u8, text: u8 },
    Delete { entry: u8, life: u8, field: u8, set: u8, first: u8, len: u8 },
    Purge { entry: u8, life: u8, also: Option<u8> },
    Revive { entry: u8, life: u8 },
    Skip { count: u8 },
}

impl Forgery {
    /// Recipes of every kind.
    pub fn any() -> impl Strategy<Value = Self> {
        let seen = prop_oneof![3 => Just(u8::MAX), 1 => any::<u8>()];
        (seen, ForgedOp::any(), prop::option::weighted(0.3, ForgedOp::any()))
            .prop_map(|(seen, first, second)| Self { seen, first, second })
    }

    /// The change of `author` that this recipe gives, on top of what `history` has of others.
    ///
    /// None where the recipe gives a change that is not well formed, such as a move of Root.
    #[must_use]
    pub fn make(&self, author: ReplicaId, history: &History) -> Option<Change> {
        let version = history.version();
        let others = version.iter().filter(|(replica, _)| *replica != author);
        let deps: Vec<OpId> = others
            .enumerate()
            .filter(|(place, _)| self.seen >> (place % 8) & 1 == 1)
            .map(|(_, (replica, next))| OpId { replica, counter: next - 1 })
            .collect();
        let start = version.next(author);
        let forger = Forger::new(history, author, start, &deps);
        let ops: Vec<Op> = std::iter::once(&self.first)
            .chain(&self.second)
            .map(|op| forger.op(op))
            .collect::<Option<_>>()?;
        let change = Change::new(author, start, deps, &ops).ok()?;
        let span = |ops: &[Op]| ops.iter().map(Op::span).sum::<u64>();
        assert_eq!(span(change.ops()), span(&ops), "a change holds the ops it was made of");
        Some(change)
    }
}

impl ForgedOp {
    /// Recipes of every kind.
    pub fn any() -> impl Strategy<Value = Self> {
        type Numbers = (u8, u8, u8, u8, u8, u8);
        (0..10u8, any::<Numbers>(), any::<Option<u8>>()).prop_map(
            |(kind, (entry, life, a, b, c, d), option)| match kind {
                0 => Self::Create { entry, life, link: option, parent: a, key: b },
                1 => Self::Move { entry, life, parent: a, key: b },
                2 => Self::Trash { entry, life, key: a, time: b },
                3 => Self::Reorder { entry, life, parent: a, key: b },
                4 => Self::Set { entry, life, field: a, value: b },
                5 => Self::Insert { entry, life, field: a, set: b, origin: c, text: d },
                6 => Self::Delete { entry, life, field: a, set: b, first: c, len: d },
                7 => Self::Purge { entry, life, also: option },
                8 => Self::Revive { entry, life },
                _ => Self::Skip { count: a },
            },
        )
    }
}

/// What the numbers of a recipe pick from.
struct Forger {
    model: Model,
    entries: Vec<EntryId>,
    keys: Vec<OrderKey>,
    /// Every `Set` that the forger admits to have seen.
    sets: Vec<OpId>,
    /// Every counter of a `Set` or `Insert` that the forger admits to have seen.
    characters: Vec<OpId>,
}

impl Forger {
    fn new(history: &History, author: ReplicaId, start: u64, deps: &[OpId]) -> Self {
        let model = Model::of_history(history);
        let is_seen = |op: OpId| {
            (op.replica == author && op.counter < start)
                || deps.iter().any(|dep| dep.replica == op.replica && op.counter <= dep.counter)
        };
        let entries: BTreeSet<_> = model.named().iter().copied().chain(pool::ENTRIES).collect();
        let mut keys = BTreeSet::from_iter(pool::keys());
        let (mut sets, mut characters) = (Vec::new(), Vec::new());
        for (stamp, op) in history.ops().filter(|(stamp, _)| is_seen(stamp.op())) {
            match &op {
                Op::Create { key, .. } | Op::Move { key, .. } | Op::Reorder { key, .. } => {
                    keys.insert(key.clone());
                }
                Op::Set { .. } => sets.push(stamp.op()),
                _ => {}
            }
            if matches!(op, Op::Set { .. } | Op::Insert { .. }) {
                characters.extend((0..op.span()).map(|place| stamp.op().plus(place)));
            }
        }
        let (entries, keys) = (entries.into_iter().collect(), keys.into_iter().collect());
        Self { model, entries, keys, sets, characters }
    }

    fn op(&self, recipe: &ForgedOp) -> Option<Op> {
        let entry = |number: u8| pool::pick(&self.entries, number);
        let key = |number: u8| pool::pick(&self.keys, number);
        Some(match *recipe {
            ForgedOp::Create { entry: of, life, link, parent, key: place } => Op::Create {
                entry: entry(of)?,
                life: self.life(of, life)?,
                kind: match link {
                    None => NewEntry::Item,
                    Some(target) => NewEntry::Link { target: entry(target)? },
                },
                parent: entry(parent)?,
                key: key(place)?,
            },
            ForgedOp::Move { entry: of, life, parent, key: place } => Op::Move {
                entry: entry(of)?,
                life: self.life(of, life)?,
                parent: entry(parent)?,
                key: key(place)?,
                trashed_at: None,
            },
            ForgedOp::Trash { entry: of, life, key: place, time } => Op::Move {
                entry: entry(of)?,
                life: self.life(of, life)?,
                parent: EntryId::TRASH,
                key: key(place)?,
                trashed_at: Some(Timestamp::from_millis(time.into())),
            },
            ForgedOp::Reorder { entry: of, life, parent, key: place } => Op::Reorder {
                entry: entry(of)?,
                life: self.life(of, life)?,
                parent: self.container(of, parent)?,
                key: key(place)?,
            },
            ForgedOp::Purge { entry: of, life, also } => {
                let mut entries = vec![(entry(of)?, self.life(of, life)?)];
                if let Some(also) = also {
                    entries.push((entry(also)?, self.life(also, life)?));
                }
                Op::Purge { entries }
            }
            ForgedOp::Revive { entry: of, life } => {
                Op::Revive { entry: entry(of)?, life: self.life(of, life)? }
            }
            ForgedOp::Skip { count } => Op::Skip { count: u64::from(count % 9) + 1 },
            _ => return self.field_op(recipe),
        })
    }

    fn field_op(&self, recipe: &ForgedOp) -> Option<Op> {
        let entry = |number: u8| pool::pick(&self.entries, number);
        Some(match *recipe {
            ForgedOp::Set { entry: of, life, field, value } => Op::Set {
                entry: entry(of)?,
                life: self.life(of, life)?,
                field: pool::field(field),
                value: pool::value(value),
            },
            ForgedOp::Insert { entry: of, life, field, set, origin, text } => Op::Insert {
                entry: entry(of)?,
                life: self.life(of, life)?,
                field: pool::field(field),
                set: self.set(of, field, set)?,
                origin: pool::pick(&self.characters, origin).filter(|_| origin % 5 != 0),
                text: Some(pool::text(text)).filter(|text| !text.is_empty())?.to_owned(),
            },
            ForgedOp::Delete { entry: of, life, field, set, first, len } => Op::Delete {
                entry: entry(of)?,
                life: self.life(of, life)?,
                field: pool::field(field),
                set: self.set(of, field, set)?,
                range: IdRange {
                    first: pool::pick(&self.characters, first)?,
                    len: u64::from(len % 4) + 1,
                },
                backwards: len >= 128 && !len.is_multiple_of(4),
            },
            _ => return None,
        })
    }

    /// Mostly the life that the entry is in, now and then the one before, the next or any other.
    fn life(&self, entry: u8, number: u8) -> Option<Life> {
        let now = self.model.life(pool::pick(&self.entries, entry)?);
        Life::new(match number % 16 {
            0 => now + 1,
            1 => now.saturating_sub(1),
            2 => u32::from(number >> 4),
            3 => Life::LAST.number() - u32::from(number >> 4),
            _ => now,
        })
    }

    /// Mostly the container that the entry is in.
    fn container(&self, entry: u8, number: u8) -> Option<EntryId> {
        let placement = self.model.placement(pool::pick(&self.entries, entry)?);
        match placement {
            Some(placement) if !number.is_multiple_of(4) => Some(placement.parent),
            _ => pool::pick(&self.entries, number),
        }
    }

    /// Mostly the `Set` whose text the field shows.
    fn set(&self, entry: u8, field: u8, number: u8) -> Option<OpId> {
        let entry = pool::pick(&self.entries, entry)?;
        let shown = self.model.register(entry, &pool::field(field)).map(|(stamp, _)| stamp.op());
        shown
            .filter(|set| !number.is_multiple_of(4) && self.sets.contains(set))
            .or_else(|| pool::pick(&self.sets, number))
    }
}
