//! The relay: its disk, and the process on it while there is one.
//!
//! Sessions, room and log are the real ones. Access is asked for as the real relay does; appends of all
//! sessions go to the disk in one commit, and what is durable is published.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sds_engine::{Patch, ReplicaId, Version};
use sds_server::relay::{Cursor, Next, Room};
use sds_server::store_log::{Appender, Author, Opening, StoreLog};
use sds_server::{Grant, Keyring, Scope, Secret};
use sds_sync::access::{Gate, TokenId};
use sds_sync::database::Failure;
use sds_sync::limits::{FRAME_BYTES_MAX, PROTOCOL_VERSION};
use sds_sync::{
    CheckedChange, ClientFrame, Refusal, RefusalCode, RelayFrame, ServingSession, StorageError,
    StoreId, Token,
};

use super::context::Context;
use super::device::notes_of;
use super::disk::Disk;
use super::line::{End, Pipe, Speed};
use super::{WINDOW_BYTES, is_disk_at_fault};

/// How long a token holds.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3_600);

/// How many appended pages are left as they are: few, so that much is packed.
const LOOSE_PAGES_MAX: u64 = 3;

/// What every clock says at the beginning, in seconds since 1970.
const BEGINNING: u64 = 1_700_000_000;

/// The relay.
#[derive(Debug)]
pub(super) struct RelayNode {
    pub(super) disk: Disk,
    pub(super) process: Option<RelayProcess>,
    pub(super) restart_at: Option<Duration>,
    /// How far its clock is off, in minutes.
    pub(super) clock: i64,
    pub(super) kept: Kept,
    pub(super) backup: Option<(Vec<u8>, Kept)>,
    /// What it had before it was restored from a backup.
    forgotten: Version,
    secret: Secret,
}

/// What the relay has on its disk, by what its commits have said.
#[derive(Clone, Debug, Default)]
pub(super) struct Kept {
    pub(super) version: Version,
    pub(super) notes: BTreeSet<String>,
}

/// A process.
#[derive(Debug)]
pub(super) struct RelayProcess {
    pub(super) log: StoreLog,
    gate: Gate,
    room: Option<Room>,
    sessions: BTreeMap<u64, Session>,
    /// What goes into the next commit.
    group: Vec<Append>,
    pub(super) commit_at: Option<Duration>,
}

/// What a line has brought.
#[derive(Debug)]
struct Append {
    line: u64,
    author: Author,
    changes: Vec<CheckedChange>,
    skips_lacking: bool,
}

/// One line, from this side.
#[derive(Debug)]
enum Session {
    /// Nothing has come yet.
    New,
    Open {
        session: Box<ServingSession<Cursor>>,
        /// What it was told to be here when it opened the store.
        version: Version,
        is_appending: bool,
        /// Whether changes were passed over.
        passes_over: bool,
        author: Author,
        expires: SystemTime,
    },
    /// Nothing will be said any more.
    Over,
}

impl RelayNode {
    pub(super) fn new(disk: Disk) -> Self {
        let secret = Secret::new("a secret of more than thirty-two characters");
        Self {
            disk,
            process: None,
            restart_at: None,
            clock: 0,
            kept: Kept::default(),
            backup: None,
            forgotten: Version::new(),
            secret: secret.expect("it is long enough"),
        }
    }

    /// A token for a user that holds for an hour from now on, by the relay's clock.
    pub(super) fn token(
        &self,
        store: &StoreId,
        (user, scope): (u8, Scope),
        now: Duration,
    ) -> Token {
        let (store, subject) = (store.clone(), format!("user {user}"));
        let grant =
            Grant { stores: store.into(), subject, scope, lifetime: TOKEN_LIFETIME, issuer: None };
        // The same name each time: nothing is revoked here, and the seed decides everything.
        let (keys, id) = (Keyring::from(self.secret.clone()), TokenId::from_halves(0, 0));
        keys.mint(&grant, &id, self.wall_clock(now)).expect("a token can be made")
    }

