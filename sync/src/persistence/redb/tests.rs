use std::fs;
use std::io::Write as _;

use sds_store::EntryId;
use tempfile::TempDir;

use super::*;
use crate::local_store::LocalStore;

fn replica(number: u64) -> ReplicaId {
    ReplicaId::new(number).unwrap()
}

fn store(id: &str) -> StoreId {
    StoreId::new(id).unwrap()
}

fn open(folder: &TempDir, id: &str) -> RedbPersistence {
    RedbPersistence::open_or_create(folder.path(), &store(id), replica(7)).unwrap()
}

fn changes(texts: &[&str]) -> Batch {
    let changes = texts.iter().map(|text| text.as_bytes().into()).collect();
    Batch { changes, ..Batch::default() }
}

fn log(persistence: &impl Persistence) -> Vec<String> {
    let mut all = Vec::new();
    let mut from = Some(0);
    while let Some(at) = from {
        let page = persistence.read_log(at).unwrap();
        all.extend(page.changes.iter().map(|change| String::from_utf8(change.to_vec()).unwrap()));
        from = page.next;
    }
    all
}

#[test]
fn what_was_appended_is_there_after_reopening_and_the_replica_stays() {
    let folder = TempDir::new().unwrap();
    let mut first = open(&folder, "s");
    first.append(&changes(&["a", "b"])).unwrap();
    first.append(&changes(&["c"])).unwrap();
    drop(first);
    let second = RedbPersistence::open_or_create(folder.path(), &store("s"), replica(8)).unwrap();
    assert_eq!(log(&second), ["a", "b", "c"]);
    assert_eq!(second.seats(), [Seat::new(replica(7))]);
}

#[test]
fn a_long_log_comes_in_pages() {
    let folder = TempDir::new().unwrap();
    let mut persistence = open(&folder, "s");
    let large = "x".repeat(LOG_PAGE_BYTES_MAX / 2);
    persistence.append(&changes(&[&large, &large, "y", &large])).unwrap();
    let first = persistence.read_log(0).unwrap();
    assert_eq!((first.changes.len(), first.next), (2, Some(2)));
    assert_eq!(log(&persistence).len(), 4);
}

#[test]
fn stores_in_one_folder_are_apart() {
    let folder = TempDir::new().unwrap();
    let ids = ["a/b", "a_b", "A_B", "a%b"];
    for id in ids {
        open(&folder, id).append(&changes(&[id])).unwrap();
    }
    for id in ids {
        assert_eq!(log(&open(&folder, id)), [id]);
    }
}

