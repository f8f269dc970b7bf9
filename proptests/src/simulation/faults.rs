//! What each step of a story does to the world.

use std::time::Duration;

use sds_server::Scope;
use sds_sync::RefusalCode;

use super::disk::Fault;
use super::line::Speed;
use super::story::DEVICES_MAX;
use super::{Copies, ENTRIES_MAX, SimStep, USERS, World, place};

/// What a step names.
#[derive(Clone, Copy, Debug)]
enum Node {
    Device(usize),
    Relay,
}

impl World {
    /// Takes a step.
    pub(super) fn take(&mut self, step: &SimStep) {
        self.context.note(format_args!("> {step:?}"));
        match step {
            SimStep::Edit { at, edit } => {
                let number = self.device(*at);
                let (device, context) = (&mut self.devices[number], &mut self.context);
                device.edit(context, |store| {
                    let makes_entries = edit.kind % 32 < 8;
                    let is_full = store.entry_count() >= ENTRIES_MAX && makes_entries;
                    if is_full { Ok(()) } else { edit.make(store) }
                });
            }
            SimStep::Note { at } => {
                let number = self.device(*at);
                self.devices[number].add_note(self.notes, &mut self.context);
                self.notes += 1;
            }
            SimStep::Wait { millis } => {
                let millis = Duration::from_millis(u64::from(*millis));
                self.pass(self.context.now + millis);
            }
            SimStep::Quiet => self.come_to_rest(),
            SimStep::Hand { from, to } => self.hand(self.device(*from), self.device(*to)),
            SimStep::Arrive { which, to } => self.deliver(*which, self.device(*to)),
            SimStep::SetClock { minutes } => self.relay.clock += i64::from(*minutes),
            SimStep::Cut { .. }
            | SimStep::Offline { .. }
            | SimStep::Online { .. }
            | SimStep::Slow { .. }
            | SimStep::Grant { .. } => self.disturb_line(step),
            SimStep::Backup { .. } | SimStep::Restore { .. } | SimStep::Clone { .. } => {
                self.copy_files(step);
            }
            SimStep::Crash { .. }
            | SimStep::CrashWriting { .. }
            | SimStep::FillDisk { .. }
            | SimStep::Stop { .. }
            | SimStep::Start { .. } => self.disturb_node(step),
        }
        self.attend();
    }

    pub(super) fn crash_device(&mut self, number: usize, is_power_loss: bool) {
        if let Some(line) = self.devices[number].crash(is_power_loss, &mut self.context) {
            self.cut_line(line);
        }
    }

    pub(super) fn crash_relay(&mut self, is_power_loss: bool) {
        self.relay.crash(is_power_loss, &mut self.context);
        self.cut_lines(|_| true);
    }

    fn device(&self, number: u8) -> usize {
        usize::from(number) % self.devices.len()
    }

    fn node(&self, number: u8) -> Node {
        match usize::from(number) % (self.devices.len() + 1) {
            number if number < self.devices.len() => Node::Device(number),
            _ => Node::Relay,
        }
    }

    fn disturb_node(&mut self, step: &SimStep) {
        match *step {
            SimStep::Crash { node, is_power_loss } => match self.node(node) {
                Node::Device(number) => self.crash_device(number, is_power_loss),
                Node::Relay => self.crash_relay(is_power_loss),
            },
            SimStep::CrashWriting { node, operations } => {
                self.disk_of(node).fail_after(operations.into(), Fault::PowerLoss);
            }
            SimStep::FillDisk { node, operations, times } => {
                self.disk_of(node).fail_after(operations.into(), Fault::Full(times));
            }
            SimStep::Stop { node } => match self.node(node) {
                Node::Device(number) => self.stop_device(number),
                // A goodbye makes no difference to what has to come of it.
                Node::Relay => {
                    self.relay.commit(&self.id, &mut self.context);
                    self.crash_relay(false);
                    self.relay.restart_at = None;
                }
            },
            SimStep::Start { node } => {
                let restart_at = match self.node(node) {
                    Node::Device(number) if self.devices[number].process.is_none() => {
                        &mut self.devices[number].restart_at
                    }
                    Node::Relay if self.relay.process.is_none() => &mut self.relay.restart_at,
                    _ => return,
                };
                *restart_at = Some(self.context.now);
            }
            _ => {}
        }
    }

    fn stop_device(&mut self, number: usize) {
        let Self { context, devices, lines, .. } = self;
        let device = &mut devices[number];
        if let Some(line) = device.line().and_then(|line| lines.get_mut(&line)) {
            device.say_goodbye(&mut line.up, context);
        }
        device.stop(context);
    }

    fn disk_of(&self, node: u8) -> &super::Disk {
        match self.node(node) {
            Node::Device(number) => &self.devices[number].disk,
            Node::Relay => &self.relay.disk,
        }
    }

