//! A store's file that several processes use at a time: one owns it, and the others are its guests.
//!
//! Whoever opens the file first owns it, for redb locks it; the rest go through the owner's local
//! socket. When the owner goes, the next who needs the file takes it over, or finds the one that was
//! faster. What a guest has written is on the owner's disk; what the owner did not confirm is written
//! again, as the same bytes under the same ids, to whoever has the file then. So it is there once.
//!
//! Invariants:
//! - O1. A guest writes only under its own seat, and no other guest ever gets the ids that it has.
//! - O2. What was said to be there, and is not, or has another name, is not written again.
//! - O3. The seats, the snapshot and the order of the log are the owner's alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sds_engine::{BlobHash, Change, ChangeHeader, ReplicaId, Version};
use sds_store::DataStore;

use super::guest_blobs::{GuestBlobs, NamedDraft};
use super::guest_link::{GuestLink, LinkError};
use super::{Batch, LogPage, Persistence, RedbPersistence, StorageError};
use crate::blob_storage::BlobStorage;
use crate::guest_session::Wish;
use crate::intake;
use crate::limits::{OWNER_PATIENCE, OWNER_RETRY_MAX, OWNER_RETRY_MIN};
use crate::local_socket::LocalAddress;
use crate::local_store::LocalStore;
use crate::message::RefusalCode;
use crate::random;
use crate::seat::{Chain, Seat};
use crate::store_id::StoreId;

/// A store's file, as its owner or as a guest of the process that owns it.
#[derive(Debug)]
pub struct SharedFile {
    folder: PathBuf,
    path: PathBuf,
    store: StoreId,
    role: Role,
    /// Set for all but an owner who writes.
    blobs: Option<Arc<GuestBlobs>>,
}

#[derive(Debug)]
enum Role {
    Owner(RedbPersistence),
    Guest(Box<Guest>),
    /// Somebody who has read, and lets others have the file.
    Reader,
}

#[derive(Debug)]
struct Guest {
    /// None while the owner is not known.
    link: Option<Box<GuestLink>>,
    seat: Seat,
    /// The changes of the seat that an owner has said to be on disk (O2), unless this began anew since.
    own: Option<Chain>,
    /// The seats of the file when it was loaded.
    file_seats: Vec<Seat>,
    /// What the owner had, until it is read: a snapshot, and the changes after it.
    snapshot: Mutex<Option<Vec<u8>>>,
    loaded: Mutex<Vec<Arc<[u8]>>>,
    known: Version,
}

/// What somebody wants with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// To write, also if there is no file yet.
    Create,
    /// To write.
    Write,
    /// To read.
    Read,
}

/// What became of an attempt to get at a file.
enum Attempt {
    Owner(RedbPersistence),
    Guest(Box<GuestLink>),
}

impl SharedFile {
    /// Opens the file of `store` in `folder`, as its owner or as a guest.
    ///
    /// # Errors
    /// Any [`StorageError`]; [`StorageError::Locked`] if the owner does not answer for a minute.
    pub(crate) fn open(
        folder: &Path,
        store: &StoreId,
        intent: Intent,
    ) -> Result<Self, StorageError> {
        let path = folder.join(store.file_name());
        let wish = if intent == Intent::Read { Wish::Nothing } else { Wish::Any };
        let mut patience = Patience::new();
        loop {
            let attempt = attempt(folder, store, intent, &Version::new(), wish)?;
            let role = match attempt {
                Some(Attempt::Owner(file)) => Some(Role::Owner(file)),
                Some(Attempt::Guest(link)) => load(link, &path)?,
                None => None,
            };
            if let Some(role) = role {
                let is_owner = matches!(role, Role::Owner(_)) && intent != Intent::Read;
                let blobs = (!is_owner).then(|| GuestBlobs::new(folder, &path, store));
                let (folder, store) = (folder.to_owned(), store.clone());
                return Ok(Self { folder, path, store, role, blobs: blobs.map(Arc::new) });
            }
            patience.wait(&path)?;
        }
    }

