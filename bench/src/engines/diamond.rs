//! diamond-types: local edits go into an `OpLog` alone, and the `Branch` that holds the text catches
//! up when the text is read or others' edits arrive. That is faster than `ListCRDT`, which keeps the
//! two together. Deleted characters are not given to the log, which has them already. Several
//! messages are decoded first and merged at once.

use anyhow::{Result, anyhow};
use diamond_types::LocalVersion;
use diamond_types::list::encoding::{ENCODE_FULL, ENCODE_PATCH};
use diamond_types::list::{Branch, OpLog};

use super::{Engine, Logged, Stored, Text};
use crate::traces::Splice;

/// A log, and a text that may be behind it.
#[derive(Debug)]
pub(crate) struct Diamond {
    oplog: OpLog,
    branch: Branch,
    author: diamond_types::AgentId,
    sent: LocalVersion,
}

impl Diamond {
    fn of(mut oplog: OpLog, branch: Branch, number: u64) -> Self {
        // Concurrent insertions are ordered by name: all names are of one length.
        let author = oplog.get_or_create_agent_id(&format!("{number:08}"));
        let sent = oplog.local_version();
        Self { oplog, branch, author, sent }
    }

    fn catch_up(&mut self) {
        self.branch.merge(&self.oplog, self.oplog.local_version_ref());
    }
}

/// Its errors are no [`std::error::Error`].
fn readable(error: impl std::fmt::Debug) -> anyhow::Error {
    anyhow!("{error:?}")
}

impl Text for Diamond {
    const ENGINE: Engine = Engine::DiamondTypes;
    type Message = Vec<u8>;

    fn new() -> Self {
        Self::of(OpLog::new(), Branch::new(), 1)
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        for splice in splices {
            let (at, deleted) = (splice.at.chars(), splice.deleted.chars());
            if deleted > 0 {
                let parents = self.oplog.local_version();
                self.oplog.add_delete_at(self.author, &parents, at..at + deleted);
            }
            if !splice.inserted.is_empty() {
                let parents = self.oplog.local_version();
                self.oplog.add_insert_at(self.author, &parents, at, splice.inserted);
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<u8>> {
        let message = self.oplog.encode_from(ENCODE_PATCH, &self.sent);
        self.sent = self.oplog.local_version();
        Ok(message)
    }

    fn message_bytes(message: &Vec<u8>) -> usize {
        message.len()
    }

    fn receive(&mut self, messages: &[&Vec<u8>]) -> Result<()> {
        for message in messages {
            self.oplog.decode_and_add(message).map_err(readable)?;
        }
        self.catch_up();
        self.sent = self.oplog.local_version();
        Ok(())
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        Self::load(&self.oplog.encode(ENCODE_FULL), number)
    }

    fn text(&mut self) -> Result<String> {
        self.catch_up();
        Ok(self.branch.content().to_string())
    }
}

impl Stored for Diamond {
    const KEEPS_HISTORY: bool = true;

    fn save(&mut self) -> Result<Vec<u8>> {
        Ok(self.oplog.encode(ENCODE_FULL))
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        let oplog = OpLog::load_from(bytes).map_err(readable)?;
        let branch = oplog.checkout_tip();
        Ok(Self::of(oplog, branch, number))
    }
}

impl Logged for Diamond {
    fn history(&mut self) -> Result<Vec<u8>> {
        Ok(self.oplog.encode_from(ENCODE_PATCH, &[]))
    }

    fn blank(number: u64) -> Result<Self> {
        Ok(Self::of(OpLog::new(), Branch::new(), number))
    }
}
