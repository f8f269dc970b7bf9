//! Disks in memory that lose what was not synced, tear what was being written, and fill up.
//!
//! A real redb database runs on each, so its commits are put to the test too. A sync that fails leaves
//! the writes before it waiting for the next one.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::StorageBackend;
use sds_sync::database::{Medium, Place};

use crate::dice::Dice;

/// What reaches a disk as a whole or not at all, in bytes.
const SECTOR_BYTES: usize = 512;

/// A disk. Clones are the same one.
#[derive(Clone)]
pub(super) struct Disk(Arc<Mutex<State>>);

struct State {
    /// What reads see.
    live: Vec<u8>,
    /// What a power loss leaves for sure.
    durable: Vec<u8>,
    /// What it may leave, in the order of writing.
    pending: Vec<Pending>,
    /// Which opening may use the disk; those before it belong to processes that are gone.
    opening: u64,
    place: Place,
    fault: Option<(u32, Fault)>,
    has_lost_power: bool,
}

enum Pending {
    Write(usize, Vec<u8>),
    Length(usize),
}

/// What happens to a disk after so many further writes and syncs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// Everything stops.
    PowerLoss,
    /// So many of them fail.
    Full(u8),
}

impl Disk {
    /// A disk with these bytes.
    pub(super) fn new(image: Vec<u8>, place: Place) -> Self {
        let durable = image.clone();
        Self(Arc::new(Mutex::new(State {
            live: image,
            durable,
            pending: Vec::new(),
            opening: 0,
            place,
            fault: None,
            has_lost_power: false,
        })))
    }

    /// The medium that a process finds which opens the disk now.
    pub(super) fn medium(&self, name: &str) -> Box<dyn Medium> {
        let mut state = self.state();
        state.opening += 1;
        let opening = state.opening;
        Box::new(Mounted { disk: self.clone(), opening, name: PathBuf::from(name) })
    }

    /// The process that has the disk is gone; what it wrote is there.
    pub(super) fn kill(&self) {
        self.state().opening += 1;
    }

    /// The power is gone: of what was not synced, any sectors are there or not.
    pub(super) fn lose_power(&self, dice: &mut Dice) {
        let mut state = self.state();
        state.opening += 1;
        state.has_lost_power = false;
        state.fault = None;
        let fate = dice.roll(3);
        for pending in std::mem::take(&mut state.pending) {
            match pending {
                Pending::Length(length) if fate == 0 || dice.roll(2) == 0 => {
                    state.durable.resize(length, 0);
                }
                Pending::Write(offset, bytes) => {
                    for (index, sector) in bytes.chunks(SECTOR_BYTES).enumerate() {
                        if fate == 0 || (fate == 1 && dice.roll(2) == 0) {
                            put(&mut state.durable, offset + index * SECTOR_BYTES, sector);
                        }
                    }
                }
                Pending::Length(_) => {}
            }
        }
        state.live = state.durable.clone();
    }

    /// Makes something happen after `operations` further writes and syncs.
    pub(super) fn fail_after(&self, operations: u32, fault: Fault) {
        self.state().fault = Some((operations, fault));
    }

    /// Nothing fails from now on.
    pub(super) fn mend(&self) {
        self.state().fault = None;
    }

    /// Whether the power went while something was written.
    pub(super) fn has_lost_power(&self) -> bool {
        self.state().has_lost_power
    }

    /// What a backup finds.
    pub(super) fn image(&self) -> Vec<u8> {
        self.state().live.clone()
    }

    /// Puts a backup in the place of everything, maybe as a file somewhere else.
    pub(super) fn restore(&self, image: Vec<u8>, place: Place) {
        let mut state = self.state();
        state.opening += 1;
        state.pending.clear();
        state.durable.clone_from(&image);
        state.live = image;
        state.place = place;
    }

    /// Where the file on it is.
    pub(super) fn place(&self) -> Place {
        self.state().place
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("bytes", &self.state().live.len()).finish_non_exhaustive()
    }
}

