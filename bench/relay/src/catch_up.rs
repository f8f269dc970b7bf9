//! Somebody who has nothing opens a store that has much.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use sds_engine::Patch;
use sds_sync::limits::PATCH_CHANGES_MAX;
use sds_sync::{ConnectOptions, LocalStore, SyncEngine};
use tempfile::TempDir;

use crate::client::{Author, Client, store};
use crate::relay::{RelayProcess, token};
use crate::report::{Report, Unit};

const PATIENCE: Duration = Duration::from_secs(300);

/// 10,000 changes, of which the relay got each by itself; also into a store with its file.
pub(crate) async fn short(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let count = if quick { 1_000 } else { 10_000 };
    let relay = filled(program, count, 1).await?;
    let name = format!("catch up on {count} changes");
    report.add_time(&name, catch_up(&relay, count).await?, "<= 500 ms");
    let stored = into_a_store(&relay).await?;
    report.add_time(&format!("{name}, into a store and its file"), stored, "<= 500 ms");
    Ok(())
}

/// A million changes.
pub(crate) async fn long(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let count = if quick { 50_000 } else { 1_000_000 };
    let relay = filled(program, count, 64).await?;
    let name = format!("catch up on {count} changes");
    let time = catch_up(&relay, count).await?;
    report.add_time(&name, time, "a fast sequential read");
    let mib = relay.file_size()? as f64 / f64::from(1 << 20);
    report.add(&format!("{name}, the relay's file"), mib, Unit::Mib, "");
    Ok(())
}

/// A relay with a store of `count` changes, sent by `per_frame`.
async fn filled(program: &Path, count: usize, per_frame: usize) -> Result<RelayProcess> {
    let relay = RelayProcess::start(program)?;
    let mut client = Client::open(&relay.url, &store(0)?, "writer", 1).await?;
    let mut author = Author::new(1)?;
    let mut left = count;
    while left > 0 {
        let batch = left.min(PATCH_CHANGES_MAX);
        for frame in 0..batch.div_ceil(per_frame) {
            let changes = per_frame.min(batch - frame * per_frame);
            client.sender.send(&author.frame_of(changes)?).await?;
        }
        client.stored(author.replica, author.next).await?;
        left -= batch;
    }
    Ok(relay)
}

async fn catch_up(relay: &RelayProcess, count: usize) -> Result<Duration> {
    let begun = Instant::now();
    let mut client = Client::open(&relay.url, &store(0)?, "reader", 9).await?;
    let mut seen = 0;
    while seen < count {
        seen += Patch::count(&client.next_patch().await?)?;
    }
    Ok(begun.elapsed())
}

async fn into_a_store(relay: &RelayProcess) -> Result<Duration> {
    let folder = TempDir::new()?;
    let id = store(0)?;
    let local = LocalStore::open_or_create(folder.path(), &id)?;
    let engine = SyncEngine::start(local);
    let begun = Instant::now();
    engine.connect(ConnectOptions::new(relay.url.clone(), token(&id, "reader")?))?;
    engine.wait_until_synced(PATIENCE).await?;
    let time = begun.elapsed();
    engine.stop().await?;
    Ok(time)
}
