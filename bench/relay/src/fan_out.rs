//! Changes of one writer that reach many subscribers of the same store, durable before they are passed on.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sds_engine::Patch;
use sds_sync::transport::FrameReceiver;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::client::{Author, Client, store};
use crate::relay::RelayProcess;
use crate::report::{Latencies, Report, Unit};

const SUBSCRIBERS: usize = 100;
const WRITER: u64 = 1;

/// How long subscribers wait for what was sent.
const PATIENCE: Duration = Duration::from_secs(60);

/// 200 changes a second.
pub(crate) async fn paced(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let Heard { latencies, cpu, .. } =
        measure(program, 200, if quick { 200 } else { 2_000 }).await?;
    report.add_time("100 subscribers, 200 changes/s (p50)", latencies.p50(), "<= 6 ms");
    report.add_time("100 subscribers, 200 changes/s (p99)", latencies.p99(), "<= 40 ms");
    report.add_each("the same, the relay's CPU for each", cpu, latencies.len());
    Ok(())
}

/// Faster and faster, as long as half of the deliveries take less than 50 ms.
pub(crate) async fn sustained(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let rates = if quick { vec![500] } else { vec![1_000, 2_000, 4_000, 8_000, 16_000] };
    let mut best = 0.0_f64;
    for rate in rates {
        let Heard { latencies, time, cpu } = measure(program, rate, rate as usize * 4).await?;
        let deliveries = latencies.len() as f64 / time.as_secs_f64();
        let name = format!("deliveries at {rate} changes/s");
        report.add(&name, deliveries, Unit::PerSecond, "");
        report.add_time(&format!("{name} (p50)"), latencies.p50(), "");
        report.add_time(&format!("{name} (p99)"), latencies.p99(), "");
        report.add_each(&format!("{name}, the relay's CPU for each"), cpu, latencies.len());
        if latencies.p50() >= Duration::from_millis(50) {
            break;
        }
        best = best.max(deliveries);
    }
    report.add("sustained deliveries with p50 < 50 ms", best, Unit::PerSecond, ">= 100,000/s");
    Ok(())
}

/// What subscribers have heard.
struct Heard {
    /// From when each change was due to when each of them had it.
    latencies: Latencies,
    /// From the first change sent to the last one heard.
    time: Duration,
    /// What the relay has taken of the processors.
    cpu: Duration,
}

/// Sends `count` changes at a rate.
async fn measure(program: &Path, rate: u32, count: usize) -> Result<Heard> {
    let relay = RelayProcess::start(program)?;
    let id = store(0)?;
    let sent: Arc<[OnceLock<Instant>]> = (0..count).map(|_| OnceLock::new()).collect();
    let mut subscribers = JoinSet::new();
    for number in 0..SUBSCRIBERS {
        let subject = format!("subscriber {number}");
        let client = Client::open(&relay.url, &id, &subject, 100 + number as u64).await?;
        subscribers.spawn(timeout(PATIENCE, hear(client, Arc::clone(&sent))));
    }
    let mut author = Author::new(WRITER)?;
    let mut writer = Client::open(&relay.url, &id, "writer", WRITER).await?;
    let (begun, cpu) = (Instant::now(), relay.cpu()?);
    let discarding = tokio::spawn(async move { discard(&mut writer.receiver).await });
    for (number, sent) in sent.iter().enumerate() {
        let due = begun + Duration::from_secs(number as u64) / rate;
        if due > Instant::now() {
            sleep_until(due.into()).await;
        }
        let frame = author.frame()?;
        sent.set(due.max(begun)).ok().context("sent twice")?;
        writer.sender.send(&frame).await?;
    }
    let mut all = Vec::new();
    while let Some(latencies) = subscribers.join_next().await {
        all.extend(latencies???);
    }
    let time = begun.elapsed();
    discarding.abort();
    let cpu = relay.cpu()?.saturating_sub(cpu);
    Ok(Heard { latencies: Latencies::from(all), time, cpu })
}

/// Takes in all changes that are sent.
async fn hear(mut client: Client, sent: Arc<[OnceLock<Instant>]>) -> Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(sent.len());
    while latencies.len() < sent.len() {
        let patch = client.next_patch().await?;
        let now = Instant::now();
        for _ in 0..Patch::count(&patch)? {
            let sent = sent.get(latencies.len()).and_then(OnceLock::get).context("never sent")?;
            latencies.push(now.saturating_duration_since(*sent));
        }
    }
    Ok(latencies)
}

async fn discard(receiver: &mut FrameReceiver) {
    while let Ok(Some(_)) = receiver.next::<sds_sync::RelayFrame>().await {}
}
