//! Blobs in a store's file: whole or not at all, each once, and gone when nothing refers to them.

use std::io::{Read, Seek, SeekFrom};
use std::time::Duration;

use sds_store::blob_hash;
use tempfile::TempDir;

use super::*;
use crate::blob_rows::ROW_BYTES;
use crate::blob_storage::{BlobError, BlobReader, BlobWriter, write_blob};
use crate::limits::{BLOB_CHUNK_BYTES_MAX, chunk_timeout};

fn open(folder: &TempDir) -> RedbPersistence {
    let store = StoreId::new("s").unwrap();
    RedbPersistence::open_or_create(folder.path(), &store, ReplicaId::new(7).unwrap()).unwrap()
}

fn bytes(seed: u8, len: usize) -> Arc<[u8]> {
    (0..=250_u8).cycle().map(|byte| byte ^ seed).take(len).collect()
}

fn batch(blobs: &[&Arc<[u8]>]) -> Batch {
    let named = |bytes: &&Arc<[u8]>| (blob_hash(bytes), Arc::clone(bytes));
    Batch { blobs: blobs.iter().map(named).collect(), ..Batch::default() }
}

fn read(persistence: &RedbPersistence, hash: BlobHash) -> Option<Vec<u8>> {
    let mut reader = BlobReader::open(persistence.blobs(), hash).unwrap()?;
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).unwrap();
    Some(bytes)
}

/// How many contents, of any kind, are in the file.
fn contents(persistence: &RedbPersistence) -> usize {
    persistence.file.read(blob_rows::tests::content_count).unwrap()
}

#[test]
fn blobs_come_back_whole_and_are_kept_once() {
    let folder = TempDir::new().unwrap();
    let sizes = [0, 1, ROW_BYTES - 1, ROW_BYTES, ROW_BYTES + 1, 5 * ROW_BYTES];
    let blobs: Vec<Arc<[u8]>> = sizes.iter().map(|size| bytes(1, *size)).collect();
    let mut persistence = open(&folder);
    persistence.append(&batch(&blobs.iter().collect::<Vec<_>>())).unwrap();
    persistence.append(&batch(&blobs.iter().collect::<Vec<_>>())).unwrap();
    for blob in &blobs {
        let written = write_blob(persistence.blobs(), &**blob, false).unwrap();
        assert_eq!((written.hash, written.size), (blob_hash(blob), blob.len() as u64));
    }
    drop(persistence);
    let persistence = open(&folder);
    for blob in &blobs {
        assert_eq!(read(&persistence, blob_hash(blob)).as_deref(), Some(&**blob));
    }
    assert_eq!(contents(&persistence), blobs.len());
    assert_eq!(read(&persistence, BlobHash([3; 32])), None);
}

#[test]
fn a_blob_is_read_from_any_place_in_it() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let blob = bytes(5, 3 * ROW_BYTES + 17);
    let hash = write_blob(persistence.blobs(), &*blob, false).unwrap().hash;
    let mut reader = BlobReader::open(persistence.blobs(), hash).unwrap().unwrap();
    for at in [3 * ROW_BYTES, 0, ROW_BYTES - 3, 2 * ROW_BYTES + 5, blob.len()] {
        reader.seek(SeekFrom::Start(at as u64)).unwrap();
        let mut part = Vec::new();
        Read::by_ref(&mut reader).take(10).read_to_end(&mut part).unwrap();
        assert_eq!(part, blob[at..blob.len().min(at + 10)]);
    }
    assert!(reader.seek(SeekFrom::Current(-(1 << 40))).is_err());
}

/// Goal: who has begun a large value spoils none of those that another process has put into the file
/// meanwhile. Method: the other one gives the same number to its own.
#[test]
fn a_writer_from_before_another_process_had_the_file_ends() {
    for is_finished in [false, true] {
        let folder = TempDir::new().unwrap();
        let mut persistence = open(&folder);
        let (ours, theirs) = (bytes(1, 10), bytes(2, 100));
        let mut writer = BlobWriter::begin(persistence.blobs());
        writer.write(&ours).unwrap();
        persistence.failure()();
        let store = StoreId::new("s").unwrap();
        let other = RedbPersistence::open_at_once(folder.path(), &store, Intent::Write);
        other.unwrap().append(&batch(&[&theirs])).unwrap();
        persistence.reload().unwrap();
        if is_finished {
            assert!(matches!(writer.finish(), Err(BlobError::Busy)));
        } else {
            assert!(matches!(writer.write(&ours), Err(BlobError::Busy)));
            drop(writer);
        }
        assert_eq!(read(&persistence, blob_hash(&theirs)).as_deref(), Some(&*theirs));
        assert_eq!(read(&persistence, blob_hash(&ours)), None);
    }
}

#[test]
fn a_blob_that_has_changed_on_disk_is_an_error_at_its_end() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let hash = write_blob(persistence.blobs(), &*bytes(5, 1_000), false).unwrap().hash;
    let number = persistence.blobs().find(&hash).unwrap().unwrap().number;
    persistence.file.write(|write| blob_rows::tests::damage(write, number)).unwrap();
    let mut reader = BlobReader::open(persistence.blobs(), hash).unwrap().unwrap();
    let refused = reader.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidData);
}

