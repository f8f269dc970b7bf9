//! An engine whose file another process owns: what others write there comes in here. And an engine that owns
//! its file: what another process has written while a failure of the disk had closed it.
//!
//! While there is an owner, it tells; while there is none, the file is looked at whenever it has
//! changed. What this engine edits goes its usual way, through `SharedFile`.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use interprocess::local_socket::tokio::Stream;
use sds_engine::{Patch, Version};
use sds_store::{DataStore, StoreError};
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::SyncError;
use super::shared::Shared;
use super::writer::Job;
use crate::backoff::Backoff;
use crate::guest_session::{GuestSession, Wish};
use crate::limits::{FRAME_BYTES_MAX, RECONNECT_DELAY_MAX};
use crate::local_socket::LocalAddress;
use crate::local_store::LocalStore;
use crate::message::ClientFrame;
use crate::persistence::StorageError;
use crate::random;
use crate::synced_store::Purpose;
use crate::transport::{FrameReceiver, FrameSender};

/// How often a file that nobody owns is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// How often the owner is asked again for blobs that it did not have.
const BLOB_INTERVAL: Duration = Duration::from_secs(30);

/// Following a file, until this is ended.
pub(super) struct Following {
    /// The file, if another process owns it.
    file: Option<PathBuf>,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Following {
    /// Begins to follow a file. Needs a tokio runtime.
    pub(super) fn begin(shared: &Arc<Shared>, file: PathBuf) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let (shared, followed) = (Arc::clone(shared), file.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                // Without a sender the engine is gone altogether.
                _ = stopped.wait_for(|stop| *stop) => {}
                () = look_for_blobs(&shared) => {}
                () = follow_under_any_seat(&shared, &followed) => {}
            }
        });
        Self { file: Some(file), stop, task }
    }

    /// Begins to look after a file that this process owns. Needs a tokio runtime.
    pub(super) fn begin_as_owner(shared: &Arc<Shared>) -> Self {
        let (stop, mut stopped) = watch::channel(false);
        let shared = Arc::clone(shared);
        let task = tokio::spawn(async move {
            tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => {}
                () = take_over_whenever_lost(&shared) => {}
            }
        });
        Self { file: None, stop, task }
    }

    /// Stops following.
    pub(super) async fn end(&mut self) {
        self.stop.send_replace(true);
        // A task that panicked has ended too.
        let _ended = (&mut self.task).await;
    }

    /// Goes on once from what is in the file, after it was lost and this has [ended](Self::end).
    pub(super) async fn go_on(&self, shared: &Arc<Shared>) -> Result<(), SyncError> {
        match &self.file {
            Some(file) => rebase(shared, file).await,
            None => take_over(shared).await,
        }
    }
}

/// Follows a file; begins anew after the seat was lost, or something of the file, for then there is
/// something else here than the owner has.
async fn follow_under_any_seat(shared: &Arc<Shared>, file: &Path) {
    let mut pauses = Pauses::new();
    loop {
        tokio::select! {
            parted = follow(shared, file) => if parted == Parted::Stopped { return },
            () = shared.writer.seat_loss() => {}
        }
        pauses.before_first().await;
        while let Err(error) = rebase(shared, file).await {
            if !pauses.after(shared, &error).await {
                return;
            }
        }
        pauses.note_end();
    }
}

/// Has the file again whenever another process had it after a failure of the disk, and has written to it.
async fn take_over_whenever_lost(shared: &Arc<Shared>) {
    let mut pauses = Pauses::new();
    loop {
        shared.writer.seat_loss().await;
        pauses.before_first().await;
        while let Err(error) = take_over(shared).await {
            if !pauses.after(shared, &error).await {
                return;
            }
        }
        pauses.note_end();
    }
}

/// How long somebody waits who has to go on from what is in the file. Once is nothing; whoever comes here
/// again and again goes easy on the file.
struct Pauses {
    backoff: Backoff,
    last: Option<Instant>,
}

impl Pauses {
    fn new() -> Self {
        Self { backoff: Backoff::new(), last: None }
    }

    async fn before_first(&mut self) {
        if self.last.is_none_or(|at| at.elapsed() > RECONNECT_DELAY_MAX * 2) {
            self.backoff.reset();
        } else {
            self.wait().await;
        }
    }

