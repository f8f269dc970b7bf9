//! What waits to be written: which of it goes into the next commit, by turns of the subjects.
//!
//! First come, first served would let one subject that sends much keep all others waiting. Here a
//! commit takes only so much of each subject, and what is small is in the next one, whatever of
//! others came before. Every second commit has nothing else, so that most of what is small waits
//! for the large ones of one commit, and not for those too that would be with it in the next.
//!
//! Invariants:
//! - Q1. `order` has each subject of which something waits once, and nobody else.
//! - Q2. What one subject sends goes in the order in which it came.
//! - Q3. Whoever does not fit into a commit comes before those who did in the next one, so that
//!   nobody waits for ever.

use std::collections::{HashMap, VecDeque};
use std::mem::take;
use std::sync::Arc;

use crate::limits::{
    GROUP_BYTES_GOAL, GROUP_BYTES_PER_SUBJECT_GOAL, GROUP_LARGE_BYTES_GOAL, SMALL_APPEND_BYTES_MAX,
};

/// What waits, of whom, and who is next.
#[derive(Debug)]
pub(crate) struct AppendQueue<T> {
    order: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<Waiting<T>>>,
    /// The numbers of what came first, and of what comes next.
    first: i64,
    next: i64,
    /// Whether large ones waited for the last commit, so that the next one has to have some.
    is_turn_of_large: bool,
}

#[derive(Debug)]
struct Waiting<T> {
    number: i64,
    bytes: usize,
    item: T,
}

/// Why no more of a subject is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// Nothing is left.
    Empty,
    /// It has had its share.
    Share,
    /// The commit has no room for what comes next.
    Full,
}

impl<T> Default for AppendQueue<T> {
    fn default() -> Self {
        let (order, waiting) = (VecDeque::new(), HashMap::new());
        Self { order, waiting, first: 0, next: 0, is_turn_of_large: false }
    }
}

impl<T> AppendQueue<T> {
    /// Lets something wait that takes so many bytes, behind all else of `subject`.
    pub(crate) fn push(&mut self, subject: &str, bytes: usize, item: T) {
        let number = self.next;
        self.next += 1;
        self.queue_of(subject).push_back(Waiting { number, bytes, item });
    }

    /// Lets something wait that was taken out, before all else of `subject`.
    pub(crate) fn put_back(&mut self, subject: &str, bytes: usize, item: T) {
        self.first -= 1;
        let number = self.first;
        self.queue_of(subject).push_front(Waiting { number, bytes, item });
    }

