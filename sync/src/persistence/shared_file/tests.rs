//! A guest, and owners that say what a test tells them to.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use interprocess::local_socket::tokio::{Listener, Stream};
use interprocess::local_socket::traits::tokio::Listener as _;
use sds_engine::{ChangeHeader, EntryId, Patch, ReplicaId, Version};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Intent, LocalAddress, RedbPersistence, Role, SharedFile};
use crate::labelled::{add_labelled, labels};
use crate::limits::FRAME_BYTES_MAX;
use crate::local_store::LocalStore;
use crate::message::{ClientFrame, RefusalCode, RelayFrame, SeatTip};
use crate::persistence::{Persistence, StorageError, check_store};
use crate::seat::Chain;
use crate::store_id::StoreId;
use crate::sync_engine::{SyncEngine, SyncStatus};
use crate::transport::{FrameReceiver, FrameSender};

const SEAT: u64 = 5;

/// A file that somebody owns, and the socket beside it.
struct Home {
    folder: TempDir,
    store: StoreId,
    listener: Listener,
    _file: RedbPersistence,
}

/// A connection of a guest, at its owner.
struct Visit {
    sender: FrameSender,
    receiver: FrameReceiver,
}

impl Home {
    fn new() -> Self {
        let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
        let replica = ReplicaId::new(1).unwrap();
        let file = RedbPersistence::create_at_once(folder.path(), &store, replica).unwrap();
        let path = folder.path().join(store.file_name());
        let (listener, _made) = LocalAddress::of(&path).listen().unwrap();
        Self { folder, store, listener, _file: file }
    }

    /// Opens the store for the next guest, which gets the seat; the file has `tips`.
    async fn welcome(&self, version: &Version, tips: &[SeatTip]) -> Visit {
        self.lend(SEAT, version, tips).await
    }

    /// The same with the seat that it gets.
    async fn lend(&self, seat: u64, version: &Version, tips: &[SeatTip]) -> Visit {
        let accepted = timeout(Duration::from_secs(60), self.listener.accept());
        let stream: Arc<Stream> = Arc::new(accepted.await.unwrap().unwrap());
        let sender = FrameSender::local(Arc::clone(&stream));
        let receiver = FrameReceiver::local(stream, FRAME_BYTES_MAX);
        let mut visit = Visit { sender, receiver };
        assert!(matches!(visit.next().await, ClientFrame::OpenSeated { .. }));
        let next = version.next(ReplicaId::new(seat).unwrap()) + 1;
        let lent = SeatTip { replica: seat, next, chain: [0; 32] };
        let seats = tips.iter().cloned().chain([lent]).collect();
        let version = version.encode().into();
        visit.send(RelayFrame::OpenedSeated { version, writable: true, seats }).await;
        visit
    }

    /// Takes in the changes of a guest that commits two, and goes when it has acknowledged the first.
    async fn take_a_part(&self, visit: &mut Visit) -> [Arc<[u8]>; 2] {
        let changes = visit.changes().await;
        visit.send(RelayFrame::Stored { version: upto(&changes[..1]).encode().into() }).await;
        let code = RefusalCode::ShuttingDown.number();
        visit.send(RelayFrame::Refused { code, message: String::new() }).await;
        changes
    }

    /// A guest that makes two changes and commits both.
    fn guest(&self) -> tokio::task::JoinHandle<Result<(), StorageError>> {
        let (folder, store): (PathBuf, _) = (self.folder.path().to_owned(), self.store.clone());
        tokio::task::spawn_blocking(move || {
            let mut guest = LocalStore::open_existing(&folder, &store).unwrap();
            for label in ["one", "two"] {
                guest.store_mut().set_label(EntryId::ROOT, label).unwrap();
            }
            guest.commit()
        })
    }
}

impl Visit {
    async fn next(&mut self) -> ClientFrame {
        timeout(Duration::from_secs(60), self.receiver.next()).await.unwrap().unwrap().unwrap()
    }

    async fn send(&mut self, frame: RelayFrame) {
        self.sender.send(&frame).await.unwrap();
    }

    async fn changes(&mut self) -> [Arc<[u8]>; 2] {
        let ClientFrame::Changes { patch } = self.next().await else { panic!("no changes") };
        let changes = Patch::decode(&patch).unwrap().into_changes();
        let changes: Vec<Arc<[u8]>> = changes.iter().map(|it| Arc::clone(it.bytes())).collect();
        changes.try_into().unwrap()
    }
}

fn upto(changes: &[Arc<[u8]>]) -> Version {
    let mut version = Version::new();
    for change in changes {
        let header = ChangeHeader::decode(change).unwrap();
        version.advance(header.replica, header.end());
    }
    version
}

fn tip(changes: &[Arc<[u8]>]) -> SeatTip {
    let mut chain = Chain::default();
    for change in changes {
        chain.extend(ChangeHeader::decode(change).unwrap().end(), change);
    }
    SeatTip { replica: SEAT, next: chain.counter, chain: chain.hash }
}

