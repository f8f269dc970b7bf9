//! Whatever happens to devices, lines, disks and the relay: once everything is mended everybody has the
//! same, nothing that was acknowledged is lost, and nothing is there twice.
//!
//! `SDS_SIM_RUNS` sets how many stories are told, `SDS_SIM_SEED` tells the one of a seed again and
//! shows what happens.

use sds_proptests::check::report;
use sds_proptests::simulation::{SimStory, check_seed, run_story};

/// What must have happened in some story, or the simulation has become blind.
const EVENTS: [&str; 14] = [
    "lost power",
    "cannot start: no space",
    "cannot write: no space",
    "relay cannot write",
    "the stream was cut off",
    "refuses (unauthorized)",
    "relay is restored",
    "connected: Inquiry",
    "settled its seats",
    "took a new seat",
    "gives seats up",
    "waits for others",
    "> Arrive",
    "at rest",
];

/// How many stories are told if nobody asks for more.
const RUNS: u64 = 200;

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
    let mut counts = [0; EVENTS.len()];
    for seed in first..first + runs {
        let trace = check_seed(seed).unwrap_or_else(|failure| panic!("{failure}"));
        steps += trace.iter().filter(|line| line.contains("> ")).count();
        for (event, count) in EVENTS.iter().zip(&mut counts) {
            *count += trace.iter().filter(|line| line.contains(event)).count();
        }
    }
    let counts: Vec<_> = EVENTS.iter().zip(counts).collect();
    report(&format!("{runs} stories, {steps} steps, {counts:?}"));
    assert!(runs < RUNS || counts.iter().all(|(_, count)| *count > 0), "{counts:?}");
}

/// Goal: a seed can be told again. Method: tell some stories twice, and compare what happened.
#[test]
fn the_same_story_always_goes_the_same_way() {
    for seed in 0..10 {
        let story = SimStory::of_seed(seed);
        assert_eq!(run_story(&story), run_story(&story));
    }
}