    /// Begins a process; tries again later if the disk does not let it.
    pub(super) fn start(&mut self, store: &StoreId, context: &mut Context) {
        self.restart_at = None;
        match StoreLog::open_on(self.disk.medium("relay")) {
            Ok(log) => {
                let version = log.version(store).expect("what was just opened can be read");
                let kept = &self.kept.version;
                assert!(version.covers(kept), "the relay had {kept:?} on disk, it has {version:?}");
                context.note(format_args!("relay starts"));
                self.process = Some(RelayProcess {
                    log,
                    gate: Gate::new(self.secret.clone(), None),
                    room: None,
                    sessions: BTreeMap::new(),
                    group: Vec::new(),
                    commit_at: None,
                });
            }
            Err(error) => {
                context.note(format_args!("relay cannot start: {error}"));
                assert!(is_disk_at_fault(&error), "relay: {error}");
                self.restart_at = Some(context.soon(2_000));
            }
        }
    }

    /// Ends the process as it is. All lines are lost.
    pub(super) fn crash(&mut self, is_power_loss: bool, context: &mut Context) {
        context.note(format_args!("relay crashes (power loss: {is_power_loss})"));
        if is_power_loss {
            self.disk.lose_power(&mut context.dice);
        } else {
            self.disk.kill();
        }
        self.process = None;
        self.restart_at = Some(context.soon(3_000));
    }

    /// Writes what all sessions have brought, and lets everybody hear of it.
    pub(super) fn commit(&mut self, store: &StoreId, context: &mut Context) {
        let now = self.wall_clock(context.now);
        let Some(process) = &mut self.process else { return };
        process.commit_at = None;
        let group = std::mem::take(&mut process.group);
        let outcomes = process.log.write(|write| {
            let mut appender = Appender::begin(write, now)?;
            let append = |work: &Append| {
                appender.append(store, &work.author, &work.changes, work.skips_lacking)
            };
            let appended = group.iter().map(append).collect::<Result<Vec<_>, Failure>>()?;
            appender.finish(|_| {})?;
            Ok(appended)
        });
        match outcomes {
            Ok(outcomes) => {
                context.note(format_args!("relay has written for {} sessions", group.len()));
                // With it goes what a commit left that failed, and was there all the same.
                let version = process.log.version(store).expect("what was written can be read");
                self.kept.version.merge(&version);
                for (Append { line, .. }, appended) in group.into_iter().zip(outcomes) {
                    self.kept.notes.extend(appended.new.iter().flat_map(|change| notes_of(change)));
                    if let Some(room) = &mut process.room {
                        room.publish(appended.from, &appended.new);
                        room.assert_invariants();
                    }
                    process.settle(line, |session, passes_over| {
                        *passes_over |= !appended.foreign.is_empty();
                        for (replica, next) in appended.foreign {
                            session.handle_passed_over(replica, next);
                        }
                        session.handle_appended(&appended.stored, appended.refused);
                        session.cursor_mut().note_end(appended.end);
                    });
                }
            }
            Err(error) => {
                context.note(format_args!("relay cannot write: {error}"));
                assert!(is_disk_at_fault(&error), "relay: {error}");
                for Append { line, .. } in group {
                    process.settle(line, |session, _| session.refuse(Refusal::STORAGE_FAILED));
                }
            }
        }
        if let Err(error) = process.log.pack(store, LOOSE_PAGES_MAX) {
            assert!(is_disk_at_fault(&error), "relay: {error}");
        }
    }

    /// What it has, or had at one time.
    pub(super) fn ever_stored(&self) -> Version {
        let mut version = self.forgotten.clone();
        version.merge(&self.kept.version);
        version
    }

    /// Puts a backup in the place of everything, while there is no process.
    pub(super) fn restore(&mut self, image: Vec<u8>, kept: Kept) {
        self.forgotten = self.ever_stored();
        self.disk.restore(image, self.disk.place());
        self.kept = kept;
    }

