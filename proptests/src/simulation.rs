//! A deterministic simulation: devices, a relay, lines and disks, all decided by one seed.
//!
//! What runs is the real code: store, sessions, seats, ledgers, the relay's log, redb. Time, lines and
//! disks are simulated: lines are slow and break at any byte, disks fill up, lose what was not synced
//! and tear what was being written, files are copied and restored from backups, the relay's clock is
//! set. There is no thread, socket or real time in it, so that the same story always goes the same way.
//!
//! [`check_seed`] tells the story of a seed, and when it fails finds a shorter one that fails too.
//! What must hold is in `oracle`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;
use std::time::Duration;

use redb::Database;
use sds_server::Scope;
use sds_store::{DataStore, Version};
use sds_sync::database::Place;
use sds_sync::limits::{FIRST_FRAME_BYTES_MAX, FRAME_BYTES_MAX, IDLE_TIMEOUT};
use sds_sync::transport::StreamError;
use sds_sync::{LinkError, RedbPersistence, RefusalCode, StorageError, StoreId, TransportError};

mod context;
mod device;
mod disk;
mod faults;
mod line;
mod oracle;
mod process;
mod relay;
mod run;
mod story;

use context::Context;
use device::{Claims, Device};
use disk::Disk;
use line::{Pipe, Speed};
use process::Linked;
use relay::RelayNode;
pub use run::{Report, check_seed, run_story};
pub use story::{Copies, DEVICES, SimStep, SimStory};

/// How many bytes one direction of a line takes before the sender has to wait.
const WINDOW_BYTES: usize = 4_096;

/// How long everybody may take to have everything, once everything is mended.
const PATIENCE: Duration = Duration::from_secs(600);

/// More entries make edits slow without making them tell more.
const ENTRIES_MAX: usize = 120;

/// How many users there are.
const USERS: u8 = 3;

/// Everything there is.
#[derive(Debug)]
struct World {
    context: Context,
    id: StoreId,
    copies: Copies,
    relay: RelayNode,
    devices: Vec<Device>,
    lines: BTreeMap<u64, Line>,
    next_line: u64,
    notes: usize,
    patches: Vec<Vec<u8>>,
}

/// A connection, as the world sees it.
#[derive(Debug)]
struct Line {
    device: usize,
    up: Pipe,
    down: Pipe,
    speed: Speed,
}

/// Something that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    RelayStart,
    RelayCommit,
    Start(usize),
    Commit(usize),
    Connect(usize),
    Timeout(usize),
    Idle(usize),
    Arrival(u64),
}

impl World {
    fn new(story: &SimStory) -> Self {
        let mut context = Context::new(story.seed);
        let id = store_id();
        let relay = RelayNode::new(Disk::new(RELAY_IMAGE.clone(), Place([0; 32])));
        let mut world = Self {
            id,
            copies: story.copies,
            relay,
            devices: Vec::new(),
            lines: BTreeMap::new(),
            next_line: 0,
            notes: 0,
            patches: Vec::new(),
            context: Context::new(0),
        };
        world.relay.start(&world.id, &mut context);
        // Some users have several devices.
        for user in (0..USERS).cycle().take(story.devices) {
            let place = place(&mut context);
            let disk = Disk::new(STORE_IMAGE.clone(), place);
            world.add_device(disk, Claims::default(), user, &mut context);
        }
        world.context = context;
        world
    }

    fn add_device(&mut self, disk: Disk, claims: Claims, user: u8, context: &mut Context) {
        let mut device = Device {
            name: format!("d{}", self.devices.len()),
            disk,
            process: None,
            restart_at: None,
            offline_since: None,
            speed: Speed::FAST,
            user,
            has_changed_hands: false,
            is_shared: false,
            token: self.relay.token(&self.id, (user, Scope::Write), context.now),
            claims,
            backup: None,
            checked: Version::new(),
        };
        device.start(&self.id, &self.relay.ever_stored(), context);
        self.devices.push(device);
    }

    /// Lets time pass until `until`, and whatever is due by then happen.
    fn pass(&mut self, until: Duration) {
        self.attend();
        while let Some((at, due)) = self.next_due().filter(|(at, _)| *at <= until) {
            self.context.now = self.context.now.max(at);
            self.happen(due);
            self.attend();
            self.assert_rules();
        }
        self.context.now = self.context.now.max(until);
    }

    /// Panics unless every store keeps its rules.
    fn assert_rules(&mut self) {
        self.devices.iter_mut().for_each(Device::assert_rules);
    }