#[test]
fn opening_what_is_not_there_creates_nothing() {
    let folder = TempDir::new().unwrap();
    let refused = RedbPersistence::open_existing(folder.path(), &store("s")).unwrap_err();
    assert_eq!(refused.code(), "store-not-found");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_file_in_use_is_waited_for_and_then_reported() {
    let folder = TempDir::new().unwrap();
    let first = open(&folder, "s");
    let started = std::time::Instant::now();
    let refused = RedbPersistence::open_existing(folder.path(), &store("s")).unwrap_err();
    assert_eq!(refused.code(), "store-locked");
    assert!(started.elapsed() >= crate::limits::LOCK_PATIENCE);
    let folder_path = folder.path().to_owned();
    let waiting =
        std::thread::spawn(move || RedbPersistence::open_existing(&folder_path, &store("s")));
    std::thread::sleep(Duration::from_millis(100));
    drop(first);
    assert!(waiting.join().unwrap().is_ok());
}

#[test]
fn a_renamed_file_and_a_newer_format_are_refused() {
    let folder = TempDir::new().unwrap();
    drop(open(&folder, "a"));
    fs::rename(folder.path().join("a.sds"), folder.path().join("b.sds")).unwrap();
    let refused = RedbPersistence::open_existing(folder.path(), &store("b")).unwrap_err();
    assert_eq!(refused.code(), "wrong-store");

    let newer = open(&folder, "n");
    let write_format = |write: &WriteTransaction| {
        let bytes = (FORMAT + 1).to_le_bytes();
        write.open_table(META)?.insert("format", bytes.as_slice())?;
        Ok(())
    };
    newer.file.write(write_format).unwrap();
    drop(newer);
    let refused = RedbPersistence::open_existing(folder.path(), &store("n")).unwrap_err();
    assert_eq!(refused.code(), "store-too-new");
}

/// Goal: no damage to a file ever panics or passes for a shorter log.
/// Method: every kind of cut, and garbage, in place of a good file.
#[test]
fn damaged_files_are_typed_errors() {
    let folder = TempDir::new().unwrap();
    let mut good = open(&folder, "s");
    let text = "x".repeat(1_000);
    good.append(&changes(&[text.as_str(); 500])).unwrap();
    drop(good);
    let path = folder.path().join("s.sds");
    let bytes = fs::read(&path).unwrap();
    let cuts = [0, 1, 9, 100, 320, 4_096, bytes.len() / 2, bytes.len() - 4_096];
    let mut damaged: Vec<Vec<u8>> = cuts.iter().map(|cut| bytes[..*cut].to_vec()).collect();
    damaged.push(b"no database at all, but a text".repeat(1_000));
    damaged.push(vec![0; bytes.len()]);
    damaged.push(vec![0xff; bytes.len()]);
    for content in damaged {
        fs::File::create(&path).unwrap().write_all(&content).unwrap();
        let opened = RedbPersistence::open_existing(folder.path(), &store("s"));
        let error = opened.and_then(|file| file.read_log(0).map(drop)).unwrap_err();
        assert_eq!(error.code(), "store-corrupt", "{} bytes: {error}", content.len());
    }
}

#[test]
fn a_file_of_another_kind_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let other = TableDefinition::<'_, u64, u64>::new("other");
    let path = folder.path().join("s.sds");
    let make = |write: &WriteTransaction| Ok(write.open_table(other).map(drop)?);
    let database = Database::open_or_create(&path, make).unwrap();
    drop(database);
    let refused =
        RedbPersistence::open_or_create(folder.path(), &store("s"), replica(1)).unwrap_err();
    assert_eq!(refused.code(), "store-corrupt");
}

#[test]
fn a_change_that_has_changed_on_disk_is_damage() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.append(&changes(&["abcdefghij"])).unwrap();
    drop(file);
    let path = folder.path().join("s.sds");
    let mut bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 10).filter(|at| &bytes[*at..*at + 10] == b"abcdefghij").collect();
    assert!(!places.is_empty());
    places.iter().for_each(|at| bytes[at + 3] = b'X');
    fs::write(&path, bytes).unwrap();
    let opened = RedbPersistence::open_existing(folder.path(), &store("s"));
    let error = opened.and_then(|file| file.read_log(0).map(drop)).unwrap_err();
    assert_eq!(error.code(), "store-corrupt");
}

#[test]
fn after_a_failure_the_file_is_opened_anew_and_goes_on() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.append(&changes(&["a"])).unwrap();
    let failed = file.file.write(|write| {
        write.open_table(LOG)?.insert(9, b"lost".as_slice())?;
        Err::<(), _>(Failure::Redb(redb::Error::PreviousIo))
    });
    assert_eq!(failed.unwrap_err().code(), "storage-closed");
    file.append(&changes(&["b"])).unwrap();
    assert_eq!(log(&file), ["a", "b"]);
}

#[test]
fn a_commit_that_failed_and_is_there_all_the_same_is_not_written_twice() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.append(&changes(&["a"])).unwrap();
    file.append(&changes(&["b", "c"])).unwrap();
    file.end = 1;
    file.append(&changes(&["b", "c", "d"])).unwrap();
    assert_eq!(log(&file), ["a", "b", "c", "d"]);
}

/// Closes the file, and lets another process have it.
fn lose(folder: &TempDir, file: &RedbPersistence, written: &[Batch]) {
    file.failure()();
    let mut other =
        RedbPersistence::open_at_once(folder.path(), &store("s"), Intent::Write).unwrap();
    written.iter().for_each(|batch| other.append(batch).unwrap());
}