    /// A new line, on which nothing has come yet.
    pub(super) fn accept(&mut self, line: u64) {
        if let Some(process) = &mut self.process {
            process.sessions.insert(line, Session::New);
        }
    }

    /// Takes in what a line has brought, and sends what there is room for. Says whether the line is
    /// still of use.
    pub(super) fn attend(
        &mut self,
        line: u64,
        (up, down): (&mut Pipe, &mut Pipe),
        speed: Speed,
        store: &StoreId,
        context: &mut Context,
    ) -> bool {
        let wall_clock = self.wall_clock(context.now);
        let Some(process) = &mut self.process else { return false };
        if matches!(process.sessions.get(&line), Some(Session::New)) {
            process.open(line, (up, down), speed, (store, wall_clock), context);
            // What it says to have it must keep. A commit that failed may be there all the same.
            if let Some(Session::Open { version, .. }) = process.sessions.get(&line) {
                self.kept.version.merge(version);
            }
        }
        let Some(Session::Open { session, is_appending, passes_over, author, expires, .. }) =
            process.sessions.get_mut(&line)
        else {
            let is_wanted = matches!(process.sessions.get(&line), Some(Session::New));
            return is_wanted && up.ended().is_none();
        };
        if *expires <= wall_clock {
            session.refuse(Refusal::new(RefusalCode::Unauthorized, "the token has expired"));
        }
        while !*is_appending && session.wants_frames() {
            match up.next_frame::<ClientFrame>() {
                Ok(Some(frame)) => session.handle_frame(frame),
                Ok(None) if up.ended().is_some() => session.handle_frame(ClientFrame::Bye),
                Ok(None) => break,
                Err(_) => session.refuse(Refusal::new(RefusalCode::Malformed, "no frame")),
            }
        }
        if !*is_appending && let Some(changes) = session.poll_append() {
            *is_appending = true;
            let (author, skips_lacking) = (author.clone(), *passes_over);
            process.group.push(Append { line, author, changes, skips_lacking });
            process.commit_at.get_or_insert(context.soon(20));
        }
        let room = process.room.get_or_insert_default();
        while !*is_appending && let Some(cursor) = session.wants_log() {
            match room.next_for(cursor) {
                Next::Nothing => break,
                Next::Changes { from, changes } => pass(session, from, changes),
                Next::OnDisk(from) => match process.log.read(store, from) {
                    Ok(page) if !page.changes.is_empty() => pass(session, from, page.changes),
                    _ => session.refuse(Refusal::STORAGE_FAILED),
                },
            }
        }
        while down.load() < WINDOW_BYTES
            && !(session.is_over() && *is_appending)
            && let Some(frame) = session.poll_transmit()
        {
            if let RelayFrame::Changes { patch } = &frame {
                let patch = Patch::decode(patch).expect("what is sent can be read");
                for last in patch.changes().map(|change| change.header().last()) {
                    let is_durable = self.kept.version.has(last);
                    assert!(is_durable, "the relay sends {last:?}, which is not on its disk");
                }
            }
            down.send(&frame, context.now, speed, &mut context.dice);
        }
        if session.is_over() && !*is_appending && !session.has_transmit() {
            down.finish(context.now, speed);
            process.leave(line);
            return up.ended() != Some(End::Lost);
        }
        true
    }

    /// Forgets a line.
    pub(super) fn drop_line(&mut self, line: u64) {
        if let Some(process) = &mut self.process {
            process.leave(line);
            process.sessions.remove(&line);
        }
    }

    fn wall_clock(&self, now: Duration) -> SystemTime {
        let minutes = Duration::from_secs(60 * self.clock.unsigned_abs());
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(BEGINNING) + now;
        if self.clock < 0 { time - minutes } else { time + minutes }
    }
}

