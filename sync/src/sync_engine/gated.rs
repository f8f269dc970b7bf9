//! For tests: a store whose writes wait until they may go on.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sds_store::{DataStore, EntryId};
use tokio::sync::watch;
use tokio::time::timeout;

use super::shared::Shared;
use super::writer::Writer;
use crate::local_store::LocalStore;
use crate::persistence::MemoryPersistence;
use crate::random;
use crate::store_id::StoreId;
use crate::synced_store::SyncedStore;

/// A store that says when it is about to be written, and is so only when it is told to.
pub(super) struct Gated {
    pub(super) shared: Arc<Shared>,
    pub(super) has_begun: Receiver<()>,
    pub(super) gate: Sender<()>,
}

impl Gated {
    pub(super) fn new() -> Self {
        let ((gate, gated), (begun, has_begun)) = (channel(), channel());
        let gated = Mutex::new(gated);
        let replica = random::replica_id();
        let memory = MemoryPersistence::new(StoreId::new("s").unwrap(), replica);
        let file = memory.guarded(move || {
            begun.send(()).unwrap();
            gated.lock().unwrap().recv().unwrap();
            Ok(())
        });
        let (status, saved) = (watch::Sender::default(), watch::Sender::default());
        let (store, file) = SyncedStore::new(LocalStore::load(file).unwrap());
        let (writer, _thread) = Writer::spawn(file, status.clone(), saved.clone());
        Self { shared: Arc::new(Shared::new(store, status, saved, writer)), has_begun, gate }
    }

    pub(super) fn edit(&self) {
        let label = |store: &mut DataStore| store.set_label(EntryId::ROOT, "edited");
        self.shared.edit(label).unwrap().unwrap();
    }

    /// Says whether what was edited comes to be written.
    pub(super) async fn is_written(&self) -> bool {
        self.edit();
        self.gate.send(()).unwrap();
        let flushed = timeout(Duration::from_secs(20), self.shared.flush()).await;
        flushed.is_ok_and(|flushed| flushed.is_ok())
    }
}
