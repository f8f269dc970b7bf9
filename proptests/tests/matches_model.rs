//! After every step of a random story each replica is what the naive model makes of its changes:
//! the whole displayed tree, every value, the digest.

use std::cell::Cell;

use proptest::prelude::{any, prop};
use proptest::strategy::Strategy;
use sds_proptests::check::{check, report};
use sds_proptests::story::{PEERS, Step, Story};

#[test]
fn honest_replicas_match_the_model_after_every_step() {
    check_stories("honest", Step::honest());
}

#[test]
fn replicas_match_the_model_whatever_changes_are_forged() {
    check_stories("forged", Step::any());
}

/// `PROPTEST_CASES=30000 cargo test --release -p sds-proptests --test matches_model -- --nocapture` takes
/// more than two million steps.
fn check_stories(which: &str, step: impl Strategy<Value = Step>) {
    let taken = Cell::new(0);
    let stories = (PEERS, any::<u8>(), prop::collection::vec(step, 1..80));
    check(400, &stories, |(peers, watched, steps)| {
        taken.set(taken.get() + steps.len());
        drop(Story::watching(peers, watched).run(&steps));
    });
    report(&format!("{which}: {} steps, each checked", taken.get()));
}
