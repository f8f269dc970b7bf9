//! The tables of a relay's file, and the few rows that everything asks for.

use std::time::{SystemTime, UNIX_EPOCH};

use redb::{
    ReadTransaction, ReadableTable, ReadableTableMetadata, TableDefinition, WriteTransaction,
};
use sds_engine::ReplicaId;
use sds_sync::StoreId;
use sds_sync::blob_rows::{self, TableVisitor};
use sds_sync::database::Failure;

use crate::limits::Limit;

/// The format that this program writes.
pub(crate) const FORMAT: u16 = 4;

pub(crate) const META: TableDefinition<'static, &str, &[u8]> = TableDefinition::new("meta");
pub(crate) const STORES: TableDefinition<'static, &str, u64> = TableDefinition::new("stores");
pub(crate) const STATES: TableDefinition<'static, u64, StateRow> = TableDefinition::new("states");
/// Store number, position of the page's first change, number of the part.
pub(crate) const PAGES: TableDefinition<'static, (u64, u64, u32), &[u8]> =
    TableDefinition::new("pages");
/// Store number, replica, its first counter in the page; the page's position.
pub(crate) const STARTS: TableDefinition<'static, (u64, u64, u64), u64> =
    TableDefinition::new("starts");
pub(crate) const VERSIONS: TableDefinition<'static, (u64, u64), (u64, &[u8; 32])> =
    TableDefinition::new("versions");
pub(crate) const OWNERS: TableDefinition<'static, (u64, u64), &str> =
    TableDefinition::new("owners");

/// Stores that were deleted, and when, in milliseconds since 1970.
pub(crate) const DELETED: TableDefinition<'static, &str, u64> = TableDefinition::new("deleted");
/// The numbers of stores of which there may be something left.
pub(crate) const GARBAGE: TableDefinition<'static, u64, ()> = TableDefinition::new("garbage");

pub(crate) const FORMAT_KEY: &str = "format";
/// Store number; the subject that began it.
pub(crate) const FOUNDERS: TableDefinition<'_, u64, &str> = TableDefinition::new("founders");
/// Subject; how many stores it has begun that were not deleted.
pub(crate) const FOUNDED: TableDefinition<'_, &str, u64> = TableDefinition::new("founded");

/// The number that the next store gets.
const NEXT_STORE_KEY: &str = "next_store";

/// A [`State`] in its row, in the order of its fields.
pub(crate) type StateRow = (u64, u64, u64, u64, u64, u64, u64);

/// How far the log of a store goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// How many changes the log has: the position of the next one.
    pub(crate) end: u64,
    /// How many bytes its changes have.
    pub(crate) bytes: u64,
    /// The position of the first page that is as it was appended.
    pub(crate) packed_until: u64,
    /// The position of the last packed page if there is room in it; or `packed_until`.
    pub(crate) open_page: u64,
    /// How many pages are as they were appended, and how many bytes their changes have.
    pub(crate) loose_pages: u64,
    pub(crate) loose_bytes: u64,
    /// When the log grew last, in milliseconds since 1970.
    pub(crate) active_ms: u64,
}

impl State {
    pub(crate) const fn from_row(row: StateRow) -> Self {
        let (end, bytes, packed_until, open_page, loose_pages, loose_bytes, active_ms) = row;
        Self { end, bytes, packed_until, open_page, loose_pages, loose_bytes, active_ms }
    }

    pub(crate) const fn to_row(self) -> StateRow {
        let Self { end, bytes, packed_until, open_page, loose_pages, loose_bytes, active_ms } =
            self;
        (end, bytes, packed_until, open_page, loose_pages, loose_bytes, active_ms)
    }
}

/// Lets `visitor` do what it does with each table of a relay's file.
pub(crate) fn visit(visitor: &mut impl TableVisitor) -> Result<(), Failure> {
    visitor.visit(META)?;
    visitor.visit(STORES)?;
    visitor.visit(STATES)?;
    visitor.visit(PAGES)?;
    visitor.visit(STARTS)?;
    visitor.visit(VERSIONS)?;
    visitor.visit(OWNERS)?;
    visitor.visit(DELETED)?;
    visitor.visit(GARBAGE)?;
    visitor.visit(FOUNDERS)?;
    visitor.visit(FOUNDED)?;
    blob_rows::visit(visitor)
}

/// Makes the tables.
pub(crate) fn initialize(write: &WriteTransaction) -> Result<(), Failure> {
    write.open_table(META)?.insert(FORMAT_KEY, FORMAT.to_le_bytes().as_slice())?;
    write.open_table(STORES)?;
    write.open_table(STATES)?;
    write.open_table(PAGES)?;
    write.open_table(STARTS)?;
    write.open_table(VERSIONS)?;
    write.open_table(OWNERS)?;
    write.open_table(DELETED)?;
    write.open_table(GARBAGE)?;
    write.open_table(FOUNDERS)?;
    write.open_table(FOUNDED)?;
    blob_rows::initialize(write)
}