impl State {
    fn check(&self, opening: u64) -> io::Result<()> {
        let is_dead = self.opening != opening || self.has_lost_power;
        if is_dead { Err(io::Error::other("the process is gone")) } else { Ok(()) }
    }

    /// Before each write and sync.
    fn operate(&mut self, opening: u64) -> io::Result<()> {
        self.check(opening)?;
        match &mut self.fault {
            Some((0, Fault::PowerLoss)) => {
                self.has_lost_power = true;
                self.fault = None;
                Err(io::Error::other("the power is gone"))
            }
            Some((0, Fault::Full(times))) => {
                *times = times.saturating_sub(1);
                if *times == 0 {
                    self.fault = None;
                }
                Err(io::ErrorKind::StorageFull.into())
            }
            Some((left, _)) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

/// A disk, as one process has it open.
#[derive(Clone, Debug)]
struct Mounted {
    disk: Disk,
    opening: u64,
    name: PathBuf,
}

impl Medium for Mounted {
    fn open(&self) -> Result<redb::Database, redb::Error> {
        Ok(redb::Database::builder().create_with_backend(self.clone())?)
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().live.len() as u64)
    }

    fn place(&self) -> io::Result<Place> {
        Ok(self.disk.place())
    }

    fn path(&self) -> &Path {
        &self.name
    }
}

impl StorageBackend for Mounted {
    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state();
        state.check(self.opening)?;
        Ok(state.live.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.disk.state();
        state.check(self.opening)?;
        let offset = position(offset)?;
        let bytes = state.live.get(offset..offset + out.len());
        out.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.opening)?;
        let len = position(len)?;
        state.live.resize(len, 0);
        state.pending.push(Pending::Length(len));
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        state.operate(self.opening)?;
        for pending in std::mem::take(&mut state.pending) {
            match pending {
                Pending::Length(length) => state.durable.resize(length, 0),
                Pending::Write(offset, bytes) => put(&mut state.durable, offset, &bytes),
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.disk.state();
        let offset = position(offset)?;
        let outcome = state.operate(self.opening);
        // What was being written when the power went may be there in part.
        if outcome.is_ok() || state.has_lost_power {
            state.pending.push(Pending::Write(offset, data.to_vec()));
        }
        outcome?;
        put(&mut state.live, offset, data);
        Ok(())
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> Disk {
        Disk::new(Vec::new(), Place([0; 32]))
    }

    fn mounted(disk: &Disk) -> Mounted {
        disk.kill();
        let opening = disk.state().opening;
        Mounted { disk: disk.clone(), opening, name: PathBuf::new() }
    }

    #[test]
    fn what_was_synced_survives_a_power_loss_and_the_rest_may_be_torn() {
        let mut fates = std::collections::BTreeSet::new();
        for seed in 0..100 {
            let disk = disk();
            let file = mounted(&disk);
            file.write(0, &[1; 4 * SECTOR_BYTES]).unwrap();
            file.sync_data().unwrap();
            file.write(0, &[2; 4 * SECTOR_BYTES]).unwrap();
            disk.lose_power(&mut Dice::new(seed));
            assert!(file.write(0, &[3]).is_err(), "the process is gone");
            let image = disk.image();
            assert_eq!(image.len(), 4 * SECTOR_BYTES);
            let sectors: Vec<u8> = image.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect();
            assert!(
                image.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|it| *it == sector[0]))
            );
            assert!(sectors.iter().all(|sector| [1, 2].contains(sector)));
            fates.insert(sectors);
        }
        assert!(fates.contains(&vec![1; 4]) && fates.contains(&vec![2; 4]) && fates.len() > 4);
    }

    #[test]
    fn faults_come_when_they_are_due_and_pass() {
        let disk = disk();
        let file = mounted(&disk);
        disk.fail_after(1, Fault::Full(2));
        let outcomes: Vec<bool> = (0..4).map(|_| file.write(0, &[1]).is_ok()).collect();
        assert_eq!(outcomes, [true, false, false, true]);
        disk.fail_after(0, Fault::PowerLoss);
        assert!(file.sync_data().is_err() && disk.has_lost_power());
        assert!(file.len().is_err(), "nothing works any more");
    }
}