    fn next_due(&self) -> Option<(Duration, Due)> {
        let relay = &self.relay;
        let commit = relay.process.as_ref().and_then(|process| process.commit_at);
        let mut all = vec![(relay.restart_at, Due::RelayStart), (commit, Due::RelayCommit)];
        for (number, device) in self.devices.iter().enumerate() {
            all.push((device.restart_at, Due::Start(number)));
            let idle = device.offline_since.map(|since| since + IDLE_TIMEOUT);
            all.push((idle.filter(|_| self.has_line(number)), Due::Idle(number)));
            if let Some(process) = &device.process {
                all.push((process.commit_at, Due::Commit(number)));
                all.push((process.connect_at, Due::Connect(number)));
                let linked = process.link.as_ref();
                let timeout = linked.and_then(|linked| linked.link.poll_timeout());
                let timeout = timeout.map(|at| self.context.time_of(at));
                all.push((timeout, Due::Timeout(number)));
            }
        }
        for (number, line) in &self.lines {
            if self.devices[line.device].offline_since.is_none() {
                let arrivals = [line.up.next_arrival(), line.down.next_arrival()];
                all.push((arrivals.into_iter().flatten().min(), Due::Arrival(*number)));
            }
        }
        all.into_iter().filter_map(|(at, due)| Some((at?, due))).min()
    }

    fn happen(&mut self, due: Due) {
        let Self { context, relay, devices, .. } = self;
        match due {
            Due::RelayStart => relay.start(&self.id, context),
            Due::RelayCommit => relay.commit(&self.id, context),
            Due::Start(number) => {
                devices[number].start(&self.id, &relay.ever_stored(), context);
            }
            Due::Commit(number) => {
                // What could not be written waits.
                drop(devices[number].commit(context));
            }
            Due::Connect(number) => self.connect(number),
            // The process looks at the clock whenever it is attended to.
            Due::Timeout(_) => {}
            Due::Idle(number) => self.drop_lines(number),
            Due::Arrival(number) => {
                if let Some(line) = self.lines.get_mut(&number) {
                    line.up.arrive(context.now);
                    line.down.arrive(context.now);
                }
            }
        }
    }

    /// Lets every process do what it can do now, and what fell over fall.
    fn attend(&mut self) {
        for number in 0..self.devices.len() {
            if self.devices[number].disk.has_lost_power() {
                self.crash_device(number, true);
            }
        }
        if self.relay.disk.has_lost_power() {
            self.crash_relay(true);
        }
        let numbers: Vec<u64> = self.lines.keys().copied().collect();
        for number in numbers {
            self.attend_line(number);
        }
    }

    fn attend_line(&mut self, number: u64) {
        let Self { context, relay, devices, lines, id, .. } = self;
        let Some(Line { device, up, down, speed }) = lines.get_mut(&number) else { return };
        let (number_of_device, device) = (*device, &mut devices[*device]);
        let is_wanted = relay.attend(number, (up, down), *speed, id, context);
        let is_held = device.line() == Some(number);
        if is_held {
            let attended = device.attend(up, down, &relay.kept.version, context);
            if let Err(error) = attended {
                self.lose(number_of_device, error);
            }
        } else if !is_wanted {
            lines.remove(&number);
            relay.drop_line(number);
        }
    }

    fn connect(&mut self, number: usize) {
        let Self { context, relay, devices, .. } = self;
        let device = &mut devices[number];
        if relay.process.is_none() || device.offline_since.is_some() {
            device.handle_loss(TransportError::TimedOut.into(), context);
            return;
        }
        let line = self.next_line;
        self.next_line += 1;
        device.connect(line, context);
        relay.accept(line);
        let (up, down) = (Pipe::new(FIRST_FRAME_BYTES_MAX), Pipe::new(FRAME_BYTES_MAX));
        let speed = device.speed;
        self.lines.insert(line, Line { device: number, up, down, speed });
    }

    /// A device gives its connection up.
    fn lose(&mut self, number: usize, error: LinkError) {
        if let Some(line) = self.devices[number].handle_loss(error, &mut self.context) {
            self.cut_line(line);
        }
    }

    fn cut_line(&mut self, number: u64) {
        if let Some(line) = self.lines.get_mut(&number) {
            line.up.cut(self.context.now, &mut self.context.dice);
            line.down.cut(self.context.now, &mut self.context.dice);
        }
    }

    fn cut_lines(&mut self, which: impl Fn(&Line) -> bool) {
        let lines = self.lines.iter().filter(|(_, line)| which(line));
        let numbers: Vec<u64> = lines.map(|(number, _)| *number).collect();
        for number in numbers {
            self.cut_line(number);
        }
    }

    /// Nothing has come through for so long that both ends give up.
    fn drop_lines(&mut self, number: usize) {
        let dropped: Vec<u64> = self
            .lines
            .extract_if(.., |_, line| line.device == number)
            .map(|(line, _)| line)
            .collect();
        dropped.iter().for_each(|line| self.relay.drop_line(*line));
        if self.devices[number].line().is_some() {
            self.devices[number].handle_loss(StreamError::CutOff.into(), &mut self.context);
        }
    }

    fn has_line(&self, number: usize) -> bool {
        self.lines.values().any(|line| line.device == number)
    }