    /// Waits after a failure; says false if trying again cannot help.
    async fn after(&mut self, shared: &Shared, error: &SyncError) -> bool {
        tracing::error!(store = %shared.id, %error, "cannot go on from what is in the file");
        // History that was cut does not come back.
        let may_help = matches!(error, SyncError::Storage(error)
            if !matches!(error, StorageError::HistoryMissing { .. }));
        if may_help {
            self.wait().await;
        }
        may_help
    }

    fn note_end(&mut self) {
        self.last = Some(Instant::now());
    }

    async fn wait(&mut self) {
        sleep(self.backoff.next_delay(random::jitter()).max(INTERVAL)).await;
    }
}

/// Goes on from what is in the file, of which this engine is the owner again.
async fn take_over(shared: &Arc<Shared>) -> Result<(), SyncError> {
    let hold = Hold(Arc::clone(shared));
    let (read, is_read) = oneshot::channel();
    shared.writer.ask(Job::Reload(read))?;
    let (base, ledger) = is_read.await.map_err(|_| SyncError::Stopped)??;
    let take_over = move || {
        let Hold(store) = &hold;
        store.take_over(&base, ledger)
    };
    let taken_over = tokio::task::spawn_blocking(take_over).await;
    taken_over.unwrap_or(Err(SyncError::Stopped))
}

/// Goes on from what is in the file, in the place of what is here.
async fn rebase(shared: &Arc<Shared>, file: &Path) -> Result<(), SyncError> {
    // What is written from here on would be in the file, and made again too.
    let hold = Hold(Arc::clone(shared));
    let (held, is_held) = oneshot::channel();
    shared.writer.ask(Job::Hold(held))?;
    is_held.await.map_err(|_| SyncError::Stopped)?;
    let folder = file.parent().unwrap_or(file).to_owned();
    let rebase = move || {
        let Hold(store) = &hold;
        let base = LocalStore::open_to_read(&folder, &store.id).map_err(SyncError::Storage)?;
        store.rebase(&base)
    };
    let rebased = tokio::task::spawn_blocking(rebase).await;
    rebased.unwrap_or(Err(SyncError::Stopped))
}

/// Holds the writer until this is dropped, whoever has stopped waiting meanwhile: with what the writer
/// holds back nobody else could come to an end.
struct Hold(Arc<Shared>);

impl Drop for Hold {
    fn drop(&mut self) {
        // If it has ended, it holds nothing.
        let _ended = self.0.writer.ask(Job::Release);
    }
}

/// Why a file is not followed any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parted {
    /// It lacks something that was in it, or has something else in its place: it was restored, or
    /// something was made again.
    FileDiffers,
    /// The engine has stopped.
    Stopped,
}

async fn follow(shared: &Arc<Shared>, file: &Path) -> Parted {
    let mut seen = None;
    loop {
        // Before the file, or its owner, is looked at: what is on disk here is there then.
        let persisted = shared.persisted();
        if let Ok(stream) = LocalAddress::of(file).connect_async().await {
            if shared.writer.ask(Job::Reattach).is_err() {
                return Parted::Stopped;
            }
            if hear(shared, &persisted, stream).await == Some(Parted::FileDiffers) {
                return Parted::FileDiffers;
            }
        }
        let now = stamp(file).ok();
        if now != seen {
            match look(shared, &persisted, file).await {
                Some(Looked::Lacks) => return Parted::FileDiffers,
                Some(Looked::Seen) => seen = now,
                None => {}
            }
        }
        sleep(INTERVAL).await;
    }
}

/// Finds out which of the blobs that the store refers to the owner has: of each once it is referred to,
/// and of those that were not there now and then.
async fn look_for_blobs(shared: &Arc<Shared>) {
    let mut changed = shared.blobs_changed.subscribe();
    let mut asked = BTreeSet::new();
    while let Ok(missing) = shared.blobs_to_look_for() {
        for hash in &missing {
            if asked.insert(*hash) {
                let (blobs, hash) = (Arc::clone(&shared.blobs), *hash);
                let found = tokio::task::spawn_blocking(move || blobs.find(&hash)).await;
                if matches!(found, Ok(Ok(Some(_)))) && shared.blob_found(&hash).is_err() {
                    return;
                }
            }
        }
        asked.retain(|hash| missing.contains(hash));
        match timeout(BLOB_INTERVAL, changed.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return,
            Err(_) => asked.clear(),
        }
    }
}

