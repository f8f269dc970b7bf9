//! jumprope: a rope without any CRDT, buffered as its documentation advises for typing. It shows
//! what the edits cost when nobody else edits.

use ::jumprope::JumpRopeBuf;
use anyhow::{Result, bail};

use super::{Engine, Text};
use crate::traces::Splice;

/// A text that cannot be shared.
#[derive(Debug)]
pub(crate) struct Rope(JumpRopeBuf);

impl Text for Rope {
    const ENGINE: Engine = Engine::Jumprope;
    type Message = ();

    fn new() -> Self {
        Self(JumpRopeBuf::new())
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        for splice in splices {
            let (at, deleted) = (splice.at.chars(), splice.deleted.chars());
            if deleted > 0 {
                self.0.remove(at..at + deleted);
            }
            if !splice.inserted.is_empty() {
                self.0.insert(at, splice.inserted);
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<()> {
        bail!("a rope has no messages")
    }

    fn message_bytes((): &()) -> usize {
        0
    }

    fn receive(&mut self, _messages: &[&()]) -> Result<()> {
        bail!("a rope has no messages")
    }

    fn fork(&mut self, _number: u64) -> Result<Self> {
        bail!("a rope has no replicas")
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.0.to_string())
    }
}
