//! Files that were copied, restored or cloned, with a real relay between them: nothing forks, nothing
//! is lost, nothing is there twice, and everybody converges.

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::{DataStore, EntryId, ItemValue, ReplicaId, StoreError};
use sds_sync::{ConnectOptions, LocalStore, MemoryPersistence, StoreId, SyncEngine, Token};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

fn id() -> StoreId {
    StoreId::new("s").unwrap()
}

fn token() -> Token {
    let secret = Secret::new("a secret of more than thirty-two characters").unwrap();
    let lifetime = Duration::from_secs(3_600);
    let (subject, scope) = ("desk".to_owned(), Scope::Write);
    let grant = Grant { stores: id().into(), subject, scope, lifetime, issuer: None };
    mint(&secret, &grant, SystemTime::now()).unwrap()
}

async fn relay(folder: &Path) -> Relay {
    let secret = Secret::new("a secret of more than thirty-two characters").unwrap();
    Relay::start(RelayConfig::new(secret, folder)).await.unwrap()
}

fn open(folder: &Path) -> SyncEngine {
    SyncEngine::start(LocalStore::open_or_create(folder, &id()).unwrap())
}

fn wake(memory: &MemoryPersistence) -> SyncEngine {
    SyncEngine::start(LocalStore::load(memory.clone()).unwrap())
}

fn connect(engine: &SyncEngine, relay: &Relay) {
    engine.connect(ConnectOptions::new(relay.url(), token())).unwrap();
}

async fn synced(engine: &SyncEngine) {
    let synced = engine.wait_until_synced(PATIENCE).await;
    assert!(synced.is_ok(), "{synced:?}: {:?}", engine.status());
}

/// Adds an item as one change. As two, the copies could both make the first one, to the byte.
fn add(engine: &SyncEngine, label: &str) -> EntryId {
    let add = |store: &mut DataStore| {
        store.transact(|store| {
            let item = store.new_item_at(None, EntryId::ROOT, None)?;
            store.set_label(item, label)?;
            Ok::<_, StoreError>(item)
        })
    };
    engine.edit(add).unwrap().unwrap()
}

fn labels(engine: &SyncEngine) -> Vec<String> {
    let read = engine.read(|store| {
        let root = store.root_item();
        let items = root.inner_entries().filter(|entry| !entry.id().is_well_known());
        let mut labels: Vec<String> = items.map(|item| item.label().into_owned()).collect();
        labels.sort();
        labels
    });
    read.unwrap()
}

fn replica(engine: &SyncEngine) -> ReplicaId {
    engine.read(DataStore::replica_id).unwrap()
}

fn authors(engine: &SyncEngine) -> usize {
    engine.read(|store| store.version().iter().count()).unwrap()
}

