//! Runs a relay and a few engines for minutes, with everything coming and going, and says whether
//! memory stays flat.
//!
//! `cargo run --release -p sds-proptests --bin soak -- [MINUTES] [SEED]`. All in one process: engines
//! edit, delete and purge, put large values and drop them, show presence, lose their connection, stop and
//! start again; guests open the same files, edit and leave. Every ten seconds the memory of the process and the
//! sizes of the files are printed. In the end all have to be equal, with every blob, and all files sound.
//!
//! The C library keeps what was freed for each of many threads, which looks like growth for the first
//! hour or so: set `MALLOC_ARENA_MAX=1` to see what is in use.
//!
//! History grows, and with it memory and files, so that a run counts as flat if memory in its last
//! quarter is at most [`GROWTH_MAX`] above that in its second.

use std::collections::VecDeque;
use std::error::Error;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use sds_proptests::dice::Dice;
use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::{EntryId, StoreError, Timestamp};
use sds_sync::presence::PresenceState;
use sds_sync::{ConnectOptions, LocalStore, StoreId, SyncEngine, check_store};
use tempfile::TempDir;
use tokio::time::sleep;

type Outcome<T> = Result<T, Box<dyn Error>>;

const NAMES: [&str; 4] = ["desk", "laptop", "phone", "tablet"];
/// Items that one engine has made and not purged: so the state stays as large as it is.
const ITEMS_MAX: usize = 300;
/// How many rounds there are in a second, at most.
const ROUND: Duration = Duration::from_millis(100);
const SAMPLE: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(120);
/// How much more memory the last quarter may take than the second, in percent.
const GROWTH_MAX: u64 = 15;

#[tokio::main]
async fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default| arguments.next().map_or(Ok(default), |it| it.parse::<u64>());
    let (Ok(minutes), Ok(seed)) = (number(10), number(1)) else {
        say("usage: soak [MINUTES] [SEED]");
        return ExitCode::from(2);
    };
    match soak(Duration::from_secs(60 * minutes), seed).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("failed: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well and memory stayed flat.
async fn soak(duration: Duration, seed: u64) -> Outcome<bool> {
    let folder = TempDir::new()?;
    let mut party = Party::start(folder.path(), seed).await?;
    let mut samples = Vec::new();
    let (begun, mut sampled) = (Instant::now(), None::<Instant>);
    while begun.elapsed() < duration {
        let round = Instant::now();
        party.round().await?;
        if sampled.is_none_or(|at| at.elapsed() >= SAMPLE) {
            sampled = Some(Instant::now());
            let sample = party.sample()?;
            say(&format!("{:>5} s  {sample}", begun.elapsed().as_secs()));
            samples.push(sample.memory);
        }
        sleep(ROUND.saturating_sub(round.elapsed())).await;
    }
    party.finish().await?;
    Ok(is_flat(&samples))
}

/// One device.
struct Device {
    name: &'static str,
    /// None while it is stopped.
    engine: Option<SyncEngine>,
    items: VecDeque<EntryId>,
    is_connected: bool,
}

struct Party {
    home: std::path::PathBuf,
    store: StoreId,
    secret: Secret,
    relay: Relay,
    devices: Vec<Device>,
    dice: Dice,
    edits: u64,
    sessions: u64,
    blobs: u64,
}

/// How things are at some time.
struct Sample {
    /// Resident memory of the process, in bytes.
    memory: u64,
    relay_file: u64,
    store_files: u64,
    counts: String,
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        let Self { memory, relay_file, store_files, counts } = self;
        write!(
            f,
            "memory {:>4} MiB  relay's file {:>4} MiB  stores' files {:>4} MiB  {counts}",
            mib(*memory),
            mib(*relay_file),
            mib(*store_files)
        )
    }
}

impl Party {
    async fn start(home: &Path, seed: u64) -> Outcome<Self> {
        let secret = Secret::new("a secret that nobody outside of this run ever gets to see")?;
        let relay = Relay::start(RelayConfig::new(secret.clone(), home.join("relay"))).await?;
        let device =
            |name| Device { name, engine: None, items: VecDeque::new(), is_connected: false };
        let devices = NAMES.into_iter().map(device).collect();
        let (home, store, dice) = (home.to_owned(), StoreId::new("soak")?, Dice::new(seed));
        let (edits, sessions, blobs) = (0, 0, 0);
        Ok(Self { home, store, secret, relay, devices, dice, edits, sessions, blobs })
    }

