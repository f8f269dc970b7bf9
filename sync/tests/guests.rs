//! Engines and sessions at one file: an owner, its guests, and the next owner.

mod support {
    pub(crate) mod labelled;
    pub(crate) mod shows;
}

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use sds_engine::{ReplicaId, Version};
use sds_store::{DataStore, EntryId, StoreError, Timestamp, UndoOptions};
use sds_sync::{LocalStore, StoreId, SyncEngine};
use support::shows::{self, shows};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

fn open(folder: &TempDir) -> LocalStore {
    LocalStore::open_or_create(folder.path(), &StoreId::new("s").unwrap()).unwrap()
}

fn add(local: &mut LocalStore) -> EntryId {
    local.store_mut().new_item_at(None, EntryId::ROOT, None).unwrap()
}

fn add_in(engine: &SyncEngine) -> EntryId {
    engine.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().unwrap()
}

/// Does what waits for the owner, which needs this thread's runtime.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    timeout(Duration::from_secs(60), tokio::task::spawn_blocking(work)).await.unwrap().unwrap()
}

async fn guest_of(folder: &TempDir) -> LocalStore {
    let path = folder.path().to_owned();
    blocking(move || LocalStore::open_or_create(&path, &StoreId::new("s").unwrap()).unwrap()).await
}

/// Goal: a blob that a guest has stored is there for the change that refers to it later, whatever is
/// written, and whoever owns the file, in between.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_a_guest_waits_for_the_change_that_refers_to_it() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let bytes = vec![7; 300_000];
    let mut guest = guest_of(&folder).await;
    let content = bytes.clone();
    let (mut guest, item, blob) = blocking(move || {
        let blob = guest.write_blob(content.as_slice(), false).unwrap();
        let item = add(&mut guest);
        guest.commit().unwrap();
        (guest, item, blob)
    })
    .await;
    owner.stop().await.unwrap();
    let owner = SyncEngine::start(open(&folder));
    blocking(move || {
        guest.store_mut().write_blob_value(item, blob).unwrap();
        guest.commit().unwrap();
    })
    .await;
    let there = owner.read(|store| store.missing_blobs().is_empty()).unwrap();
    assert!(there, "the owner refers to what nobody has");
    owner.stop().await.unwrap();
    let again = open(&folder);
    assert_eq!(again.store().blob(&blob.hash).as_deref(), Some(bytes.as_slice()));
}

/// Goal: the same without an owner: each commit of the former guest opens the file and closes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_of_a_guest_without_an_owner_waits_too() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let mut guest = guest_of(&folder).await;
    owner.stop().await.unwrap();
    let blob = blocking(move || {
        let blob = guest.write_blob([7; 300_000].as_slice(), false).unwrap();
        let item = add(&mut guest);
        guest.commit().unwrap();
        guest.store_mut().write_blob_value(item, blob).unwrap();
        guest.commit().unwrap();
        blob
    })
    .await;
    assert!(open(&folder).store().has_blob(&blob.hash));
}

/// Goal: what a guest is about to refer to stays although it, or the owner, takes the last reference to
/// the same content away.
#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_a_guest_stores_again_outlives_its_last_reference() {
    let folder = TempDir::new().unwrap();
    let mut local = open(&folder);
    let bytes = vec![7; 300_000];
    let item = add(&mut local);
    local.store_mut().write_value(item, bytes.as_slice()).unwrap();
    local.commit().unwrap();
    let owner = SyncEngine::start(local);
    let mut guest = guest_of(&folder).await;
    let blob = blocking(move || {
        let blob = guest.write_blob(bytes.as_slice(), false).unwrap();
        guest.store_mut().write_value(item, "small").unwrap();
        guest.commit().unwrap();
        guest.store_mut().write_blob_value(item, blob).unwrap();
        guest.commit().unwrap();
        blob
    })
    .await;
    owner.stop().await.unwrap();
    assert!(open(&folder).store().has_blob(&blob.hash));
}