/// Waits until both are synced and the same, and show these labels.
async fn converge(one: &SyncEngine, other: &SyncEngine, expected: &[&str]) {
    let digest = |engine: &SyncEngine| engine.edit(|store| store.digest()).unwrap();
    let wait = async {
        loop {
            synced(one).await;
            synced(other).await;
            let is_there = labels(one) == expected && labels(other) == expected;
            if is_there && digest(one) == digest(other) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let waited = tokio::time::timeout(PATIENCE, wait).await;
    assert!(waited.is_ok(), "{:?} and {:?}, not {expected:?}", labels(one), labels(other));
    for engine in [one, other] {
        engine.read(DataStore::assert_invariants).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_grows_with_devices_not_with_runs() {
    let (home, desk_dir) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let relay = relay(home.path()).await;
    let mut expected = Vec::new();
    for run in 0..5 {
        let desk = open(desk_dir.path());
        if run % 2 == 0 {
            connect(&desk, &relay);
        }
        add(&desk, &run.to_string());
        expected.push(run.to_string());
        if run % 2 == 0 {
            synced(&desk).await;
        }
        assert_eq!((authors(&desk), labels(&desk)), (1, expected.clone()));
        desk.stop().await.unwrap();
    }
    relay.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_file_takes_a_seat_of_its_own() {
    let dirs = [(); 3].map(|()| TempDir::new().unwrap());
    let [home, desk_dir, copy_dir] = dirs.each_ref().map(TempDir::path);
    let relay = relay(home).await;
    let desk = open(desk_dir);
    connect(&desk, &relay);
    add(&desk, "shared");
    synced(&desk).await;
    desk.disconnect().await;
    add(&desk, "unsent");
    desk.stop().await.unwrap();
    let name = id().file_name();
    fs::copy(desk_dir.join(&name), copy_dir.join(&name)).unwrap();

    let (desk, copy) = (open(desk_dir), open(copy_dir));
    assert_ne!(replica(&desk), replica(&copy));
    add(&desk, "at the desk");
    add(&copy, "in the copy");
    connect(&desk, &relay);
    connect(&copy, &relay);
    converge(&desk, &copy, &["at the desk", "in the copy", "shared", "unsent"]).await;
    assert_eq!((authors(&desk), authors(&copy)), (2, 2));
    desk.stop().await.unwrap();
    copy.stop().await.unwrap();
    let (desk, copy) = (open(desk_dir), open(copy_dir));
    assert_eq!((authors(&desk), authors(&copy)), (2, 2));
    assert_ne!(replica(&desk), replica(&copy));
    relay.stop().await;
}

/// Goal: whatever was unsent when the backup was made, and whatever was edited since, on either side of
/// it, is there once in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_loses_nothing_and_makes_nothing_twice() {
    for (unsent, edits) in [(false, false), (false, true), (true, false), (true, true)] {
        let dirs = [(); 3].map(|()| TempDir::new().unwrap());
        let [home, desk_dir, other_dir] = dirs.each_ref().map(TempDir::path);
        let relay = relay(home).await;
        let desk = open(desk_dir);
        connect(&desk, &relay);
        add(&desk, "1 sent");
        synced(&desk).await;
        desk.disconnect().await;
        let mut expected = vec!["1 sent"];
        if unsent {
            add(&desk, "2 unsent");
            expected.push("2 unsent");
        }
        desk.stop().await.unwrap();
        let path = desk_dir.join(id().file_name());
        let backup = fs::read(&path).unwrap();

        let desk = open(desk_dir);
        let former = replica(&desk);
        connect(&desk, &relay);
        add(&desk, "3 after the backup");
        expected.push("3 after the backup");
        synced(&desk).await;
        desk.stop().await.unwrap();
        // Into the same file, so that its place says nothing.
        fs::write(&path, backup).unwrap();

        let desk = open(desk_dir);
        assert_eq!(replica(&desk), former);
        if edits {
            add(&desk, "4 after the restoration");
            expected.push("4 after the restoration");
        }
        connect(&desk, &relay);
        let other = open(other_dir);
        connect(&other, &relay);
        converge(&desk, &other, &expected).await;
        assert_ne!(replica(&desk), former);
        add(&desk, "5 goes on");
        expected.push("5 goes on");
        converge(&desk, &other, &expected).await;
        desk.stop().await.unwrap();
        let desk = open(desk_dir);
        assert_eq!(labels(&desk), expected);
        assert!(authors(&desk) <= 2);
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_a_clone_typed_keeps_its_place() {
    let home = TempDir::new().unwrap();
    let relay = relay(home.path()).await;
    let memory = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
    let desk = wake(&memory);
    let note = add(&desk, "note");
    desk.edit(|store| store.write_value(note, "shared text")).unwrap().unwrap();
    desk.flush().await.unwrap();
    let clone = wake(&memory.copy());
    desk.edit(|store| store.change_value(note, 0..6, "desk's")).unwrap().unwrap();
    clone.edit(|store| store.change_value(note, 11..11, " of the clone")).unwrap().unwrap();
    clone.edit(|store| store.change_value(note, 12..14, "by")).unwrap().unwrap();
    connect(&desk, &relay);
    synced(&desk).await;
    connect(&clone, &relay);
    converge(&desk, &clone, &["note"]).await;
    let text = |engine: &SyncEngine| engine.read(|store| store.entry(note).unwrap().value());
    let expected = ItemValue::Text("desk's text by the clone".into());
    assert_eq!((text(&desk).unwrap(), text(&clone).unwrap()), (expected.clone(), expected));
    relay.stop().await;
}

/// Goal: a machine that was cloned while it was running and connected, with both going on at once.
/// Method: both edit in turn without waiting, so that the relay meets their changes in any order.
#[tokio::test(flavor = "multi_thread")]
async fn two_clones_that_edit_at_the_same_time_part_and_converge() {
    for round in 0..3 {
        let home = TempDir::new().unwrap();
        let relay = relay(home.path()).await;
        let memory = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
        let desk = wake(&memory);
        add(&desk, "before");
        desk.flush().await.unwrap();
        let clone = wake(&memory.copy());
        let mut expected = vec!["before".to_owned()];
        for number in 0..6 {
            if number == round {
                connect(&desk, &relay);
            }
            if number == 2 * round {
                connect(&clone, &relay);
            }
            for (engine, name) in [(&desk, "desk"), (&clone, "clone")] {
                expected.push(format!("{name} {number}"));
                add(engine, expected.last().unwrap());
            }
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        expected.sort();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        converge(&desk, &clone, &expected).await;
        assert!(authors(&desk) <= 3, "{}", authors(&desk));
        desk.stop().await.unwrap();
        clone.stop().await.unwrap();
        let again = LocalStore::load(memory).unwrap();
        again.store().assert_invariants();
        relay.stop().await;
    }
}

/// Goal: an old backup that is restored twice, with the same unsent edit in it, brings that edit once.
/// Method: each time the relay has another change in its place, so that it has to be made again.
#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restored_twice_makes_its_unsent_edit_once() {
    let home = TempDir::new().unwrap();
    let relay = relay(home.path()).await;
    let desk = MemoryPersistence::new(id(), ReplicaId::new(7).unwrap());
    let backup = desk.copy();
    let engine = wake(&desk);
    add(&engine, "at the desk");
    connect(&engine, &relay);
    synced(&engine).await;
    let engine_of_backup = wake(&backup);
    add(&engine_of_backup, "unsent");
    engine_of_backup.flush().await.unwrap();
    drop(engine_of_backup);

    let mut expected = vec!["at the desk", "unsent"];
    for later in ["went on once", "went on twice"] {
        let restored = wake(&backup.copy());
        connect(&restored, &relay);
        converge(&engine, &restored, &expected).await;
        add(&restored, later);
        expected.push(later);
        converge(&engine, &restored, &expected).await;
        restored.stop().await.unwrap();
    }
    relay.stop().await;
}
