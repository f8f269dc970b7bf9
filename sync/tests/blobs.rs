//! Large values over sessions: what values refer to is there, and nothing else stays.

use std::collections::BTreeSet;
use std::io::Read;

use sds_store::{EntryId, UndoOptions, blob_hash};
use sds_sync::{LocalStore, StoreId, SyncEngine, check_store};
use tempfile::TempDir;

/// Numbers that look random, the same for the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

fn content(number: usize) -> Vec<u8> {
    let byte = u8::try_from(number).unwrap();
    vec![byte; 3_000 + number * 200_000]
}

/// Goal: in whatever order values are written, streamed, overwritten, undone, moved to the trash and
/// purged, with kills in between, each blob that a value refers to can be read, and no other stays.
#[test]
fn what_values_refer_to_is_there_and_nothing_else_stays() {
    for seed in 0..12 {
        let folder = TempDir::new().unwrap();
        let id = StoreId::new("s").unwrap();
        let mut dice = Dice(seed);
        let mut local = LocalStore::open_or_create(folder.path(), &id).unwrap();
        let mut items: Vec<EntryId> = Vec::new();
        let undoes = seed % 2 == 0;
        let enable = |local: &mut LocalStore| {
            if undoes {
                local.store_mut().enable_undo(UndoOptions::default());
            }
        };
        enable(&mut local);
        for step in 0..60 {
            let what = dice.roll(9);
            let number = dice.roll(4);
            if items.is_empty() || what == 0 {
                items.push(local.store_mut().new_item_at(None, EntryId::ROOT, None).unwrap());
            }
            let at = dice.roll(items.len());
            let item = items[at];
            match what {
                1 | 2 => {
                    let bytes = content(number);
                    local.store_mut().write_value(item, bytes.as_slice()).unwrap();
                }
                3 => {
                    let blob = local.write_blob(content(number).as_slice(), false).unwrap();
                    local.store_mut().write_blob_value(item, blob).unwrap();
                }
                4 => local.store_mut().write_value(item, "small").unwrap(),
                5 => {
                    let now = sds_store::Timestamp::from_millis(step);
                    local.store_mut().undo(now).unwrap();
                    items.retain(|item| local.store().entry_with_id(*item).is_some());
                }
                6 => {
                    let now = sds_store::Timestamp::from_millis(step);
                    local.store_mut().delete_entry(item, now).unwrap();
                    local.store_mut().purge_entry(item).unwrap();
                    items.remove(at);
                }
                7 => local.commit().unwrap(),
                8 => {
                    // As after a kill: what was not committed is gone.
                    drop(local);
                    let report = check_store(folder.path(), &id).unwrap();
                    assert!(report.is_sound(), "seed {seed} step {step}: {report:?}");
                    assert_eq!(report.missing_blobs, 0, "seed {seed} step {step}");
                    local = LocalStore::open_existing(folder.path(), &id).unwrap();
                    enable(&mut local);
                    items.retain(|item| local.store().entry_with_id(*item).is_some());
                }
                _ => {}
            }
            for blob in local.store().referenced_blobs() {
                let bytes = local.store().blob(&blob.hash);
                let bytes = bytes.unwrap_or_else(|| panic!("seed {seed} step {step}"));
                assert_eq!(blob_hash(&bytes), blob.hash, "seed {seed} step {step}");
            }
        }
        local.commit().unwrap();
        let wanted = read_referenced(&local);
        drop(local);
        drop(LocalStore::open_existing(folder.path(), &id).unwrap());
        let report = check_store(folder.path(), &id).unwrap();
        assert_eq!(report.blobs, wanted as u64, "seed {seed}");
    }
}

/// Reads each blob that a value refers to as a stream, and returns how many there are.
fn read_referenced(local: &LocalStore) -> usize {
    let blobs = local.store().referenced_blobs();
    let wanted: BTreeSet<_> = blobs.iter().map(|blob| blob.hash).collect();
    for hash in &wanted {
        let mut bytes = Vec::new();
        local.open_blob(hash).unwrap().unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(blob_hash(&bytes), *hash);
    }
    wanted.len()
}

/// A value that is stored again, as a stream, while its last reference goes, must not go with it.
#[test]
fn what_was_stored_is_there_until_something_refers_to_it() {
    let folder = TempDir::new().unwrap();
    let id = StoreId::new("s").unwrap();
    let mut local = LocalStore::open_or_create(folder.path(), &id).unwrap();
    let item = local.store_mut().new_item_at(None, EntryId::ROOT, None).unwrap();
    local.store_mut().write_value(item, content(1).as_slice()).unwrap();
    local.commit().unwrap();
    let again = local.write_blob(content(1).as_slice(), false).unwrap();
    local.store_mut().write_value(item, "small").unwrap();
    local.commit().unwrap();
    assert!(local.open_blob(&again.hash).unwrap().is_some());
    local.store_mut().write_blob_value(item, again).unwrap();
    local.commit().unwrap();
    local.store_mut().write_value(item, "small").unwrap();
    local.commit().unwrap();
    assert!(local.open_blob(&again.hash).unwrap().is_none(), "now it goes as any other");
}

/// Goal: an engine whose values are replaced faster than the disk writes keeps no content of those that
/// nothing refers to, also as long as the file is open.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_is_replaced_before_it_is_written_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let id = StoreId::new("s").unwrap();
    let local = LocalStore::open_or_create(folder.path(), &id).unwrap();
    let engine = SyncEngine::start(local);
    let item = engine.edit(|store| store.new_item_at(None, EntryId::ROOT, None)).unwrap().unwrap();
    let hashes: Vec<_> = (0..=255_u8)
        .map(|byte| {
            let bytes = [byte; 5_000];
            engine.edit(|store| store.write_value(item, bytes.as_slice())).unwrap().unwrap();
            blob_hash(&bytes)
        })
        .collect();
    engine.flush().await.unwrap();
    engine.edit(|store| store.set_label(item, "done")).unwrap().unwrap();
    engine.flush().await.unwrap();
    let is_here = |hash| engine.open_blob(hash).unwrap().is_some();
    let (last, replaced) = hashes.split_last().unwrap();
    assert_eq!(replaced.iter().filter(|hash| is_here(hash)).count(), 0);
    assert!(is_here(last));
    engine.stop().await.unwrap();
}
