//! Ours: text is a field of one entry, a tree is entries, registers are the values of entries.
//!
//! Every edit is a change of its own; several splices or sets of one change are one transaction.

use anyhow::{Context, Result, ensure};
use sds_engine::Version;
use sds_engine::{EditError, EntryId, Field, Op, Patch, Replica, ReplicaId, Transaction, Value};

use super::{Engine, Logged, Registers, Stored, Text, Tree};
use crate::traces::Splice;

fn replica_id(number: u64) -> ReplicaId {
    ReplicaId::new(super::long_id(number)).expect("no id is zero")
}

fn receive(replica: &mut Replica, message: &[u8]) -> Result<()> {
    let done = replica.integrate(Patch::decode(message)?)?;
    ensure!(done.waiting == 0, "{} changes wait for others", done.waiting);
    Ok(())
}

/// The file of a copy that has cut its history.
fn compacted(replica: &Replica) -> Result<Vec<u8>> {
    let mut copy = Replica::from_snapshot(replica.id(), &replica.snapshot())?;
    copy.compact();
    Ok(copy.snapshot())
}

/// The entries in Root that are not system entries, in order.
fn own_entries(replica: &Replica) -> impl Iterator<Item = EntryId> {
    replica.children(EntryId::ROOT).filter(|entry| !entry.is_well_known())
}

/// A text in the value of one entry.
#[derive(Debug)]
pub(crate) struct SdsText {
    replica: Replica,
    /// The entry, once it is here.
    entry: Option<EntryId>,
    /// What the others had when the first edit after the last message was made; `None` before that edit.
    sent: Option<Version>,
}

impl SdsText {
    fn of(replica: Replica) -> Self {
        let entry = own_entries(&replica).next();
        Self { replica, entry, sent: None }
    }

    fn entry(&self) -> Result<EntryId> {
        self.entry.context("the text has not arrived")
    }
}

fn splice(replica: &mut Replica, entry: EntryId, splice: &Splice) -> Result<(), EditError> {
    let range = splice.at.utf16()..splice.at.utf16() + splice.deleted.utf16();
    replica.splice(entry, Field::Value, range, splice.inserted)
}

impl Text for SdsText {
    const ENGINE: Engine = Engine::Sds;
    type Message = Vec<u8>;

    fn new() -> Self {
        let mut replica = Replica::new(replica_id(1));
        let entry = replica.create_item(EntryId::ROOT, usize::MAX).expect("Root is an item");
        let text = Value::Text(String::new());
        replica.set(entry, Field::Value, text).expect("the entry shows");
        Self::of(replica)
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        let entry = self.entry()?;
        self.sent.get_or_insert_with(|| self.replica.version().clone());
        if let [only] = splices {
            splice(&mut self.replica, entry, only)?;
            return Ok(());
        }
        self.replica.transact::<_, EditError>(|replica| {
            splices.iter().try_for_each(|each| splice(replica, entry, each))
        })?;
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let sent = self.sent.get_or_insert_with(|| self.replica.version().clone());
        let message = self.replica.export(sent);
        sent.advance(self.replica.id(), self.replica.version().next(self.replica.id()));
        Ok(message)
    }

    fn message_bytes(message: &Vec<u8>) -> usize {
        message.len()
    }

    fn receive(&mut self, messages: &[&Vec<u8>]) -> Result<()> {
        messages.iter().try_for_each(|message| receive(&mut self.replica, message))?;
        self.sent = None;
        self.entry = self.entry.or_else(|| own_entries(&self.replica).next());
        Ok(())
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        let mut replica = Replica::new(replica_id(number));
        receive(&mut replica, &self.replica.export(&Version::new()))?;
        Ok(Self::of(replica))
    }

    fn text(&mut self) -> Result<String> {
        match self.replica.value(self.entry()?, &Field::Value) {
            Value::Text(text) => Ok(text),
            other => anyhow::bail!("no text but {other:?}"),
        }
    }
}

impl Stored for SdsText {
    const KEEPS_HISTORY: bool = true;

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.replica.snapshot())
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Ok(Self::of(Replica::from_snapshot(replica_id(number), bytes)?))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(compacted(&self.replica)?))
    }
}

impl Logged for SdsText {
    fn history(&mut self) -> Result<Vec<u8>> {
        Ok(self.replica.export(&Version::new()))
    }

    fn blank(number: u64) -> Result<Self> {
        Ok(Self::of(Replica::new(replica_id(number))))
    }
}

