//! The steps that can be undone and redone, and what goes into which.

use std::collections::VecDeque;

use sds_engine::{BlobRef, Mentioned, Replica, Reversal, StandIns, Timestamp};

use super::UndoOptions;
use crate::blob::Blobs;
use crate::error::StoreError;
use crate::events::Cause;
use crate::limits::UNDO_STEP_BYTES_MAX;

/// Names a step, whether it is to be undone or to be redone; later ones have greater numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StepNumber(u64);

/// Whether steps are noted, and which.
#[derive(Debug)]
pub(crate) struct Undo {
    history: Option<Box<UndoHistory>>,
    /// The number of the first step when steps are noted again. Events may still wait that name older
    /// ones.
    next: StepNumber,
}

impl Undo {
    /// Nothing is noted.
    pub(crate) const OFF: Self = Self { history: None, next: StepNumber(0) };

    pub(super) fn turn_on(&mut self, options: UndoOptions) {
        let new = || Box::new(UndoHistory::new(options, self.next));
        let history = self.history.get_or_insert_with(new);
        history.options = options;
        history.trim();
    }

    pub(super) fn turn_off(&mut self) {
        if let Some(history) = self.history.take() {
            self.next = history.next;
        }
    }

    pub(crate) const fn is_on(&self) -> bool {
        self.history.is_some()
    }

    pub(crate) fn history(&self) -> Option<&UndoHistory> {
        self.history.as_deref()
    }

    pub(crate) fn history_mut(&mut self) -> Option<&mut UndoHistory> {
        self.history.as_deref_mut()
    }
}

/// What is undone at once.
#[derive(Debug)]
struct Step {
    number: StepNumber,
    /// The numbers of later steps that have become one with it, in order.
    joined: Vec<StepNumber>,
    /// The first comes first.
    done: Vec<Reversal>,
    size: usize,
    /// When its last transaction was made, if that was told.
    time: Option<Timestamp>,
}

impl Step {
    const fn new(number: StepNumber) -> Self {
        Self { number, joined: Vec::new(), done: Vec::new(), size: 0, time: None }
    }

    /// Takes in what was done later. Returns how many bytes that takes.
    fn push(&mut self, reversal: Reversal) -> usize {
        let size = reversal.size();
        self.size += size;
        let rest = match self.done.last_mut() {
            Some(last) => last.absorb(reversal).err(),
            None => Some(reversal),
        };
        self.done.extend(rest);
        size
    }

    /// Takes in a later step.
    fn join(&mut self, later: Self) {
        self.joined.push(later.number);
        self.joined.extend(later.joined);
        self.done.extend(later.done);
        self.size += later.size;
        self.time = later.time.or(self.time);
    }

    fn last_number(&self) -> StepNumber {
        self.joined.last().copied().unwrap_or(self.number)
    }
}

/// Which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Back,
    Forth,
}

/// The steps that can be undone, and those that can be done again; the newest last, and among each
/// their numbers rise.
#[derive(Debug)]
pub(crate) struct UndoHistory {
    options: UndoOptions,
    /// The number of the next step.
    next: StepNumber,
    back: VecDeque<Step>,
    forth: VecDeque<Step>,
    /// How many bytes all steps take.
    size: usize,
    stand_ins: StandIns,
    /// How many stand-ins were left when those that nobody speaks of were last forgotten.
    kept: usize,
    /// Whether the newest step takes in what follows in time.
    is_open: bool,
    /// How many groups somebody has begun and not ended, and whether the newest step is of them.
    groups: usize,
    is_in_group: bool,
    /// When the transaction under way is made, if that was told.
    time: Option<Timestamp>,
}

impl UndoHistory {
    fn new(options: UndoOptions, next: StepNumber) -> Self {
        Self {
            options,
            next,
            back: VecDeque::new(),
            forth: VecDeque::new(),
            size: 0,
            stand_ins: StandIns::default(),
            kept: 0,
            is_open: false,
            groups: 0,
            is_in_group: false,
            time: None,
        }
    }

    /// What knows the ids of what transactions do.
    pub(crate) const fn stand_ins(&self) -> &StandIns {
        &self.stand_ins
    }

    /// Forgets all steps. Groups go on.
    pub(super) fn clear(&mut self) {
        *self = Self { groups: self.groups, ..Self::new(self.options, self.next) };
    }