/// Goal: an engine whose store was empty when it was loaded gets what the owner has had since.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_guest_takes_the_owners_snapshot_in() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let guest = guest_of(&folder).await;
    let mut expected = vec![add_in(&owner)];
    owner.flush().await.unwrap();
    let guest = SyncEngine::start(guest);
    for _ in 0..2 {
        let all_there = async {
            while !guest
                .read(|store| expected.iter().all(|item| store.entry(*item).is_ok()))
                .unwrap()
            {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(20), all_there).await.unwrap();
        // What comes after the snapshot comes as changes.
        expected.push(add_in(&owner));
    }
    guest.stop().await.unwrap();
    owner.stop().await.unwrap();
}

/// Goal: a guest engine that has nothing to write at a change of owner still has its seat afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn an_idle_guest_keeps_its_seat_when_the_owner_changes() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let idle = SyncEngine::start(guest_of(&folder).await);
    add_in(&idle);
    idle.flush().await.unwrap();
    owner.stop().await.unwrap();
    let owner = SyncEngine::start(open(&folder));
    // Nothing that it is told, or has to write, leads it there.
    sleep(Duration::from_secs(3)).await;
    let other = guest_of(&folder).await;
    let item = add_in(&idle);
    timeout(Duration::from_secs(20), idle.flush()).await.unwrap().unwrap();
    assert!(owner.read(|store| store.entry(item).is_ok()).unwrap());
    blocking(move || drop(other)).await;
    idle.stop().await.unwrap();
    owner.stop().await.unwrap();
}

/// Goal: undoing in a guest brings a large value back whose content the owner could have let go of long
/// since; and where another owner has come between, it is an error, and not a reference to nothing.
#[tokio::test(flavor = "multi_thread")]
async fn undoing_in_a_guest_brings_large_values_back_or_says_that_they_are_gone() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let guest = SyncEngine::start(guest_of(&folder).await);
    let now = Timestamp::from_millis(1);
    let item = add_in(&guest);
    let bytes = vec![7; 300_000];
    let write = |engine: &SyncEngine, value: &[u8]| {
        engine.edit(|store| store.write_value(item, value)).unwrap().unwrap();
    };
    write(&guest, &bytes);
    guest.flush().await.unwrap();
    guest.edit(|store| store.enable_undo(UndoOptions::default())).unwrap();
    for _ in 0..2 {
        write(&guest, b"small");
        guest.flush().await.unwrap();
        // The owner looks for what it no longer needs whenever something has changed.
        add_in(&owner);
        owner.flush().await.unwrap();
        let guest = &guest;
        tokio::task::block_in_place(|| guest.edit(|store| store.undo(now)).unwrap()).unwrap();
        guest.flush().await.unwrap();
        let there = owner.read(|store| store.missing_blobs()).unwrap();
        assert_eq!(there, [], "the owner refers to what nobody has");
    }
    write(&guest, b"small");
    guest.flush().await.unwrap();
    owner.stop().await.unwrap();
    let owner = SyncEngine::start(open(&folder));
    let before = guest.read(|store| store.version().clone()).unwrap();
    let undone = tokio::task::block_in_place(|| guest.edit(|store| store.undo(now)).unwrap());
    assert!(matches!(undone, Err(StoreError::ContentGone(_))), "{undone:?}");
    assert!(guest.read(|store| *store.version() == before).unwrap());
    guest.stop().await.unwrap();
    assert_eq!(owner.read(|store| store.missing_blobs()).unwrap(), []);
    owner.stop().await.unwrap();
}

/// Goal: a guest that comes to refer to a large value finds out by itself that the owner has it.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_finds_out_which_blobs_the_owner_has() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let guest = SyncEngine::start(guest_of(&folder).await);
    let item = add_in(&guest);
    let content = [7; 50_000];
    owner.write_blob(content.as_slice(), false).unwrap();
    // As if a peer had brought the reference.
    let mut peer = DataStore::new(ReplicaId::new(9).unwrap());
    let all = guest.read(|store| store.export_patch(&Version::new())).unwrap();
    peer.apply_remote_patch(&all).unwrap();
    let known = peer.version().clone();
    peer.write_value(item, content.as_slice()).unwrap();
    let patch = peer.export_patch(&known);
    guest.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().unwrap();
    let mut status = guest.watch_status();
    let found = status.wait_for(|status| status.blobs_to_fetch == 0);
    timeout(Duration::from_secs(20), found).await.unwrap().unwrap();
    guest.flush().await.unwrap();
    assert_eq!(owner.read(|store| store.missing_blobs()).unwrap(), []);
    guest.stop().await.unwrap();
    owner.stop().await.unwrap();
}