#[test]
fn what_another_process_has_written_meanwhile_is_not_mixed_with_ours() {
    for theirs in [changes(&["theirs"]), snapshot("a theirs"), Batch::default()] {
        let folder = TempDir::new().unwrap();
        let mut file = open(&folder, "s");
        file.append(&changes(&["a"])).unwrap();
        lose(&folder, &file, std::slice::from_ref(&theirs));
        for ours in [changes(&["ours"]), changes(&[]), snapshot("a ours")] {
            let blobs = vec![(BlobHash([1; 32]), Arc::from(*b"x"))];
            let refused = file.append(&Batch { blobs, ..ours }).unwrap_err();
            assert_eq!(refused.code(), "seat-lost");
            assert_eq!(file.blobs().find(&BlobHash([1; 32])).unwrap(), None);
        }
        let number = file.blobs().begin();
        let refused = file.blobs().append(number, 0, b"x").unwrap_err();
        assert_eq!(refused.code(), "seat-lost", "a blob that comes in by parts");
        let kept = file.read_snapshot().unwrap();
        assert_eq!(kept.as_deref(), theirs.snapshot.as_deref());
        file.reload().unwrap();
        for unfit in [changes(&["ours"]), snapshot("a ours")] {
            let refused = file.append(&unfit).unwrap_err();
            assert_eq!(refused.code(), "seat-lost", "it was made without what is there");
        }
        file.begin_anew();
        let mut expected = log(&file);
        file.append(&changes(&["ours"])).unwrap();
        expected.push("ours".to_owned());
        assert_eq!(log(&file), expected);
    }
}

/// Goal: who only reads disturbs nobody.
#[test]
fn a_process_that_has_only_read_meanwhile_is_not_noticed() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.failure()();
    drop(RedbPersistence::open_at_once(folder.path(), &store("s"), Intent::Read).unwrap());
    file.append(&changes(&["a"])).unwrap();
    assert_eq!(log(&file), ["a"]);
}

/// Goal: a file that was written before there were stamps opens as any other.
#[test]
fn a_file_without_a_stamp_is_opened_and_written_to() {
    let folder = TempDir::new().unwrap();
    let file = open(&folder, "s");
    let unstamp = |write: &WriteTransaction| {
        let removed = write.open_table(META)?.remove("opening")?.is_some();
        assert!(removed);
        Ok(())
    };
    file.file.write(unstamp).unwrap();
    drop(file);
    let mut file = open(&folder, "s");
    file.append(&changes(&["a"])).unwrap();
    assert_eq!(log(&file), ["a"]);
}

/// Goal: a snapshot whose commit failed, and that is tried again, does not take the place of what another
/// process has written meanwhile, also where that one left nothing in the log.
#[test]
fn a_snapshot_that_failed_replaces_nothing_that_another_process_has_written() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.append(&changes(&["a"])).unwrap();
    file.has_failed = true;
    file.failure()();
    let mut other =
        RedbPersistence::open_at_once(folder.path(), &store("s"), Intent::Write).unwrap();
    other.append(&changes(&["theirs"])).unwrap();
    other.append(&snapshot("a theirs")).unwrap();
    drop(other);
    let refused = file.append(&snapshot("a ours")).unwrap_err();
    assert_eq!(refused.code(), "seat-lost-midway");
    assert_eq!(file.read_snapshot().unwrap().unwrap(), b"a theirs");
}

fn snapshot(text: &str) -> Batch {
    Batch { snapshot: Some(text.as_bytes().into()), ..Batch::default() }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log_and_changes_come_after_it() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    let large = "x".repeat(2 * SNAPSHOT_CHUNK_BYTES + 5);
    for (content, after) in [("first", "b"), (large.as_str(), "c"), ("", "d")] {
        file.append(&changes(&["a"])).unwrap();
        let mut batch = changes(&["covered"]);
        batch.add(snapshot(content));
        batch.add(changes(&[after]));
        file.append(&batch).unwrap();
        file.append(&changes(&["z"])).unwrap();
        drop(file);
        file = open(&folder, "s");
        assert_eq!(log(&file), [after, "z"]);
        let read = file.read_snapshot().unwrap().unwrap_or_default();
        assert!(read == content.as_bytes());
    }
}

