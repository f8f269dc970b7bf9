//! The naive model: what state a set of changes gives, computed from scratch out of the merging
//! rules, one rule after the other.
//!
//! Nothing here is incremental, nothing is shared with the engine but its plain data types. Ops are
//! sorted by stamp once and then replayed, so order of delivery cannot matter; whether it matters
//! to the engine is what the tests find out by comparing.
//!
//! Not here: how changes are made, delivered and kept. See [`crate::story`].

mod digest;
mod history;
mod lives;
mod shown;
mod text;
mod tree;

use std::collections::{BTreeMap, BTreeSet};

pub use history::History;
pub use lives::Kind;
use lives::Lives;
use sds_engine::{Change, EntryId, Field, Op, Stamp, Timestamp, Value};
use shown::Shown;
pub use text::Character;
pub use tree::Placement;

/// The state that a set of changes gives.
#[derive(Clone, Debug)]
pub struct Model {
    /// Every op that counts, in stamp order.
    ops: Vec<(Stamp, Op)>,
    lives: Lives,
    placements: BTreeMap<EntryId, Placement>,
    shown: Shown,
}

impl Model {
    /// The state of a replica that got these changes, in whatever order and however often.
    ///
    /// Changes whose dependencies are not among them wait, and do not count.
    #[must_use]
    pub fn of(changes: &[Change]) -> Self {
        Self::of_history(&History::of(changes))
    }

    /// The state that the integrated changes of `history` give.
    #[must_use]
    pub fn of_history(history: &History) -> Self {
        let mut ops: Vec<(Stamp, Op)> = history.ops().collect();
        ops.sort_by_key(|(stamp, _)| *stamp);
        let lives = Lives::of(&ops);
        let placements = tree::replay(&ops);
        let shown = Shown::of(&lives, &placements);
        Self { ops, lives, placements, shown }
    }

    /// Whether no op is of a life that its entry has not reached, as none of an honest author is.
    #[must_use]
    pub fn is_free_of_lives_to_come(&self) -> bool {
        let mut subjects = self.ops.iter().filter_map(|(_, op)| op.subject());
        subjects.all(|(entry, life)| life.number() <= self.life(entry))
    }

    /// Every entry that an op is about, shown or not.
    #[must_use]
    pub const fn named(&self) -> &BTreeSet<EntryId> {
        self.lives.named()
    }

    /// `L(entry)`: how many lives of the entry are over.
    #[must_use]
    pub fn life(&self, entry: EntryId) -> u32 {
        self.lives.life(entry)
    }

    /// Whether the entry lives.
    #[must_use]
    pub fn is_alive(&self, entry: EntryId) -> bool {
        self.lives.is_alive(entry)
    }

    /// Whether the entry lives, or a placeholder stands for it.
    #[must_use]
    pub fn is_shown(&self, entry: EntryId) -> bool {
        self.shown.contains(entry)
    }

    /// Every entry that is shown, Root and placeholders included.
    pub fn shown(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.shown.iter()
    }

    /// What the entry is shown as, if it is shown.
    #[must_use]
    pub fn kind(&self, entry: EntryId) -> Option<Kind> {
        self.is_shown(entry).then(|| self.lives.kind(entry).unwrap_or(Kind::Item))
    }

    /// The entry's displayed parent; none for Root and for what is not shown.
    #[must_use]
    pub fn parent(&self, entry: EntryId) -> Option<EntryId> {
        self.shown.parent(entry)
    }

    /// What is displayed in the entry, in order.
    #[must_use]
    pub fn children(&self, entry: EntryId) -> Vec<EntryId> {
        self.shown.children(entry)
    }

    /// The entry's placement in the move tree, be the entry alive or not.
    #[must_use]
    pub fn placement(&self, entry: EntryId) -> Option<&Placement> {
        self.placements.get(&entry)
    }

    /// When the entry was deleted, if it is displayed directly in Trash.
    #[must_use]
    pub fn trashed_at(&self, entry: EntryId) -> Option<Timestamp> {
        let in_trash = self.parent(entry) == Some(EntryId::TRASH);
        self.placement(entry).filter(|_| in_trash).and_then(|placement| placement.trashed_at)
    }

    /// The visible value of a field, [`Value::None`] where there is none.
    #[must_use]
    pub fn value(&self, entry: EntryId, field: &Field) -> Value {
        self.register(entry, field).map_or(Value::None, |(_, value)| value)
    }

