//! Editing traces, in the two public formats of josephg/editing-traces.
//!
//! A sequential trace is one author's edits. A concurrent one has several authors and says on which
//! edits each edit builds; it is replayed by one replica an author, which hand each other messages
//! just often enough. Positions in the files count code points; here they count every unit that an
//! engine may want, so that no engine converts while it is measured.

mod dag;

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::MultiGzDecoder;
use ropey::Rope;
use serde::Deserialize;

pub(crate) use dag::{ConcurrentTrace, Step};

/// A position or a length, in every unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offset {
    chars: u32,
    utf16: u32,
    bytes: u32,
}

/// Some text deleted and some inserted at one place.
///
/// Small, and nowhere but in long slices, so that reading the edits takes no part of the time that
/// making them does. The texts of a trace are kept until the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Splice {
    pub(crate) at: Offset,
    pub(crate) deleted: Offset,
    pub(crate) inserted: &'static str,
}

/// Changes, each of one or more splices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Edits {
    splices: Vec<Splice>,
    /// Where in `splices` each change ends.
    ends: Vec<usize>,
}

/// One author's edits.
#[derive(Clone, Debug)]
pub(crate) struct SequentialTrace {
    pub(crate) name: String,
    pub(crate) edits: Edits,
    /// The text after all edits.
    pub(crate) end: String,
}

/// What a file held.
#[derive(Clone, Debug)]
pub(crate) enum Trace {
    Sequential(SequentialTrace),
    Concurrent(ConcurrentTrace),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    kind: Option<String>,
    #[serde(default)]
    start_content: String,
    end_content: String,
    #[serde(default)]
    num_agents: usize,
    txns: Vec<Transaction>,
}

#[derive(Deserialize)]
struct Transaction {
    #[serde(default)]
    parents: Vec<usize>,
    #[serde(default)]
    agent: usize,
    patches: Vec<Patch>,
}

/// Position, count of deleted code points, inserted text.
#[derive(Clone, Deserialize)]
struct Patch(usize, usize, String);

impl Offset {
    fn new(chars: usize, utf16: usize, bytes: usize) -> Self {
        let fit = |offset| u32::try_from(offset).expect("no trace has a text of 4 GB");
        Self { chars: fit(chars), utf16: fit(utf16), bytes: fit(bytes) }
    }

    /// An offset in a text where all units are alike.
    fn ascii(offset: usize) -> Self {
        Self::new(offset, offset, offset)
    }

    /// In Unicode code points.
    pub(crate) const fn chars(self) -> usize {
        self.chars as usize
    }

    /// In UTF-16 units.
    pub(crate) const fn utf16(self) -> usize {
        self.utf16 as usize
    }

    /// In UTF-8 bytes.
    pub(crate) const fn bytes(self) -> usize {
        self.bytes as usize
    }

    const fn since(self, from: Self) -> Self {
        Self {
            chars: self.chars - from.chars,
            utf16: self.utf16 - from.utf16,
            bytes: self.bytes - from.bytes,
        }
    }
}

impl Splice {
    /// A splice of a text that is nothing but ASCII.
    pub(crate) fn ascii(at: usize, deleted: usize, inserted: &'static str) -> Self {
        Self { at: Offset::ascii(at), deleted: Offset::ascii(deleted), inserted }
    }

    /// A splice of the text in `rope`, in code points. It has to lie inside.
    pub(crate) fn measured(rope: &Rope, at: usize, deleted: usize, inserted: &'static str) -> Self {
        let offset =
            |chars| Offset::new(chars, rope.char_to_utf16_cu(chars), rope.char_to_byte(chars));
        let (at, end) = (offset(at), offset(at + deleted));
        Self { at, deleted: end.since(at), inserted }
    }

    /// Makes the splice in a rope.
    pub(crate) fn apply(&self, rope: &mut Rope) {
        let at = self.at.chars();
        rope.remove(at..at + self.deleted.chars());
        rope.insert(at, self.inserted);
    }
}

impl Edits {
    /// Adds a change, if there is any splice in it.
    pub(crate) fn push(&mut self, change: impl IntoIterator<Item = Splice>) {
        let before = self.splices.len();
        self.splices.extend(change);
        if self.splices.len() > before {
            self.ends.push(self.splices.len());
        }
    }

