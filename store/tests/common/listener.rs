//! Somebody who listens to a store and remembers.

use std::sync::mpsc::{self, Receiver};

use sds_store::{ChangeEvent, DataStore, EntryId, Subscription};

pub(crate) struct Listener {
    pub(crate) subscription: Subscription,
    events: Receiver<ChangeEvent>,
}

impl Listener {
    pub(crate) fn of(store: &mut DataStore) -> Self {
        let (sender, events) = mpsc::channel();
        // Nobody may be left to receive it.
        let handler =
            move |_: &mut DataStore, event: &ChangeEvent| drop(sender.send(event.clone()));
        Self { subscription: store.on_change(handler), events }
    }

    /// The events since this was last called.
    pub(crate) fn take(&self) -> Vec<ChangeEvent> {
        self.events.try_iter().collect()
    }
}

/// The only one of these events.
pub(crate) fn only(events: Vec<ChangeEvent>) -> ChangeEvent {
    let Ok([event]) = <[ChangeEvent; 1]>::try_from(events) else { panic!("not one event") };
    event
}

/// The properties that an event names, in order of entries.
pub(crate) fn keys(event: &ChangeEvent) -> Vec<(EntryId, String)> {
    let of_one = |change: &sds_store::EntryChange| {
        let entry = change.entry;
        change.properties.iter().map(move |key| (entry, key.to_string())).collect::<Vec<_>>()
    };
    event.changes.iter().flat_map(of_one).collect()
}