    /// The stamp of the `Set` that a field shows, and the value with all splices applied.
    #[must_use]
    pub fn register(&self, entry: EntryId, field: &Field) -> Option<(Stamp, Value)> {
        let (stamp, value) = self.winning_set(entry, field)?;
        let value = match value {
            Value::Text(initial) => {
                let text = text::characters(&self.ops, stamp, entry, field, initial);
                let shown = text.iter().filter(|character| !character.deleted);
                Value::Text(shown.map(|character| character.content).collect())
            }
            other => other.clone(),
        };
        Some((stamp, value))
    }

    /// Every character of the text in a field, deleted ones too, in order; none if it holds no text.
    #[must_use]
    pub fn characters(&self, entry: EntryId, field: &Field) -> Option<Vec<Character>> {
        let (stamp, value) = self.winning_set(entry, field)?;
        let Value::Text(initial) = value else { return None };
        Some(text::characters(&self.ops, stamp, entry, field, initial))
    }

    /// The fields that any op ever set, in order.
    #[must_use]
    pub fn fields(&self, entry: EntryId) -> BTreeSet<Field> {
        let sets = self.ops.iter().filter_map(|(_, op)| match op {
            Op::Set { entry: of, field, .. } if *of == entry => Some(field.clone()),
            _ => None,
        });
        sets.collect()
    }

    /// Everything that the entry's fields hold.
    #[must_use]
    pub fn values(&self, entry: EntryId) -> BTreeMap<Field, Value> {
        let fields = self.fields(entry).into_iter();
        let values = fields.map(|field| (field.clone(), self.value(entry, &field)));
        values.filter(|(_, value)| *value != Value::None).collect()
    }

    /// The digest of this state.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        digest::of(self)
    }

    /// Panics unless the state is what the merging rules promise of every state, however it came about:
    /// neither the move tree nor the displayed one has a cycle, every live entry is displayed exactly
    /// once, what is displayed and does not live is the target of a live link, and nothing is gone that
    /// no purge has named.
    pub fn assert_promises(&self) {
        for entry in self.placements.keys() {
            let parent = |at: &EntryId| self.placements.get(at).map(|placement| placement.parent);
            let above = std::iter::successors(Some(*entry), parent);
            assert!(above.take(self.placements.len() + 2).count() <= self.placements.len() + 1);
        }
        let displayed: Vec<EntryId> = self.shown().collect();
        let listed: Vec<EntryId> =
            displayed.iter().flat_map(|parent| self.children(*parent)).collect();
        for entry in &displayed {
            let above = std::iter::successors(Some(*entry), |at| self.parent(*at));
            let last = above.take(displayed.len() + 1).last();
            assert_eq!(last, Some(EntryId::ROOT), "{entry:?} is displayed outside of Root");
            let count = listed.iter().filter(|child| *child == entry).count();
            assert_eq!(count, usize::from(*entry != EntryId::ROOT), "{entry:?} is displayed often");
            let is_target = |link: &&EntryId| self.kind(**link) == Some(Kind::Link(*entry));
            let is_wanted = displayed.iter().filter(is_target).any(|link| self.is_alive(*link));
            assert!(self.is_alive(*entry) || is_wanted, "{entry:?} stands for nothing");
        }
        for (_, op) in &self.ops {
            let Some((entry, life)) = op.subject() else { continue };
            let is_purged = self.ops.iter().any(|(_, op)| match op {
                Op::Purge { entries } => {
                    entries.iter().any(|(of, ended)| *of == entry && *ended >= life)
                }
                _ => false,
            });
            // A forged life that the entry has not reached counts for nothing.
            let counts = life.number() <= self.life(entry) && !is_purged;
            assert!(!counts || displayed.contains(&entry), "{entry:?} is gone");
        }
    }

    /// Among all `Set`s of the field the one of the greatest (life, stamp), if its life is the
    /// entry's present one.
    fn winning_set(&self, entry: EntryId, field: &Field) -> Option<(Stamp, &Value)> {
        let sets = self.ops.iter().filter_map(|(stamp, op)| match op {
            Op::Set { entry: of, life, field: at, value } if *of == entry && at == field => {
                Some((life.number(), *stamp, value))
            }
            _ => None,
        });
        let (life, stamp, value) = sets.max_by_key(|(life, stamp, _)| (*life, *stamp))?;
        (life == self.life(entry)).then_some((stamp, value))
    }
}