    /// Mends everything, waits until everybody has everything, and asks the oracle.
    fn come_to_rest(&mut self) {
        self.context.note(format_args!("everything is mended"));
        self.mend();
        let deadline = self.context.now + PATIENCE;
        while !self.is_at_rest() {
            assert!(self.context.now < deadline, "not at rest: {}", self.unrest());
            self.pass(self.context.now + Duration::from_millis(500));
            self.mend();
        }
        let process = self.relay.process.as_ref().expect("at rest everybody runs");
        let log = relay::all_changes(&process.log, &self.id);
        let stores: Vec<(&str, &DataStore)> = self.running_stores().collect();
        assert_eq!(stores.len(), self.devices.len());
        oracle::assert_same(&stores, &log);
        let mut required: BTreeSet<String> = self.relay.kept.notes.clone();
        for Claims { notes, notes_on_disk, .. } in self.devices.iter().map(|device| &device.claims)
        {
            required.extend(notes[..*notes_on_disk].iter().cloned());
        }
        oracle::assert_notes(&required, &log);
        self.context.note(format_args!("at rest with {} changes", log.len()));
    }

    fn mend(&mut self) {
        let Self { context, relay, devices, id, .. } = self;
        relay.disk.mend();
        if relay.process.is_none() {
            relay.restart_at.get_or_insert(context.now);
        }
        for device in devices {
            device.disk.mend();
            device.speed = Speed::FAST;
            device.offline_since = None;
            let Some(process) = &mut device.process else {
                device.restart_at.get_or_insert(context.now);
                continue;
            };
            if let Some(code) = process.refused.take() {
                let name = &device.name;
                // What others have built on cannot be made again under another id.
                let is_helped = code == RefusalCode::Unauthorized
                    || (code == RefusalCode::Forked && device.has_changed_hands);
                assert!(is_helped, "{name} needs help: {code}");
                process.connect_at = Some(context.now);
            }
            let needs_token = process.link.as_ref().is_some_and(|Linked { link, .. }| {
                link.is_syncing() && (!link.session().is_writable() || !link.not_yours().is_empty())
            });
            // Some have changes of others who have lost them.
            device.token = relay.token(id, (device.user, Scope::Admin), context.now);
            process.retry(context.now);
            if needs_token && let Some(line) = device.line() {
                device.handle_loss(LinkError::Ended, context);
                if let Some(line) = self.lines.get_mut(&line) {
                    line.up.cut(context.now, &mut context.dice);
                    line.down.cut(context.now, &mut context.dice);
                }
            }
        }
    }

    fn is_at_rest(&self) -> bool {
        let kept = &self.relay.kept.version;
        let is_synced = |device: &Device| {
            device.process.as_ref().is_some_and(|process| {
                process.is_synced() && process.store.store().version() == kept
            })
        };
        self.relay.process.is_some() && self.devices.iter().all(is_synced)
    }

    fn unrest(&self) -> String {
        let device = |device: &Device| match &device.process {
            Some(process) => format!(
                "{}: {:?}, persisted {:?}, refused {:?}, link {:?}",
                device.name,
                process.store.store().version(),
                process.persisted,
                process.refused,
                process.link,
            ),
            None => format!("{}: down", device.name),
        };
        let devices: Vec<String> = self.devices.iter().map(device).collect();
        format!("relay has {:?}; {}", self.relay.kept.version, devices.join("; "))
    }

    fn running_stores(&self) -> impl Iterator<Item = (&str, &DataStore)> {
        self.devices.iter().filter_map(|device| {
            Some((device.name.as_str(), device.process.as_ref()?.store.store()))
        })
    }
}

/// Whether an error is what a disk says that was made to fail, and not damage.
fn is_disk_at_fault(error: &StorageError) -> bool {
    matches!(
        error,
        StorageError::Full { .. } | StorageError::Io { .. } | StorageError::Closed { .. }
    )
}

fn store_id() -> StoreId {
    StoreId::new("s").expect("a valid id")
}

fn place(context: &mut Context) -> Place {
    let mut place = [0; 32];
    place[..8].copy_from_slice(&context.number().to_le_bytes());
    Place(place)
}

/// A device's disk before anything was written to it.
static STORE_IMAGE: LazyLock<Vec<u8>> =
    LazyLock::new(|| image(|redb| RedbPersistence::initialize(redb, &store_id())));

/// The relay's disk before anything was written to it.
static RELAY_IMAGE: LazyLock<Vec<u8>> =
    LazyLock::new(|| image(sds_server::store_log::StoreLog::initialize));

fn image(initialize: impl FnOnce(&Database) -> Result<(), StorageError>) -> Vec<u8> {
    let disk = Disk::new(Vec::new(), Place([0; 32]));
    let redb = disk.medium("new").open().expect("a new disk can be written");
    initialize(&redb).expect("a new disk can be written");
    drop(redb);
    disk.image()
}
