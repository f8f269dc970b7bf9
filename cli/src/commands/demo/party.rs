//! The relay and the peers of the demo: they start, meet, part, and start again.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sds_server::{Grant, Relay, RelayConfig, Scope, Secret, mint};
use sds_store::{DataStore, StoreError, Version};
use sds_sync::{ConnectOptions, LocalStore, RelayUrl, StoreId, SyncEngine, Token};

use super::folder::{Folder, Loader};
use super::scene::{Cast, Edits, outline};
use super::stage::{Stage, counted, size};
use crate::commands::store::count_entries;
use crate::failure::{Exit, Failure};
use crate::output;

/// The peers, in the order in which they act.
const PEERS: [&str; 3] = ["laptop", "phone", "tablet"];
/// A peer that was never there before, and gets everything from the relay's disk.
const NEWCOMER: &str = "newcomer";

/// How long the peers may take to agree.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often they are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// A transaction of the first load ends at so many files or bytes.
const BATCH_FILES: usize = 256;
const BATCH_BYTES: u64 = 1 << 20;

/// The relay, its peers, and what it takes to start them again.
pub(super) struct Party {
    relay: Relay,
    peers: Vec<Peer>,
    access: Access,
    /// The folder with everybody's files.
    home: PathBuf,
}

struct Peer {
    name: &'static str,
    engine: SyncEngine,
}

/// The store's name, and the secret that opens it at the relay.
struct Access {
    store: StoreId,
    secret: Secret,
}

/// How things stand at the end.
pub(super) struct Standing {
    /// The digest of each copy that was looked at, before and after the restart.
    pub(super) digests: Vec<String>,
    pub(super) entries: usize,
    pub(super) changes: usize,
    pub(super) bytes_on_disk: u64,
}

impl Standing {
    /// Whether all copies are the same.
    pub(super) fn is_converged(&self) -> bool {
        self.digests.windows(2).all(|pair| pair[0] == pair[1]) && !self.digests.is_empty()
    }

    /// The digest of the first copy.
    pub(super) fn digest(&self) -> &str {
        self.digests.first().map(String::as_str).unwrap_or_default()
    }

    /// How many peers took part, the newcomer not counted.
    pub(super) const fn peers(&self) -> usize {
        PEERS.len()
    }
}

impl Access {
    /// A store nobody has heard of, and a secret nobody knows.
    fn fresh() -> Result<Self, Failure> {
        let mut random = [0; 32];
        getrandom::fill(&mut random).map_err(|error| Failure::new(Exit::General, error))?;
        let secret = Secret::new(&hex::encode(random));
        let secret = secret.map_err(|error| Failure::new(Exit::General, error))?;
        let store = StoreId::new("demo").map_err(|error| Failure::new(Exit::General, error))?;
        Ok(Self { store, secret })
    }

    /// A token to write to the store.
    fn token(&self, subject: &str) -> Result<Token, Failure> {
        let grant = Grant {
            stores: self.store.clone().into(),
            subject: subject.to_owned(),
            scope: Scope::Write,
            lifetime: Duration::from_secs(3600),
            issuer: None,
        };
        let now = std::time::SystemTime::now();
        mint(&self.secret, &grant, now).map_err(|error| Failure::new(Exit::General, error))
    }

    async fn start_relay(&self, home: &Path) -> Result<Relay, Failure> {
        let config = RelayConfig::new(self.secret.clone(), home.join("relay"));
        Ok(Relay::start(config).await?)
    }

    fn open(&self, home: &Path, name: &'static str) -> Result<Peer, Failure> {
        let local = LocalStore::open_or_create(&home.join(name), &self.store)?;
        Ok(Peer { name, engine: SyncEngine::start(local) })
    }
}

impl Peer {
    fn connect(&self, url: RelayUrl, token: Token) -> Result<(), Failure> {
        Ok(self.engine.connect(ConnectOptions::new(url, token))?)
    }

    fn version(&self) -> Result<Version, Failure> {
        Ok(self.engine.read(|store| store.version().clone())?)
    }

    fn digest(&self) -> Result<String, Failure> {
        Ok(self.engine.edit(|store| store.digest().to_string())?)
    }

    /// Lets the peer edit, and waits for its disk.
    async fn edit<T>(
        &self,
        edit: impl FnOnce(&mut DataStore) -> Result<T, StoreError>,
    ) -> Result<T, Failure> {
        let done = self.engine.edit(edit)??;
        self.engine.flush().await?;
        Ok(done)
    }
}

