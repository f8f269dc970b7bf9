//! What can be seen of a state: the displayed tree with every value. Replica and model give the
//! same view, or one of them is wrong.

use std::collections::{BTreeMap, BTreeSet};

use sds_engine::{Change, EntryId, Field, Replica, Timestamp, Value};

use crate::model::{History, Kind, Model};
use crate::pool;

/// Everything that is displayed, by entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View(pub(crate) BTreeMap<EntryId, Displayed>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Displayed {
    /// Placeholders are displayed and do not live.
    pub(crate) is_alive: bool,
    pub(crate) kind: Option<Kind>,
    pub(crate) parent: Option<EntryId>,
    pub(crate) children: Vec<EntryId>,
    pub(crate) trashed_at: Option<Timestamp>,
    pub(crate) values: BTreeMap<Field, Value>,
}

impl View {
    /// What the model says.
    #[must_use]
    pub fn of_model(model: &Model) -> Self {
        let displayed = |entry| Displayed {
            is_alive: model.is_alive(entry),
            kind: model.kind(entry),
            parent: model.parent(entry),
            children: model.children(entry),
            trashed_at: model.trashed_at(entry),
            values: model.values(entry),
        };
        Self(model.shown().map(|entry| (entry, displayed(entry))).collect())
    }

    /// What the replica shows to somebody who walks from Root downwards.
    #[must_use]
    pub fn of_replica(replica: &Replica) -> Self {
        let mut view = BTreeMap::new();
        let mut ahead = vec![EntryId::ROOT];
        while let Some(entry) = ahead.pop() {
            let displayed = Displayed::on(replica, entry);
            ahead.extend(&displayed.children);
            assert!(replica.is_shown(entry), "{entry:?} is a child and not shown");
            assert!(view.insert(entry, displayed).is_none(), "{entry:?} is shown twice");
        }
        Self(view)
    }

    /// The entries that are displayed, in order of id.
    pub fn entries(&self) -> impl Iterator<Item = EntryId> + '_ {
        self.0.keys().copied()
    }

    /// Whether the entry is displayed.
    #[must_use]
    pub fn has(&self, entry: EntryId) -> bool {
        self.0.contains_key(&entry)
    }

    /// Whether a displayed entry is an item; a placeholder is one.
    #[must_use]
    pub fn is_item(&self, entry: EntryId) -> bool {
        self.0.get(&entry).is_some_and(|displayed| displayed.kind == Some(Kind::Item))
    }

    /// Whether the entry is displayed and lives.
    #[must_use]
    pub fn is_alive(&self, entry: EntryId) -> bool {
        self.0.get(&entry).is_some_and(|displayed| displayed.is_alive)
    }

    /// What is displayed in the entry, in order.
    #[must_use]
    pub fn children(&self, entry: EntryId) -> &[EntryId] {
        self.0.get(&entry).map_or(&[], |displayed| &displayed.children)
    }

    /// The displayed parent.
    #[must_use]
    pub fn parent(&self, entry: EntryId) -> Option<EntryId> {
        self.0.get(&entry).and_then(|displayed| displayed.parent)
    }

    /// The entry and everything displayed below it.
    #[must_use]
    pub fn subtree(&self, entry: EntryId) -> BTreeSet<EntryId> {
        let below = self.children(entry).iter().flat_map(|child| self.subtree(*child));
        std::iter::once(entry).chain(below).collect()
    }

    /// The value of a field, [`Value::None`] where there is none.
    #[must_use]
    pub fn value(&self, entry: EntryId, field: &Field) -> Value {
        let displayed = self.0.get(&entry);
        displayed.and_then(|displayed| displayed.values.get(field)).cloned().unwrap_or(Value::None)
    }

    /// The fields of a displayed entry that hold a text, with the entry.
    pub fn texts(&self, entry: EntryId) -> impl Iterator<Item = (EntryId, Field)> + '_ {
        let values = self.0.get(&entry).into_iter().flat_map(|displayed| &displayed.values);
        let texts = values.filter(|(_, value)| matches!(value, Value::Text(_)));
        texts.map(move |(field, _)| (entry, field.clone()))
    }
}

impl Displayed {
    /// What is known of an entry that does not show.
    pub(crate) const fn hidden() -> Self {
        Self {
            is_alive: false,
            kind: None,
            parent: None,
            children: Vec::new(),
            trashed_at: None,
            values: BTreeMap::new(),
        }
    }

    fn on(replica: &Replica, entry: EntryId) -> Self {
        Self {
            is_alive: replica.is_alive(entry),
            kind: replica.kind(entry).map(Kind::from),
            parent: replica.parent(entry),
            children: replica.children(entry).collect(),
            trashed_at: replica.trashed_at(entry),
            values: replica
                .fields(entry)
                .map(|field| (field.clone(), replica.value(entry, field)))
                .collect(),
        }
    }
}

/// Panics unless the replica, which got `changes` in some order, is what the model makes of them.
pub fn assert_matches_model(replica: &mut Replica, changes: &[Change]) {
    replica.assert_invariants();
    let history = History::of(changes);
    assert_eq!(*replica.version(), history.version(), "what is integrated");
    let waits = !history.waiting().is_empty();
    assert_eq!(!replica.missing().is_empty(), waits, "whether something is missing");
    assert_same_state(replica, &Model::of_history(&history));
}

/// Panics unless the replica shows what the model shows, and hides what the model hides.
pub fn assert_same_state(replica: &mut Replica, model: &Model) {
    assert_eq!(View::of_replica(replica), View::of_model(model));
    let named = model.named().iter().copied().chain(pool::ENTRIES);
    for entry in named.filter(|entry| !model.is_shown(*entry)) {
        assert!(!replica.is_shown(entry) && !replica.is_alive(entry), "{entry:?} is hidden");
        let hidden = Displayed::hidden();
        assert_eq!(Displayed::on(replica, entry), hidden, "{entry:?} is hidden");
    }
    assert_eq!(*replica.digest().as_bytes(), model.digest(), "the digest");
}
