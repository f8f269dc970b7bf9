//! The protocol in one thread: sessions of clients and relay, with a log in memory for a disk.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use sds_engine::{Change, ChangeHeader, Op, Patch, ReplicaId, Version};
use sds_server::relay::{Cursor, Next, Room};
use sds_server::store_log::Appended;
use sds_sync::limits::PROTOCOL_VERSION;
use sds_sync::{
    Checked, CheckedChange, ClientEvent, ClientFrame, ClientSession, Hello, RefusalCode,
    RelayFrame, ServingSession, StoreId, Token,
};

/// The most steps that anything may take until it is quiet.
const STEPS_MAX: usize = 10_000;

/// A relay's log and room.
#[derive(Default)]
struct Home {
    log: Vec<Arc<[u8]>>,
    version: Version,
    room: Room,
}

impl Home {
    fn append(&mut self, changes: &[CheckedChange]) -> Appended {
        let from = self.log.len() as u64;
        let mut appended = Appended { from, ..Appended::default() };
        for change in changes {
            let header = change.header();
            if header.start > self.version.next(header.replica) {
                appended.refused = Some(RefusalCode::MissingDependency);
                break;
            }
            if !self.version.has(header.last()) {
                self.version.advance(header.replica, header.end());
                self.log.push(Arc::clone(change.bytes()));
                appended.new.push(Arc::clone(change.bytes()));
            }
            appended.stored.advance(header.replica, header.end());
        }
        self.room.publish(from, &appended.new);
        self.room.assert_invariants();
        appended
    }
}

/// A device: its durable changes, and its connection while there is one.
#[derive(Default)]
struct Device {
    log: Vec<Arc<[u8]>>,
    version: Version,
    link: Option<Link>,
    sent_changes: usize,
}

struct Link {
    client: ClientSession,
    relay: Option<ServingSession<Cursor>>,
    to_relay: VecDeque<ClientFrame>,
    to_client: VecDeque<RelayFrame>,
}

impl Device {
    fn edit(&mut self, author: u64, size: usize) {
        let replica = ReplicaId::new(author).unwrap();
        let start = self.version.next(replica);
        let text = "x".repeat(size);
        let set = Op::Set {
            entry: sds_engine::EntryId::ROOT,
            life: sds_engine::Life::FIRST,
            field: sds_engine::Field::Label,
            value: sds_engine::Value::Text(text),
        };
        let change = Change::new(replica, start, Vec::new(), &[set]).unwrap();
        self.keep(change.bytes());
        if let Some(link) = &mut self.link {
            link.client.handle_durable(&[Arc::clone(change.bytes())]).unwrap();
        }
    }

    fn keep(&mut self, change: &Arc<[u8]>) {
        let header = ChangeHeader::decode(change).unwrap();
        assert_eq!(self.version.next(header.replica), header.start, "in causal order, once");
        self.version.advance(header.replica, header.end());
        self.log.push(Arc::clone(change));
    }

    fn connect(&mut self) {
        let store = StoreId::new("s").unwrap();
        let token = Token::from("t".to_owned());
        let hello = Hello { store: &store, token: &token, version: &self.version, seats: &[] };
        let client = ClientSession::new(&hello, Instant::now());
        let (to_relay, to_client) = (VecDeque::new(), VecDeque::new());
        self.link = Some(Link { client, relay: None, to_relay, to_client });
        self.sent_changes = 0;
    }

    /// Does one thing, if there is anything to do.
    fn step(&mut self, home: &mut Home) -> bool {
        let Some(link) = &mut self.link else { return false };
        link.client.assert_invariants();
        if let Some(frame) = link.client.poll_transmit() {
            if let ClientFrame::Changes { patch } = &frame {
                self.sent_changes += Patch::decode(patch).unwrap().changes().count();
            }
            link.to_relay.push_back(frame);
            return true;
        }
        link.relay_step(home) || self.client_step()
    }

    fn client_step(&mut self) -> bool {
        let Some(link) = &mut self.link else { return false };
        let Some(frame) = link.to_client.pop_front() else { return false };
        link.client.handle_frame(frame).unwrap();
        while let Some(event) = self.link.as_mut().and_then(|link| link.client.poll_event()) {
            match event {
                ClientEvent::Opened => {
                    let log = self.log.clone();
                    self.link.as_mut().unwrap().client.handle_durable(&log).unwrap();
                }
                ClientEvent::Changes(patch) => {
                    let changes = Patch::decode(&patch).unwrap().into_changes();
                    let bytes: Vec<_> =
                        changes.iter().map(|change| Arc::clone(change.bytes())).collect();
                    bytes.iter().for_each(|change| self.keep(change));
                    self.link.as_mut().unwrap().client.handle_integrated(&bytes).unwrap();
                }
                ClientEvent::Stored => {}
                ClientEvent::Access { .. } | ClientEvent::NotYours { .. } => {}
                ClientEvent::Refused { code, message, .. } => panic!("{code}: {message}"),
            }
        }
        true
    }
}

