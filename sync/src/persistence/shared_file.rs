//! A store's file that several processes use at a time: one owns it, and the others are its guests.
//!
//! Whoever opens the file first owns it, for redb locks it; the rest go through the owner's local
//! socket. When the owner goes, the next who needs the file takes it over, or finds the one that was
//! faster. What a guest has written is on the owner's disk; what the owner did not confirm is written
//! again, as the same bytes under the same ids, to whoever has the file then. So it is there once.
//!
//! Invariants:
//! - O1. A guest writes only under its own seat, and no other guest ever gets the ids that it has.
//! - O2. The seats, the snapshot and the order of the log are the owner's alone.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use sds_engine::{BlobHash, Change, ReplicaId, Version};

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
use crate::seat::Seat;
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
        loop {
            if let Some(link) = &mut guest.link {
                let sent = blobs.hold_all(batch).and_then(|()| blobs.send(batch, &drafts));
                match sent.and_then(|()| link.store(&batch.changes)) {
                    Ok(()) => {
                        blobs.confirm(batch, &drafts);
                        return Ok(());
                    }
                    Err(LinkError::Refused(code)) => {
                        let has_some = link.session.has_stored_some();
                        // It ended that session.
                        guest.link = None;
                        return Err(refused(&self.path, code, has_some));
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
                    write_to_file(file, guest.seat.replica, brought, &self.path)?;
                    blobs.confirm(batch, &drafts);
                    return Ok(());
                }
                Some(Attempt::Guest(link)) => guest.link = Some(link),
                None => patience.wait(&self.path)?,
            }
        }
    }
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
            // Only an owner can put a state in the place of changes (O2).
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
        let (address, wish) = (LocalAddress::of(&self.path), Wish::Same(guest.seat.replica));
        let link = GuestLink::open(&address, &self.store, &guest.known, wish);
        guest.link = link.ok().map(Box::new);
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
        Intent::Write | Intent::Read => RedbPersistence::open_at_once(folder, store),
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
        Err(LinkError::Refused(code)) => Err(refused(&path, code, false)),
    }
}

/// Takes in what the owner has; nothing if it goes meanwhile.
fn load(mut link: Box<GuestLink>, path: &Path) -> Result<Option<Role>, StorageError> {
    match link.load() {
        Ok(()) => {}
        Err(LinkError::Gone) => return Ok(None),
        Err(LinkError::Refused(code)) => return Err(refused(path, code, false)),
    }
    // Who only reads has none; it needs some id that nobody writes under.
    let seat = link.session.seat().unwrap_or_else(|| Seat::new(random::replica_id()));
    let snapshot = Mutex::new(link.session.take_snapshot());
    let loaded = Mutex::new(link.session.take_received());
    let known = link.session.at_open().clone();
    let file_seats = link.session.file_seats();
    let link = Some(link);
    Ok(Some(Role::Guest(Box::new(Guest { link, seat, file_seats, snapshot, loaded, known }))))
}

/// Writes what a guest brings to the file, which nobody else has. What is there already stays as it is;
/// if its seat is somebody else's now, no more than that.
fn write_to_file(
    file: RedbPersistence,
    seat: ReplicaId,
    (batch, blobs, drafts): (&Batch, &GuestBlobs, &[NamedDraft]),
    path: &Path,
) -> Result<(), StorageError> {
    let changes: Result<Vec<Change>, _> =
        batch.changes.iter().map(|change| Change::decode(change)).collect();
    let changes = changes.map_err(|_| refused(path, RefusalCode::Malformed, false))?;
    let mut local = LocalStore::load(file)?;
    // Only now: opening a file removes what nothing refers to.
    blobs.write(batch, drafts, &local.blobs)?;
    let (store, seats) = (&mut local.store, &mut local.ledger.seats);
    let _lent = seats.lend(store, Some(seat), random::replica_id());
    let taken = intake::take_in(store, seats, Some(seat), &changes, random::replica_id());
    local.commit()?;
    match taken.refused {
        None => Ok(()),
        Some(code) => Err(refused(path, code, !taken.version.is_empty())),
    }
}

pub(super) fn refused(path: &Path, code: RefusalCode, has_written: bool) -> StorageError {
    let path = path.to_owned();
    match code {
        // Somebody else has its ids, or what it built on is gone: only a fresh start can help.
        RefusalCode::Forked | RefusalCode::MissingDependency if has_written => {
            StorageError::SeatLostMidway { path }
        }
        RefusalCode::Forked | RefusalCode::MissingDependency => StorageError::SeatLost { path },
        code => StorageError::OwnerRefuses { path, code },
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