/// Takes in what the owner tells, until it does not any more. Says so if it lacks something of
/// `persisted`, or what it has does not go on from what is here.
async fn hear(shared: &Arc<Shared>, persisted: &Version, stream: Stream) -> Option<Parted> {
    let stream = Arc::new(stream);
    let mut sender = FrameSender::local(Arc::clone(&stream));
    let mut receiver = FrameReceiver::local(stream, FRAME_BYTES_MAX);
    let known = shared.read(|store| store.version().clone()).ok()?;
    let mut session = GuestSession::new(&shared.id, &known, Wish::Nothing);
    while let Some(frame) = session.poll_transmit() {
        sender.send(&frame).await.ok()?;
    }
    let (mut is_open, mut is_compared) = (false, false);
    while let Ok(Some(frame)) = receiver.next().await {
        session.handle_frame(frame).ok()?;
        let has_opened = session.is_open() && !std::mem::replace(&mut is_open, true);
        if has_opened && !session.at_open().covers(persisted) {
            return Some(Parted::FileDiffers);
        }
        // It comes before all changes, to who has nothing yet.
        if let Some(snapshot) = session.take_snapshot()
            && !take_in_snapshot(shared, snapshot).await
        {
            break;
        }
        let changes = session.take_received();
        if !changes.is_empty() {
            let patch = Patch::pack(changes.iter().map(|change| &**change));
            if !take_in(shared, patch).await {
                return Some(Parted::FileDiffers);
            }
        }
        if session.is_loaded() && !std::mem::replace(&mut is_compared, true) {
            let (store, chains) = (Arc::clone(shared), session.chains());
            let seats = session.file_seats();
            let compare = move || store.follow_seats(&chains, seats);
            let fits = tokio::task::spawn_blocking(compare).await;
            if matches!(fits, Ok(Ok(false))) {
                return Some(Parted::FileDiffers);
            }
        }
    }
    let _gone = sender.send(&ClientFrame::Bye).await;
    None
}

/// What became of a look at the file.
enum Looked {
    /// What is in it is here.
    Seen,
    /// It lacks something that was in it.
    Lacks,
}

/// Takes in what is in the file, unless it lacks something of `persisted`; nothing if that failed.
async fn look(shared: &Arc<Shared>, persisted: &Version, file: &Path) -> Option<Looked> {
    let folder = file.parent().unwrap_or(file).to_owned();
    let (store, reader, persisted) = (shared.id.clone(), Arc::clone(shared), persisted.clone());
    let read = move || {
        let local = LocalStore::open_to_read(&folder, &store).ok()?;
        if !local.store().version().covers(&persisted) {
            return Some(Err(Looked::Lacks));
        }
        let known = reader.read(|store| store.version().clone()).ok()?;
        let is_new = !known.covers(local.store().version());
        Some(Ok(is_new.then(|| local.store().export_patch(&known))))
    };
    match tokio::task::spawn_blocking(read).await.ok()?? {
        Err(lacks) => Some(lacks),
        Ok(Some(patch)) => take_in(shared, patch).await.then_some(Looked::Seen),
        Ok(None) => Some(Looked::Seen),
    }
}

async fn take_in_snapshot(shared: &Arc<Shared>, snapshot: Vec<u8>) -> bool {
    let unpack = move || {
        let owners = DataStore::from_binary(random::replica_id(), &snapshot)?;
        Ok::<_, StoreError>(owners.export_patch(&Version::new()))
    };
    match tokio::task::spawn_blocking(unpack).await {
        Ok(Ok(patch)) => take_in(shared, patch).await,
        Ok(Err(error)) => {
            tracing::warn!(store = %shared.id, %error, "cannot read the owner's snapshot");
            false
        }
        Err(_) => false,
    }
}

async fn take_in(shared: &Arc<Shared>, patch: Vec<u8>) -> bool {
    let shared = Arc::clone(shared);
    let take = move || {
        let taken = shared.take_in(Purpose::Sync, &Version::new(), &patch);
        taken
            .inspect_err(|error| tracing::warn!(store = %shared.id, %error, "cannot follow"))
            .is_ok()
    };
    tokio::task::spawn_blocking(take).await.unwrap_or(false)
}

/// What changes whenever a file is written to.
fn stamp(file: &Path) -> io::Result<(SystemTime, u64)> {
    let metadata = fs::metadata(file)?;
    Ok((metadata.modified()?, metadata.len()))
}

#[cfg(test)]
mod tests;