    /// How many changes there are.
    pub(crate) const fn len(&self) -> usize {
        self.ends.len()
    }

    /// The splices of each change.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &[Splice]> {
        self.range(0..self.len())
    }

    /// The splices of some changes.
    pub(crate) fn range(&self, changes: Range<usize>) -> impl Iterator<Item = &[Splice]> {
        let mut start = changes.start.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.ends[changes].iter().map(move |end| {
            let from = std::mem::replace(&mut start, *end);
            &self.splices[from..*end]
        })
    }
}

impl SequentialTrace {
    /// The first `count` changes.
    pub(crate) fn prefix(&self, count: usize) -> Self {
        if count >= self.edits.len() {
            return self.clone();
        }
        let mut edits = Edits::default();
        let mut rope = Rope::new();
        for change in self.edits.iter().take(count) {
            change.iter().for_each(|splice| splice.apply(&mut rope));
            edits.push(change.iter().copied());
        }
        Self { name: format!("{}, first {count} edits", self.name), edits, end: rope.to_string() }
    }
}

/// Reads every trace of a folder, in order of name.
pub(crate) fn read_folder(folder: &Path) -> Result<Vec<Trace>> {
    let listing = fs::read_dir(folder)
        .with_context(|| format!("cannot read the folder {}", folder.display()))?;
    let mut paths = listing.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    let mut traces = Vec::new();
    for path in paths {
        let Some(name) = trace_name(&path) else { continue };
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let trace = parse(name, &bytes).with_context(|| path.display().to_string())?;
        traces.push(trace);
    }
    ensure!(!traces.is_empty(), "no *.json or *.json.gz in {}", folder.display());
    Ok(traces)
}

fn trace_name(path: &Path) -> Option<&str> {
    let name = path.file_name().and_then(OsStr::to_str)?;
    name.strip_suffix(".json").or_else(|| name.strip_suffix(".json.gz"))
}

fn parse(name: &str, bytes: &[u8]) -> Result<Trace> {
    const GZIP_MAGIC: &[u8] = &[0x1f, 0x8b];
    let mut json = Vec::new();
    if bytes.starts_with(GZIP_MAGIC) {
        MultiGzDecoder::new(bytes).read_to_end(&mut json).context("damaged gzip")?;
    } else {
        json.extend_from_slice(bytes);
    }
    let file: File = serde_json::from_slice(&json).context("not an editing trace")?;
    match file.kind.as_deref() {
        None | Some("sequential") => sequential(name, file).map(Trace::Sequential),
        Some("concurrent") => dag::concurrent(name, file).map(Trace::Concurrent),
        Some(kind) => bail!("an unknown kind of trace: {kind}"),
    }
}

fn sequential(name: &str, file: File) -> Result<SequentialTrace> {
    let mut rope = Rope::new();
    let mut edits = Edits::default();
    let start = Patch(0, 0, file.start_content);
    for patches in [vec![start]].into_iter().chain(file.txns.into_iter().map(|txn| txn.patches)) {
        let mut change = Vec::with_capacity(patches.len());
        for Patch(at, deleted, inserted) in patches {
            if deleted > 0 || !inserted.is_empty() {
                let splice = measure_splice(&rope, at, deleted, keep(inserted))?;
                splice.apply(&mut rope);
                change.push(splice);
            }
        }
        edits.push(change);
    }
    ensure!(rope == file.end_content, "the edits do not give the final text");
    Ok(SequentialTrace { name: name.to_owned(), edits, end: file.end_content })
}

/// Keeps a text until the process ends.
fn keep(text: String) -> &'static str {
    text.leak()
}

/// Finds out what a patch means in every unit.
fn measure_splice(
    rope: &Rope,
    at: usize,
    deleted: usize,
    inserted: &'static str,
) -> Result<Splice> {
    ensure!(at + deleted <= rope.len_chars(), "a patch at {at} lies outside the text");
    Ok(Splice::measured(rope, at, deleted, inserted))
}

#[cfg(test)]
mod tests;
