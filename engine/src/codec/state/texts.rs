//! Texts of a state: which characters stand in which order, and what shows of them.

use super::super::columns::{Column, Sink, Source};
use super::entries::EntryWriter;
use super::reader::EntryReader;
use crate::error::DecodeError;
use crate::id::OpId;
use crate::state::{RunRecord, TextRecord};

impl EntryWriter<'_> {
    pub(super) fn text(&mut self, text: &TextRecord) {
        self.number(Column::Number, text.runs.len() as u64);
        for run in &text.runs {
            self.op(run.first);
            self.skip_to(run.first.plus(run.len));
            self.number(Column::Number, run.len << 1 | u64::from(run.is_deleted));
        }
        self.number(Column::Number, text.text.len() as u64);
        self.sink.to(Column::Text).raw(text.text.as_bytes());
    }
}

impl EntryReader<'_, '_> {
    pub(super) fn text(&mut self) -> Result<TextRecord, DecodeError> {
        let count = self.number(Column::Number)?;
        let count = self.source.from(Column::Reference).fits(count, 1)?;
        let mut runs = Vec::with_capacity(count);
        let mut shown = 0_u64;
        for _ in 0..count {
            let first = self.op()?;
            let head = self.number(Column::Number)?;
            let (len, is_deleted) = (head >> 1, head & 1 == 1);
            let end = first.counter.checked_add(len).filter(|_| len > 0);
            let Some(end) = end else { return Err(self.malformed("counters out of range")) };
            if !self.is_here(OpId { counter: end - 1, ..first }) {
                return Err(self.malformed("reference to an op not seen"));
            }
            self.skip_to(OpId { counter: end, ..first });
            shown += if is_deleted { 0 } else { len };
            runs.push(RunRecord { first, len, is_deleted });
        }
        let bytes = self.number(Column::Number)?;
        let reader = self.source.from(Column::Text);
        let len = reader.fits(bytes, 1)?;
        let text = reader.utf8(len)?.to_owned();
        if text.chars().count() as u64 != shown {
            return Err(self.malformed("characters and runs that differ"));
        }
        let record = TextRecord { runs, text };
        if record.has_twice() {
            return Err(self.malformed("a character twice"));
        }
        Ok(record)
    }
}

impl TextRecord {
    /// Whether two runs share a character.
    fn has_twice(&self) -> bool {
        let mut order: Vec<&RunRecord> = self.runs.iter().collect();
        order.sort_unstable_by_key(|run| (run.first.replica, run.first.counter));
        !order.is_sorted_by(|a, b| {
            a.first.replica != b.first.replica || a.first.counter + a.len <= b.first.counter
        })
    }
}