pub(crate) fn check_format(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<(), Failure> {
    let format = meta.get(FORMAT_KEY)?.and_then(|bytes| bytes.value().try_into().ok());
    match format.map(u16::from_le_bytes) {
        Some(FORMAT) => Ok(()),
        Some(newer) if newer > FORMAT => Err(Failure::TooNew),
        _ => Err(Failure::Corrupt("no relay's file")),
    }
}

pub(crate) fn number_of(read: &ReadTransaction, store: &StoreId) -> Result<Option<u64>, Failure> {
    Ok(read.open_table(STORES)?.get(store.as_str())?.map(|number| number.value()))
}

/// How many stores there may be, and replicas in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreQuota {
    /// In all.
    pub stores: u64,
    /// That one subject has begun and nobody has deleted.
    pub per_subject: u64,
    /// That one store has changes of.
    pub replicas: u64,
}

impl StoreQuota {
    /// As many as there are numbers.
    pub const UNLIMITED: Self =
        Self { stores: u64::MAX, per_subject: u64::MAX, replicas: u64::MAX };
}

/// Why a store has no number, and gets none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoStore {
    /// It was deleted.
    Deleted,
    /// There are too many.
    Full(Limit),
}

/// The number of `store`, which it gets if it has none and `subject` may begin one more. None ever
/// gets a number that another one had; one that was deleted has none.
pub(crate) fn number_for(
    write: &WriteTransaction,
    store: &StoreId,
    subject: &str,
    quota: StoreQuota,
) -> Result<Result<u64, NoStore>, Failure> {
    let mut stores = write.open_table(STORES)?;
    if let Some(number) = stores.get(store.as_str())? {
        return Ok(Ok(number.value()));
    }
    if write.open_table(DELETED)?.get(store.as_str())?.is_some() {
        return Ok(Err(NoStore::Deleted));
    }
    if stores.len()? >= quota.stores {
        return Ok(Err(NoStore::Full(Limit::Stores)));
    }
    let mut founded = write.open_table(FOUNDED)?;
    let count = founded.get(subject)?.map_or(0, |count| count.value());
    if count >= quota.per_subject {
        return Ok(Err(NoStore::Full(Limit::StoresPerSubject)));
    }
    founded.insert(subject, count + 1)?;
    let mut meta = write.open_table(META)?;
    let number = next_number(&meta)?;
    meta.insert(NEXT_STORE_KEY, (number + 1).to_le_bytes().as_slice())?;
    stores.insert(store.as_str(), number)?;
    write.open_table(FOUNDERS)?.insert(number, subject)?;
    write.open_table(STATES)?.insert(number, State::default().to_row())?;
    Ok(Ok(number))
}

/// The number that the next store gets.
pub(crate) fn next_number(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<u64, Failure> {
    let next = meta.get(NEXT_STORE_KEY)?.map(|next| next.value().try_into());
    let damaged = |_| Failure::Corrupt("the number of the next store cannot be read");
    Ok(next.transpose().map_err(damaged)?.map_or(0, u64::from_le_bytes))
}

/// Lets whoever began a store that is deleted begin another one.
pub(crate) fn give_back(write: &WriteTransaction, number: u64) -> Result<(), Failure> {
    let mut founders = write.open_table(FOUNDERS)?;
    let Some(founder) = founders.remove(number)? else { return Ok(()) };
    let mut founded = write.open_table(FOUNDED)?;
    let count = founded.get(founder.value())?.map_or(0, |count| count.value());
    if count > 1 {
        founded.insert(founder.value(), count - 1)?;
    } else {
        founded.remove(founder.value())?;
    }
    Ok(())
}

/// Whether the store of this number was not deleted.
pub(crate) fn is_live(write: &WriteTransaction, number: u64) -> Result<bool, Failure> {
    Ok(write.open_table(STATES)?.get(number)?.is_some())
}

/// Milliseconds since 1970.
pub(crate) fn milliseconds(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

pub(crate) fn state(
    states: &impl ReadableTable<u64, StateRow>,
    number: u64,
) -> Result<State, Failure> {
    let state = states.get(number)?.map(|state| State::from_row(state.value()));
    state.ok_or(Failure::Corrupt("the state of a store is missing"))
}

pub(crate) fn replica(number: u64) -> Result<ReplicaId, Failure> {
    ReplicaId::new(number).ok_or(Failure::Corrupt("a replica without a number"))
}