impl RelayProcess {
    /// Takes the first frame of a line, once it has come, and opens the store or refuses.
    fn open(
        &mut self,
        line: u64,
        (up, down): (&mut Pipe, &mut Pipe),
        speed: Speed,
        (store, now): (&StoreId, SystemTime),
        context: &mut Context,
    ) {
        let Ok(Some(frame)) = up.next_frame::<ClientFrame>() else { return };
        match self.admit(frame, store, now) {
            Ok(session) => {
                up.set_frame_max(FRAME_BYTES_MAX);
                self.sessions.insert(line, session);
            }
            Err(refusal) => {
                let frame = refusal.frame();
                down.send(&frame, context.now, speed, &mut context.dice);
                down.finish(context.now, speed);
                self.sessions.insert(line, Session::Over);
            }
        }
    }

    fn admit(
        &mut self,
        frame: ClientFrame,
        store: &StoreId,
        now: SystemTime,
    ) -> Result<Session, Refusal> {
        let malformed = Refusal::new(RefusalCode::Malformed, "not what opens a store");
        let ClientFrame::OpenSeated { store: asked, token, version, seats, .. } = frame else {
            return Err(malformed);
        };
        let access = self.gate.check(&token, &asked, now);
        let access = access
            .map_err(|_| Refusal::new(RefusalCode::Unauthorized, "the token is not accepted"))?;
        let had = Version::decode(&version).map_err(|_| malformed)?;
        let author = Author {
            subject: access.subject.clone(),
            seats: seats.iter().filter_map(|seat| ReplicaId::new(*seat)).collect(),
            speaks_for_all: access.scope == Scope::Admin,
        };
        let read = || {
            let opening = self.log.opening(store, &had)?;
            let tips = self.log.tips(store, &seats)?;
            let foreign = self.log.foreign(store, &author)?;
            Ok::<_, StorageError>((opening, tips, foreign))
        };
        let (opening, tips, foreign) = read().map_err(|_| Refusal::STORAGE_FAILED)?;
        let version = Version::decode(&opening.version).expect("the log has a version");
        let Opening { version: told, position, end, had } = opening;
        // A room lives from its first member to its last.
        let room = self.room.get_or_insert_default();
        if room.end() < end {
            *room = Room::new(end);
        }
        let cursor = Cursor::new(had, position, end);
        let writable = access.may_write();
        let mut session = ServingSession::new(PROTOCOL_VERSION, told, Some(tips), writable, cursor);
        if writable {
            let foreign = foreign.into_iter();
            foreign.for_each(|(replica, next)| session.handle_passed_over(replica, next));
        }
        let left = access.expires.duration_since(now).unwrap_or_default();
        session.set_access(None, writable, left);
        Ok(Session::Open {
            session: Box::new(session),
            version,
            is_appending: false,
            passes_over: false,
            author,
            expires: access.expires,
        })
    }

    /// Tells a session what became of its append.
    fn settle(&mut self, line: u64, tell: impl FnOnce(&mut ServingSession<Cursor>, &mut bool)) {
        if let Some(Session::Open { session, is_appending, passes_over, .. }) =
            self.sessions.get_mut(&line)
        {
            *is_appending = false;
            tell(session, passes_over);
        }
    }

    fn leave(&mut self, line: u64) {
        if let Some(session) = self.sessions.get_mut(&line) {
            *session = Session::Over;
        }
        if !self.sessions.values().any(|session| matches!(session, Session::Open { .. })) {
            self.room = None;
        }
    }
}

/// Moves a client on over the part of the log at position `from`.
fn pass(session: &mut ServingSession<Cursor>, from: u64, changes: Vec<Arc<[u8]>>) {
    let lacking = session.cursor_mut().pass(from, changes);
    session.handle_log(lacking);
}

/// Everything in a relay's log.
pub(super) fn all_changes(log: &StoreLog, store: &StoreId) -> Vec<Arc<[u8]>> {
    let mut changes = Vec::new();
    let mut next = Some(0);
    while let Some(from) = next {
        let page = log.read(store, from).expect("the log can be read");
        changes.extend(page.changes);
        next = page.next;
    }
    changes
}
