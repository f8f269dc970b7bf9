//! Trees: created, moved, merged, loaded; late moves into a long history; order keys; cost curves.
//!
//! Edits are made in changes of [`OPS_A_CHANGE`]. Every tree that comes out is compared with a
//! plain model of children in lists.

mod curves;
mod order_keys;
mod plan;
mod workloads;

use crate::board::Board;
use crate::measure::Settings;

/// How many edits are one change, where the workload leaves it open.
const OPS_A_CHANGE: usize = 1_000;

/// Runs every row about trees.
pub(crate) fn run(settings: &Settings, board: &mut Board) {
    workloads::run(settings, board);
    order_keys::run(settings, board);
    curves::run(settings, board);
}
