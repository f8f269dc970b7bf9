//! A naive model of the store and the means to hold the real one against it.
//!
//! - [`model`]: what state a set of changes gives, straight from the merging rules.
//! - [`story`]: a few replicas, their edits and what reaches whom.
//! - [`store_rules`]: what must hold of any store; [`store_story`]: a few users of one.
//! - [`simulation`]: devices, a relay, lines and disks that fail, all decided by one seed.
//! - [`edit`]: local edits at random, and what each promises.
//! - [`adversarial`]: well-formed changes that no honest author would make.
//! - [`fuzz`](mod@fuzz): the bodies of the fuzz targets.
//! - [`mirror`]: a copy of a replica that is told deltas alone.
//! - [`typing`]: keystrokes, mostly where the last one was.
//! - [`store_view`]: what a store shows, and what has changed of it.
//! - [`user`]: what a user does with a store at random.
//! - [`watcher`]: somebody who is told nothing but a store's change sets.
//! - [`view`]: what can be seen of a state, to compare replica and model.
//! - [`pool`], [`dice`]: names, values and numbers to draw from.
//! - [`check`](mod@check): how properties are run.
//!
//! The claims themselves are in `tests/`.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

pub mod adversarial;
pub mod check;
pub mod dice;
pub mod edit;
pub mod fuzz;
pub mod mirror;
pub mod model;
pub mod pool;
pub mod simulation;
pub mod snapshot;
pub mod store_rules;
pub mod store_story;
pub mod store_view;
pub mod story;
pub mod typing;
pub mod user;
pub mod view;
pub mod watcher;