/// Goal: an engine whose seat went to another guest while the owner changed goes on by itself: what it
/// and the other one have edited is there, each once.
#[tokio::test(flavor = "multi_thread")]
async fn an_engine_whose_seat_is_lost_goes_on_under_another() {
    let mut was_lost = false;
    // Who gets the seat is a race, which the engine may win.
    for _ in 0..5 {
        let folder = TempDir::new().unwrap();
        let owner = SyncEngine::start(open(&folder));
        let guest = SyncEngine::start(guest_of(&folder).await);
        add_in(&guest);
        guest.flush().await.unwrap();
        let seat = guest.read(DataStore::replica_id).unwrap();
        owner.stop().await.unwrap();
        let owner = SyncEngine::start(open(&folder));
        let mut other = guest_of(&folder).await;
        was_lost |= other.store().replica_id() == seat;
        let other = blocking(move || {
            let item = add(&mut other);
            other.store_mut().set_label(item, "the other's").unwrap();
            other.commit().unwrap();
            other
        })
        .await;
        for label in ["one", "two"] {
            // In one go: an item that is made again under another id has another name.
            guest
                .edit(|store| {
                    let item = store.new_item_at(None, EntryId::ROOT, None)?;
                    store.set_label(item, label)
                })
                .unwrap()
                .unwrap();
            // It may say that the seat is lost, and goes on all the same.
            let _lost = guest.flush().await;
        }
        let labels = |engine: &SyncEngine| {
            let mut labels = engine
                .read(|store| {
                    let root = store.root_item();
                    root.inner_entries().map(|it| it.label().into_owned()).collect::<Vec<_>>()
                })
                .unwrap();
            labels.retain(|label| ["one", "the other's", "two"].contains(&label.as_str()));
            labels.sort();
            labels
        };
        let is_settled = async {
            let all = ["one", "the other's", "two"];
            while labels(&owner) != all || labels(&guest) != all {
                sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), is_settled)
            .await
            .unwrap_or_else(|_| panic!("{:?} {:?}", labels(&owner), labels(&guest)));
        guest.flush().await.unwrap();
        blocking(move || drop(other)).await;
        guest.stop().await.unwrap();
        owner.stop().await.unwrap();
        if was_lost {
            return;
        }
    }
    panic!("nobody was fast enough to take the seat");
}

/// Puts an older content in the place of a file that a guest looks at now and then, as one who restores
/// a backup does: so that the file's place says nothing.
async fn restore(path: PathBuf, backup: Vec<u8>) {
    blocking(move || {
        let mut file = OpenOptions::new().read(true).write(true).open(path).unwrap();
        file.lock().unwrap();
        file.set_len(0).unwrap();
        file.write_all(&backup).unwrap();
        file.sync_all().unwrap();
    })
    .await;
}

/// Goal: after a backup was restored under a guest engine that runs on, what it makes is written, the
/// owner gets back what the backup lacks, and nobody draws one id after the other.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_on_at_a_file_that_was_restored() {
    for is_edited in [false, true] {
        let folder = TempDir::new().unwrap();
        let path = folder.path().join(StoreId::new("s").unwrap().file_name());
        let owner = SyncEngine::start(open(&folder));
        shows::add_in(&owner, "before");
        let guest = SyncEngine::start(guest_of(&folder).await);
        owner.stop().await.unwrap();
        let copy = path.clone();
        let backup = blocking(move || std::fs::read(copy).unwrap()).await;
        let owner = SyncEngine::start(open(&folder));
        shows::add_in(&owner, "lost");
        shows(&guest, &["before", "lost"]).await;
        owner.stop().await.unwrap();
        restore(path, backup).await;
        let owner = SyncEngine::start(open(&folder));
        let mut expected = vec!["before", "lost"];
        if is_edited {
            shows::add_in(&guest, "new");
            expected.push("new");
        }
        shows(&owner, &expected).await;
        shows(&guest, &expected).await;
        timeout(Duration::from_secs(20), guest.flush()).await.unwrap().unwrap();
        let authors = owner.read(|store| store.version().iter().count()).unwrap();
        assert!(authors <= 4, "{authors}");
        guest.stop().await.unwrap();
        owner.stop().await.unwrap();
    }
}

