//! After every step of a random story each replica is what the naive model makes of its changes:
//! the whole displayed tree, every value, the digest.

use proptest::prelude::prop;
use sds_proptests::check::check;
use sds_proptests::story::{PEERS, Step, Story};

#[test]
fn honest_replicas_match_the_model_after_every_step() {
    let stories = (PEERS, prop::collection::vec(Step::honest(), 1..80));
    check(400, &stories, |(peers, steps)| drop(Story::new(peers).run(&steps)));
}

#[test]
fn replicas_match_the_model_whatever_changes_are_forged() {
    let stories = (PEERS, prop::collection::vec(Step::any(), 1..80));
    check(400, &stories, |(peers, steps)| drop(Story::new(peers).run(&steps)));
}
