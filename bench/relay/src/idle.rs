//! What sessions cost that say nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use crate::client::{Client, store};
use crate::relay::RelayProcess;
use crate::report::{Report, Unit};

/// Opens sessions and looks how much memory the relay has then.
pub(crate) async fn run(program: &Path, quick: bool, report: &mut Report) -> Result<()> {
    let sessions = if quick { 100 } else { 1_000 };
    let relay = RelayProcess::start(program)?;
    // What the first of anything costs is not what a session costs.
    drop(Client::open(&relay.url, &store(0)?, "first", 1).await?);
    sleep(Duration::from_secs(1)).await;
    let before = relay.memory()?;
    let mut open = Vec::new();
    for number in 0..sessions {
        let subject = format!("idle {number}");
        open.push(
            Client::open(&relay.url, &store(number % 100)?, &subject, 1 + number as u64).await?,
        );
    }
    sleep(Duration::from_secs(2)).await;
    let after = relay.memory()?;
    let mib = after.saturating_sub(before) as f64 / f64::from(1 << 20);
    drop(open);
    report.add(&format!("{sessions} idle sessions"), mib, Unit::Mib, "<= 40 MiB");
    Ok(())
}
