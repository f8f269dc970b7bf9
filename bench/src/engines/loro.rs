//! loro: a commit for every change; timestamps are not recorded, which is its default, so that it
//! can merge the changes in its log. Updates are exported since a version vector, imported one by
//! one or as a batch; files are fast snapshots.

use std::rc::Rc;

use anyhow::{Context, Result, ensure};
use loro::{
    ExportMode, ImportStatus, LoroDoc, LoroMap, LoroText, LoroTree, LoroValue, TreeID,
    TreeParentId, VersionVector,
};

use super::{Engine, Logged, Registers, Stored, Text, Tree};
use crate::traces::Splice;

fn document(number: u64) -> LoroDoc {
    let doc = LoroDoc::new();
    doc.set_peer_id(super::long_id(number)).expect("nothing is under way in a new document");
    doc
}

fn check(status: &ImportStatus) -> Result<()> {
    ensure!(status.pending.is_none(), "updates wait for others");
    Ok(())
}

fn load(bytes: &[u8], number: u64) -> Result<LoroDoc> {
    let doc = LoroDoc::from_snapshot(bytes)?;
    doc.set_peer_id(super::long_id(number))?;
    Ok(doc)
}

/// Exports what `sent` lacks, and brings `sent` up to date.
fn export(doc: &LoroDoc, sent: &mut VersionVector) -> Result<Vec<u8>> {
    let message = doc.export(ExportMode::updates(sent))?;
    *sent = doc.oplog_vv();
    Ok(message)
}

fn export_everything(doc: &LoroDoc) -> Result<Vec<u8>> {
    Ok(doc.export(ExportMode::all_updates())?)
}

/// The file without history; replicas that lack some of it cannot catch up from there.
fn shallow(doc: &LoroDoc) -> Result<Vec<u8>> {
    Ok(doc.export(ExportMode::shallow_snapshot(&doc.oplog_frontiers()))?)
}

/// A text container at the root.
#[derive(Debug)]
pub(crate) struct Loro {
    doc: LoroDoc,
    text: LoroText,
    sent: VersionVector,
}

impl Loro {
    fn of(doc: LoroDoc) -> Self {
        let text = doc.get_text("text");
        let sent = doc.oplog_vv();
        Self { doc, text, sent }
    }
}

impl Text for Loro {
    const ENGINE: Engine = Engine::Loro;
    type Message = Vec<u8>;

    fn new() -> Self {
        Self::of(document(1))
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        for splice in splices {
            if splice.deleted.chars() > 0 {
                self.text.delete(splice.at.chars(), splice.deleted.chars())?;
            }
            if !splice.inserted.is_empty() {
                self.text.insert(splice.at.chars(), splice.inserted)?;
            }
        }
        self.doc.commit();
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        export(&self.doc, &mut self.sent)
    }

    fn message_bytes(message: &Vec<u8>) -> usize {
        message.len()
    }

    fn receive(&mut self, messages: &[&Vec<u8>]) -> Result<()> {
        if let [message] = messages {
            check(&self.doc.import(message)?)?;
        } else {
            let messages: Vec<Vec<u8>> = messages.iter().map(|each| each.to_vec()).collect();
            check(&self.doc.import_batch(&messages)?)?;
        }
        self.sent = self.doc.oplog_vv();
        Ok(())
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        let doc = self.doc.fork();
        doc.set_peer_id(super::long_id(number))?;
        Ok(Self::of(doc))
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.text.to_string())
    }
}

impl Stored for Loro {
    const KEEPS_HISTORY: bool = true;

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.export(ExportMode::Snapshot)?)
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Ok(Self::of(load(bytes, number)?))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(shallow(&self.doc)?))
    }
}

impl Logged for Loro {
    fn history(&mut self) -> Result<Vec<u8>> {
        export_everything(&self.doc)
    }

    fn blank(number: u64) -> Result<Self> {
        Ok(Self::of(document(number)))
    }
}