    /// Takes out what goes into the next commit, in the order in which it came.
    pub(crate) fn take_group(&mut self) -> Vec<T> {
        if !take(&mut self.is_turn_of_large) {
            let small = self.take(0);
            if !small.is_empty() {
                self.is_turn_of_large = !self.is_empty();
                return small;
            }
        }
        self.take(GROUP_LARGE_BYTES_GOAL)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// The same, of large ones only so many bytes: one at least, unless it is to be none.
    fn take(&mut self, large_goal: usize) -> Vec<T> {
        let (mut group, mut size) = (Vec::new(), 0);
        let (mut full, mut had_share) = (VecDeque::new(), VecDeque::new());
        for subject in take(&mut self.order) {
            let Some(queue) = self.waiting.get_mut(&subject) else { continue };
            let mut share = 0;
            let stop = loop {
                let Some(bytes) = queue.front().map(|first| first.bytes) else { break Stop::Empty };
                let is_small = bytes <= SMALL_APPEND_BYTES_MAX;
                let goal = if is_small { GROUP_BYTES_GOAL } else { large_goal };
                if share > 0 && share + bytes > GROUP_BYTES_PER_SUBJECT_GOAL {
                    break Stop::Share;
                }
                if goal == 0 || (size > 0 && size + bytes > goal) {
                    break Stop::Full;
                }
                (size, share) = (size + bytes, share + bytes);
                group.extend(queue.pop_front());
            };
            match stop {
                Stop::Empty => drop(self.waiting.remove(&subject)),
                Stop::Share => had_share.push_back(subject),
                Stop::Full => full.push_back(subject),
            }
        }
        full.append(&mut had_share);
        self.order = full;
        group.sort_by_key(|waiting| waiting.number);
        group.into_iter().map(|waiting| waiting.item).collect()
    }

    fn queue_of(&mut self, subject: &str) -> &mut VecDeque<Waiting<T>> {
        if !self.waiting.contains_key(subject) {
            self.order.push_back(subject.into());
        }
        self.waiting.entry(subject.into()).or_default()
    }

    #[cfg(test)]
    fn assert_invariants(&self) {
        assert_eq!(self.order.len(), self.waiting.len(), "Q1: each once");
        for (subject, queue) in &self.waiting {
            assert!(self.order.contains(subject), "Q1: {subject} has a turn");
            assert!(!queue.is_empty(), "Q1: something of {subject} waits");
            let is_sorted = queue.iter().is_sorted_by(|one, other| one.number < other.number);
            assert!(is_sorted, "Q2: in the order in which it came");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: usize = 100;
    const LARGE: usize = GROUP_BYTES_PER_SUBJECT_GOAL;

    /// A queue in which these wait, named for their subject and where they came among its own.
    fn queue(rows: &[(&str, usize)]) -> AppendQueue<String> {
        let mut queue = AppendQueue::default();
        rows.iter().for_each(|row| push(&mut queue, *row));
        queue
    }

    fn push(queue: &mut AppendQueue<String>, (subject, bytes): (&str, usize)) {
        let count = queue.waiting.get(subject).map_or(0, VecDeque::len);
        queue.push(subject, bytes, format!("{subject}{count}"));
        queue.assert_invariants();
    }

    fn group(queue: &mut AppendQueue<String>) -> String {
        let group = queue.take_group().join(" ");
        queue.assert_invariants();
        group
    }

    /// All groups, until nothing waits.
    fn groups(mut queue: AppendQueue<String>) -> Vec<String> {
        let mut groups = Vec::new();
        while !queue.is_empty() {
            assert!(groups.len() < 100, "it comes to an end");
            groups.push(group(&mut queue));
        }
        assert!(queue.order.is_empty());
        groups
    }

    #[test]
    fn what_is_small_goes_together_and_in_order() {
        let rows = ["a", "b", "a", "c", "b", "a"].map(|subject| (subject, SMALL));
        assert_eq!(groups(queue(&rows)), ["a0 b0 a1 c0 b1 a2"]);
    }

    #[test]
    fn a_subject_has_only_so_much_of_a_commit_or_one_that_is_larger() {
        let rows = [("a", LARGE), ("a", SMALL), ("a", LARGE), ("a", 4 * LARGE), ("a", SMALL)];
        assert_eq!(groups(queue(&rows)), ["a0", "a1", "a2", "a3", "a4"]);
        let half = LARGE / 2;
        let rows = [("a", half), ("a", half), ("a", 1), ("b", half), ("b", half + 1), ("b", half)];
        assert_eq!(groups(queue(&rows)), ["a0 a1 b0", "a2", "b1", "b2"]);
    }

    #[test]
    fn what_is_small_waits_for_no_queue_of_large_ones() {
        let mut rows = vec![("m", 4 * LARGE); 24];
        rows.push(("ann", SMALL));
        let mut queue = queue(&rows);
        assert_eq!(group(&mut queue), "ann0", "before those that came at the same time");
        push(&mut queue, ("ann", SMALL));
        assert_eq!(group(&mut queue), "m0 ann0", "together with one of them");
        push(&mut queue, ("bob", SMALL));
        assert_eq!(group(&mut queue), "bob0");
        assert_eq!(group(&mut queue), "m1", "which have their turn all the same");
    }

    #[test]
    fn large_ones_take_turns_and_nobody_waits_for_ever() {
        let names: Vec<String> = (0..9).map(|number| format!("s{number}_")).collect();
        let twice = [&names[..], &names[..]].concat();
        let rows: Vec<_> = twice.iter().map(|name| (name.as_str(), LARGE)).collect();
        let groups = groups(queue(&rows));
        assert_eq!(groups[0], "s0_0 s1_0 s2_0 s3_0");
        let firsts = groups.iter().position(|group| group.contains("s8_0"));
        let second = groups.iter().position(|group| group.contains("_1"));
        assert!(firsts <= second, "each has a turn before anybody has two: {groups:?}");
    }

    #[test]
    fn a_crowd_of_small_ones_does_not_fill_a_commit_and_keep_large_ones_out() {
        let mut queue = queue(&[("large", LARGE)]);
        let crowd = GROUP_BYTES_GOAL / SMALL_APPEND_BYTES_MAX;
        let mut commits = 0;
        loop {
            for number in 0..2 * crowd {
                queue.push(&format!("s{number}"), SMALL_APPEND_BYTES_MAX, String::new());
            }
            commits += 1;
            let group = queue.take_group();
            queue.assert_invariants();
            assert!(group.len() <= crowd + 1);
            if group.iter().any(|name| name == "large0") {
                break;
            }
            assert!(commits < 3, "it has its turn");
        }
    }

    #[test]
    fn what_was_put_back_comes_first_and_others_have_their_turn() {
        let mut queue = queue(&[("a", SMALL), ("b", SMALL), ("a", SMALL)]);
        for item in ["left1", "left0"] {
            queue.put_back("a", SMALL, item.to_owned());
        }
        assert_eq!(group(&mut queue), "left0 left1 a0 b0 a1");
        queue.put_back("a", LARGE, "left".to_owned());
        push(&mut queue, ("b", LARGE));
        assert_eq!(groups(queue), ["left b0"]);
    }
}