/// Goal: where the owner takes a part of what a guest engine writes at once, and then something that
/// contradicts what it has, that part is there once, and the guest goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_guest_goes_on_when_the_owner_took_a_part_of_what_it_wrote() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let guest = SyncEngine::start(guest_of(&folder).await);
    // Two copies of somebody else's file, of which each side got another one; the last in any order.
    let [ours, theirs] = ["ours", "theirs"].map(|label| {
        let mut author = DataStore::new(ReplicaId::new(u64::MAX).unwrap());
        let add = |store: &mut DataStore| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.set_label(item, label)
        };
        author.transact(add).unwrap();
        author.export_patch(&Version::new())
    });
    let edit = |store: &mut DataStore| {
        // The guest hears of it only after its own edit.
        owner.edit(|store| store.apply_remote_patch(&ours).map(drop)).unwrap()?;
        let item = store.new_item_at(None, EntryId::ROOT, None)?;
        store.set_label(item, "own")?;
        store.apply_remote_patch(&theirs).map(drop)
    };
    guest.edit(edit).unwrap().unwrap();
    for engine in [&owner, &guest] {
        shows(engine, &["ours", "own", "theirs"]).await;
    }
    timeout(Duration::from_secs(20), guest.flush()).await.unwrap().unwrap();
    guest.stop().await.unwrap();
    owner.stop().await.unwrap();
}

/// Goal: neither writing a large value in a guest nor asking for one keeps those waiting whom the guest asks
/// for it. Method: the owner runs on the same thread.
#[tokio::test]
async fn a_guest_waits_for_its_owner_where_it_holds_up_nobody() {
    let folder = TempDir::new().unwrap();
    let owner = SyncEngine::start(open(&folder));
    let guest = SyncEngine::start(guest_of(&folder).await);
    let item = add_in(&guest);
    guest.flush().await.unwrap();
    let blob = owner.write_blob([7; 50_000].as_slice(), false).unwrap();
    let write = |store: &mut DataStore| store.write_blob_value(item, blob);
    let mut peer = DataStore::new(ReplicaId::new(9).unwrap());
    let all = guest.read(|store| store.export_patch(&Version::new())).unwrap();
    peer.apply_remote_patch(&all).unwrap();
    let known = peer.version().clone();
    write(&mut peer).unwrap();
    let patch = peer.export_patch(&known);
    guest.edit(|store| store.apply_remote_patch(&patch).map(drop)).unwrap().unwrap();
    // At once, before it has looked by itself.
    assert!(guest.fetch_blob(&blob.hash, Duration::from_secs(60)).await.unwrap());
    let value = [8; 50_000];
    guest.edit(|store| store.write_value(item, value.as_slice())).unwrap().unwrap();
    timeout(Duration::from_secs(60), guest.flush()).await.unwrap().unwrap();
    assert_eq!(owner.read(|store| store.missing_blobs()).unwrap(), []);
    guest.stop().await.unwrap();
    owner.stop().await.unwrap();
}

/// Goal: who only reads leaves a file as it is, so that whoever looks whether others have written there does
/// not take his own look for that. Method: one that was closed well, and one as a kill leaves it.
#[test]
fn whoever_only_reads_leaves_the_file_as_it_is() {
    let (folder, killed) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let id = StoreId::new("s").unwrap();
    let mut local = open(&folder);
    let item = add(&mut local);
    local.commit().unwrap();
    let file = folder.path().join(id.file_name());
    std::fs::copy(&file, killed.path().join(id.file_name())).unwrap();
    drop(local);
    for folder in [&folder, &killed] {
        let file = folder.path().join(id.file_name());
        let look = || {
            let changed = std::fs::metadata(&file).unwrap().modified().unwrap();
            (std::fs::read(&file).unwrap(), changed)
        };
        let before = look();
        let read = LocalStore::open_to_read(folder.path(), &id).unwrap();
        assert!(read.store().entry_with_id(item).is_some());
        drop(read);
        assert!(look() == before, "reading has written");
    }
}
