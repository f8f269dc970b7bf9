//! Which characters a deletion meant, told by where it was: the characters of a text that are gone,
//! as long as nobody has deleted them yet, counted from the last edit on.
//!
//! People mostly delete near where they edited last. Of all characters there only those count whose
//! deletion is still to come, which are few.

use hashbrown::HashMap;

use super::Told;
use super::texts::ToldRun;
use crate::id::OpId;
use crate::op::{IdRange, Op};

/// Which characters go from a place on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// The one there.
    One,
    /// As many as there are, stand together and have room.
    Far { backwards: bool },
    /// So many.
    Some { len: u64, backwards: bool },
}

/// Goes through the ops of a log, in the order in which they are written.
#[derive(Debug)]
pub(crate) struct Graves<'a> {
    pub(crate) told: &'a Told<'a>,
    /// The text that was edited last, and how many characters that are gone stand before the place.
    edited: Option<(usize, u64)>,
    /// Of each text that something was deleted from, what is still to go.
    left: HashMap<usize, Left>,
    /// Whether deletions are told by where they are at all.
    is_open: bool,
}

impl<'a> Graves<'a> {
    /// Tells deletions by where they are, unless more characters are gone than there can be: their
    /// number is what a forged state says, and takes memory.
    pub(crate) fn up_to(most: usize, told: &'a Told<'a>) -> Self {
        let is_open = !Self::are_too_many(told, most);
        Self { told, edited: None, left: HashMap::new(), is_open }
    }

    pub(crate) fn are_too_many(told: &Told<'_>, most: usize) -> bool {
        told.gone_count() > most as u64
    }

    /// To be called before the changes of another author.
    pub(crate) fn forget_place(&mut self) {
        self.edited = None;
    }

    /// How a deletion that has room for so many characters is told by where it is, if it can be.
    pub(crate) fn place_of(&mut self, op: &Op, room: u64) -> Option<(i64, Extent)> {
        let Op::Delete { range, backwards, .. } = op else { return None };
        let (text, from) = self.edited?;
        let more = range.len.checked_sub(1)?;
        let place = if *backwards { range.first.plus(more) } else { range.first };
        let rank = self.run_of(text, place)?.rank_of(place);
        let left = self.left_of(text)?;
        let distance = left.before(rank).cast_signed() - left.before(from).cast_signed();
        // As far as it goes may be much farther than this.
        let extent = if range.len == 1 {
            Extent::One
        } else if self.reach(text, place, room.min(range.len + 1), *backwards)? == range.len {
            Extent::Far { backwards: *backwards }
        } else {
            Extent::Some { len: range.len, backwards: *backwards }
        };
        let is_it = self.deletion(distance, extent, room).as_ref() == Some(op);
        is_it.then_some((distance, extent))
    }

    /// The deletion at a distance, which has room for so many characters; nothing if they are not all
    /// still to go.
    pub(crate) fn deletion(&mut self, distance: i64, extent: Extent, room: u64) -> Option<Op> {
        let (text, from) = self.edited?;
        let told = self.told.texts.get(text)?;
        let left = self.left_of(text)?;
        let rank = left.find(left.before(from).checked_add_signed(distance)?)?;
        let place = told.gone_at(rank)?;
        let (len, backwards) = match extent {
            Extent::One => (1, false),
            Extent::Far { backwards } => (self.reach(text, place, room, backwards)?, backwards),
            Extent::Some { len, backwards } => (len, backwards),
        };
        let more = if backwards { len.checked_sub(1)? } else { 0 };
        let first = OpId { counter: place.counter.checked_sub(more)?, ..place };
        let range = IdRange { first, len };
        self.each_rank(text, range, |left, rank| left.is_there(rank))?;
        Some(Op::Delete {
            entry: told.entry,
            life: told.life,
            field: told.field.clone(),
            set: told.set,
            range,
            backwards,
        })
    }

