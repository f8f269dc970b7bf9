//! Whatever happens to devices, lines, disks and the relay: once everything is mended everybody has the
//! same, nothing that was acknowledged is lost, and nothing is there twice.
//!
//! `SDS_SIM_RUNS` sets how many stories are told, `SDS_SIM_SEED` tells the one of a seed again and
//! shows what happens.

use sds_proptests::check::report;
use sds_proptests::simulation::{SimStory, check_seed, run_story};

/// How many stories are told if nobody asks for more.
const RUNS: u64 = 150;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn any_story_comes_to_rest_with_nothing_lost() {
    if let Some(seed) = number("SDS_SIM_SEED") {
        if let Err(failure) = check_seed(seed) {
            panic!("{failure}");
        }
        for line in run_story(&SimStory::of_seed(seed)).unwrap() {
            report(&line);
        }
        return;
    }
    let runs = number("SDS_SIM_RUNS").or_else(|| number("PROPTEST_CASES")).unwrap_or(RUNS);
    let first = number("SDS_SIM_FIRST").unwrap_or(1);
    let mut steps = 0;
    for seed in first..first + runs {
        match check_seed(seed) {
            Ok(count) => steps += count,
            Err(failure) => panic!("{failure}"),
        }
    }
    report(&format!("{runs} stories, {steps} steps"));
}

/// Goal: a seed can be told again. Method: tell some stories twice, and compare what happened.
#[test]
fn the_same_story_always_goes_the_same_way() {
    for seed in 0..10 {
        let story = SimStory::of_seed(seed);
        assert_eq!(run_story(&story), run_story(&story));
    }
}