#[test]
fn what_was_released_is_gone_and_may_come_again_at_any_moment() {
    let folder = TempDir::new().unwrap();
    let mut persistence = open(&folder);
    let blob = bytes(2, 2 * ROW_BYTES);
    let hash = blob_hash(&blob);
    persistence.append(&batch(&[&blob])).unwrap();
    let number = persistence.blobs().let_go(&hash).unwrap();
    assert_eq!(read(&persistence, hash), None);
    let release = Batch { released: vec![(hash, number)], ..Batch::default() };
    // It comes again while its release is still to be written.
    write_blob(persistence.blobs(), &*blob, false).unwrap();
    persistence.append(&release).unwrap();
    assert_eq!(read(&persistence, hash).as_deref(), Some(&*blob));
    assert_eq!(contents(&persistence), 1);

    assert_eq!(persistence.blobs().let_go(&hash), None, "something is about to refer to it");
    persistence.blobs().unpin(&hash);
    let number = persistence.blobs().let_go(&hash).unwrap();
    let mut both = Batch { released: vec![(hash, number)], ..Batch::default() };
    both.add(batch(&[&blob]));
    persistence.append(&both).unwrap();
    drop(persistence);
    let mut persistence = open(&folder);
    assert_eq!(read(&persistence, hash).as_deref(), Some(&*blob));
    let number = persistence.blobs().let_go(&hash).unwrap();
    persistence.append(&Batch { released: vec![(hash, number)], ..Batch::default() }).unwrap();
    drop(persistence);
    let persistence = open(&folder);
    assert_eq!((read(&persistence, hash), contents(&persistence)), (None, 0));
}

#[test]
fn opening_removes_what_nothing_refers_to_and_what_a_kill_left_behind() {
    let folder = TempDir::new().unwrap();
    let mut persistence = open(&folder);
    let (kept, free) = (bytes(1, 3_000), bytes(2, 3_000));
    persistence.append(&batch(&[&kept, &free])).unwrap();
    let (wanted, unwanted) = (bytes(3, ROW_BYTES + 1), bytes(4, ROW_BYTES));
    for part in [&wanted, &unwanted] {
        let (hash, size) = (blob_hash(part), part.len() as u64);
        let mut writer = BlobWriter::resume(persistence.blobs(), hash, size).unwrap();
        writer.write(&part[..100]).unwrap();
    }
    // A kill leaves no time to tidy up.
    let mut killed = BlobWriter::begin(persistence.blobs());
    killed.write(b"of no name").unwrap();
    killed.flush().unwrap();
    std::mem::forget(killed);
    assert_eq!(contents(&persistence), 5);
    let referenced = BTreeSet::from([blob_hash(&kept), blob_hash(&wanted)]);
    persistence.retain_blobs(&referenced).unwrap();
    assert_eq!(contents(&persistence), 2);
    assert_eq!(read(&persistence, blob_hash(&kept)).as_deref(), Some(&*kept));
    assert_eq!(read(&persistence, blob_hash(&free)), None);
    let left = |part: &Arc<[u8]>| {
        persistence.blobs().part_len(&blob_hash(part), part.len() as u64).unwrap()
    };
    assert_eq!((left(&wanted), left(&unwanted)), (100, 0));
}

#[test]
fn parts_are_bounded_and_the_one_begun_first_gives_way() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let parts: Vec<Arc<[u8]>> =
        (0..).map(|number| bytes(number, 50)).take(crate::limits::BLOB_PARTS_MAX + 1).collect();
    for part in &parts {
        let mut writer = BlobWriter::resume(persistence.blobs(), blob_hash(part), 50).unwrap();
        writer.write(&part[..20]).unwrap();
    }
    let left = |part: &Arc<[u8]>| persistence.blobs().part_len(&blob_hash(part), 50).unwrap();
    assert_eq!(left(&parts[0]), 0);
    assert!(parts[1..].iter().all(|part| left(part) == 20));
    assert_eq!(contents(&persistence), crate::limits::BLOB_PARTS_MAX);
}

#[test]
fn of_a_part_of_another_size_no_content_is_left() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let hash = blob_hash(b"right");
    for size in [9, 5] {
        let mut writer = BlobWriter::resume(persistence.blobs(), hash, size).unwrap();
        assert!(writer.is_empty());
        writer.write(b"ri").unwrap();
    }
    assert_eq!(contents(&persistence), 1);
    assert_eq!(persistence.blobs().part_len(&hash, 5).unwrap(), 2);
}

