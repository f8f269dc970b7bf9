//! automerge: a manual transaction for every change, without patch logs. The bytes of each change
//! are taken as it is made, which is cheaper than asking the document for what is new. Heads are
//! not verified on loading: the file has a checksum.

use std::rc::Rc;

use ::automerge::transaction::Transactable;
use ::automerge::{
    ActorId, Automerge as Document, ChangeHash, ObjId, ObjType, ROOT, ReadDoc, Value,
};
use anyhow::{Context, Result};

use super::{Engine, Logged, Registers, Stored, Text};
use crate::traces::Splice;

fn actor(number: u64) -> ActorId {
    // As long as its random ids.
    let id = (u128::from(number) << 64) | u128::from(super::long_id(number));
    ActorId::from(id.to_be_bytes().as_slice())
}

/// The bytes of the change made last.
fn last_change(doc: &Document) -> Result<Vec<u8>> {
    let change = doc.get_last_local_change().context("no change was made")?;
    Ok(change.raw_bytes().to_vec())
}

/// A text object in the root map.
#[derive(Debug)]
pub(crate) struct Automerge {
    doc: Document,
    /// The text object, once it is here.
    text: Option<ObjId>,
    /// Changes that have not left yet; none are kept until someone asks for messages.
    outbox: Option<Vec<u8>>,
}

impl Automerge {
    fn of(doc: Document) -> Result<Self> {
        let mut this = Self { doc, text: None, outbox: None };
        this.find_text()?;
        Ok(this)
    }

    fn find_text(&mut self) -> Result<()> {
        if self.text.is_none() {
            self.text = self.doc.get(ROOT, "text")?.map(|(_, text)| text);
        }
        Ok(())
    }
}

impl Text for Automerge {
    const ENGINE: Engine = Engine::Automerge;
    /// Changes, one after another.
    type Message = Vec<u8>;

    fn new() -> Self {
        let mut doc = Document::new().with_actor(actor(1));
        let mut transaction = doc.transaction();
        let text = transaction.put_object(ROOT, "text", ObjType::Text).expect("Root is a map");
        transaction.commit();
        Self { doc, text: Some(text), outbox: None }
    }

    fn record(&mut self) {
        self.outbox = Some(Vec::new());
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        let text = self.text.as_ref().context("the text has not arrived")?;
        let mut transaction = self.doc.transaction();
        for splice in splices {
            let deleted = isize::try_from(splice.deleted.chars())?;
            transaction.splice_text(text, splice.at.chars(), deleted, splice.inserted)?;
        }
        transaction.commit();
        if let Some(outbox) = &mut self.outbox {
            outbox.extend(last_change(&self.doc)?);
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let outbox = self.outbox.as_mut().context("nobody said that messages will be wanted")?;
        Ok(std::mem::take(outbox))
    }

    fn message_bytes(message: &Vec<u8>) -> usize {
        message.len()
    }

    fn receive(&mut self, messages: &[&Vec<u8>]) -> Result<()> {
        if let [message] = messages {
            self.doc.load_incremental(message)?;
        } else {
            let together: Vec<u8> =
                messages.iter().flat_map(|message| message.iter()).copied().collect();
            self.doc.load_incremental(&together)?;
        }
        self.find_text()
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        Self::of(self.doc.fork().with_actor(actor(number)))
    }

    fn text(&mut self) -> Result<String> {
        let text = self.text.as_ref().context("the text has not arrived")?;
        Ok(self.doc.text(text)?)
    }
}

impl Stored for Automerge {
    const KEEPS_HISTORY: bool = true;

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.save())
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Self::of(Document::load_unverified_heads(bytes)?.with_actor(actor(number)))
    }
}

impl Logged for Automerge {
    fn history(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.save_nocompress())
    }

    fn blank(number: u64) -> Result<Self> {
        Self::of(Document::new().with_actor(actor(number)))
    }
}

/// The root map.
#[derive(Debug)]
pub(crate) struct AutomergeRegisters {
    doc: Document,
    keys: Rc<[String]>,
    sent: Vec<ChangeHash>,
}

impl AutomergeRegisters {
    fn of(doc: Document, keys: &Rc<[String]>) -> Self {
        let sent = doc.get_heads();
        Self { doc, keys: keys.clone(), sent }
    }
}

impl Registers for AutomergeRegisters {
    const ENGINE: Engine = Engine::Automerge;

    type Keys = Rc<[String]>;

    fn keys(registers: usize) -> Self::Keys {
        super::names(registers)
    }

    fn new(keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(Document::new().with_actor(actor(1)), keys))
    }

    fn fork(&mut self) -> Result<Self> {
        self.sent = self.doc.get_heads();
        Ok(Self::of(self.doc.fork().with_actor(actor(2)), &self.keys))
    }

    fn set(&mut self, sets: &[(usize, i64)]) -> Result<()> {
        let mut transaction = self.doc.transaction();
        for (register, value) in sets {
            transaction.put(ROOT, self.keys[*register].as_str(), *value)?;
        }
        transaction.commit();
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let message = self.doc.save_after(&self.sent);
        self.sent = self.doc.get_heads();
        Ok(message)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        self.doc.load_incremental(message)?;
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.save())
    }

    fn load(bytes: &[u8], keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(Document::load_unverified_heads(bytes)?, keys))
    }

    fn value(&self, register: usize) -> Option<i64> {
        match self.doc.get(ROOT, self.keys.get(register)?.as_str()) {
            Ok(Some((Value::Scalar(value), _))) => value.as_i64(),
            _ => None,
        }
    }
}