/// A movable tree with fractional indexes, which it has to have for moves to an index.
#[derive(Debug)]
pub(crate) struct LoroNodes {
    doc: LoroDoc,
    tree: LoroTree,
    sent: VersionVector,
}

impl LoroNodes {
    fn of(doc: LoroDoc) -> Self {
        let tree = doc.get_tree("tree");
        tree.enable_fractional_index(0);
        let sent = doc.oplog_vv();
        Self { doc, tree, sent }
    }
}

impl Tree for LoroNodes {
    const ENGINE: Engine = Engine::Loro;
    type Node = TreeID;

    fn new(number: u64) -> Self {
        Self::of(document(number))
    }

    fn begin(&mut self) {}

    fn commit(&mut self) -> Result<()> {
        self.doc.commit();
        Ok(())
    }

    fn create(&mut self, parent: Option<TreeID>, index: Option<usize>) -> Result<TreeID> {
        Ok(match index {
            Some(index) => self.tree.create_at(TreeParentId::from(parent), index)?,
            None => self.tree.create(TreeParentId::from(parent))?,
        })
    }

    fn move_to(&mut self, node: TreeID, parent: TreeID, index: usize) -> Result<()> {
        Ok(self.tree.mov_to(node, TreeParentId::Node(parent), index)?)
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        export(&self.doc, &mut self.sent)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        check(&self.doc.import(message)?)?;
        self.sent = self.doc.oplog_vv();
        Ok(())
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.export(ExportMode::Snapshot)?)
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        Ok(Self::of(load(bytes, number)?))
    }

    fn tops(&self) -> Vec<TreeID> {
        self.tree.children(TreeParentId::Root).unwrap_or_default()
    }

    fn children(&self, node: TreeID) -> Vec<TreeID> {
        self.tree.children(TreeParentId::Node(node)).unwrap_or_default()
    }

    fn longest_order_key(&mut self) -> Result<usize> {
        let nodes = self.tree.nodes();
        let keys = nodes.into_iter().filter_map(|node| self.tree.fractional_index(node));
        // They are shown in hexadecimal.
        keys.map(|key| key.len() / 2).max().context("no node was ever placed")
    }
}

/// A map container at the root.
#[derive(Debug)]
pub(crate) struct LoroRegisters {
    doc: LoroDoc,
    map: LoroMap,
    keys: Rc<[String]>,
    sent: VersionVector,
}

impl LoroRegisters {
    fn of(doc: LoroDoc, keys: &Rc<[String]>) -> Self {
        let map = doc.get_map("map");
        let sent = doc.oplog_vv();
        Self { doc, map, keys: keys.clone(), sent }
    }
}

impl Registers for LoroRegisters {
    const ENGINE: Engine = Engine::Loro;

    type Keys = Rc<[String]>;

    fn keys(registers: usize) -> Self::Keys {
        super::names(registers)
    }

    fn new(keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(document(1), keys))
    }

    fn fork(&mut self) -> Result<Self> {
        let mut other = Self::of(document(2), &self.keys);
        other.receive(&self.message()?)?;
        other.sent = other.doc.oplog_vv();
        Ok(other)
    }

    fn set(&mut self, sets: &[(usize, i64)]) -> Result<()> {
        for (register, value) in sets {
            self.map.insert(&self.keys[*register], *value)?;
        }
        self.doc.commit();
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        export(&self.doc, &mut self.sent)
    }

    fn receive(&mut self, message: &[u8]) -> Result<()> {
        check(&self.doc.import(message)?)
    }

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.doc.export(ExportMode::Snapshot)?)
    }

    fn load(bytes: &[u8], keys: &Self::Keys) -> Result<Self> {
        Ok(Self::of(load(bytes, 2)?, keys))
    }

    fn save_state(&mut self) -> Result<Option<Vec<u8>>> {
        Ok(Some(shallow(&self.doc)?))
    }

    fn value(&self, register: usize) -> Option<i64> {
        let value = self.map.get(self.keys.get(register)?)?;
        match value.into_value() {
            Ok(LoroValue::I64(value)) => Some(value),
            _ => None,
        }
    }
}
