//! An entry's state as a record, and the join of a record into it.

use smallvec::SmallVec;

use super::lives::Touch;
use super::{
    Content, ContentView, EntryState, FieldIx, FieldNames, Fields, Register, RegisterView,
};
use crate::delta::Watch;
use crate::entries::EntryIx;
use crate::id::{Life, Stamp};
use crate::state::{ContentRecord, EntryRecord, FieldRecord, LifeRecord, RunRecord, TextRecord};
use crate::text::{Fate, Piece, Sides, Text, pieces_of};
use crate::value::char_count;

impl EntryState {
    /// The lives that ops touched.
    pub(crate) fn life_records(&self) -> SmallVec<[LifeRecord; 1]> {
        self.lives.records()
    }

    /// What the fields hold.
    pub(crate) fn field_records(&self, names: &FieldNames) -> SmallVec<[FieldRecord<'_>; 3]> {
        let mut records: SmallVec<[FieldRecord<'_>; 3]> = SmallVec::new();
        self.fields.for_each(|register| {
            records.push(FieldRecord {
                field: names.shared(register.field),
                life: register.life,
                set: register.stamp.op(),
                content: register.content.record(),
            });
        });
        records.sort_unstable_by(|a, b| a.field.cmp(&b.field));
        records
    }

    /// Takes in what another replica knows of the entry.
    pub(crate) fn join(
        &mut self,
        (entry, record): (EntryIx, &EntryRecord<'_>),
        names: &mut FieldNames,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        self.lives.become_known();
        if record.life > self.life() || !self.is_touched() {
            self.note_all(entry, watch);
        }
        self.begin_life(record.life);
        for one in &record.lives {
            // Which op created an item decides nothing; of links the newest counts.
            let stamp = one.creation.op().map_or(Stamp::ZERO, sides.clock);
            let touch = Touch { life: one.life, creates: one.creation.kind(), stamp };
            if self.lives.is_changed_by(&touch) {
                self.lives.touch(&touch);
            }
        }
        let life = self.life();
        let fields = record.fields.iter().filter(|one| one.life >= life);
        let is_fresh = self.fields.is_empty() && fields.clone().nth(1).is_some();
        if is_fresh && self.fill((entry, fields.clone()), names, sides, watch) {
            return;
        }
        fields.for_each(|one| self.join_field((entry, one), names, sides, watch));
    }

    /// Sets a few fields at once, where none is set and no text was spliced. Whether it could be done.
    fn fill<'a>(
        &mut self,
        (entry, fields): (EntryIx, impl Iterator<Item = &'a FieldRecord<'a>> + Clone),
        names: &mut FieldNames,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) -> bool {
        if watch.notes_fields() {
            for one in fields.clone() {
                let field = names.name(&one.field);
                watch.note_field(entry, field, || self.shown_value(entry, field));
            }
        }
        let size = |one: &FieldRecord<'_>| match one.content {
            ContentRecord::Value(value) => size_of::<u64>() + value.size(),
            ContentRecord::Text(_) => 0,
        };
        let size = fields.clone().map(size).sum();
        let registers = fields.map(|one| {
            let ContentRecord::Value(value) = one.content else { return None };
            let (stamp, field) = ((sides.clock)(one.set), names.name(&one.field));
            let content = ContentView::Value(value);
            Some(RegisterView { stamp, life: one.life, field, content })
        });
        let Some(filled) = Fields::of(registers, size) else { return false };
        self.fields = filled;
        true
    }

    /// Ends all lives before this one.
    pub(super) fn begin_life(&mut self, life: Life) {
        if life > self.life() {
            self.lives.begin(life);
            self.fields.retain(|register| register.life >= life);
        }
    }

    fn join_field(
        &mut self,
        (entry, record): (EntryIx, &FieldRecord<'_>),
        names: &mut FieldNames,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        let field = names.name(&record.field);
        let stamp = (sides.clock)(record.set);
        let known = self.fields.rank(field);
        if known.is_some_and(|known| known >= (record.life, stamp)) {
            if known == Some((record.life, stamp))
                && let ContentRecord::Text(theirs) = &record.content
            {
                self.join_text((entry, field), theirs, sides, watch);
            }
            return;
        }
        watch.note_field(entry, field, || self.shown_value(entry, field));
        let life = record.life;
        match &record.content {
            ContentRecord::Value(value) => {
                let content = ContentView::Value(*value);
                self.fields.set(&RegisterView { stamp, life, field, content });
            }
            ContentRecord::Text(text) => {
                let content = Content::Spliced(Box::new(Text::from_pieces(pieces_of(text))));
                self.fields.insert(Register { stamp, content, life, field });
            }
        }
    }

    fn join_text(
        &mut self,
        (entry, field): (EntryIx, FieldIx),
        theirs: &TextRecord,
        sides: &Sides<'_>,
        watch: &mut Watch,
    ) {
        if self.is_watched(entry, field, watch) {
            watch.note_text(entry, field, || self.shown_value(entry, field));
        }
        if let Some(mine) = self.fields.text_mut(field) {
            *mine = mine.join(theirs, sides);
        }
    }
}

impl<'a> ContentView<'a> {
    fn record(self) -> ContentRecord<'a> {
        match self {
            Self::Value(value) => ContentRecord::Value(value),
            Self::Spliced(text) => ContentRecord::Text(record_of(text)),
        }
    }
}

fn record_of(text: &Text) -> TextRecord {
    let mut record = TextRecord::default();
    for Piece { first, fate } in text.pieces() {
        let (len, is_deleted) = match fate {
            Fate::Visible(shown) => {
                record.text.push_str(shown);
                (char_count(shown), false)
            }
            Fate::Deleted(len) => (len, true),
        };
        match record.runs.last_mut() {
            Some(last) if last.first.plus(last.len) == first && last.is_deleted == is_deleted => {
                last.len += len;
            }
            _ => record.runs.push(RunRecord { first, len, is_deleted }),
        }
    }
    record
}