    /// How many characters with consecutive ids that stand together and are still to go there are from
    /// a place on, as far as there is room.
    fn reach(&mut self, text: usize, place: OpId, room: u64, backwards: bool) -> Option<u64> {
        let (_, mut at) = self.told.run_of(place)?;
        let told = self.told.texts.get(text)?;
        let (mut place, mut reach) = (place, 0);
        loop {
            let run = told.run(at).filter(|run| run.is_lost && run.has(place));
            let Some(run) = run.filter(|_| reach < room) else { return Some(reach) };
            let whole = if backwards {
                place.counter - run.first.counter + 1
            } else {
                run.end() - place.counter
            };
            let rank = run.rank_of(place);
            let part = self.left_of(text)?.reach(rank, whole.min(room - reach), backwards);
            reach += part;
            let next = if backwards {
                place.counter.checked_sub(part)
            } else {
                place.counter.checked_add(part)
            };
            let beside = if backwards { at.checked_sub(1) } else { at.checked_add(1) };
            match next.zip(beside) {
                Some((counter, beside)) if part == whole => {
                    (place.counter, at) = (counter, beside);
                }
                _ => return Some(reach),
            }
        }
    }

    /// Takes note of an op that begins at `id`; `is_by_distance`: it is a deletion that its distance
    /// told.
    pub(crate) fn see(&mut self, id: OpId, op: &Op, is_by_distance: bool) {
        let Some(text) = self.text_of(op) else { return };
        let place = match op {
            Op::Delete { range, .. } => range.first,
            _ => id.plus(op.span() - 1),
        };
        self.edited = self.run_of(text, place).map(|run| (text, run.rank_of(place)));
        if let Op::Delete { range, .. } = op
            && is_by_distance
        {
            // They were all there just now.
            let _ = self.each_rank(text, *range, |left, rank| left.take(rank));
        }
    }

    /// The text that an op edits, if it is one that the state tells of.
    fn text_of(&self, op: &Op) -> Option<usize> {
        let (_, _, _, set) = op.edited_text()?;
        let text = *self.told.text_of_set.get(&set)?;
        self.told.texts.get(text)?.is_edited_by(op).then_some(text)
    }

    fn run_of(&self, text: usize, id: OpId) -> Option<&ToldRun<'a>> {
        let (of, run) = self.told.run_of(id)?;
        self.told.texts.get(of).filter(|_| of == text)?.run(run)
    }

    fn left_of(&mut self, text: usize) -> Option<&mut Left> {
        if !self.is_open {
            return None;
        }
        let count = self.told.texts.get(text)?.gone_count;
        Some(self.left.entry(text).or_insert_with(|| Left::new(count)))
    }

    /// Asks about each character of a range, until the answer is no.
    fn each_rank(
        &mut self,
        text: usize,
        range: IdRange,
        ask: impl Fn(&mut Left, u64) -> bool,
    ) -> Option<()> {
        let (mut at, end) = (range.first, range.first.counter.checked_add(range.len)?);
        while at.counter < end {
            let run = *self.run_of(text, at).filter(|run| run.is_lost)?;
            let until = run.end().min(end);
            let left = self.left_of(text)?;
            for counter in at.counter..until {
                if !ask(left, run.rank_of(OpId { counter, ..at })) {
                    return None;
                }
            }
            at.counter = until;
        }
        Some(())
    }
}

/// Which of a row of characters are still there: a binary indexed tree (Fenwick 1994, "A new data
/// structure for cumulative frequency tables").
#[derive(Debug)]
struct Left {
    /// At `i`, counted from one, how many of the `lowest_bit(i)` characters up to there are left.
    sums: Vec<u32>,
}

impl Left {
    /// All of them. The caller sees to it that they are not too many.
    fn new(count: u64) -> Self {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        Self { sums: (0..=count).map(lowest_bit).collect() }
    }

    /// How many are left before a rank.
    fn before(&self, rank: u64) -> u64 {
        #[cfg(test)]
        tests::LOOKS.with(|looks| looks.set(looks.get() + 1));
        let mut at = usize::try_from(rank).unwrap_or(usize::MAX).min(self.sums.len() - 1);
        let mut sum = 0;
        while at > 0 {
            sum += u64::from(self.sums[at]);
            at &= at - 1;
        }
        sum
    }