    /// Panics if steps are not in order or take another room than is noted.
    pub(crate) fn assert_invariants(&self) {
        let numbers = |step: &Step| [&[step.number], &step.joined[..]].concat();
        for steps in [&self.back, &self.forth] {
            let numbers: Vec<StepNumber> = steps.iter().flat_map(numbers).collect();
            assert!(numbers.is_sorted() && numbers.last().is_none_or(|last| *last < self.next));
        }
        let steps = || self.back.iter().chain(&self.forth);
        assert_eq!(steps().map(|step| step.size).sum::<usize>(), self.size);
        self.stand_ins.assert_invariants();
    }

    /// Whether there are steps that way.
    pub(super) fn can_go(&self, way: Way) -> bool {
        !self.steps(way).is_empty()
    }

    /// Begins a group, which may be inside another.
    pub(super) const fn begin_group(&mut self) {
        if self.groups == 0 {
            self.close_step();
        }
        self.groups += 1;
    }

    /// Ends the group that was begun last.
    pub(super) const fn end_group(&mut self) {
        self.groups = self.groups.saturating_sub(1);
        if self.groups == 0 {
            self.close_step();
        }
    }

    /// Notes when the transaction that begins is made.
    pub(super) const fn expect_at(&mut self, time: Timestamp) {
        self.time = Some(time);
    }

    /// Forgets when the transaction under way is made, since it was taken back.
    pub(crate) fn abandon(&mut self) {
        self.time = None;
    }

    /// Takes in a transaction that answers an event of this cause, or none. Returns the step that tells
    /// of it, if one does.
    pub(crate) fn note(
        &mut self,
        reversal: Reversal,
        answering: Option<Cause>,
    ) -> Option<StepNumber> {
        let time = self.time.take();
        let answered = match answering {
            Some(Cause::Patch) => return None,
            Some(Cause::Step(number)) => self.place_of(number),
            Some(Cause::Unnoted) | None => None,
        };
        if answered.is_none() {
            self.size -= self.forth.drain(..).map(|step| step.size).sum::<usize>();
        }
        if reversal.is_empty() {
            return None;
        }
        let fits = answered.filter(|place| self.join_later(*place, &reversal));
        let (way, at) = match (fits, answered) {
            (Some(place), _) => place,
            // Nothing else can be redone before what was undone last.
            (None, Some((Way::Forth, _))) => (Way::Forth, self.forth.len() - 1),
            (None, _) => (Way::Back, self.newest(time)),
        };
        let step = self.steps_mut(way).get_mut(at)?;
        let number = step.number;
        step.time = time.or(step.time);
        self.size += step.push(reversal);
        self.trim();
        Some(number)
    }

    /// Makes one step of the one at a place and those after it, up to the last that did something to what its
    /// answer edits. The answer was made after them, and what was done last must be undone first. Says false,
    /// and does not, if with the answer that is more than fits a change.
    fn join_later(&mut self, (way, at): (Way, usize), answer: &Reversal) -> bool {
        let steps = self.steps_mut(way);
        let meets = answer.meets();
        let is_met = |later: &usize| steps[*later].done.iter().any(&meets);
        let last = (at + 1..steps.len()).rfind(is_met).unwrap_or(at);
        let size = steps.range(at..=last).map(|step| step.size).sum::<usize>();
        if size + answer.size() > UNDO_STEP_BYTES_MAX {
            return false;
        }
        let joined: Vec<Step> = steps.drain(at + 1..=last).collect();
        joined.into_iter().for_each(|later| steps[at].join(later));
        true
    }

    /// Where the step is that a transaction made at this time belongs to, which may be a new one.
    fn newest(&mut self, time: Option<Timestamp>) -> usize {
        let goes_on = self.goes_on(time);
        (self.is_open, self.is_in_group) = (true, self.groups > 0);
        if !goes_on {
            let number = self.number();
            self.back.push_back(Step::new(number));
        }
        self.back.len() - 1
    }

    /// A number for a new step.
    const fn number(&mut self) -> StepNumber {
        let number = self.next;
        self.next.0 += 1;
        number
    }

