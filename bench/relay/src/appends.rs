//! Appends that are acknowledged once they are on disk: many writers, each change in a frame of its own.

use std::collections::VecDeque;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use sds_engine::Version;
use sds_sync::{RelayFrame, RelayUrl};
use tokio::task::JoinSet;

use crate::client::{Author, Client, next, store};
use crate::relay::RelayProcess;
use crate::report::{Latencies, Report, Unit};

/// How many write, to how many stores, and how many changes each has on its way.
const WRITERS: usize = 32;
const STORES: usize = 8;
const WINDOW: usize = 16;

/// Measures as many appends as the relay takes.
pub(crate) async fn run(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let relay = RelayProcess::start(program)?;
    let time = Duration::from_secs(if quick { 1 } else { 8 });
    let mut writers = JoinSet::new();
    let begun = Instant::now();
    for number in 0..WRITERS {
        writers.spawn(write(relay.url.clone(), number, time));
    }
    let mut all = Vec::new();
    while let Some(latencies) = writers.join_next().await {
        all.extend(latencies??);
    }
    let rate = all.len() as f64 / begun.elapsed().as_secs_f64();
    let latencies = Latencies::from(all);
    report.add("durable appends acknowledged", rate, Unit::PerSecond, ">= 20,000/s");
    report.add_time("the same, acknowledged after (p50)", latencies.p50(), "<= 10 ms");
    report.add_time("the same, acknowledged after (p99)", latencies.p99(), "");
    report.add_each("the same, the relay's CPU for each", relay.cpu()?, latencies.len());
    Ok(())
}

/// Keeps a window of changes on their way for some time; how long each took to be acknowledged.
async fn write(url: RelayUrl, number: usize, time: Duration) -> Result<Vec<Duration>> {
    let mut author = Author::new(1 + number as u64)?;
    let subject = format!("writer {number}");
    let client = Client::open(&url, &store(number % STORES)?, &subject, 1 + number as u64).await?;
    let Client { connection: _open, mut sender, mut receiver } = client;
    let mut waiting: VecDeque<(u64, Instant)> = VecDeque::new();
    let mut latencies = Vec::new();
    let begun = Instant::now();
    loop {
        let is_over = begun.elapsed() >= time;
        while !is_over && waiting.len() < WINDOW {
            let frame = author.frame()?;
            waiting.push_back((author.next, Instant::now()));
            sender.send(&frame).await?;
        }
        if waiting.is_empty() {
            return Ok(latencies);
        }
        match next(&mut receiver).await? {
            RelayFrame::Stored { version } => {
                let stored = Version::decode(&version)?.next(author.replica);
                while let Some((_, sent)) = waiting.pop_front_if(|(end, _)| *end <= stored) {
                    latencies.push(sent.elapsed());
                }
            }
            RelayFrame::Refused { message, .. } => bail!("refused: {message}"),
            _ => {}
        }
    }
}