#[test]
fn a_snapshot_whose_commit_failed_and_is_there_all_the_same_is_no_damage() {
    let folder = TempDir::new().unwrap();
    let mut file = open(&folder, "s");
    file.append(&changes(&["a"])).unwrap();
    // The commits reached the disk, but this side was not told.
    let told = |file: &mut RedbPersistence, batch: &Batch| {
        let end = file.end;
        file.append(batch).unwrap();
        file.end = end;
    };
    told(&mut file, &changes(&["b"]));
    told(&mut file, &snapshot("a b"));
    let mut batch = snapshot("a b");
    batch.add(changes(&["c"]));
    told(&mut file, &batch);
    batch.add(changes(&["d"]));
    file.append(&batch).unwrap();
    assert_eq!(log(&file), ["c", "d"]);
    assert_eq!(file.read_snapshot().unwrap().unwrap(), b"a b");
}

/// Goal: a backup that was taken while this process had the file, and took its place while that was closed, is
/// noticed by what it lacks.
#[test]
fn a_file_that_lacks_what_was_written_is_noticed() {
    for ours in [changes(&["b"]), snapshot("a b")] {
        let folder = TempDir::new().unwrap();
        let mut file = open(&folder, "s");
        file.append(&changes(&["a"])).unwrap();
        file.end += 1;
        assert_eq!(file.append(&ours).unwrap_err().code(), "seat-lost");
    }
}

#[test]
fn a_damaged_seat_is_damage() {
    let folder = TempDir::new().unwrap();
    let file = open(&folder, "s");
    let damage = |write: &WriteTransaction| {
        let mut bytes = seal(&Seat::new(replica(7)).encode());
        bytes[3] ^= 1;
        write.open_table(SEATS)?.insert(7, bytes.as_slice())?;
        Ok(())
    };
    file.file.write(damage).unwrap();
    drop(file);
    let refused = RedbPersistence::open_existing(folder.path(), &store("s")).unwrap_err();
    assert_eq!(refused.code(), "store-corrupt");
}

/// What is in a file, table by table.
fn dump(folder: &TempDir) -> Vec<(String, Vec<u8>)> {
    let file = ReadOnlyFile(folder.path().join("s.sds"));
    let database = Database::open_on(Box::new(file)).unwrap();
    let rows = |read: &ReadTransaction| {
        let mut rows = Vec::new();
        for row in read.open_table(META)?.iter()? {
            let (key, value) = row?;
            rows.push((key.value().to_owned(), value.value().to_vec()));
        }
        for table in [SEATS, LOG] {
            for row in read.open_table(table)?.iter()? {
                let (key, value) = row?;
                rows.push((format!("{} {}", table.name(), key.value()), value.value().to_vec()));
            }
        }
        Ok(rows)
    };
    database.read(rows).unwrap()
}

/// Goal: what cannot be read is not written to, at whatever place it is, so that it can be mended still. Method:
/// a file of which a change was spoilt, and, to compare, a good one.
#[test]
fn a_damaged_file_is_not_written_to() {
    let (folder, elsewhere) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let mut local = LocalStore::load(open(&folder, "s")).unwrap();
    local.store_mut().set_label(EntryId::ROOT, "abcdefghij").unwrap();
    local.commit().unwrap();
    drop(local);
    let [path, copy] = [&folder, &elsewhere].map(|folder| folder.path().join("s.sds"));
    let bytes = fs::read(&path).unwrap();
    let places: Vec<usize> =
        (0..bytes.len() - 10).filter(|at| &bytes[*at..*at + 10] == b"abcdefghij").collect();
    assert!(!places.is_empty());
    for is_damaged in [true, false] {
        let mut bytes = bytes.clone();
        if is_damaged {
            places.iter().for_each(|at| bytes[at + 3] = b'X');
        }
        for (folder, path) in [(&folder, &path), (&elsewhere, &copy)] {
            fs::write(path, &bytes).unwrap();
            let before = dump(folder);
            let opened = LocalStore::open_existing(folder.path(), &store("s")).map(drop);
            assert_eq!(opened.map_err(|error| error.code()).err().is_some(), is_damaged);
            assert_eq!(dump(folder) == before, is_damaged, "a good one is claimed");
        }
    }
}