    /// Where the step of this number is, if it can still be undone or redone.
    fn place_of(&self, number: StepNumber) -> Option<(Way, usize)> {
        [Way::Back, Way::Forth].into_iter().find_map(|way| {
            let steps = self.steps(way);
            let at = steps.partition_point(|step| step.last_number() < number);
            let step = steps.get(at)?;
            (step.number == number || step.joined.contains(&number)).then_some((way, at))
        })
    }

    /// Whether a transaction made at this time belongs to the newest step.
    fn goes_on(&self, time: Option<Timestamp>) -> bool {
        let Some(step) = self.back.back().filter(|_| self.is_open) else { return false };
        let is_soon = match (step.time, time) {
            (Some(before), Some(now)) => {
                let passed = now.as_millis().saturating_sub(before.as_millis());
                (0..=self.options.group_millis).contains(&passed)
            }
            _ => false,
        };
        let is_grouped = self.groups > 0;
        let goes_on = if is_grouped { self.is_in_group } else { is_soon };
        goes_on && step.size < UNDO_STEP_BYTES_MAX
    }

    /// The contents that undoing or redoing may refer to again.
    pub(crate) fn blobs(&self) -> impl Iterator<Item = BlobRef> {
        let steps = self.back.iter().chain(&self.forth);
        steps.flat_map(|step| &step.done).flat_map(Reversal::blobs)
    }

    const fn close_step(&mut self) {
        (self.is_open, self.is_in_group) = (false, false);
    }

    const fn steps(&self, way: Way) -> &VecDeque<Step> {
        match way {
            Way::Back => &self.back,
            Way::Forth => &self.forth,
        }
    }

    const fn steps_mut(&mut self, way: Way) -> &mut VecDeque<Step> {
        match way {
            Way::Back => &mut self.back,
            Way::Forth => &mut self.forth,
        }
    }

    fn pop(&mut self, way: Way) -> Option<Step> {
        let step = self.steps_mut(way).pop_back();
        self.size -= step.as_ref().map_or(0, |step| step.size);
        step
    }

    fn push(&mut self, way: Way, step: Step) {
        self.size += step.size;
        self.steps_mut(way).push_back(step);
    }

    /// Undoes or redoes the newest step of which anything is left. Returns the step by which that is
    /// taken back again, if there was one to undo.
    pub(super) fn go(
        &mut self,
        way: Way,
        (replica, kept): (&mut Replica, &Blobs),
        now: Timestamp,
    ) -> Result<Option<StepNumber>, StoreError> {
        self.close_step();
        while let Some(step) = self.pop(way) {
            let gone = step.done.iter().flat_map(Reversal::blobs).find(|blob| kept.is_gone(blob));
            if let Some(gone) = gone {
                self.push(way, step);
                return Err(StoreError::ContentGone(gone.hash));
            }
            let Self { back, forth, stand_ins, .. } = self;
            let mentioned = || mentioned(back.iter().chain(&*forth).chain([&step]));
            match replica.reverse(&step.done, stand_ins, mentioned, now) {
                Ok(None) => {}
                Ok(Some(reversal)) => {
                    let other = if way == Way::Back { Way::Forth } else { Way::Back };
                    let mut step = Step::new(self.number());
                    step.push(reversal);
                    let number = step.number;
                    self.push(other, step);
                    self.trim();
                    return Ok(Some(number));
                }
                Err(error) => {
                    self.push(way, step);
                    return Err(error.into());
                }
            }
        }
        self.trim();
        Ok(None)
    }

    /// Forgets what is more than it may be.
    fn trim(&mut self) {
        let UndoOptions { steps, bytes, .. } = self.options;
        for kept in [&mut self.back, &mut self.forth] {
            while kept.len() > steps || kept.len() > 1 && self.size > bytes {
                self.size -= kept.pop_front().map_or(0, |step| step.size);
            }
        }
        // Twice as many as there were pays for looking through all steps.
        if self.stand_ins.len() > 2 * self.kept + STAND_INS_FEW {
            self.stand_ins.retain(&mentioned(self.back.iter().chain(&self.forth)));
            self.kept = self.stand_ins.len();
        }
    }
}

/// So many stand-ins are no reason to look for ones that nobody speaks of.
const STAND_INS_FEW: usize = 64;

fn mentioned<'a>(steps: impl Iterator<Item = &'a Step>) -> Mentioned {
    let mut mentioned = Mentioned::default();
    steps.flat_map(|step| &step.done).for_each(|one| one.mention(&mut mentioned));
    mentioned
}
