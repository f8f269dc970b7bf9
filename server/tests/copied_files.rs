//! Files that were copied, restored or cloned, with a real relay between them: nothing forks, nothing
//! is lost, nothing is there twice, and everybody converges.

mod support {
    pub(crate) mod common;
    pub(crate) mod engines;
    pub(crate) mod relay;
    #[expect(dead_code, reason = "nobody is waited for")]
    pub(crate) mod watching;
}

use std::fs;
use std::time::Duration;

use sds_store::{DataStore, ItemValue, ReplicaId};
use sds_sync::{LocalStore, MemoryPersistence, SyncEngine};
use support::common::{PATIENCE, folder, id};
use support::engines::{add_item, connect, engine, present, synced, writer};
use support::relay::relay;
use support::watching::labels;
use tempfile::TempDir;

fn wake(memory: &MemoryPersistence) -> SyncEngine {
    SyncEngine::start(LocalStore::load(memory.clone()).unwrap())
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
    let (home, desk_dir) = (folder(), folder());
    let relay = relay(home.path()).await;
    let mut expected = Vec::new();
    for run in 0..5 {
        let desk = engine(desk_dir.path());
        if run % 2 == 0 {
            connect(&desk, relay.url(), writer("desk"));
        }
        add_item(&desk, &run.to_string());
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
    let dirs = [(); 3].map(|()| folder());
    let [home, desk_dir, copy_dir] = dirs.each_ref().map(TempDir::path);
    let relay = relay(home).await;
    let desk = present(desk_dir, relay.url(), writer("desk")).await;
    add_item(&desk, "shared");
    synced(&desk).await;
    desk.disconnect().await;
    add_item(&desk, "unsent");
    desk.stop().await.unwrap();
    let name = id("s").file_name();
    fs::copy(desk_dir.join(&name), copy_dir.join(&name)).unwrap();

    let (desk, copy) = (engine(desk_dir), engine(copy_dir));
    assert_ne!(replica(&desk), replica(&copy));
    add_item(&desk, "at the desk");
    add_item(&copy, "in the copy");
    connect(&desk, relay.url(), writer("desk"));
    connect(&copy, relay.url(), writer("desk"));
    converge(&desk, &copy, &["at the desk", "in the copy", "shared", "unsent"]).await;
    assert_eq!((authors(&desk), authors(&copy)), (2, 2));
    desk.stop().await.unwrap();
    copy.stop().await.unwrap();
    let (desk, copy) = (engine(desk_dir), engine(copy_dir));
    assert_eq!((authors(&desk), authors(&copy)), (2, 2));
    assert_ne!(replica(&desk), replica(&copy));
    relay.stop().await;
}

/// Goal: whatever was unsent when the backup was made, and whatever was edited since, on either side of
/// it, is there once in the end.
#[tokio::test(flavor = "multi_thread")]
async fn a_restored_backup_loses_nothing_and_makes_nothing_twice() {
    for (unsent, edits) in [(false, false), (false, true), (true, false), (true, true)] {
        let dirs = [(); 3].map(|()| folder());
        let [home, desk_dir, other_dir] = dirs.each_ref().map(TempDir::path);
        let relay = relay(home).await;
        let desk = engine(desk_dir);
        connect(&desk, relay.url(), writer("desk"));
        add_item(&desk, "1 sent");
        synced(&desk).await;
        desk.disconnect().await;
        let mut expected = vec!["1 sent"];
        if unsent {
            add_item(&desk, "2 unsent");
            expected.push("2 unsent");
        }
        desk.stop().await.unwrap();
        let path = desk_dir.join(id("s").file_name());
        let backup = fs::read(&path).unwrap();

        let desk = engine(desk_dir);
        let former = replica(&desk);
        connect(&desk, relay.url(), writer("desk"));
        add_item(&desk, "3 after the backup");
        expected.push("3 after the backup");
        synced(&desk).await;
        desk.stop().await.unwrap();
        // Into the same file, so that its place says nothing.
        fs::write(&path, backup).unwrap();

        let desk = engine(desk_dir);
        assert_eq!(replica(&desk), former);
        if edits {
            add_item(&desk, "4 after the restoration");
            expected.push("4 after the restoration");
        }
        connect(&desk, relay.url(), writer("desk"));
        let other = engine(other_dir);
        connect(&other, relay.url(), writer("desk"));
        converge(&desk, &other, &expected).await;
        assert_ne!(replica(&desk), former);
        add_item(&desk, "5 goes on");
        expected.push("5 goes on");
        converge(&desk, &other, &expected).await;
        desk.stop().await.unwrap();
        let desk = engine(desk_dir);
        assert_eq!(labels(&desk), expected);
        assert!(authors(&desk) <= 2);
        relay.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn text_that_a_clone_typed_keeps_its_place() {
    let home = folder();
    let relay = relay(home.path()).await;
    let memory = MemoryPersistence::new(id("s"), ReplicaId::new(7).unwrap());
    let desk = wake(&memory);
    let note = add_item(&desk, "note");
    desk.edit(|store| store.write_value(note, "shared text")).unwrap().unwrap();
    desk.flush().await.unwrap();
    let clone = wake(&memory.copy());
    desk.edit(|store| store.change_value(note, 0..6, "desk's")).unwrap().unwrap();
    clone.edit(|store| store.change_value(note, 11..11, " of the clone")).unwrap().unwrap();
    clone.edit(|store| store.change_value(note, 12..14, "by")).unwrap().unwrap();
    connect(&desk, relay.url(), writer("desk"));
    synced(&desk).await;
    connect(&clone, relay.url(), writer("desk"));
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
        let home = folder();
        let relay = relay(home.path()).await;
        let memory = MemoryPersistence::new(id("s"), ReplicaId::new(7).unwrap());
        let desk = wake(&memory);
        add_item(&desk, "before");
        desk.flush().await.unwrap();
        let clone = wake(&memory.copy());
        let mut expected = vec!["before".to_owned()];
        for number in 0..6 {
            if number == round {
                connect(&desk, relay.url(), writer("desk"));
            }
            if number == 2 * round {
                connect(&clone, relay.url(), writer("desk"));
            }
            for (engine, name) in [(&desk, "desk"), (&clone, "clone")] {
                expected.push(format!("{name} {number}"));
                add_item(engine, expected.last().unwrap());
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
    let home = folder();
    let relay = relay(home.path()).await;
    let desk = MemoryPersistence::new(id("s"), ReplicaId::new(7).unwrap());
    let backup = desk.copy();
    let engine = wake(&desk);
    add_item(&engine, "at the desk");
    connect(&engine, relay.url(), writer("desk"));
    synced(&engine).await;
    let engine_of_backup = wake(&backup);
    add_item(&engine_of_backup, "unsent");
    engine_of_backup.flush().await.unwrap();
    drop(engine_of_backup);

    let mut expected = vec!["at the desk", "unsent"];
    for later in ["went on once", "went on twice"] {
        let restored = wake(&backup.copy());
        connect(&restored, relay.url(), writer("desk"));
        converge(&engine, &restored, &expected).await;
        add_item(&restored, later);
        expected.push(later);
        converge(&engine, &restored, &expected).await;
        restored.stop().await.unwrap();
    }
    relay.stop().await;
}
