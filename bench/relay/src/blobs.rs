//! A large value to the relay's disk, and back.

use std::path::Path;
use std::time::Instant;

use anyhow::{Result, bail};
use bytes::Bytes;
use sds_sync::limits::{BLOB_CHUNK_BYTES_MAX, BLOB_FRAME_BYTES_MAX};
use sds_sync::{ClientFrame, RelayFrame};
use sha2::{Digest, Sha256};

use crate::client::{Client, next, store};
use crate::relay::RelayProcess;
use crate::report::{Report, Unit};

/// Measures one large value each way.
pub(crate) async fn run(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let size = if quick { 8 << 20 } else { 512 << 20 };
    let relay = RelayProcess::start(program)?;
    let client = Client::open(&relay.url, &store(0)?, "writer", 1).await?;
    let bytes: Bytes = (0..size).map(|at: usize| (at * at / 7).to_le_bytes()[0]).collect();
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let begun = Instant::now();
    put(&client, hash, &bytes).await?;
    let rate = |begun: Instant| size as f64 / 1e6 / begun.elapsed().as_secs_f64();
    let unit = Unit::MegabytesPerSecond;
    report.add("a large value to the relay's disk", rate(begun), unit, ">= 150 MB/s");
    let begun = Instant::now();
    get(&client, hash, size).await?;
    report.add("a large value back from there", rate(begun), unit, ">= 150 MB/s");
    Ok(())
}

async fn put(client: &Client, hash: [u8; 32], bytes: &Bytes) -> Result<()> {
    let (mut sender, mut receiver) = client.connection.open_stream().await?;
    let (store, size) = (store(0)?.to_string(), bytes.len() as u64);
    sender.send(&ClientFrame::OfferBlob { store, hash, size }).await?;
    match next(&mut receiver).await? {
        RelayFrame::BlobWantedFrom { offset: 0 } => {}
        other => bail!("not wanted: {other:?}"),
    }
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        let bytes = rest.split_to(rest.len().min(BLOB_CHUNK_BYTES_MAX));
        sender.send(&ClientFrame::BlobChunk { bytes }).await?;
    }
    match next(&mut receiver).await? {
        RelayFrame::BlobStored => Ok(()),
        other => bail!("not stored: {other:?}"),
    }
}

async fn get(client: &Client, hash: [u8; 32], size: usize) -> Result<()> {
    let (mut sender, mut receiver) = client.connection.open_stream().await?;
    receiver.set_max(BLOB_FRAME_BYTES_MAX);
    sender
        .send(&ClientFrame::GetBlobFrom { store: store(0)?.to_string(), hash, offset: 0 })
        .await?;
    let mut got = 0;
    while got < size {
        match next(&mut receiver).await? {
            RelayFrame::BlobChunk { bytes } => got += bytes.len(),
            RelayFrame::BlobFound { .. } => {}
            other => bail!("not found: {other:?}"),
        }
    }
    Ok(())
}
