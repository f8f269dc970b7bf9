//! Somebody who listens to a store and is told nothing but change sets.

use std::sync::mpsc::{self, Receiver};

use sds_store::{ChangeEvent, DataStore, Origin, Subscription};

use crate::store_view::StoreView;

/// What a listener knows of a store.
#[derive(Debug)]
pub struct Watcher {
    view: StoreView,
    /// What was told, each with what the store showed then.
    told: Receiver<(ChangeEvent, StoreView)>,
    _subscription: Subscription,
}

impl Watcher {
    /// Somebody who listens from now on.
    #[must_use]
    pub fn of(store: &mut DataStore) -> Self {
        let (sender, told) = mpsc::channel();
        // Nobody may be left to receive it.
        let subscription = store.on_change(move |store, event| {
            drop(sender.send((event.clone(), StoreView::of(store))));
        });
        Self { view: StoreView::of(store), told, _subscription: subscription }
    }

    /// Takes over what was told, and panics unless that names exactly what differs, and nothing is
    /// missing.
    pub fn follow(&mut self, store: &DataStore) {
        for (event, after) in self.told.try_iter() {
            let has_edited = event.origin == Origin::Internal;
            self.view.follow(&event.changes, &after, has_edited);
        }
        assert_eq!(self.view, StoreView::of(store), "something was not told");
    }

    /// The same after something that is told in one event of this origin, or in none. That may name
    /// properties that were set to what they were if somebody here `has_edited`.
    pub fn follow_one(&mut self, store: &DataStore, origin: Origin, has_edited: bool) {
        let told: Vec<_> = self.told.try_iter().collect();
        assert!(told.len() <= 1, "{told:?}");
        for (event, after) in told {
            assert_eq!(event.origin, origin);
            assert!(!event.changes.is_empty());
            self.view.follow(&event.changes, &after, has_edited);
        }
        assert_eq!(self.view, StoreView::of(store), "something was not told");
    }
}
