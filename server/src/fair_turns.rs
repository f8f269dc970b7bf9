//! Leave to do what only a few can do at a time, given to names by turns.
//!
//! First come, first served would let one name that asks for much keep all others waiting. Here
//! whoever asks for little waits for one turn of each other name, however many of theirs wait.
//!
//! Invariants:
//! - A1. While a place is free nobody waits.
//! - A2. `order` has each name that waits once, and nobody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The places, and who waits for them.
#[derive(Debug)]
pub(crate) struct FairTurns {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    free: usize,
    /// How many places those have who have any.
    held: HashMap<Arc<str>, usize>,
    waiting: HashMap<Arc<str>, VecDeque<oneshot::Sender<FairTurn>>>,
    /// Whose turn is next.
    order: VecDeque<Arc<str>>,
}

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct FairTurn {
    name: Arc<str>,
    /// None once the place is somebody else's.
    of: Option<Arc<Mutex<State>>>,
}

impl FairTurns {
    pub(crate) fn new(places: usize) -> Self {
        let (held, waiting, order) = (HashMap::new(), HashMap::new(), VecDeque::new());
        Self { state: Arc::new(Mutex::new(State { free: places, held, waiting, order })) }
    }

    /// Waits for a place for `name`. May be dropped while it waits.
    pub(crate) async fn take(&self, name: &str) -> Option<FairTurn> {
        let name: Arc<str> = name.into();
        let receiver = {
            let mut state = lock(&self.state);
            if state.free > 0 {
                state.free -= 1;
                return Some(self.turn(&mut state, name));
            }
            state.wait(name)
        };
        // As long as somebody waits here the other end is in the list.
        receiver.await.ok()
    }

    /// A place for `name`, if one is free and it has fewer than `most`.
    pub(crate) fn try_take(&self, name: &str, most: usize) -> Option<FairTurn> {
        let mut state = lock(&self.state);
        if state.free == 0 || state.held.get(name).is_some_and(|held| *held >= most) {
            return None;
        }
        state.free -= 1;
        Some(self.turn(&mut state, name.into()))
    }

    fn turn(&self, state: &mut State, name: Arc<str>) -> FairTurn {
        *state.held.entry(Arc::clone(&name)).or_default() += 1;
        FairTurn { name, of: Some(Arc::clone(&self.state)) }
    }
}

impl State {
    fn wait(&mut self, name: Arc<str>) -> oneshot::Receiver<FairTurn> {
        let (sender, receiver) = oneshot::channel();
        let queue = self.waiting.entry(Arc::clone(&name)).or_default();
        if queue.is_empty() {
            self.order.push_back(name);
        }
        if queue.len().is_power_of_two() {
            // Those who have left meanwhile cost no more than those who are there.
            queue.retain(|sender| !sender.is_closed());
        }
        queue.push_back(sender);
        receiver
    }

    /// Takes out who is next.
    fn next(&mut self) -> Option<(Arc<str>, oneshot::Sender<FairTurn>)> {
        let name = self.order.pop_front()?;
        let queue = self.waiting.get_mut(&name)?;
        let sender = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(&name);
        } else {
            self.order.push_back(Arc::clone(&name));
        }
        Some((name, sender))
    }

    fn give_back(&mut self, name: &Arc<str>) {
        if let Some(held) = self.held.get_mut(name) {
            *held -= 1;
            if *held == 0 {
                self.held.remove(name);
            }
        }
    }
}

impl Drop for FairTurn {
    fn drop(&mut self) {
        let Some(of) = self.of.take() else { return };
        let mut name = Arc::clone(&self.name);
        loop {
            let mut state = lock(&of);
            state.give_back(&name);
            let Some((next, sender)) = state.next() else {
                state.free += 1;
                return;
            };
            *state.held.entry(Arc::clone(&next)).or_default() += 1;
            drop(state);
            let turn = Self { name: next, of: Some(Arc::clone(&of)) };
            match sender.send(turn) {
                Ok(()) => return,
                // Who waited has left; the next one gets the place.
                Err(mut unwanted) => {
                    unwanted.of = None;
                    name = Arc::clone(&unwanted.name);
                }
            }
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // No code under this lock can leave the lists half changed.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    type Asking<'a> = Pin<Box<dyn Future<Output = Option<FairTurn>> + 'a>>;

    fn poll(asking: &mut Asking<'_>) -> Option<FairTurn> {
        match asking.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(turn) => turn,
            Poll::Pending => None,
        }
    }

    /// Asks for one place for each of `names`, who all wait.
    fn ask<'a>(turns: &'a FairTurns, names: &[&'a str]) -> Vec<(&'a str, Asking<'a>)> {
        let ask = |name: &&'a str| {
            let mut asking: Asking<'a> = Box::pin(turns.take(name));
            assert!(poll(&mut asking).is_none(), "{name} waits");
            (*name, asking)
        };
        names.iter().map(ask).collect()
    }

    /// In which order those get the place who wait for it.
    fn served(mut turn: FairTurn, mut waiting: Vec<(&str, Asking<'_>)>) -> String {
        let mut served = String::new();
        while !waiting.is_empty() {
            drop(turn);
            let next = waiting
                .iter_mut()
                .enumerate()
                .find_map(|(at, (_, asking))| poll(asking).map(|turn| (at, turn)));
            let (at, next) = next.expect("somebody gets it");
            served += waiting.remove(at).0;
            turn = next;
        }
        served
    }

    #[test]
    fn who_asks_for_much_lets_the_others_go_between() {
        let turns = FairTurns::new(1);
        let turn = poll(&mut (Box::pin(turns.take("a")) as Asking<'_>)).unwrap();
        let waiting = ask(&turns, &["a", "a", "a", "a", "b", "c", "b"]);
        assert_eq!(served(turn, waiting), "abcabaa");
        assert!(turns.try_take("a", 1).is_some(), "the place is free again");
    }

    #[test]
    fn who_has_left_is_passed_over_and_forgotten() {
        let turns = FairTurns::new(1);
        let turn = poll(&mut (Box::pin(turns.take("a")) as Asking<'_>)).unwrap();
        let gone = ask(&turns, &["a", "b", "b"]);
        let waiting = ask(&turns, &["c"]);
        drop(gone);
        for _ in 0..100 {
            drop(ask(&turns, &["d"]));
        }
        assert!(lock(&turns.state).waiting["d"].len() <= 64);
        assert_eq!(served(turn, waiting), "c");
        let state = lock(&turns.state);
        assert!(state.waiting.is_empty() && state.order.is_empty() && state.held.is_empty());
        assert_eq!(state.free, 1);
    }

    #[test]
    fn a_name_has_no_more_than_its_share_at_a_time() {
        let turns = FairTurns::new(3);
        let first = turns.try_take("a", 2).unwrap();
        let _second = turns.try_take("a", 2).unwrap();
        assert!(turns.try_take("a", 2).is_none());
        let _other = turns.try_take("b", 2).unwrap();
        assert!(turns.try_take("c", 2).is_none(), "no place is free");
        drop(first);
        assert!(turns.try_take("a", 2).is_some());
    }
}