    /// Writes what a guest brings: through the owner, or, if that has gone, through the next; or to the
    /// file itself if it is nobody's, which then is let go again.
    fn write_as_guest(&mut self, batch: &Batch) -> Result<(), StorageError> {
        let (Role::Guest(guest), Some(blobs)) = (&mut self.role, &self.blobs) else {
            return Err(StorageError::NotWritable { path: self.path.clone() });
        };
        let drafts = blobs.drafts_for(batch);
        let mut patience = Patience::new();
        let mut written = guest.written_of(batch);
        loop {
            if let Some(link) = &mut guest.link {
                let sent = blobs.hold_all(batch).and_then(|()| blobs.send(batch, &drafts));
                let outcome = sent.and_then(|()| link.store(&batch.changes));
                let stored = link.session.take_stored();
                guest.note_stored(batch, &stored);
                written.merge(&stored);
                match outcome {
                    Ok(()) => {
                        blobs.confirm(batch, &drafts);
                        return Ok(());
                    }
                    Err(LinkError::Refused(code)) => {
                        // It ended that session.
                        guest.link = None;
                        return Err(refused(&self.path, code, written));
                    }
                    // An owner that is about to end says so at each visit.
                    Err(LinkError::Gone) => {
                        guest.link = None;
                        patience.wait(&self.path)?;
                    }
                }
            }
            let (known, wish) = (&guest.known, Wish::Same(guest.seat.replica));
            match attempt(&self.folder, &self.store, Intent::Write, known, wish)? {
                Some(Attempt::Owner(file)) => {
                    let brought = (batch, &**blobs, &*drafts);
                    let stored = write_to_file(file, guest, brought, (&self.path, written))?;
                    guest.note_stored(batch, &stored);
                    blobs.confirm(batch, &drafts);
                    return Ok(());
                }
                Some(Attempt::Guest(link))
                    if guest.is_still_at(&link) && guest.may_bring(&link, batch) =>
                {
                    guest.link = Some(link);
                }
                Some(Attempt::Guest(_)) => return Err(lost(&self.path, written)),
                None => patience.wait(&self.path)?,
            }
        }
    }
}

impl Guest {
    /// Notes what was said to be on disk of a batch.
    fn note_stored(&mut self, batch: &Batch, stored: &Version) {
        let Some(own) = &mut self.own else { return };
        for (header, change) in of_seat(batch, self.seat.replica) {
            if header.start == own.counter && stored.has(header.last()) {
                own.extend(header.end(), change);
            }
        }
    }

    /// What was said to be on disk of a batch that is brought again.
    fn written_of(&self, batch: &Batch) -> Version {
        let mut written = Version::new();
        for (header, _) in of_seat(batch, self.seat.replica) {
            if self.own.is_some_and(|own| header.end() <= own.counter) {
                written.advance(header.replica, header.end());
            }
        }
        written
    }

    /// Whether an owner still has what this guest was told to be on disk (O2), as far as it says.
    fn is_still_at(&self, link: &GuestLink) -> bool {
        let Some(own) = self.own else { return true };
        let is_other = |(replica, chain): &(ReplicaId, Chain)| {
            *replica == self.seat.replica && chain.counter == own.counter && *chain != own
        };
        let session = &link.session;
        session.at_open().next(self.seat.replica) >= own.counter
            && !session.chains().iter().any(is_other)
    }

    /// Whether an owner has lent this guest its seat again, unless it began anew since. If it has lent another
    /// one, this one is given up, and what is made under it is nobody's to make again.
    fn has_seat(&self, link: &GuestLink) -> bool {
        let is_lent = |lent: Seat| lent.replica == self.seat.replica;
        self.own.is_none() || link.session.seat().is_some_and(is_lent)
    }

    /// Whether a batch may be brought to an owner: it has the seat, or nothing was made under that.
    fn may_bring(&self, link: &GuestLink, batch: &Batch) -> bool {
        self.has_seat(link) || of_seat(batch, self.seat.replica).next().is_none()
    }

    /// Like [`is_still_at`](Self::is_still_at), of the file itself.
    fn is_still_in(&self, store: &DataStore) -> bool {
        let seat = self.seat.replica;
        self.own
            .is_none_or(|own| store.version().next(seat) >= own.counter && own.is_of(store, seat))
    }
}

/// The changes of a batch that were made under a seat.
fn of_seat(
    batch: &Batch,
    seat: ReplicaId,
) -> impl Iterator<Item = (ChangeHeader, &Arc<[u8]>)> + '_ {
    let read = batch.changes.iter().filter_map(|it| Some((ChangeHeader::decode(it).ok()?, it)));
    read.filter(move |(header, _)| header.replica == seat)
}

impl Persistence for SharedFile {
    fn store(&self) -> &StoreId {
        &self.store
    }

    fn seats(&self) -> Vec<Seat> {
        match &self.role {
            Role::Owner(file) => file.seats(),
            Role::Guest(guest) => vec![guest.seat.clone()],
            Role::Reader => Vec::new(),
        }
    }