/// Goal: a guest of whose batch a part was acknowledged, and made again under another id since, does not
/// write that part once more, and says how far it came. Method: an owner that acknowledges the first of
/// two changes, goes, and then has it no more, or has another one in its place.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_made_again_is_not_written_twice() {
    for is_replaced in [false, true] {
        let home = Home::new();
        let guest = home.guest();
        let mut visit = home.welcome(&Version::new(), &[]).await;
        let changes = home.take_a_part(&mut visit).await;
        drop(visit);
        let (mut version, mut tips) = (Version::new(), Vec::new());
        if is_replaced {
            version = upto(&changes[..1]);
            tips.push(SeatTip { chain: [7; 32], ..tip(&changes[..1]) });
        }
        let mut next = home.welcome(&version, &tips).await;
        assert!(matches!(next.next().await, ClientFrame::Bye), "it brings nothing");
        match guest.await.unwrap() {
            Err(StorageError::SeatLostMidway { written, .. }) => {
                assert_eq!(written, upto(&changes[..1]));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Goal: a guest whose seat its owner has given up writes no more under it, as nobody would make that again.
/// Method: an owner that goes before it has taken anything, and then lends another seat.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_under_a_seat_that_was_given_up() {
    let home = Home::new();
    let guest = home.guest();
    let mut visit = home.welcome(&Version::new(), &[]).await;
    visit.changes().await;
    let code = RefusalCode::ShuttingDown.number();
    visit.send(RelayFrame::Refused { code, message: String::new() }).await;
    drop(visit);
    let mut next = home.lend(SEAT + 1, &Version::new(), &[]).await;
    assert!(matches!(next.next().await, ClientFrame::Bye), "it brings nothing");
    let outcome = guest.await.unwrap();
    assert!(matches!(outcome, Err(StorageError::SeatLost { .. })), "{outcome:?}");
}

/// Goal: where the part that was acknowledged is still there, all of it goes to the next owner, which knows
/// it by its bytes.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_and_is_still_there_is_brought_again() {
    let home = Home::new();
    let guest = home.guest();
    let mut visit = home.welcome(&Version::new(), &[]).await;
    let changes = home.take_a_part(&mut visit).await;
    drop(visit);
    let mut next = home.welcome(&upto(&changes[..1]), &[tip(&changes[..1])]).await;
    assert_eq!(next.changes().await, changes);
    next.send(RelayFrame::Stored { version: upto(&changes).encode().into() }).await;
    guest.await.unwrap().unwrap();
}

/// An engine that has the file, and what closes that as a failure of the disk does.
fn owner(folder: &TempDir, store: &StoreId) -> (SyncEngine, impl FnOnce() + Send + use<>) {
    let replica = ReplicaId::new(1).unwrap();
    let file = RedbPersistence::create_at_once(folder.path(), store, replica).unwrap();
    let failure = file.failure();
    (start(folder, file), failure)
}

fn start(folder: &TempDir, file: RedbPersistence) -> SyncEngine {
    let store = StoreId::new("s").unwrap();
    let path = folder.path().join(store.file_name());
    let folder = folder.path().to_owned();
    let file = SharedFile { folder, path, store, role: Role::Owner(file), blobs: None };
    SyncEngine::start(LocalStore::load(file).unwrap())
}

/// Goal: an owner that has lost its file after a failure of the disk, and finds it again with what another
/// process has written meanwhile, goes on by itself; all of it is there, once, and guests find it. Method: the
/// other one edits under the same id, and while the owner has edits that are nowhere else.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_goes_on_at_a_file_that_another_process_had_meanwhile() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let (engine, failure) = owner(&folder, &store);
    engine.edit(|store| add_labelled(store, "before")).unwrap();
    engine.flush().await.unwrap();
    tokio::task::spawn_blocking(failure).await.unwrap();
    let other = RedbPersistence::open_at_once(folder.path(), &store, Intent::Write).unwrap();
    assert_eq!(other.seats()[0].replica, ReplicaId::new(1).unwrap());
    let other = start(&folder, other);
    other.edit(|store| add_labelled(store, "theirs")).unwrap();
    other.stop().await.unwrap();
    engine.edit(|store| add_labelled(store, "ours")).unwrap();
    let mut status = engine.watch_status();
    let all_there = async {
        while engine.read(labels).unwrap() != ["before", "ours", "theirs"] {
            status.changed().await.unwrap();
        }
        let is_written = |status: &SyncStatus| {
            status.storage_error.is_none() && status.persisted.covers(&status.local)
        };
        status.wait_for(is_written).await.map(drop).unwrap();
    };
    let waited = timeout(Duration::from_secs(60), all_there).await;
    assert!(waited.is_ok(), "{:?} {:?}", engine.read(labels).unwrap(), engine.status());
    let path = folder.path().to_owned();
    let as_guest = move || {
        let mut guest = LocalStore::open_existing(&path, &store).unwrap();
        add_labelled(guest.store_mut(), "guest");
        guest.commit().unwrap();
    };
    tokio::task::spawn_blocking(as_guest).await.unwrap();
    engine.edit(|store| add_labelled(store, "after")).unwrap();
    engine.stop().await.unwrap();
    let store = StoreId::new("s").unwrap();
    assert!(check_store(folder.path(), &store).unwrap().is_sound());
    let again = LocalStore::open_existing(folder.path(), &store).unwrap();
    assert_eq!(labels(again.store()), ["after", "before", "guest", "ours", "theirs"]);
}

