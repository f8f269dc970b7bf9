//! Files that are made, left open, damaged, contested and made smaller.

use std::io::ErrorKind;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::TableDefinition;
use tempfile::TempDir;

use super::*;

const TABLE: TableDefinition<'_, u64, u64> = TableDefinition::new("t");

fn names(folder: &TempDir) -> Vec<String> {
    let entries = fs::read_dir(folder.path()).unwrap().map(Result::unwrap);
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

fn put(write: &WriteTransaction, value: u64) -> Result<(), Failure> {
    write.open_table(TABLE)?.insert(0, value)?;
    Ok(())
}

fn value(database: &Database) -> u64 {
    let look = |read: &ReadTransaction| Ok(read.open_table(TABLE)?.get(0)?.unwrap().value());
    database.read(look).unwrap()
}

#[test]
fn a_file_has_its_name_only_when_it_is_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    let failed = Database::open_or_create(&path, |_| {
        assert!(!path.exists());
        Err(Failure::Corrupt("a failure"))
    });
    assert_eq!(failed.unwrap_err().code(), "store-corrupt");
    assert_eq!(names(&folder), [""; 0]);
    let made = Database::open_or_create(&path, |write| put(write, 7)).unwrap();
    assert_eq!((value(&made), names(&folder)), (7, vec!["f".to_owned()]));
}

#[test]
fn who_makes_a_file_hears_whether_it_is_the_one_that_stays() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    let meanwhile = |write: &WriteTransaction| {
        drop(Database::open_or_create(&path, |write| put(write, 1)).unwrap());
        put(write, 2)
    };
    assert!(!Database::create_if_missing(&path, meanwhile).unwrap());
    assert!(!Database::create_if_missing(&path, |write| put(write, 3)).unwrap());
    assert_eq!(value(&Database::open(&path).unwrap()), 1);
    assert!(Database::create_if_missing(&folder.path().join("g"), |write| put(write, 4)).unwrap());
}

#[test]
fn the_longest_name_that_a_store_can_have_is_no_hindrance() {
    let folder = TempDir::new().unwrap();
    let longest = crate::StoreId::new(&"A".repeat(crate::limits::STORE_ID_BYTES_MAX)).unwrap();
    let path = folder.path().join(longest.file_name());
    let made = Database::open_or_create(&path, |write| put(write, 7)).unwrap();
    assert_eq!((value(&made), names(&folder)), (7, vec![longest.file_name()]));
}

#[test]
fn of_many_who_make_a_file_one_wins_and_all_get_its() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    let start = Barrier::new(4);
    let make = |number| {
        start.wait();
        value(&Database::open_or_create(&path, |write| put(write, number)).unwrap())
    };
    let found: Vec<u64> = std::thread::scope(|scope| {
        let make = &make;
        let makers: Vec<_> = (0..4).map(|number| scope.spawn(move || make(number))).collect();
        makers.into_iter().map(|maker| maker.join().unwrap()).collect()
    });
    assert!(found.iter().all(|number| *number == found[0]), "{found:?}");
    assert_eq!(names(&folder), ["f"]);
}

/// Goal: whatever the size, and so whatever was left out to be quick. A copy of an open file is what
/// a kill leaves.
#[test]
fn a_file_that_was_never_closed_has_all_that_was_committed() {
    const BYTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bytes");
    let folder = TempDir::new().unwrap();
    for (name, size) in [("small", 1), ("large", 2 * QUICK_REPAIR_BYTES_MIN)] {
        let (path, copy) = (folder.path().join(name), folder.path().join("killed"));
        let database = Database::open_or_create(&path, |write| put(write, 0)).unwrap();
        let content = vec![7; usize::try_from(size).unwrap()];
        let fill = |write: &WriteTransaction| {
            write.open_table(BYTES)?.insert(0, content.as_slice())?;
            Ok(())
        };
        database.write(fill).unwrap();
        for number in 1..4 {
            database.write(|write| put(write, number)).unwrap();
            fs::copy(&path, &copy).unwrap();
            let killed = Database::open(&copy).unwrap();
            assert_eq!(value(&killed), number, "{name}");
            killed.write(|write| put(write, 9)).unwrap();
            assert_eq!(value(&killed), 9, "{name}");
        }
    }
}