    fn disturb_line(&mut self, step: &SimStep) {
        let now = self.context.now;
        match *step {
            SimStep::Cut { at } => {
                let number = self.device(at);
                self.cut_lines(|line| line.device == number);
            }
            SimStep::Offline { at } => {
                let number = self.device(at);
                self.devices[number].offline_since.get_or_insert(now);
            }
            SimStep::Online { at } => {
                let number = self.device(at);
                let device = &mut self.devices[number];
                let token = self.relay.token(&self.id, (device.user, Scope::Write), now);
                device.offline_since = None;
                // Whoever comes back has a look at what is wrong.
                if let Some(process) = &mut device.process
                    && process.refused == Some(RefusalCode::Unauthorized)
                {
                    process.refused = None;
                    process.connect_at = Some(now);
                    device.token = token;
                }
            }
            SimStep::Slow { at, rate, delay } => {
                let number = self.device(at);
                let delay = Duration::from_millis(8 * u64::from(delay));
                let speed = Speed { rate: u32::from(rate / 8) + 1, delay };
                self.devices[number].speed = speed;
                let lines = self.lines.values_mut().filter(|line| line.device == number);
                lines.for_each(|line| line.speed = speed);
            }
            SimStep::Grant { at, user, may_write } => {
                let number = self.device(at);
                let device = &mut self.devices[number];
                if !device.is_shared {
                    device.has_changed_hands |= device.user != user % USERS;
                    device.user = user % USERS;
                }
                let scope = if may_write { Scope::Write } else { Scope::Read };
                device.token = self.relay.token(&self.id, (device.user, scope), now);
            }
            _ => {}
        }
    }

    fn copy_files(&mut self, step: &SimStep) {
        match *step {
            SimStep::Backup { node } => match self.node(node) {
                Node::Device(number) => {
                    let device = &mut self.devices[number];
                    let mut claims = device.claims.clone();
                    claims.notes.truncate(claims.notes_on_disk);
                    device.backup = Some((device.disk.image(), claims));
                }
                Node::Relay => {
                    self.relay.backup = Some((self.relay.disk.image(), self.relay.kept.clone()));
                }
            },
            SimStep::Restore { node } => match self.node_with_backup(node) {
                Some(Node::Device(number)) => self.restore_device(number),
                Some(Node::Relay) => self.restore_relay(),
                None => {}
            },
            SimStep::Clone { at } => self.clone_device(self.device(at)),
            _ => {}
        }
    }

    fn node_with_backup(&self, number: u8) -> Option<Node> {
        let has_backup = |(_, device): &(usize, &super::Device)| device.backup.is_some();
        let devices = self.devices.iter().enumerate().filter(has_backup);
        let mut nodes: Vec<Node> = devices.map(|(number, _)| Node::Device(number)).collect();
        nodes.extend(self.relay.backup.is_some().then_some(Node::Relay));
        nodes.get(usize::from(number).checked_rem(nodes.len())?).copied()
    }

    fn restore_device(&mut self, number: usize) {
        let Some((image, claims)) = self.devices[number].backup.clone() else { return };
        self.crash_device(number, false);
        let place = match self.copies {
            Copies::InPlace => self.devices[number].disk.place(),
            Copies::Elsewhere => place(&mut self.context),
        };
        let device = &mut self.devices[number];
        device.disk.restore(image, place);
        device.claims = claims;
        self.context.note(format_args!("{} is restored", device.name));
    }

    /// What was only here is gone.
    fn restore_relay(&mut self) {
        if self.copies == Copies::InPlace {
            return;
        }
        let Some((image, kept)) = self.relay.backup.clone() else { return };
        self.crash_relay(false);
        // Nothing that was said before arrives any more.
        for number in 0..self.devices.len() {
            if let Some(line) = self.devices[number].line() {
                self.lines.remove(&line);
                self.lose(number, sds_sync::LinkError::Ended);
            }
        }
        self.lines.clear();
        self.relay.restore(image, kept);
        self.context.note(format_args!("relay is restored"));
    }

    fn clone_device(&mut self, number: usize) {
        if self.devices.len() >= DEVICES_MAX {
            return;
        }
        let device = &mut self.devices[number];
        device.is_shared = true;
        let (user, has_changed_hands) = (device.user, device.has_changed_hands);
        let place = match self.copies {
            Copies::InPlace => device.disk.place(),
            Copies::Elsewhere => place(&mut self.context),
        };
        let mut claims = device.claims.clone();
        claims.notes.truncate(claims.notes_on_disk);
        let disk = super::Disk::new(device.disk.image(), place);
        let mut context = std::mem::replace(&mut self.context, super::Context::new(0));
        self.add_device(disk, claims, user, &mut context);
        if let Some(device) = self.devices.last_mut() {
            (device.is_shared, device.has_changed_hands) = (true, has_changed_hands);
        }
        self.context = context;
    }

    /// Somebody writes a patch of what is on disk, for somebody else.
    fn hand(&mut self, from: usize, to: usize) {
        if self.copies == Copies::InPlace || self.devices[from].has_changed_hands {
            return;
        }
        self.devices[from].is_shared = true;
        let known = self.devices[to].process.as_ref();
        let known = known.map(|process| process.store.store().version().clone());
        let (device, context) = (&mut self.devices[from], &mut self.context);
        self.patches.extend(device.patch_for(&known.unwrap_or_default(), context));
    }

    fn deliver(&mut self, which: u8, to: usize) {
        let Some(which) = usize::from(which).checked_rem(self.patches.len()) else { return };
        let (device, patch) = (&mut self.devices[to], &self.patches[which]);
        device.edit(&mut self.context, |store| {
            let taken = store.apply_remote_patch(patch);
            taken.expect("a patch can be taken in at any time");
            Ok(())
        });
    }
}