    /// Everybody does something.
    async fn round(&mut self) -> Outcome<()> {
        for at in 0..self.devices.len() {
            if self.devices[at].engine.is_none() {
                self.open(at).await?;
            }
            match self.dice.roll(120) {
                0 => self.close(at).await?,
                1..=3 => self.reconnect(at).await?,
                4..=5 => self.be_guest(at).await?,
                6..=9 => self.put_blob(at)?,
                10..=40 => self.edit(at)?,
                _ => {}
            }
            self.show_presence(at)?;
        }
        Ok(())
    }

    async fn open(&mut self, at: usize) -> Outcome<()> {
        let (folder, id) = (self.home.join(self.devices[at].name), self.store.clone());
        let opening = move || LocalStore::open_or_create(&folder, &id);
        let engine = SyncEngine::start(tokio::task::spawn_blocking(opening).await??);
        self.devices[at].engine = Some(engine);
        self.sessions += 1;
        self.connect(at)
    }

    async fn close(&mut self, at: usize) -> Outcome<()> {
        if let Some(engine) = self.devices[at].engine.take() {
            engine.stop().await?;
        }
        Ok(())
    }

    fn connect(&mut self, at: usize) -> Outcome<()> {
        let device = &mut self.devices[at];
        let grant = Grant {
            stores: self.store.clone().into(),
            subject: device.name.to_owned(),
            scope: Scope::Write,
            lifetime: Duration::from_secs(3600),
            issuer: None,
        };
        let token = mint(&self.secret, &grant, SystemTime::now())?;
        if let Some(engine) = &device.engine {
            engine.connect(ConnectOptions::new(self.relay.url(), token))?;
            device.is_connected = true;
        }
        Ok(())
    }

    async fn reconnect(&mut self, at: usize) -> Outcome<()> {
        if !self.devices[at].is_connected {
            return self.connect(at);
        }
        self.devices[at].is_connected = false;
        if let Some(engine) = &self.devices[at].engine {
            engine.disconnect().await;
        }
        Ok(())
    }

    /// Another process, as it were, opens the same file, edits, and leaves.
    async fn be_guest(&mut self, at: usize) -> Outcome<()> {
        let (folder, id) = (self.home.join(self.devices[at].name), self.store.clone());
        let visit = move || {
            let mut guest = LocalStore::open_or_create(&folder, &id)?;
            let item = guest.store_mut().new_item_at(None, EntryId::ROOT, None)?;
            guest.store_mut().set_label(item, "of a guest")?;
            guest.commit()?;
            Ok::<_, Box<dyn Error + Send + Sync>>(item)
        };
        let item = tokio::task::spawn_blocking(visit).await?;
        self.devices[at].items.push_back(item.map_err(|error| error.to_string())?);
        (self.sessions, self.edits) = (self.sessions + 1, self.edits + 1);
        Ok(())
    }

    /// A few edits; what there is too much of is purged.
    fn edit(&mut self, at: usize) -> Outcome<()> {
        let Self { devices, dice, edits, .. } = self;
        let Device { engine: Some(engine), items, .. } = &mut devices[at] else { return Ok(()) };
        for _ in 0..4 {
            *edits += 1;
            let chosen = (!items.is_empty()).then(|| items[dice.roll(items.len())]);
            let (what, place) = (dice.roll(4), dice.roll(20));
            let made = engine.edit(|store| match (what, chosen) {
                (1, Some(item)) if store.entry(item).is_ok() => {
                    store.set_label(item, &format!("label {place}")).map(|()| None)
                }
                (2, Some(item)) if store.entry(item).is_ok() => {
                    store.write_value(item, "a line of text").map(|()| None)
                }
                (3, Some(item)) if store.entry(item).is_ok() => {
                    store.move_entry_to(item, EntryId::ROOT, Some(0)).map(|_| None)
                }
                _ => {
                    let item = store.new_item_at(None, EntryId::ROOT, None)?;
                    Ok::<_, StoreError>(Some(item))
                }
            })??;
            items.extend(made);
        }
        while items.len() > ITEMS_MAX {
            let Some(item) = items.pop_front() else { break };
            engine.edit(|store| {
                if store.entry(item).is_ok() {
                    store.delete_entry(item, Timestamp::from_millis(1))?;
                    store.purge_entry(item)?;
                }
                Ok::<_, StoreError>(())
            })??;
        }
        Ok(())
    }

