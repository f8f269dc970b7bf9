//! Telling stories, and making those that fail short.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};

use super::{SimStep, SimStory, World};

/// The most stories that are tried to make one shorter.
const ATTEMPTS_MAX: usize = 400;

/// A story that failed.
#[derive(Debug)]
pub struct Report {
    /// The shortest form of it that was found.
    pub story: SimStory,
    /// What was wrong.
    pub failure: String,
    /// What happened up to there.
    pub trace: Vec<String>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\nSDS_SIM_SEED={}", self.failure, self.story.seed)?;
        writeln!(f, "{} devices, copies {:?}", self.story.devices, self.story.copies)?;
        self.story.steps.iter().try_for_each(|step| writeln!(f, "  {step:?}"))?;
        writeln!(f, "what happened:")?;
        self.trace.iter().try_for_each(|line| writeln!(f, "  {line}"))
    }
}

/// Tells a story to its end, where everything is mended and must come to rest. Returns what happened.
///
/// # Errors
/// What happened until something was wrong, and what was.
pub fn run_story(story: &SimStory) -> Result<Vec<String>, (Vec<String>, String)> {
    let mut world = World::new(story);
    let told = catch_unwind(AssertUnwindSafe(|| {
        for step in &story.steps {
            world.take(step);
            world.assert_rules();
        }
        world.come_to_rest();
        // Once more, with everything from disk.
        for number in 0..world.devices.len() {
            world.crash_device(number, true);
        }
        world.crash_relay(true);
        world.come_to_rest();
    }));
    let trace = world.context.into_trace();
    match told {
        Ok(()) => Ok(trace),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Err((trace, text.unwrap_or_default()))
        }
    }
}

/// Tells the story of a seed. Returns what happened.
///
/// # Errors
/// A short form of the story, if it fails.
pub fn check_seed(seed: u64) -> Result<Vec<String>, Box<Report>> {
    let story = SimStory::of_seed(seed);
    match run_story(&story) {
        Ok(trace) => Ok(trace),
        Err((trace, failure)) => {
            // What failed is in the report; nobody reads it hundreds of times.
            let hook = take_hook();
            set_hook(Box::new(|_| {}));
            let report = shorten(Report { story, failure, trace });
            set_hook(hook);
            Err(Box::new(report))
        }
    }
}

/// Leaves steps out, many at first, then single ones, as long as what is left fails.
fn shorten(mut report: Report) -> Report {
    let mut attempts = 0;
    let mut size = report.story.steps.len() / 2;
    while size > 0 {
        let mut from = 0;
        let mut has_shortened = false;
        while from < report.story.steps.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let until = (from + size).min(report.story.steps.len());
            let mut steps: Vec<SimStep> = report.story.steps.clone();
            drop(steps.drain(from..until));
            let story = SimStory { steps, ..report.story.clone() };
            match run_story(&story) {
                Err((trace, failure)) => {
                    report = Report { story, failure, trace };
                    has_shortened = true;
                }
                Ok(_) => from = until,
            }
        }
        if !has_shortened || size > 1 {
            size /= 2;
        }
    }
    report
}