    /// How many of the next `max`, or of those before, that at a rank included, are all there.
    fn reach(&self, rank: u64, max: u64, backwards: bool) -> u64 {
        let are_there = |count: u64| {
            let first = if backwards { rank + 1 - count } else { rank };
            self.before(first + count) - self.before(first) == count
        };
        let (mut sure, mut open) = (0, max + 1);
        while sure + 1 < open {
            let middle = sure + (open - sure) / 2;
            if are_there(middle) { sure = middle } else { open = middle }
        }
        sure
    }

    fn is_there(&self, rank: u64) -> bool {
        self.before(rank) < self.before(rank + 1)
    }

    /// The rank of the one before which so many are left.
    fn find(&self, count: u64) -> Option<u64> {
        let (mut at, mut left) = (0, count);
        let mut step = self.sums.len().next_power_of_two();
        while step > 0 {
            if let Some(sum) = self.sums.get(at + step).filter(|sum| u64::from(**sum) <= left) {
                left -= u64::from(*sum);
                at += step;
            }
            step /= 2;
        }
        (at + 1 < self.sums.len()).then_some(at as u64)
    }

    /// Takes one that is there. Says whether it was.
    fn take(&mut self, rank: u64) -> bool {
        let is_there = self.is_there(rank);
        let mut at = usize::try_from(rank).unwrap_or(usize::MAX).saturating_add(1);
        while is_there && at < self.sums.len() {
            self.sums[at] -= 1;
            at += at & at.wrapping_neg();
        }
        is_there
    }
}

const fn lowest_bit(number: u32) -> u32 {
    number & number.wrapping_neg()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::prelude::*;

    use super::*;
    use crate::batch::to_usize;
    use crate::id::{EntryId, ReplicaId};
    use crate::replica::Replica;
    use crate::value::{Field, Value};

    thread_local! {
        /// How often it was asked how many are left before a rank.
        pub(super) static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Of what is deleted little by little, each time much more lies behind than goes.
    #[test]
    fn a_deletion_is_told_at_the_cost_of_what_it_deletes() {
        const CHARS: usize = 4_096;
        let mut desk = Replica::new(ReplicaId::new(1).unwrap());
        desk.set(EntryId::ROOT, Field::Value, Value::Text("q".repeat(CHARS))).unwrap();
        for len in (4..=CHARS).rev().step_by(4) {
            for at in [0, len / 2 - 2] {
                desk.splice(EntryId::ROOT, Field::Value, at..at + 2, "").unwrap();
            }
        }
        LOOKS.set(0);
        drop(desk.snapshot());
        assert!(LOOKS.get() < CHARS as u64 * 64, "{} looks", LOOKS.get());
    }

    proptest! {
        #[test]
        fn what_is_left_is_counted_as_in_a_list(count in 1_u64..40, taken in prop::collection::vec(0_u64..40, 0..60)) {
            let mut left = Left::new(count);
            let mut list: Vec<u64> = (0..count).collect();
            for rank in taken {
                let place = list.iter().position(|one| *one == rank);
                prop_assert_eq!(left.take(rank), place.is_some());
                place.map(|place| list.remove(place));
                for rank in 0..count {
                    let before = list.iter().filter(|one| **one < rank).count() as u64;
                    prop_assert_eq!(left.before(rank), before);
                    prop_assert_eq!(left.is_there(rank), list.contains(&rank));
                    let on = (rank..count).take_while(|rank| list.contains(rank)).count() as u64;
                    prop_assert_eq!(left.reach(rank, count - rank, false), on);
                    let back = (0..=rank).rev().take_while(|rank| list.contains(rank)).count();
                    prop_assert_eq!(left.reach(rank, rank + 1, true), back as u64);
                    prop_assert_eq!(left.find(rank), list.get(to_usize(rank)).copied());
                }
            }
        }
    }
}