impl Party {
    /// Starts a relay and the first peer.
    pub(super) async fn start(stage: &Stage, home: &Path) -> Result<Self, Failure> {
        let began = Instant::now();
        let access = Access::fresh()?;
        let relay = access.start_relay(home).await?;
        let address = relay.local_addr();
        let text = format!("quic://{address}, with a fresh certificate and secret");
        stage.done("relay", began, text);
        let peers = vec![access.open(home, PEERS[0])?];
        Ok(Self { relay, peers, access, home: home.to_path_buf() })
    }

    /// Reads the folder into the first peer's store.
    pub(super) async fn load(&self, stage: &Stage, folder: &Folder) -> Result<(), Failure> {
        let began = Instant::now();
        let bar = stage.bar("reading", folder.found.len());
        let mut loader = Loader::default();
        let mut rest = folder.found.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |found: &&super::folder::Found| {
                bytes += found.bytes;
                bytes <= BATCH_BYTES
            };
            let count = rest.iter().take(BATCH_FILES).take_while(fits).count().max(1);
            let (batch, after) = rest.split_at(count);
            self.peers[0].engine.edit(|store| {
                store.transact(|store| batch.iter().try_for_each(|found| loader.add(store, found)))
            })??;
            bar.inc(count as u64);
            rest = after;
        }
        self.peers[0].engine.flush().await?;
        bar.finish_and_clear();
        let files = counted(folder.files() - loader.left_out.len(), ["file", "files"]);
        let folders = counted(folder.folders(), ["folder", "folders"]);
        let what = format!("{files} in {folders}, {}", size(loader.bytes));
        stage.done("reading", began, what);
        for why in folder.left_out.iter().chain(&loader.left_out) {
            stage.say(format_args!("            left out {}", output::label(why)));
        }
        Ok(())
    }

    /// Sends everything to the relay, and lets the other peers get it from there.
    pub(super) async fn spread(&mut self, stage: &Stage) -> Result<(), Failure> {
        let began = Instant::now();
        let laptop = &self.peers[0];
        self.connect(laptop)?;
        laptop.engine.wait_until_synced(PATIENCE).await?;
        let changes = laptop.engine.read(count_changes)?;
        let blobs = laptop.engine.read(|store| store.referenced_blobs().len())?;
        let changes = counted(changes, ["change", "changes"]);
        let blobs = counted(blobs, ["blob", "blobs"]);
        let text = format!("stored at the relay: {changes}, {blobs}");
        stage.done(laptop.name, began, text);
        for name in &PEERS[1..] {
            let began = Instant::now();
            let peer = self.access.open(&self.home, name)?;
            self.connect(&peer)?;
            self.peers.push(peer);
            self.agree().await?;
            let count = self.peers[0].engine.read(count_entries)?;
            stage.done(name, began, format!("received {}", counted(count, ["entry", "entries"])));
        }
        Ok(())
    }

    /// Picks what the peers will fight over, and lets all of them know.
    pub(super) async fn cast(&self, stage: &Stage) -> Result<Cast, Failure> {
        let cast = self.peers[0].edit(Cast::choose).await?;
        self.agree().await?;
        stage.say("");
        Ok(cast)
    }

    /// Shows the part of the tree that the peers fight over.
    pub(super) fn show(&self, stage: &Stage, when: &str, cast: &Cast) -> Result<(), Failure> {
        stage.say(format_args!("{when}, on every peer:"));
        for line in self.peers[0].engine.read(|store| outline(store, cast))? {
            stage.say(format_args!("    {line}"));
        }
        stage.say("");
        Ok(())
    }

    /// Cuts all peers off.
    pub(super) async fn part(&self, stage: &Stage) {
        for peer in &self.peers {
            peer.engine.disconnect().await;
        }
        stage.say("all three are offline now");
    }

    /// Lets each peer edit the same entries, without the others.
    pub(super) fn edit_apart(&self, stage: &Stage, cast: &Cast) -> Result<Edits, Failure> {
        let mut edits = Edits::new();
        for (nth, peer) in self.peers.iter().enumerate() {
            let act = |store: &mut DataStore| edits.act(store, cast, (nth, peer.name));
            let did = peer.engine.edit(act)??;
            stage.say(format_args!("  {:<9} {did}", peer.name));
        }
        let differ = self.digests()?.windows(2).any(|pair| pair[0] != pair[1]);
        let state = if differ { "their stores differ" } else { "their stores are still equal" };
        stage.say(format_args!("  {state}"));
        Ok(edits)
    }

    /// Connects the peers again, and waits until all have everything.
    pub(super) async fn meet(&self, stage: &Stage) -> Result<(), Failure> {
        let began = Instant::now();
        self.peers.iter().try_for_each(|peer| self.connect(peer))?;
        self.agree().await?;
        let digests = self.digests()?;
        let same = digests.windows(2).all(|pair| pair[0] == pair[1]);
        let text = if same { "all three have the same digest" } else { "the digests DIFFER" };
        stage.say("all three are online again");
        stage.done("merged", began, text);
        stage.say("");
        Ok(())
    }

    /// Looks for every edit in every peer's store: equal digests of stores that lost the same edit
    /// would be no success.
    pub(super) fn check(&self, cast: &Cast, edits: &Edits) -> Result<(), Failure> {
        for peer in &self.peers {
            let missing = peer.engine.read(|store| edits.missing(store, cast))?;
            if !missing.is_empty() {
                let why = format!("{} lost {}", peer.name, missing.join(", "));
                return Err(Failure::new(Exit::General, why));
            }
        }
        Ok(())
    }

    /// Stops everything, opens it again from disk, and lets a newcomer get it from the relay alone.
    pub(super) async fn reopen(self, stage: &Stage) -> Result<Standing, Failure> {
        let began = Instant::now();
        let mut digests = self.digests()?;
        let entries = self.peers[0].engine.read(count_entries)?;
        let changes = self.peers[0].engine.read(count_changes)?;
        let Self { relay, peers, access, home } = self;
        for peer in peers {
            peer.engine.stop().await?;
        }
        relay.stop().await;
        let bytes_on_disk = bytes_below(&home)?;

        for name in PEERS {
            let mut local = LocalStore::open_existing(&home.join(name), &access.store)?;
            digests.push(local.store_mut().digest().to_string());
        }
        let relay = access.start_relay(&home).await?;
        let newcomer = access.open(&home, NEWCOMER)?;
        newcomer.connect(relay.url(), access.token(NEWCOMER)?)?;
        newcomer.engine.wait_until_synced(PATIENCE).await?;
        digests.push(newcomer.digest()?);
        newcomer.engine.stop().await?;
        relay.stop().await;
        let text = format!(
            "all stopped and opened again from disk, {} in all; a newcomer was served by the relay alone",
            size(bytes_on_disk)
        );
        stage.done("restart", began, text);
        Ok(Standing { digests, entries, changes, bytes_on_disk })
    }

    fn connect(&self, peer: &Peer) -> Result<(), Failure> {
        peer.connect(self.relay.url(), self.access.token(peer.name)?)
    }

    /// Waits until every peer has stored everything at the relay and all have the same changes and
    /// every blob.
    async fn agree(&self) -> Result<(), Failure> {
        let began = Instant::now();
        for peer in &self.peers {
            peer.engine.wait_until_synced(PATIENCE).await?;
        }
        while !self.is_agreed()? {
            if began.elapsed() > PATIENCE {
                let why = "the peers did not come to have the same changes in time";
                return Err(Failure::new(Exit::Network, why));
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    fn is_agreed(&self) -> Result<bool, Failure> {
        let first = self.peers[0].version()?;
        for peer in &self.peers {
            let status = peer.engine.status();
            let is_done = status.persisted == first && status.stored == first;
            if peer.version()? != first || !is_done || status.blobs_to_fetch > 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn digests(&self) -> Result<Vec<String>, Failure> {
        self.peers.iter().map(Peer::digest).collect()
    }
}

/// The sizes of all files below a folder, in bytes.
fn bytes_below(dir: &Path) -> Result<u64, Failure> {
    let mut bytes = 0;
    let mut rest: Vec<PathBuf> = vec![dir.to_path_buf()];
    while let Some(dir) = rest.pop() {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if meta.is_dir() {
                rest.push(entry.path());
            } else {
                bytes += meta.len();
            }
        }
    }
    Ok(bytes)
}

/// How many changes a store has.
fn count_changes(store: &DataStore) -> usize {
    store.changes_since(&Version::new()).map_or(0, |changes| changes.len())
}
