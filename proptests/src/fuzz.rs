//! The bodies of the fuzz targets: any bytes, read as what a test takes.

use arbitrary::{Arbitrary, Unstructured};

use crate::story::{PEERS, Step, Story};

/// More steps make a story slow without making it tell more.
const STEPS_MAX: usize = 64;

/// Panics unless the story that the bytes tell leaves all replicas as the model says.
pub fn convergence(data: &[u8]) {
    let Some((peers, seed, steps)) = story(data) else { return };
    Story::new(peers).run(&steps).converge(seed);
}

/// The story that the bytes tell: how many replicas, the seed of the last deliveries, the steps.
#[must_use]
pub fn story(data: &[u8]) -> Option<(usize, u64, Vec<Step>)> {
    let mut bytes = Unstructured::new(data);
    let peers = bytes.int_in_range(PEERS).ok()?;
    let seed = u64::arbitrary(&mut bytes).ok()?;
    let mut steps = Vec::new();
    while !bytes.is_empty() && steps.len() < STEPS_MAX {
        steps.push(Step::arbitrary(&mut bytes).ok()?);
    }
    Some((peers, seed, steps))
}
