//! What each command does, one file a group.

mod demo;
mod entry;
mod store;
mod tree;

use std::time::{SystemTime, UNIX_EPOCH};

use sds_store::Timestamp;

use crate::args::{Cli, Command};
use crate::failure::Failure;
use crate::open_store::connect_options;

/// Runs one command.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let options = cli.options;
    if options.server.is_some() && options.token.is_some() {
        // A wrong address is a mistake in any command, not only in those that connect.
        connect_options(&options)?;
    }
    match cli.command {
        None => crate::help(),
        Some(Command::Demo(args)) => demo::run(&options, &args),
        Some(Command::Entry(command)) => entry::run(&options, &command),
        Some(Command::Tree(command)) => tree::run(&options, &command),
        Some(Command::Store(command)) => store::run(&options, &command),
    }
}

/// The present time.
fn now() -> Timestamp {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

/// Runs what waits for the network or the disk.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(work)
}