/// Goal: what a process that had the file meanwhile has removed as nothing referred to it, and something
/// refers to now, does not count as here. Method: a large value that was stored before the file was lost, and
/// used after it.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_that_another_process_has_removed_is_wanted_again() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let (engine, failure) = owner(&folder, &store);
    let film = engine.write_blob([7; 100_000].as_slice(), false).unwrap();
    engine.flush().await.unwrap();
    tokio::task::spawn_blocking(failure).await.unwrap();
    drop(LocalStore::open_existing(folder.path(), &store).unwrap());
    engine.edit(|store| store.write_blob_value(EntryId::ROOT, film)).unwrap().unwrap();
    let mut status = engine.watch_status();
    let is_told = |status: &SyncStatus| {
        status.blobs_to_fetch == 1
            && status.storage_error.is_none()
            && status.persisted == status.local
    };
    let waited = timeout(Duration::from_secs(20), status.wait_for(is_told)).await.is_ok();
    assert!(waited, "{:?}", engine.status());
    assert!(engine.open_blob(&film.hash).unwrap().is_none());
    engine.stop().await.unwrap();
}

/// Goal: guests find an owner again after another process had the file, and wrote nothing.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_listens_again_after_another_one_that_wrote_nothing() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let (engine, failure) = owner(&folder, &store);
    tokio::task::spawn_blocking(failure).await.unwrap();
    let other = RedbPersistence::open_at_once(folder.path(), &store, Intent::Write).unwrap();
    start(&folder, other).stop().await.unwrap();
    engine.edit(|store| add_labelled(store, "after")).unwrap();
    let address = LocalAddress::of(&folder.path().join(store.file_name()));
    let is_met = async {
        while address.connect_async().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), is_met).await.is_ok());
    assert_eq!(engine.read(labels).unwrap(), ["after"]);
    engine.stop().await.unwrap();
}

/// Goal: an owner that has nothing to write but a large value notices too that another process had the file.
#[tokio::test(flavor = "multi_thread")]
async fn a_large_value_can_be_stored_again_soon_after_another_process_had_the_file() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let (engine, failure) = owner(&folder, &store);
    tokio::task::spawn_blocking(failure).await.unwrap();
    drop(LocalStore::open_existing(folder.path(), &store).unwrap());
    let write = || engine.write_blob([7; 100_000].as_slice(), false);
    assert_eq!(write().unwrap_err().code(), "seat-lost");
    let is_stored = async {
        while write().is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), is_stored).await.is_ok());
    engine.stop().await.unwrap();
}

/// Goal: what an engine has not written when it stops, and another process had its file meanwhile, is written
/// all the same. Method: it stops before it has found that out.
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_stops_goes_on_at_a_file_that_another_process_had_first() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let (engine, failure) = owner(&folder, &store);
    tokio::task::spawn_blocking(failure).await.unwrap();
    let mut other = LocalStore::open_existing(folder.path(), &store).unwrap();
    add_labelled(other.store_mut(), "theirs");
    other.commit().unwrap();
    drop(other);
    engine.edit(|store| add_labelled(store, "ours")).unwrap();
    engine.stop().await.unwrap();
    let again = LocalStore::open_existing(folder.path(), &store).unwrap();
    assert_eq!(labels(again.store()), ["ours", "theirs"]);
}

/// Goal: an engine that has lost its file takes nobody's socket away when it ends.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_that_ends_leaves_the_socket_of_the_next_owner_alone() {
    for is_stopped in [true, false] {
        let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
        let (engine, failure) = owner(&folder, &store);
        tokio::task::spawn_blocking(failure).await.unwrap();
        let other = RedbPersistence::open_at_once(folder.path(), &store, Intent::Write).unwrap();
        let other = start(&folder, other);
        if is_stopped {
            engine.stop().await.unwrap();
        } else {
            drop(engine);
        }
        let address = LocalAddress::of(&folder.path().join(store.file_name()));
        assert!(address.connect_async().await.is_ok(), "stopped: {is_stopped}");
        other.stop().await.unwrap();
        assert!(address.connect_async().await.is_err());
    }
}

/// Goal: an owner that could not listen does so as soon as it can. Method: a folder in the place of its socket.
#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_could_not_listen_tries_again() {
    let (folder, store) = (TempDir::new().unwrap(), StoreId::new("s").unwrap());
    let path = folder.path().join(store.file_name());
    let socket = path.with_extension("sds.sock");
    std::fs::create_dir(&socket).unwrap();
    let engine = SyncEngine::start(LocalStore::open_or_create(folder.path(), &store).unwrap());
    std::fs::remove_dir(&socket).unwrap();
    let address = LocalAddress::of(&path);
    let is_met = async {
        while address.connect_async().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    assert!(timeout(Duration::from_secs(20), is_met).await.is_ok());
    engine.stop().await.unwrap();
    assert!(!socket.exists());
}