/// Entries under Root.
#[derive(Debug)]
pub(crate) struct SdsTree {
    replica: Replica,
    open: Option<Transaction>,
    sent: Version,
}

impl SdsTree {
    fn of(replica: Replica) -> Self {
        let sent = replica.version().clone();
        Self { replica, open: None, sent }
    }
}

impl Tree for SdsTree {
    const ENGINE: Engine = Engine::Sds;
    type Node = EntryId;

    fn new(number: u64) -> Self {
        Self::of(Replica::new(replica_id(number)))
    }

    fn begin(&mut self) {
        self.open = Some(self.replica.begin());
    }

    fn commit(&mut self) -> Result<()> {
        match self.open.take() {
            Some(open) => Ok(self.replica.commit(open)?),
            None => Ok(()),
        }
    }

    fn create(&mut self, parent: Option<EntryId>, index: Option<usize>) -> Result<EntryId> {
        let parent = parent.unwrap_or(EntryId::ROOT);
        Ok(self.replica.create_item(parent, index.unwrap_or(usize::MAX))?)
    }

    fn move_to(&mut self, node: EntryId, parent: EntryId, index: usize) -> Result<()> {
        Ok(self.replica.move_to(node, parent, index)?)
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let message = self.replica.export(&self.sent);
        self.sent.clone_from(self.replica.version());
        Ok(message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        receive(&mut self.replica, message)?;
        self.sent.clone_from(self.replica.version());
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.replica.snapshot())
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Ok(Self::of(Replica::from_snapshot(replica_id(number), bytes)?))
    }

    fn tops(&self) -> Vec<EntryId> {
        own_entries(&self.replica).collect()
    }

    fn children(&self, node: EntryId) -> Vec<EntryId> {
        self.replica.children(node).collect()
    }

    fn longest_order_key(&mut self) -> Result<usize> {
        let changes = Patch::decode(&self.replica.export(&Version::new()))?.into_changes();
        let ops = changes.iter().flat_map(|change| change.ops());
        let keys = ops.filter_map(|op| match op {
            Op::Create { key, .. } | Op::Move { key, .. } | Op::Reorder { key, .. } => Some(key),
            _ => None,
        });
        keys.map(|key| key.as_bytes().len()).max().context("no entry was ever placed")
    }
}

/// A register is the value of an entry.
#[derive(Debug)]
pub(crate) struct SdsRegisters {
    replica: Replica,
    entries: Vec<EntryId>,
    sent: Version,
}

impl SdsRegisters {
    fn of(replica: Replica) -> Self {
        let entries = own_entries(&replica).collect();
        let sent = replica.version().clone();
        Self { replica, entries, sent }
    }
}

impl Registers for SdsRegisters {
    const ENGINE: Engine = Engine::Sds;

    /// How many there are: entries have ids of their own.
    type Keys = usize;

    fn keys(registers: usize) -> usize {
        registers
    }

    fn new(keys: &usize) -> Result<Self> {
        let mut replica = Replica::new(replica_id(1));
        replica.transact::<_, EditError>(|replica| {
            let mut create = || replica.create_item(EntryId::ROOT, usize::MAX).map(drop);
            (0..*keys).try_for_each(|_| create())
        })?;
        Ok(Self::of(replica))
    }

    fn fork(&mut self) -> Result<Self> {
        let mut replica = Replica::new(replica_id(2));
        receive(&mut replica, &self.replica.export(&Version::new()))?;
        self.sent.clone_from(self.replica.version());
        Ok(Self::of(replica))
    }

    fn set(&mut self, sets: &[(usize, i64)]) -> Result<()> {
        let Self { replica, entries, .. } = self;
        if let [(register, value)] = sets {
            return Ok(replica.set(entries[*register], Field::Value, Value::Int(*value))?);
        }
        replica.transact::<_, EditError>(|replica| {
            sets.iter().try_for_each(|(register, value)| {
                replica.set(entries[*register], Field::Value, Value::Int(*value))
            })
        })?;
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let message = self.replica.export(&self.sent);
        self.sent.clone_from(self.replica.version());
        Ok(message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        receive(&mut self.replica, message)
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.replica.snapshot())
    }

    fn load(bytes: &[u8], _keys: &usize) -> Result<Self> {
        Ok(Self::of(Replica::from_snapshot(replica_id(2), bytes)?))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(compacted(&self.replica)?))
    }

    fn value(&self, register: usize) -> Option<i64> {
        match self.replica.value(*self.entries.get(register)?, &Field::Value) {
            Value::Int(value) => Some(value),
            _ => None,
        }
    }
}
