//! What each command does, one file a group.

mod demo;
mod entry;
mod serve;
mod store;
mod tree;

use std::time::{SystemTime, UNIX_EPOCH};

use sds_store::Timestamp;

use crate::args::{self, Cli, Command, Group};
use crate::failure::Failure;
use crate::input::Input;
use crate::open_store::relay_url;
use crate::output;

/// How often a command is run that others got in the way of.
const ATTEMPTS_MAX: u32 = 16;

/// Runs one command. If somebody else got in its way, so that nothing of it was done, again.
pub(crate) fn run(cli: &Cli) -> Result<(), Failure> {
    let input = Input::default();
    let mut outcome = run_once(cli, &input);
    for _ in 1..ATTEMPTS_MAX {
        match &outcome {
            Err(failure) if failure.is_passing() => outcome = run_once(cli, &input),
            _ => break,
        }
    }
    outcome
}

fn run_once(cli: &Cli, input: &Input) -> Result<(), Failure> {
    let options = &cli.options;
    // A wrong address is a mistake in any command, not only in those that connect.
    relay_url(options)?;
    match &cli.command {
        None => show_help(None),
        Some(Command::Demo(args)) => demo::run(options, args),
        Some(Command::Entry(Group { command: Some(command) })) => {
            entry::run(options, command, input)
        }
        Some(Command::Entry(_)) => show_help(Some("entry")),
        Some(Command::Tree(Group { command: Some(command) })) => tree::run(options, command),
        Some(Command::Tree(_)) => show_help(Some("tree")),
        Some(Command::Store(Group { command: Some(command) })) => store::run(options, command),
        Some(Command::Store(_)) => show_help(Some("store")),
    }
}

/// What a call without a command, or a group without one, asks for.
fn show_help(group: Option<&str>) -> Result<(), Failure> {
    output::line(args::help(group));
    Ok(())
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
