//! cola: it knows where characters are, not what they are, so a rope (jumprope, buffered) beside it
//! holds them. `Cola<false>` goes without the rope. Messages stay in memory, in cola's own types: it
//! defines no bytes for them but through serde, where postcard says how many there would be.

use std::ops::Range;

use ::cola::{Deletion, EncodedReplica, Insertion, Replica};
use ::jumprope::JumpRopeBuf;
use anyhow::{Context, Result, anyhow, ensure};

use super::{Engine, Stored, Text};
use crate::traces::Splice;

/// Positions, and the text if `TEXT`.
#[derive(Debug)]
pub(crate) struct Cola<const TEXT: bool> {
    replica: Replica,
    rope: JumpRopeBuf,
    /// Edits that have not left yet; none are kept until someone asks for messages.
    outbox: Option<Vec<Edit>>,
}

/// What one replica tells another.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Inserted(Insertion, String),
    Deleted(Deletion),
}

impl Edit {
    fn bytes(&self) -> usize {
        match self {
            Self::Inserted(insertion, text) => {
                postcard::to_stdvec(&(insertion, text)).map_or(0, |bytes| bytes.len())
            }
            Self::Deleted(deletion) => postcard::to_stdvec(deletion).map_or(0, |bytes| bytes.len()),
        }
    }
}

impl<const TEXT: bool> Cola<TEXT> {
    const fn of(replica: Replica, rope: JumpRopeBuf) -> Self {
        Self { replica, rope, outbox: None }
    }

    fn integrate(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Inserted(insertion, text) => {
                let at = self.replica.integrate_insertion(insertion);
                let at = at.context("an insertion waits for others")?;
                if TEXT {
                    self.rope.insert(at, text);
                }
            }
            Edit::Deleted(deletion) => {
                let ranges: Vec<Range<usize>> = self.replica.integrate_deletion(deletion);
                if TEXT {
                    ranges.into_iter().rev().for_each(|range| self.rope.remove(range));
                }
            }
        }
        Ok(())
    }
}

impl<const TEXT: bool> Text for Cola<TEXT> {
    const ENGINE: Engine = if TEXT { Engine::Cola } else { Engine::ColaPositions };
    type Message = Vec<Edit>;

    fn new() -> Self {
        Self::of(Replica::new(super::long_id(1), 0), JumpRopeBuf::new())
    }

    fn record(&mut self) {
        self.outbox = Some(Vec::new());
    }

    fn edit(&mut self, splices: &[Splice]) -> Result<()> {
        for splice in splices {
            let (at, deleted) = (splice.at.chars(), splice.deleted.chars());
            ensure!(at + deleted <= self.replica.len(), "an edit at {at} lies outside the text");
            if deleted > 0 {
                let deletion = self.replica.deleted(at..at + deleted);
                if TEXT {
                    self.rope.remove(at..at + deleted);
                }
                if let Some(outbox) = &mut self.outbox {
                    outbox.push(Edit::Deleted(deletion));
                }
            }
            if !splice.inserted.is_empty() {
                let len = splice.inserted.chars().count();
                let insertion = self.replica.inserted(at, len);
                if TEXT {
                    self.rope.insert(at, splice.inserted);
                }
                if let Some(outbox) = &mut self.outbox {
                    outbox.push(Edit::Inserted(insertion, splice.inserted.to_owned()));
                }
            }
        }
        Ok(())
    }

    fn message(&mut self) -> Result<Vec<Edit>> {
        let outbox = self.outbox.as_mut().context("nobody said that messages will be wanted")?;
        Ok(std::mem::take(outbox))
    }

    fn message_bytes(message: &Vec<Edit>) -> usize {
        message.iter().map(Edit::bytes).sum()
    }

    fn receive(&mut self, messages: &[&Vec<Edit>]) -> Result<()> {
        messages.iter().flat_map(|message| message.iter()).try_for_each(|edit| self.integrate(edit))
    }

    fn fork(&mut self, number: u64) -> Result<Self> {
        let id = super::long_id(number);
        let is_same = self.replica.id() == id;
        let replica = if is_same { self.replica.clone() } else { self.replica.fork(id) };
        Ok(Self::of(replica, self.rope.clone()))
    }

    fn text(&mut self) -> Result<String> {
        Ok(self.rope.to_string())
    }
}

impl Stored for Cola<true> {
    // Deleted characters are not in the rope, and no edit is kept.
    const KEEPS_HISTORY: bool = false;

    /// The length of the positions, the positions, the text.
    fn save(&mut self) -> Result<Vec<u8>> {
        let positions = self.replica.encode();
        let len = positions.as_bytes().len() as u64;
        let text = self.rope.to_string();
        Ok([&len.to_le_bytes(), positions.as_bytes(), text.as_bytes()].concat())
    }

    fn load(bytes: &[u8], number: u64) -> Result<Self> {
        let (len, rest) = bytes.split_first_chunk().context("no length")?;
        let len = usize::try_from(u64::from_le_bytes(*len))?;
        let (positions, text) = rest.split_at_checked(len).context("a length too large")?;
        let positions = EncodedReplica::from_bytes(positions);
        let replica = Replica::decode(super::long_id(number), &positions);
        let replica = replica.map_err(|error| anyhow!("{error:?}"))?;
        Ok(Self::of(replica, JumpRopeBuf::new_from_str(str::from_utf8(text)?)))
    }
}
