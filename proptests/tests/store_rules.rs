//! Whatever several users do to a store, and in whatever order it reaches the others, the store's rules
//! hold after every step, and everybody ends up with the same.

use proptest::prelude::{any, prop};
use sds_proptests::check::check;
use sds_proptests::store_story::{StoreStep, StoreStory, USERS};

#[test]
fn the_rules_hold_after_every_step_of_any_story() {
    let stories = (USERS, prop::collection::vec(StoreStep::any(), 1..60), any::<u64>());
    check(120, &stories, |(users, steps, seed)| StoreStory::new(users).run(&steps).converge(seed));
}