    /// Puts a large value in the place of another, half of the time by way of the file.
    fn put_blob(&mut self, at: usize) -> Outcome<()> {
        let Self { devices, dice, blobs, .. } = self;
        let Device { engine: Some(engine), items, .. } = &devices[at] else { return Ok(()) };
        // Few have one, so that each soon makes room for the next.
        let Some(item) = items.iter().rev().take(8).nth(dice.roll(8)).copied() else {
            return Ok(());
        };
        *blobs += 1;
        let mut bytes = vec![0; 20_000 + dice.roll(400_000)];
        bytes.iter_mut().step_by(64).for_each(|byte| *byte = dice.roll(256).to_le_bytes()[0]);
        if dice.roll(2) == 0 {
            let blob = engine.write_blob(bytes.as_slice(), false)?;
            engine.edit(|store| match store.entry(item) {
                Ok(_) => store.write_blob_value(item, blob),
                Err(_) => Ok(()),
            })??;
        } else {
            engine.edit(|store| match store.entry(item) {
                Ok(_) => store.write_value(item, bytes.as_slice()),
                Err(_) => Ok(()),
            })??;
        }
        Ok(())
    }

    fn show_presence(&mut self, at: usize) -> Outcome<()> {
        let name = format!("{} {}", self.devices[at].name, self.dice.roll(10));
        if let Some(engine) = &self.devices[at].engine {
            let state = PresenceState { name: Some(name), ..PresenceState::default() };
            engine.set_presence_to(Some(state))?;
        }
        Ok(())
    }

    fn sample(&self) -> Outcome<Sample> {
        let size = |path: std::path::PathBuf| path.metadata().map_or(0, |file| file.len());
        let file = |name: &&str| size(self.home.join(name).join(self.store.file_name()));
        Ok(Sample {
            memory: resident()?,
            relay_file: size(self.home.join("relay").join("relay.redb")),
            store_files: NAMES.iter().map(file).sum(),
            counts: format!(
                "{} edits, {} sessions, {} large values",
                self.edits, self.sessions, self.blobs
            ),
        })
    }

    /// Lets all come to rest; fails unless all are equal, and sound.
    async fn finish(mut self) -> Outcome<()> {
        let mut digests = Vec::new();
        // Twice: what the last one brings is new for the first.
        for _ in 0..2 {
            digests.clear();
            for at in 0..self.devices.len() {
                if self.devices[at].engine.is_none() {
                    self.open(at).await?;
                }
                self.connect(at)?;
                let Some(engine) = &self.devices[at].engine else { continue };
                engine.wait_until_synced(PATIENCE).await?;
                digests.push(engine.edit(|store| store.digest().to_string())?);
            }
        }
        if digests.windows(2).any(|pair| pair[0] != pair[1]) {
            return Err(format!("not equal at the end: {digests:?}").into());
        }
        for at in 0..self.devices.len() {
            self.close(at).await?;
            let folder = self.home.join(self.devices[at].name);
            let report = check_store(&folder, &self.store)?;
            if !report.is_sound() || report.missing_blobs > 0 {
                return Err(format!("the file of {}: {report:?}", self.devices[at].name).into());
            }
        }
        say(&format!("all equal and sound after {} edits", self.edits));
        self.relay.stop().await;
        Ok(())
    }
}

/// Compares the second quarter with the last.
fn is_flat(samples: &[u64]) -> bool {
    let quarter = samples.len() / 4;
    let mean = |part: &[u64]| part.iter().sum::<u64>() / (part.len() as u64).max(1);
    let (early, late) =
        (mean(&samples[quarter..2 * quarter]), mean(&samples[samples.len() - quarter..]));
    let is_flat = late * 100 <= early * (100 + GROWTH_MAX);
    let verdict = if is_flat { "flat" } else { "GROWING" };
    say(&format!("memory: {} MiB, then {} MiB: {verdict}", early >> 20, late >> 20));
    is_flat
}

/// The resident memory of this process, in bytes.
fn resident() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(kib.unwrap_or_default() << 10)
}

fn say(line: &str) {
    // Whoever reads may have gone.
    let _gone = writeln!(io::stdout(), "{line}");
}
