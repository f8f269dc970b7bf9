//! A relay in a process of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};
use sds_sync::access::{Grant, Scope, Secret, mint};
use sds_sync::{RelayUrl, StoreId, Token};
use tempfile::TempDir;

const SECRET: &str = "a secret of the benchmark, of more than thirty-two characters";

/// The bounds on what one address may do are raised: here all clients are one.
const CONFIG: &str = "log_level = 'warn'\n[limits]\nconnections_per_address = 4096\n\
    handshakes_per_second_per_address = 100000\nframes_per_second = 1000000\n\
    bytes_per_second = 2000000000\nbytes_per_second_per_subject = 2000000000\n";

/// A relay that ends with this.
#[derive(Debug)]
pub(crate) struct RelayProcess {
    child: Child,
    pub(crate) url: RelayUrl,
    folder: TempDir,
}

impl RelayProcess {
    /// Starts the program, with a new and empty folder.
    pub(crate) fn start(program: &Path) -> Result<Self> {
        let folder = TempDir::new()?;
        let config = folder.path().join("relay.toml");
        fs::write(&config, CONFIG)?;
        let mut child = Command::new(program)
            .args(["--host", "127.0.0.1", "--port", "0"])
            .arg("--data-dir")
            .arg(folder.path().join("data"))
            .arg("--config")
            .arg(config)
            .env("SDS_JWT_SECRET", SECRET)
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| {
                format!("{}: cargo build --release -p sds-server", program.display())
            })?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().context("no output")?).read_line(&mut line)?;
        let url = line.split_whitespace().last().context("the relay says no address")?.parse()?;
        Ok(Self { child, url, folder })
    }

    /// How much of the processors' time the process has taken.
    pub(crate) fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(") ").context("no name")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
        let ticks: u64 = ticks.sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(ticks * 10))
    }

    /// How much memory the process has, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("no VmRSS")?;
        let kib: u64 = line.split_whitespace().nth(1).context("no number")?.parse()?;
        Ok(kib << 10)
    }

    /// How large the relay's file is, in bytes.
    pub(crate) fn file_size(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.path().join("data/relay.redb"))?.len())
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        // It has ended, or is ended here.
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// A token for `store` that lets `subject` write.
pub(crate) fn token(store: &StoreId, subject: &str) -> Result<Token> {
    let grant = Grant {
        stores: store.clone().into(),
        subject: subject.to_owned(),
        scope: Scope::Write,
        lifetime: Duration::from_secs(24 * 3_600),
        issuer: None,
    };
    Ok(mint(&Secret::new(SECRET)?, &grant, SystemTime::now())?)
}