    fn owners_seats(&self) -> Vec<Seat> {
        match &self.role {
            Role::Guest(guest) => guest.file_seats.clone(),
            Role::Owner(_) | Role::Reader => Vec::new(),
        }
    }

    /// A guest's is what the owner had; it can be read once.
    fn read_snapshot(&self) -> Result<Option<Vec<u8>>, StorageError> {
        match &self.role {
            Role::Owner(file) => file.read_snapshot(),
            Role::Guest(guest) => {
                Ok(guest.snapshot.lock().unwrap_or_else(PoisonError::into_inner).take())
            }
            Role::Reader => Ok(None),
        }
    }

    /// A guest's is what the owner had; it can be read once.
    fn read_log(&self, from: u64) -> Result<LogPage, StorageError> {
        match &self.role {
            Role::Owner(file) => file.read_log(from),
            Role::Guest(guest) => {
                let mut loaded = guest.loaded.lock().unwrap_or_else(PoisonError::into_inner);
                Ok(LogPage { changes: std::mem::take(&mut loaded), next: None })
            }
            Role::Reader => Ok(LogPage::default()),
        }
    }

    fn blobs(&self) -> Arc<dyn BlobStorage> {
        match (&self.blobs, &self.role) {
            (Some(blobs), _) => Arc::clone(blobs) as Arc<dyn BlobStorage>,
            (None, Role::Owner(file)) => file.blobs(),
            (None, _) => Arc::new(GuestBlobs::new(&self.folder, &self.path, &self.store)),
        }
    }

    fn claim(&mut self) -> Result<(), StorageError> {
        match &mut self.role {
            Role::Owner(file) if self.blobs.is_none() => file.claim(),
            _ => Ok(()),
        }
    }

    fn retain_blobs(&mut self, referenced: &BTreeSet<BlobHash>) -> Result<(), StorageError> {
        match &mut self.role {
            Role::Owner(file) if self.blobs.is_none() => file.retain_blobs(referenced),
            // That is for whoever owns the file.
            _ => Ok(()),
        }
    }

    fn append(&mut self, batch: &Batch) -> Result<(), StorageError> {
        match &mut self.role {
            Role::Owner(file) => file.append(batch),
            // Only an owner can put a state in the place of changes (O3).
            _ if batch.snapshot.is_some() => {
                Err(StorageError::SeatLost { path: self.path.clone() })
            }
            Role::Guest(_) | Role::Reader => self.write_as_guest(batch),
        }
    }

    fn compact(&mut self) -> Result<(), StorageError> {
        match &mut self.role {
            Role::Owner(file) => file.compact(),
            Role::Guest(_) | Role::Reader => Ok(()),
        }
    }

    fn takes_snapshots(&self) -> bool {
        matches!(self.role, Role::Owner(_)) && self.blobs.is_none()
    }

    fn let_go(&mut self) {
        if self.blobs.is_some() {
            self.role = Role::Reader;
        }
    }

    fn reattach(&mut self) {
        let Role::Guest(guest) = &mut self.role else { return };
        // An owner that is still the same has lent the seat already.
        if guest.link.as_mut().is_some_and(|link| link.is_there()) {
            return;
        }
        // Until the former session has ended, the seat is not free.
        guest.link = None;
        let (address, wish) = (LocalAddress::of(&self.path), Wish::Same(guest.seat.replica));
        let link = GuestLink::open(&address, &self.store, &guest.known, wish);
        let link = link.ok().filter(|link| guest.is_still_at(link) && guest.has_seat(link));
        guest.link = link.map(Box::new);
    }

    fn reload(&mut self) -> Result<(), StorageError> {
        match &mut self.role {
            Role::Owner(file) => file.reload(),
            Role::Guest(_) | Role::Reader => Ok(()),
        }
    }

    fn begin_anew(&mut self) {
        match &mut self.role {
            Role::Guest(guest) => guest.own = None,
            Role::Owner(file) => file.begin_anew(),
            Role::Reader => {}
        }
    }

    fn followed_file(&self) -> Option<&Path> {
        matches!(self.role, Role::Guest(_)).then_some(&self.path)
    }

    fn owned_file(&self) -> Option<&Path> {
        self.takes_snapshots().then_some(&self.path)
    }
}

