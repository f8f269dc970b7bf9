//! A relay: stores and forwards the changes of many stores, and checks who may see them.
//!
//! - [`Relay`]: a running relay; [`RelayConfig`] says where and with what.
//! - [`mint`]: makes the tokens that it checks.
//! - [`relay`]: who hears what, without I/O; one client's side is `sds_sync`'s `ServingSession`.
//! - [`config`]: the command line of the program.
//! - [`store_log`]: what is kept on disk.
//! - [`metrics`]: what is counted.
//! - [`backup`], [`check`](mod@check): copying all that is kept, and looking whether it is sound.
//! - [`limits`]: every bound that the protocol does not set already.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::panic, clippy::unreachable))]

mod admin;
mod append_queue;
mod attendance;
mod audit;
pub mod backup;
mod blob_totals;
pub mod check;
mod chores;
pub mod config;
mod connection;
mod doorkeeper;
mod fair_turns;
mod health;
pub mod limits;
mod lines_file;
mod log_writer;
pub mod metrics;
mod node;
mod pace;
mod presence_seat;
pub mod relay;
mod revocations;
mod rooms;
mod seldom;
mod serve_blob;
mod serve_store;
mod sessions;
mod store_blobs;
pub mod store_log;
mod told;

pub use node::{Ending, Relay, RelayConfig, StartError};
pub use sds_sync::access::{
    Grant, KeyId, Keyring, MintError, Scope, Secret, StoreSet, UnknownScope, WeakSecret, mint,
};
pub use sds_sync::{CertificateError, CertificateSource};