impl Link {
    fn relay_step(&mut self, home: &mut Home) -> bool {
        if let Some(frame) = self.to_relay.pop_front() {
            match (&mut self.relay, frame) {
                (None, ClientFrame::OpenSeated { version, .. }) => {
                    let had = Version::decode(&version).unwrap();
                    let cursor = Cursor::new(had, 0, home.room.end());
                    self.relay = Some(ServingSession::new(
                        PROTOCOL_VERSION,
                        home.version.encode().into(),
                        Some(Vec::new()),
                        true,
                        cursor,
                    ));
                }
                (Some(session), frame) => session.handle_frame(frame),
                (None, frame) => panic!("{frame:?} before the store is open"),
            }
            return true;
        }
        let Some(session) = &mut self.relay else { return false };
        if let Some(changes) = session.poll_append() {
            let appended = home.append(&changes);
            session.handle_appended(&appended.stored, appended.refused);
            return true;
        }
        if let Some(frame) = session.poll_transmit() {
            self.to_client.push_back(frame);
            return true;
        }
        let Some(cursor) = session.wants_log() else { return false };
        let (from, changes) = match home.room.next_for(cursor) {
            Next::Nothing => return false,
            Next::Changes { from, changes } => (from, changes),
            Next::OnDisk(from) => (from, home.log[usize::try_from(from).unwrap()..].to_vec()),
        };
        let lacking = session.cursor_mut().pass(from, changes);
        session.handle_log(lacking);
        true
    }
}

/// Lets everybody go on until nothing is left to do.
fn settle(home: &mut Home, devices: &mut [&mut Device]) {
    for _ in 0..STEPS_MAX {
        let mut is_quiet = true;
        for device in devices.iter_mut() {
            is_quiet &= !device.step(home);
        }
        if is_quiet {
            return;
        }
    }
    panic!("not quiet after {STEPS_MAX} steps");
}

#[test]
fn both_sides_get_what_they_lack_and_then_hear_of_each_edit() {
    let (mut home, mut desk, mut phone) = (Home::default(), Device::default(), Device::default());
    desk.edit(1, 10);
    phone.edit(2, 10);
    desk.connect();
    phone.connect();
    settle(&mut home, &mut [&mut desk, &mut phone]);
    desk.edit(1, 10);
    phone.edit(2, 10);
    settle(&mut home, &mut [&mut desk, &mut phone]);
    assert_eq!((&desk.version, &phone.version), (&home.version, &home.version));
    let stored = |device: &Device| device.link.as_ref().unwrap().client.stored().clone();
    assert_eq!((stored(&desk), stored(&phone)), (home.version.clone(), home.version.clone()));
    assert_eq!((desk.sent_changes, phone.sent_changes), (2, 2), "nothing goes back");
}

/// Goal: after a loss at any point only what the relay lacks is sent again.
/// Method: the connection is cut after every number of steps, then a new one settles.
#[test]
fn after_a_loss_only_what_is_missing_is_sent_again() {
    for cut in 0..40 {
        let (mut home, mut desk, mut phone) =
            (Home::default(), Device::default(), Device::default());
        phone.connect();
        for _ in 0..6 {
            desk.edit(1, 600_000);
        }
        desk.connect();
        for _ in 0..cut {
            desk.step(&mut home);
        }
        desk.link = None;
        let lacking = desk.log.len() - home.log.len();
        desk.edit(1, 10);
        desk.connect();
        settle(&mut home, &mut [&mut desk, &mut phone]);
        assert_eq!(desk.sent_changes, lacking + 1, "cut after {cut} steps");
        assert_eq!(home.log.len(), desk.log.len());
        assert_eq!(phone.version, desk.version);
    }
}

#[test]
fn a_large_export_goes_in_several_frames_and_a_large_change_alone() {
    let (mut home, mut desk) = (Home::default(), Device::default());
    for size in [400_000, 400_000, 400_000, 3_000_000, 10] {
        desk.edit(1, size);
    }
    desk.connect();
    settle(&mut home, &mut [&mut desk]);
    assert_eq!(home.version, desk.version);
    let mut frames = Vec::new();
    let mut again =
        Device { log: desk.log.clone(), version: desk.version.clone(), ..Device::default() };
    again.connect();
    let link = again.link.as_mut().unwrap();
    link.client.poll_transmit().unwrap();
    let (version, seats) = (Version::new().encode().into(), Vec::new());
    let opened = RelayFrame::OpenedSeated { version, writable: true, seats };
    link.client.handle_frame(opened).unwrap();
    link.client.handle_durable(&desk.log).unwrap();
    while let Some(ClientFrame::Changes { patch }) = link.client.poll_transmit() {
        frames.push(Patch::decode(&patch).unwrap().changes().count());
    }
    assert_eq!(frames, [2, 1, 1, 1]);
}