/// Tries once to get at the file; nothing if somebody has it and does not answer.
fn attempt(
    folder: &Path,
    store: &StoreId,
    intent: Intent,
    known: &Version,
    wish: Wish,
) -> Result<Option<Attempt>, StorageError> {
    let opened = match intent {
        Intent::Create => RedbPersistence::create_at_once(folder, store, random::replica_id()),
        Intent::Write | Intent::Read => RedbPersistence::open_at_once(folder, store, intent),
    };
    match opened {
        Ok(file) => return Ok(Some(Attempt::Owner(file))),
        Err(StorageError::Locked { .. }) => {}
        Err(error) => return Err(error),
    }
    let path = folder.join(store.file_name());
    match GuestLink::open(&LocalAddress::of(&path), store, known, wish) {
        Ok(link) => Ok(Some(Attempt::Guest(Box::new(link)))),
        Err(LinkError::Gone) => Ok(None),
        Err(LinkError::Refused(code)) => Err(refused(&path, code, Version::new())),
    }
}

/// Takes in what the owner has; nothing if it goes meanwhile.
fn load(mut link: Box<GuestLink>, path: &Path) -> Result<Option<Role>, StorageError> {
    match link.load() {
        Ok(()) => {}
        Err(LinkError::Gone) => return Ok(None),
        Err(LinkError::Refused(code)) => return Err(refused(path, code, Version::new())),
    }
    // Who only reads has none; it needs some id that nobody writes under.
    let seat = link.session.seat().unwrap_or_else(|| Seat::new(random::replica_id()));
    let snapshot = Mutex::new(link.session.take_snapshot());
    let loaded = Mutex::new(link.session.take_received());
    let known = link.session.at_open().clone();
    let file_seats = link.session.file_seats();
    let (link, own) = (Some(link), Some(seat.own));
    Ok(Some(Role::Guest(Box::new(Guest { link, seat, own, file_seats, snapshot, loaded, known }))))
}

/// Writes what a guest brings to the file, which nobody else has. What is there already stays as it is;
/// if its seat is somebody else's now, no more than that. Of the batch some may have been `written` before.
fn write_to_file(
    file: RedbPersistence,
    guest: &Guest,
    (batch, blobs, drafts): (&Batch, &GuestBlobs, &[NamedDraft]),
    (path, mut written): (&Path, Version),
) -> Result<Version, StorageError> {
    let seat = guest.seat.replica;
    let changes: Result<Vec<Change>, _> =
        batch.changes.iter().map(|change| Change::decode(change)).collect();
    let changes = changes.map_err(|_| refused(path, RefusalCode::Malformed, Version::new()))?;
    let mut local = LocalStore::load(file)?;
    if !guest.is_still_in(&local.store) {
        return Err(lost(path, written));
    }
    // Only now: opening a file removes what nothing refers to.
    blobs.write(batch, drafts, &local.blobs)?;
    let (store, seats) = (&mut local.store, &mut local.ledger.seats);
    let _lent = seats.lend(store, Some(seat), random::replica_id());
    let taken = intake::take_in(store, seats, Some(seat), &changes, random::replica_id());
    local.commit()?;
    match taken.refused {
        None => Ok(taken.version),
        Some(code) => {
            written.merge(&taken.version);
            Err(refused(path, code, written))
        }
    }
}

/// What a refusal means to a guest of whose batch this was written before.
pub(super) fn refused(path: &Path, code: RefusalCode, written: Version) -> StorageError {
    match code {
        // Somebody else has its ids, or what it built on is gone: only a fresh start can help.
        RefusalCode::Forked | RefusalCode::MissingDependency => lost(path, written),
        code => StorageError::OwnerRefuses { path: path.to_owned(), code },
    }
}

fn lost(path: &Path, written: Version) -> StorageError {
    let path = path.to_owned();
    if written.is_empty() {
        StorageError::SeatLost { path }
    } else {
        StorageError::SeatLostMidway { path, written }
    }
}

/// How long somebody waits for a file that another process has.
pub(super) struct Patience {
    deadline: Instant,
    ceiling: Duration,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self { deadline: Instant::now() + OWNER_PATIENCE, ceiling: OWNER_RETRY_MIN }
    }

    /// Waits a while, longer each time, and up to a bound.
    pub(super) fn wait(&mut self, path: &Path) -> Result<(), StorageError> {
        if Instant::now() >= self.deadline {
            return Err(StorageError::Locked { path: path.to_owned() });
        }
        let share = f64::from(random::jitter()) / f64::from(u32::MAX);
        sleep(self.ceiling.mul_f64(0.5 + 0.5 * share));
        self.ceiling = OWNER_RETRY_MAX.min(self.ceiling * 2);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