#[test]
fn a_transfer_over_a_slow_line_keeps_its_claim() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let (blobs, blob) = (persistence.blobs(), bytes(1, 50));
    let hash = blob_hash(&blob);
    let is_busy =
        || matches!(BlobWriter::resume(persistence.blobs(), hash, 50), Err(BlobError::Busy));
    // As long as a chunk may take, nobody else may have the part.
    let nearly = chunk_timeout(BLOB_CHUNK_BYTES_MAX as u64) - Duration::from_secs(1);
    let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, 50).unwrap();
    for byte in blob[..20].chunks(1) {
        blobs.claims().age(nearly);
        assert!(is_busy());
        writer.write(byte).unwrap();
    }
    // One that ends gives way at once, and one that hangs in the end.
    drop(writer);
    let mut hanging = BlobWriter::resume(Arc::clone(&blobs), hash, 50).unwrap();
    assert_eq!(hanging.len(), 20);
    blobs.claims().age(nearly + Duration::from_secs(1));
    let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, 50).unwrap();
    assert!(matches!(hanging.write(b"late"), Err(BlobError::Busy)));
    drop(hanging);
    writer.write(&blob[20..]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&persistence, hash).as_deref(), Some(&*blob));
}

/// Goal: a writer that hung, and whose part was taken from it meanwhile, takes nothing from who has it
/// now when it notices that its bytes are wrong.
#[test]
fn a_late_writer_leaves_a_newer_part_alone() {
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let (blobs, blob) = (persistence.blobs(), bytes(1, 50));
    let hash = blob_hash(&blob);
    let (former, _) = blobs.resume(&hash, 49).unwrap().unwrap();
    let mut writer = BlobWriter::resume(Arc::clone(&blobs), hash, 50).unwrap();
    writer.write(&blob[..20]).unwrap();
    writer.flush().unwrap();
    blobs.forget(former.number, Some(&hash)).unwrap();
    assert_eq!(blobs.part_len(&hash, 50).unwrap(), 20);
    writer.write(&blob[20..]).unwrap();
    writer.finish().unwrap();
    assert_eq!(read(&persistence, hash).as_deref(), Some(&*blob));
}

/// Goal: nobody lets go of a blob in memory before it is on disk. Method: a transaction that has written it, and
/// fails.
#[test]
fn a_blob_is_known_when_its_transaction_has_ended() {
    let folder = TempDir::new().unwrap();
    let mut persistence = open(&folder);
    let blob = bytes(1, 3_000);
    let (hash, batch) = (blob_hash(&blob), batch(&[&blob]));
    let mut written = Vec::new();
    let failed = persistence.file.write(|write| {
        persistence.blobs.write(write, &[], &batch.blobs, &mut written)?;
        assert_eq!(persistence.blobs.is_known(&hash), Some(false));
        assert_eq!(persistence.blobs.find(&hash).unwrap(), None);
        Err::<(), _>(redb::Error::PreviousIo.into())
    });
    assert_eq!(failed.unwrap_err().code(), "storage-closed");
    assert_eq!(persistence.blobs.is_known(&hash), Some(false));
    persistence.blobs.take_back(&written);
    assert_eq!(persistence.blobs.is_known(&hash), Some(false));
    persistence.append(&batch).unwrap();
    assert_eq!(persistence.blobs.is_known(&hash), Some(true));
    write_blob(persistence.blobs(), &*blob, false).unwrap();
    assert_eq!(read(&persistence, hash).as_deref(), Some(&*blob));
}

/// Goal: what is let go of before it is in the file goes once it is, unless something refers to it again.
#[test]
fn a_blob_that_is_let_go_of_before_it_is_here_goes_later() {
    let folder = TempDir::new().unwrap();
    let mut persistence = open(&folder);
    let (gone, again) = (bytes(1, 3_000), bytes(2, 3_000));
    let blobs = persistence.blobs();
    for blob in [&gone, &again] {
        assert_eq!(blobs.let_go(&blob_hash(blob)), None);
    }
    assert_eq!(blobs.let_go_late(), []);
    persistence.append(&batch(&[&gone, &again])).unwrap();
    blobs.unpin(&blob_hash(&again));
    let late = blobs.let_go_late();
    assert_eq!(late.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [blob_hash(&gone)]);
    assert_eq!(blobs.let_go_late(), []);
    persistence.append(&Batch { released: late, ..Batch::default() }).unwrap();
    assert_eq!(contents(&persistence), 1);
    assert_eq!(read(&persistence, blob_hash(&again)).as_deref(), Some(&*again));
}

#[test]
fn a_text_is_told_from_bytes_wherever_it_is_cut() {
    struct OneByOne<'a>(&'a [u8]);
    impl Read for OneByOne<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            self.0.read(&mut buffer[..1])
        }
    }
    let folder = TempDir::new().unwrap();
    let persistence = open(&folder);
    let rows: [(&[u8], bool); 5] = [
        ("aä€𝄞".as_bytes(), true),
        (b"", true),
        (b"a\xff", false),
        (b"\xe2\x82", false),
        (b"\xe2\x82a", false),
    ];
    for (text, is_text) in rows {
        let whole = write_blob(persistence.blobs(), text, true);
        let cut = write_blob(persistence.blobs(), OneByOne(text), true);
        assert_eq!((whole.unwrap().is_text, cut.unwrap().is_text), (is_text, is_text), "{text:?}");
    }
}
