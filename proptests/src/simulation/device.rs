//! A device: its disk, and the process on it while there is one. The process is what a sync engine is,
//! with the simulation in the place of its threads.

use std::time::Duration;

use sds_engine::{Change, Field, Op, Patch, Value, Version};
use sds_store::{DataStore, EntryId, StoreError};
use sds_sync::transport::StreamError;
use sds_sync::{
    ClientEvent, ClientFrame, Handover, Link, LinkError, NextAttempt, RefusalCode, RelayFrame,
    StorageError, StoreId, SyncError, TakenIn, Token,
};

use super::context::Context;
use super::disk::Disk;
use super::line::{End, Pipe, Speed};
use super::oracle::{assert_rules, assert_sound};
use super::process::{Linked, Process};
use super::{WINDOW_BYTES, is_disk_at_fault};

/// The text that begins the names of notes.
pub(super) const NOTE: &str = "note ";

/// A device.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    pub(super) restart_at: Option<Duration>,
    pub(super) offline_since: Option<Duration>,
    pub(super) speed: Speed,
    /// Whose device it is, for the relay.
    pub(super) user: u8,
    /// Whether it was another user's before: then ids of its file may belong to that one.
    pub(super) has_changed_hands: bool,
    /// Whether others may have what it has made and not sent. Such a device does not change hands: what
    /// would be made again under another name then is still there under its own.
    pub(super) is_shared: bool,
    pub(super) token: Token,
    pub(super) claims: Claims,
    pub(super) backup: Option<(Vec<u8>, Claims)>,
    /// What the store had when its rules were last checked.
    pub(super) checked: Version,
}

/// What a device has said to be on its disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims {
    pub(super) version: Version,
    /// The names of notes made here; so many of them are on disk.
    pub(super) notes: Vec<String>,
    pub(super) notes_on_disk: usize,
}

impl Device {
    /// Begins a process; tries again later if the disk does not let it. A relay has had `ever_stored` at
    /// one time or other.
    pub(super) fn start(&mut self, id: &StoreId, ever_stored: &Version, context: &mut Context) {
        self.restart_at = None;
        match Process::open(self.disk.medium(&self.name), id, ever_stored, context) {
            Ok(process) => {
                let store = process.store.store();
                assert_sound(store, &self.name);
                let version = store.version();
                let claimed = &self.claims.version;
                assert!(
                    version.covers(claimed),
                    "{}: {claimed:?} was on disk, {version:?} is",
                    self.name
                );
                context.note(format_args!("{} starts as {:?}", self.name, store.replica_id()));
                // What was found there will be sent, so it must stay.
                self.claims.version.merge(&process.persisted);
                self.process = Some(process);
            }
            Err(error) => {
                context.note(format_args!("{} cannot start: {error}", self.name));
                self.handle_disk_failure(&error, context);
                self.restart_at = Some(context.soon(2_000));
            }
        }
    }

    /// Panics unless the store keeps its rules, if it has changed.
    pub(super) fn assert_rules(&mut self) {
        let Some(process) = &self.process else { return };
        let store = process.store.store();
        if *store.version() != self.checked {
            assert_rules(store, &self.name);
            self.checked = store.version().clone();
        }
    }

    /// Ends the process as it is. Returns its line.
    pub(super) fn crash(&mut self, is_power_loss: bool, context: &mut Context) -> Option<u64> {
        if is_power_loss {
            self.disk.lose_power(&mut context.dice);
        } else {
            self.disk.kill();
        }
        self.claims.notes.truncate(self.claims.notes_on_disk);
        self.restart_at = Some(context.soon(3_000));
        let process = self.process.take()?;
        context.note(format_args!("{} crashes (power loss: {is_power_loss})", self.name));
        process.link.map(|linked| linked.line)
    }

    /// Ends the process in good order.
    pub(super) fn stop(&mut self, context: &mut Context) {
        if let Some(process) = &mut self.process
            && let Some(handover) = process.store.checkpoint()
        {
            process.hand_over(handover, context);
        }
        // What cannot be written is lost, and was never said to be on disk.
        drop(self.commit(context));
        context.note(format_args!("{} stops", self.name));
        self.process = None;
        // The file may have failed before it could be closed.
        self.disk.kill();
        self.claims.notes.truncate(self.claims.notes_on_disk);
        self.restart_at = None;
    }

    /// Edits the store, if there is a process.
    pub(super) fn edit(
        &mut self,
        context: &mut Context,
        work: impl FnOnce(&mut DataStore) -> Result<(), StoreError>,
    ) {
        let Some(process) = &mut self.process else { return };
        let edited = process.store.edit(work);
        let (outcome, captured) = edited.expect("no change is gone");
        let refused = outcome.err().map_or("done", |error| error.code());
        context.note(format_args!("{} edits: {refused}", self.name));
        process.hand_over(captured.handover, context);
    }

