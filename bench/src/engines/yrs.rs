//! yrs: a transaction for every change, or for all that leave in one message. Messages are the
//! updates of the transactions, encoded in each before it ends: a diff since a state vector would
//! carry all deletions ever made. Offsets count bytes, which is its default and measured faster
//! than UTF-16 units. Version 1 of the encoding is the faster one and is used where time counts,
//! version 2 is the smaller one and makes the files.

use std::rc::Rc;
use std::sync::Arc;

use anyhow::{Context, Result};
use yrs::updates::decoder::Decode;
use yrs::{
    Any, ClientID, Doc, GetString, Map, MapRef, OffsetKind, Options, Out, ReadTxn, StateVector,
    Text as _, TextRef, Transact, TransactionMut, Update, merge_updates_v1,
};

use super::{Engine, Logged, Registers, Stored, Text};
use crate::traces::Splice;

fn document(number: u64) -> Doc {
    // As long as its random ids, which have 53 bits.
    let client_id = ClientID::new((1 << 52) | (number << 32) | 0x79b9_7f4a);
    Doc::with_options(Options { client_id, offset_kind: OffsetKind::Bytes, ..Options::default() })
}

/// Updates that have not left yet; none are kept until someone asks for messages.
#[derive(Debug, Default)]
struct Outbox(Option<Vec<Vec<u8>>>);

impl Outbox {
    fn open(&mut self) {
        self.0 = Some(Vec::new());
    }

    fn note(&mut self, transaction: &TransactionMut) {
        if let Some(updates) = &mut self.0 {
            updates.push(transaction.encode_update_v1());
        }
    }

    fn take(&mut self) -> Result<Vec<u8>> {
        let updates = self.0.as_mut().context("nobody said that messages will be wanted")?;
        let mut updates = std::mem::take(updates);
        if updates.len() == 1 {
            return Ok(updates.remove(0));
        }
        Ok(merge_updates_v1(updates)?)
    }
}

fn apply(doc: &Doc, message: &[u8]) -> Result<()> {
    let update = Update::decode_v1(message)?;
    Ok(doc.transact_mut().apply_update(update)?)
}

fn save(doc: &Doc) -> Vec<u8> {
    doc.transact().encode_state_as_update_v2(&StateVector::default())
}

fn load(bytes: &[u8], number: u64) -> Result<Doc> {
    let doc = document(number);
    let update = Update::decode_v2(bytes)?;
    doc.transact_mut().apply_update(update)?;
    Ok(doc)
}

/// A text at the root.
#[derive(Debug)]
pub(crate) struct Yrs {
    doc: Doc,
    text: TextRef,
    outbox: Outbox,
}

impl Yrs {
    fn of(doc: Doc) -> Self {
        let text = doc.get_or_insert_text("text");
        Self { doc, text, outbox: Outbox::default() }
    }

    /// Makes changes in one transaction.
    fn transact<'a>(&mut self, changes: impl Iterator<Item = &'a [Splice]>) -> Result<()> {
        let mut transaction = self.doc.transact_mut();
        for splice in changes.flatten() {
            let at = units(splice.at.bytes())?;
            if splice.deleted.bytes() > 0 {
                self.text.remove_range(&mut transaction, at, units(splice.deleted.bytes())?);
            }
            if !splice.inserted.is_empty() {
                self.text.insert(&mut transaction, at, splice.inserted);
            }
        }
        self.outbox.note(&transaction);
        Ok(())
    }
}

/// An offset or length as yrs takes them.
fn units(count: usize) -> Result<u32> {
    u32::try_from(count).context("a text of more than 4 GB")
}

impl Text for Yrs {
    const ENGINE: Engine = Engine::Yrs;
    type Message = Vec<u8>;

    fn new() -> Self {
        Self::of(document(1))
    }

    fn record(&mut self) {
        self.outbox.open();
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        self.transact([splices].into_iter())
    }

    fn share<'a>(&mut self, changes: impl Iterator<Item = &'a [Splice]>) -> Result<Vec<u8>> {
        self.transact(changes)?;
        self.message()
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        self.outbox.take()
    }

    fn message_bytes(message: &Vec<u8>) -> usize {
        message.len()
    }

    fn receive(&mut self, messages: &[&Vec<u8>]) -> Result<()> {
        messages.iter().try_for_each(|message| apply(&self.doc, message))
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        let mut other = Self::of(document(number));
        other.receive(&[&self.history()?])?;
        Ok(other)
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.text.get_string(&self.doc.transact()))
    }
}

impl Stored for Yrs {
    // Deleted characters are dropped.
    const KEEPS_HISTORY: bool = false;

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(save(&self.doc))
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Ok(Self::of(load(bytes, number)?))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.save()?))
    }
}

impl Logged for Yrs {
    fn history(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.transact().encode_state_as_update_v1(&StateVector::default()))
    }

    fn blank(number: u64) -> Result<Self> {
        Ok(Self::of(document(number)))
    }
}

/// A map at the root.
#[derive(Debug)]
pub(crate) struct YrsRegisters {
    doc: Doc,
    map: MapRef,
    keys: Rc<[Arc<str>]>,
    sent: StateVector,
}

impl YrsRegisters {
    fn of(doc: Doc, keys: &Rc<[Arc<str>]>) -> Self {
        let map = doc.get_or_insert_map("map");
        let sent = doc.transact().state_vector();
        Self { doc, map, keys: keys.clone(), sent }
    }
}

impl Registers for YrsRegisters {
    const ENGINE: Engine = Engine::Yrs;

    type Keys = Rc<[Arc<str>]>;

    fn keys(registers: usize) -> Self::Keys {
        super::names(registers)
    }

    fn new(keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(document(1), keys))
    }

    fn fork(&mut self) -> Result<Self> {
        let other = document(2);
        apply(&other, &self.message()?)?;
        Ok(Self::of(other, &self.keys))
    }

    fn set(&mut self, sets: &[(usize, i64)]) -> Result<()> {
        let mut transaction = self.doc.transact_mut();
        for (register, value) in sets {
            self.map.insert(&mut transaction, self.keys[*register].clone(), *value);
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let transaction = self.doc.transact();
        let message = transaction.encode_state_as_update_v1(&self.sent);
        self.sent = transaction.state_vector();
        Ok(message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        apply(&self.doc, message)
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(save(&self.doc))
    }

    fn load(bytes: &[u8], keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(load(bytes, 2)?, keys))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.save()?))
    }

    fn value(&self, register: usize) -> Option<i64> {
        match self.map.get(&self.doc.transact(), self.keys.get(register)?)? {
            Out::Any(Any::Number(number)) => number.as_i64(),
            _ => None,
        }
    }
}