#[test]
fn a_file_that_is_mostly_unused_is_made_smaller_and_keeps_what_is_in_it() {
    const BYTES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("bytes");
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    let database = Database::open_or_create(&path, |write| put(write, 7)).unwrap();
    assert!(!database.compact_if_worth_it().unwrap(), "too small to be worth it");
    let fill = |write: &WriteTransaction| {
        let mut table = write.open_table(BYTES)?;
        (0..200).try_for_each(|key| table.insert(key, [9; 40_000].as_slice()).map(drop))?;
        Ok(())
    };
    database.write(fill).unwrap();
    assert!(!database.compact_if_worth_it().unwrap(), "in use");
    let clear = |write: &WriteTransaction| {
        write.open_table(BYTES)?.retain(|_, _| false)?;
        Ok(())
    };
    database.write(clear).unwrap();
    let before = fs::metadata(&path).unwrap().len();
    assert!(database.compact_if_worth_it().unwrap());
    assert!(fs::metadata(&path).unwrap().len() < before / 2);
    assert_eq!(value(&database), 7);
    drop(database);
    assert_eq!(value(&Database::open(&path).unwrap()), 7);
}

/// Goal: a long read, such as a backup whose own disk hangs, keeps nobody waiting for ever whom the disk
/// fails meanwhile. Method: the read ends only when the others have been told.
#[test]
fn a_failure_of_the_disk_does_not_wait_for_a_long_read() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    drop(Database::open_or_create(&path, |write| put(write, 7)).unwrap());
    let database = Database::open_within(&path, Duration::ZERO).unwrap();
    std::thread::scope(|scope| {
        let (begun, has_begun) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel();
        let database = &database;
        let reading = scope.spawn(move || {
            database.read(|read| {
                begun.send(()).unwrap();
                ended.recv().unwrap();
                Ok(read.open_table(TABLE)?.get(0)?.map(|value| value.value()))
            })
        });
        has_begun.recv().unwrap();
        let (told, was_told) = std::sync::mpsc::channel();
        scope.spawn(move || {
            let fail = |_: &WriteTransaction| {
                let full = io::Error::from(ErrorKind::StorageFull);
                Err::<(), _>(Failure::Redb(redb::Error::Io(full)))
            };
            told.send(database.write(fail)).unwrap();
            told.send(database.write(|write| put(write, 8))).unwrap();
        });
        let patience = Duration::from_secs(20);
        let first = was_told.recv_timeout(patience);
        let second = was_told.recv_timeout(patience);
        end.send(()).unwrap();
        assert!(matches!(first, Ok(Err(StorageError::Full { .. }))), "{first:?}");
        assert!(matches!(second, Ok(Err(StorageError::Closed { .. }))), "{second:?}");
        assert_eq!(reading.join().unwrap().unwrap(), Some(7));
    });
    database.write(|write| put(write, 9)).unwrap();
    assert_eq!(value(&database), 9);
}

/// A file that is somebody else's so many times.
#[derive(Debug)]
struct Contested {
    file: FileMedium,
    refusals: Arc<AtomicU32>,
}

impl Medium for Contested {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        let less = |left: u32| left.checked_sub(1);
        match self.refusals.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Err(redb::Error::DatabaseAlreadyOpen),
            Err(_) => self.file.open(),
        }
    }

    fn size(&self) -> io::Result<u64> {
        self.file.size()
    }

    fn place(&self) -> io::Result<Place> {
        self.file.place()
    }

    fn path(&self) -> &Path {
        self.file.path()
    }
}

#[test]
fn who_waited_for_nobody_at_first_waits_for_the_file_after_a_failure() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f");
    drop(Database::open_or_create(&path, |write| put(write, 7)).unwrap());
    let refusals = Arc::new(AtomicU32::new(0));
    let medium = Contested { file: FileMedium(path), refusals: Arc::clone(&refusals) };
    let database = Database::open_on_within(Box::new(medium), Duration::ZERO).unwrap();
    let fail = |_: &WriteTransaction| {
        let full = io::Error::from(ErrorKind::StorageFull);
        Err::<(), _>(Failure::Redb(redb::Error::Io(full)))
    };
    assert!(database.write(fail).is_err());
    // Another process looks at the file, for as long as that takes.
    refusals.store(2, Ordering::Relaxed);
    database.write(|write| put(write, 8)).unwrap();
    assert_eq!(value(&database), 8);
}