    /// Makes a note of this name.
    pub(super) fn add_note(&mut self, number: usize, context: &mut Context) {
        if self.process.is_none() {
            return;
        }
        let name = format!("{NOTE}{number}");
        context.note(format_args!("{} makes {name}", self.name));
        self.edit(context, |store| {
            store.transact(|store| {
                let item = store.new_item_at(None, EntryId::ROOT, None)?;
                store.set_label(item, &name)
            })
        });
        self.claims.notes.push(name);
    }

    /// Writes what waits; says whether it is on disk.
    pub(super) fn commit(&mut self, context: &mut Context) -> Result<(), StorageError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.commit_at = None;
        match process.queue.commit(&mut *process.file) {
            Ok(committed) => {
                if let Some(committed) = committed {
                    process.persisted.merge(&committed.upto);
                    process.has_saved = true;
                    self.claims.version.merge(&process.persisted);
                    self.claims.notes_on_disk = self.claims.notes.len();
                    context.note(format_args!("{} has written", self.name));
                }
                Ok(())
            }
            Err(error) => {
                context.note(format_args!("{} cannot write: {error}", self.name));
                self.handle_disk_failure(&error, context);
                Err(error)
            }
        }
    }

    /// Tells the connection what has reached the disk.
    fn handle_saved(&mut self) -> Result<(), LinkError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Process { store, persisted, link, has_saved, .. } = process;
        *has_saved = false;
        link.as_mut().map_or(Ok(()), |linked| linked.link.handle_saved(store, persisted))
    }

    /// Opens a connection over a line of this number; returns its two directions.
    pub(super) fn connect(&mut self, line: u64, context: &Context) {
        let Some(process) = &mut self.process else { return };
        process.connect_at = None;
        let link = Link::new(&process.store, &self.token, context.instant());
        process.link = Some(Linked { line, link });
    }

    /// Takes in what has arrived, and sends what there is room for.
    pub(super) fn attend(
        &mut self,
        up: &mut Pipe,
        down: &mut Pipe,
        stored: &Version,
        context: &mut Context,
    ) -> Result<(), LinkError> {
        if self.process.as_ref().is_some_and(|process| process.has_saved) {
            self.handle_saved()?;
        }
        loop {
            let frame = down.next_frame::<RelayFrame>().map_err(StreamError::from)?;
            let Some(frame) = frame else { break };
            let Some(linked) = self.process.as_mut().and_then(|process| process.link.as_mut())
            else {
                return Ok(());
            };
            linked.link.handle_frame(frame)?;
            while let Some(event) = self.poll_event() {
                self.handle_event(event, stored, context)?;
            }
        }
        match down.ended() {
            Some(End::Finished) => return Err(LinkError::Ended),
            Some(End::Lost) => return Err(StreamError::CutOff.into()),
            None => {}
        }
        let Some(linked) = self.process.as_mut().and_then(|process| process.link.as_mut()) else {
            return Ok(());
        };
        if linked.link.poll_timeout().is_some_and(|at| context.time_of(at) <= context.now) {
            linked.link.handle_timeout(context.instant())?;
        }
        let mut frames = Vec::new();
        while up.load() < WINDOW_BYTES
            && let Some(frame) = linked.link.poll_transmit()
        {
            up.send(&frame, context.now, self.speed, &mut context.dice);
            frames.push(frame);
        }
        if linked.link.is_syncing() {
            linked.link.session().assert_invariants();
        }
        frames.iter().for_each(|frame| self.assert_durable(frame));
        Ok(())
    }

    /// Acts on the end of a connection. Returns its line.
    pub(super) fn handle_loss(&mut self, error: LinkError, context: &mut Context) -> Option<u64> {
        let process = self.process.as_mut()?;
        let linked = process.link.take();
        context.note(format_args!("{} loses its connection: {error}", self.name));
        let was_open = linked.as_ref().is_some_and(|linked| linked.link.is_syncing());
        let random = u32::try_from(context.dice.roll(1 << 32)).unwrap_or_default();
        match process.reconnect.after(error, was_open, random) {
            NextAttempt::Retry(delay) => process.connect_at = Some(context.now + delay),
            NextAttempt::Refused { code, .. } => process.refused = Some(code),
            NextAttempt::Stopped => process.refused = Some(RefusalCode::Unexpected),
        }
        linked.map(|linked| linked.line)
    }

    /// A patch of what is on disk and `version` lacks, as somebody would hand it over.
    pub(super) fn patch_for(
        &mut self,
        version: &Version,
        context: &mut Context,
    ) -> Option<Vec<u8>> {
        self.commit(context).ok()?;
        let process = self.process.as_ref()?;
        Some(process.store.store().export_patch(version))
    }

    pub(super) fn line(&self) -> Option<u64> {
        self.process.as_ref()?.link.as_ref().map(|linked| linked.line)
    }

    fn poll_event(&mut self) -> Option<ClientEvent> {
        self.process.as_mut()?.link.as_mut()?.link.poll_event()
    }

    fn handle_event(
        &mut self,
        event: ClientEvent,
        stored: &Version,
        context: &mut Context,
    ) -> Result<(), LinkError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let Process { store, persisted, link: Some(linked), .. } = process else { return Ok(()) };
        match event {
            ClientEvent::Opened => {
                let former = store.store().replica_id();
                let handover = linked.link.handle_opened(store, context.fresh())?;
                let (purpose, replica) = (linked.link.purpose(), store.store().replica_id());
                if replica != former {
                    context.note(format_args!("{} took a new seat: {replica:?}", self.name));
                }
                context.note(format_args!("{} is connected: {purpose:?}", self.name));
                process.hand_over(handover, context);
                self.handle_saved()
            }
            ClientEvent::Changes(patch) => {
                let (purpose, at_open) = (linked.link.purpose(), linked.link.session().at_open());
                let mut taken_in = store.take_in(purpose, at_open, &patch, context.fresh())?;
                self.handle_taken_in(&mut taken_in, context)?;
                let linked = self.process.as_mut().and_then(|process| process.link.as_mut());
                linked.map_or(Ok(()), |linked| linked.link.handle_taken_in(&taken_in, &patch))
            }
            ClientEvent::Stored => {
                let said = linked.link.session().stored();
                assert!(stored.covers(said), "{said:?} was called stored, {stored:?} is");
                store.note_stored(said);
                if !linked.link.is_holding_back() {
                    return Ok(());
                }
                linked.link.handle_saved(store, persisted)
            }
            ClientEvent::Access { .. } => {
                let given_up = linked.link.handle_access(store, context.fresh())?;
                self.handle_given_up(given_up, context)?;
                self.handle_saved()
            }
            ClientEvent::NotYours { replica, next } => {
                let foreign = (replica, next);
                context.note(format_args!("{} waits for others: {replica:?}", self.name));
                let given_up = linked.link.handle_not_yours(store, foreign, context.fresh())?;
                self.handle_given_up(given_up, context)
            }
            ClientEvent::Refused { code, message, after } => {
                Err(LinkError::Refused { code, message, after })
            }
        }
    }

    fn handle_taken_in(
        &mut self,
        taken_in: &mut TakenIn,
        context: &mut Context,
    ) -> Result<(), LinkError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        match taken_in {
            TakenIn::Changes { captured, .. } => {
                context.note(format_args!("{} takes a patch in", self.name));
                process.hand_over(std::mem::take(&mut captured.handover), context);
            }
            TakenIn::Inquiring => {}
            TakenIn::Settled { handover } => {
                context.note(format_args!("{} has settled its seats", self.name));
                let handover = std::mem::take(handover);
                self.write_settled(handover, context)?;
            }
        }
        Ok(())
    }

    /// Goes on with another connection if seats were given up.
    fn handle_given_up(
        &mut self,
        given_up: Option<Handover>,
        context: &mut Context,
    ) -> Result<(), LinkError> {
        let Some(handover) = given_up else { return Ok(()) };
        context.note(format_args!("{} gives seats up that are not its own", self.name));
        self.write_settled(handover, context)?;
        Err(LinkError::NotYours)
    }

    /// Writes what a store has of which some was made again.
    fn write_settled(
        &mut self,
        handover: Handover,
        context: &mut Context,
    ) -> Result<(), SyncError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        process.persisted = handover.still_there(&process.persisted);
        self.claims.version = handover.still_there(&self.claims.version);
        process.hand_over(handover, context);
        self.commit(context).map_err(SyncError::Storage)
    }

    /// Says goodbye over its line, behind what was handed over before.
    pub(super) fn say_goodbye(&mut self, up: &mut Pipe, context: &mut Context) {
        let linked = self.process.as_mut().and_then(|process| process.link.as_mut());
        let Some(linked) = linked else { return };
        linked.link.handle_close();
        while let Some(frame) = linked.link.poll_transmit() {
            up.send(&frame, context.now, self.speed, &mut context.dice);
        }
        up.finish(context.now, self.speed);
    }

    /// Nothing is sent that is not on disk.
    fn assert_durable(&self, frame: &ClientFrame) {
        let ClientFrame::Changes { patch } = frame else { return };
        let patch = Patch::decode(patch).expect("what is sent can be read");
        for change in patch.changes() {
            let last = change.header().last();
            let is_durable = self.claims.version.has(last);
            assert!(is_durable, "{} sends {last:?}, which is not on its disk", self.name);
        }
    }

    /// The only thing that may be wrong with a disk is what was made to go wrong.
    fn handle_disk_failure(&self, error: &StorageError, context: &mut Context) {
        assert!(is_disk_at_fault(error), "{}: {error}", self.name);
        if self.disk.has_lost_power() {
            context.note(format_args!("{} has lost power", self.name));
        }
    }
}

/// The names of the notes that a change makes.
pub(super) fn notes_of(change: &[u8]) -> Vec<String> {
    let change = Change::decode(change).expect("only changes are kept");
    let name = |op: &Op| match op {
        Op::Set { field: Field::Label, value: Value::Text(text), .. } if text.starts_with(NOTE) => {
            Some(text.clone())
        }
        _ => None,
    };
    change.ops().iter().filter_map(name).collect()
}
