//! What can be said to `sds`.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

use crate::entry_name::EntryName;

/// Share a tree of items with other devices and people, offline too.
#[derive(Debug, Parser)]
#[command(name = "sds", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Options that every command takes, before or after it.
#[derive(Clone, Debug, Args)]
pub(crate) struct Options {
    /// Relay to sync with: quic://HOST:PORT, with #sha256=HEX to pin its certificate
    #[arg(long, global = true, env = "SDS_SERVER_URL", value_name = "URL")]
    pub(crate) server: Option<String>,
    /// Store to work on
    #[arg(long, global = true, env = "SDS_STORE_ID", value_name = "ID")]
    pub(crate) store: Option<String>,
    /// Token for the relay
    #[arg(long, global = true, env = "SDS_TOKEN", value_name = "JWT", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// File with the certificates to trust the relay by
    #[arg(long, global = true, env = "SDS_CA", value_name = "FILE")]
    pub(crate) ca: Option<PathBuf>,
    /// Folder of the stores' files [default: ~/.sds]
    #[arg(long, global = true, env = "SDS_PERSISTENCE_DIR", value_name = "DIR")]
    pub(crate) persistence_dir: Option<PathBuf>,
    /// How to print results
    #[arg(long, global = true, value_enum, ignore_case = true, default_value_t = Format::Text)]
    pub(crate) format: Format,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Share a folder among three peers through a relay, all on this machine
    Demo(DemoArgs),
    /// Create, read, move and delete entries
    Entry(Group<EntryCommand>),
    /// Show the tree
    Tree(Group<TreeCommand>),
    /// Sync, inspect and export a store
    Store(Group<StoreCommand>),
}

/// The commands of a group; none is a question for the group's help.
#[derive(Debug, Args)]
pub(crate) struct Group<C: Subcommand> {
    #[command(subcommand)]
    pub(crate) command: Option<C>,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Folder to share [default: the checkout around the current folder]
    pub(crate) dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum EntryCommand {
    /// Create an item, or a link with --target; prints its id
    Create(CreateArgs),
    /// Show what an entry holds
    Get(GetArgs),
    /// List what is inside an item
    List(ListArgs),
    /// Move an entry into another item
    Move(MoveArgs),
    /// Move an entry to the trash
    Delete(DeleteArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CreateArgs {
    /// Item to create it in
    #[arg(long, value_name = "ID", default_value = "root")]
    pub(crate) container: EntryName,
    /// Item to link to
    #[arg(long, value_name = "ID", conflicts_with_all = ["mime", "value", "file"])]
    pub(crate) target: Option<EntryName>,
    /// Place among the entries there, counted from 0 [default: last]
    #[arg(long, value_name = "INDEX")]
    pub(crate) at: Option<usize>,
    /// What to call it
    #[arg(long)]
    pub(crate) label: Option<String>,
    /// MIME type of the value
    #[arg(long, value_name = "TYPE")]
    pub(crate) mime: Option<String>,
    /// Text to store as its value
    #[arg(long, value_name = "TEXT")]
    pub(crate) value: Option<String>,
    /// File to store as its value: as text if the type is text/*, else as bytes
    #[arg(long, value_name = "FILE", conflicts_with = "value")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The entry: an id, or root, trash, lost-and-found
    pub(crate) id: EntryName,
    #[command(flatten)]
    pub(crate) fields: FieldArgs,
    /// Show whether it is an item or a link
    #[arg(long)]
    pub(crate) kind: bool,
    /// Show what a link points to
    #[arg(long)]
    pub(crate) target: bool,
    /// Write the value to a file instead
    #[arg(long, value_name = "FILE", conflicts_with_all = ["kind", "target", "label", "mime", "value"])]
    pub(crate) output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct FieldArgs {
    /// Show the label
    #[arg(long)]
    pub(crate) label: bool,
    /// Show the MIME type
    #[arg(long)]
    pub(crate) mime: bool,
    /// Show the value
    #[arg(long)]
    pub(crate) value: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The item: an id, or root, trash, lost-and-found
    #[arg(default_value = "root")]
    pub(crate) id: EntryName,
    /// List what is inside the inner items too
    #[arg(long)]
    pub(crate) recursive: bool,
    /// How many levels below the direct entries to list with --recursive
    #[arg(long, value_name = "N", requires = "recursive")]
    pub(crate) depth: Option<usize>,
    #[command(flatten)]
    pub(crate) fields: FieldArgs,
}

#[derive(Debug, Args)]
pub(crate) struct MoveArgs {
    /// The entry
    pub(crate) id: EntryName,
    /// Item to move it into
    #[arg(long, value_name = "ID")]
    pub(crate) to: EntryName,
    /// Place among the entries there, counted from 0 [default: last]
    #[arg(long, value_name = "INDEX")]
    pub(crate) at: Option<usize>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    /// The entry
    pub(crate) id: EntryName,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TreeCommand {
    /// Print the whole tree, trash included
    Show(TreeShowArgs),
}

#[derive(Debug, Args)]
pub(crate) struct TreeShowArgs {
    /// How many levels to print [default: all]
    #[arg(long, value_name = "N")]
    pub(crate) depth: Option<usize>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum StoreCommand {
    /// Exchange changes with the relay until both have everything
    Sync(SyncArgs),
    /// Keep the store open: for commands on this machine, a relay, and peers on the network
    Serve(ServeArgs),
    /// Show where the store is and what is in it
    Info,
    /// Write the store as JSON or as a binary snapshot
    Export(ExportArgs),
    /// Look whether the store's file is sound; changes nothing
    Check,
}

#[derive(Debug, Args)]
pub(crate) struct SyncArgs {
    /// How long to try, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000,
          value_parser = clap::value_parser!(u64).range(1..=86_400_000))]
    pub(crate) timeout: u64,
}

#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// Take connections of peers at this address; they need the URL and the token that are printed
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// The name or address by which peers reach this machine, for the URL
    #[arg(long, value_name = "HOST", requires = "listen")]
    pub(crate) host: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ExportArgs {
    /// Form of the export
    #[arg(long, value_enum, ignore_case = true, default_value_t = Encoding::Json)]
    pub(crate) encoding: Encoding,
    /// File to write; an existing one is replaced [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
}

/// Forms of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Encoding {
    /// Readable, without history
    Json,
    /// A snapshot, which merges
    Binary,
}

/// Reads the command line. Of an option given twice the last counts.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, clap::Error> {
    let matches = last_wins(Cli::command()).try_get_matches_from(args)?;
    Cli::from_arg_matches(&matches)
}

/// The help of the whole program, or of one of its groups.
pub(crate) fn help(group: Option<&str>) -> String {
    let mut cli = Cli::command();
    cli.build();
    let command = match group {
        Some(name) => cli.find_subcommand_mut(name),
        None => Some(&mut cli),
    };
    command.map(|command| command.render_help().to_string()).unwrap_or_default()
}

fn last_wins(command: clap::Command) -> clap::Command {
    command.args_override_self(true).mut_subcommands(last_wins)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Cli, clap::Error> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_command_line_is_consistent() {
        last_wins(Cli::command()).debug_assert();
    }

    #[test]
    fn global_options_stand_before_or_after_and_the_last_wins() {
        for line in [
            "sds --store a --format json entry list",
            "sds entry list --store a --format JSON",
            "sds entry list --store b --store a --format text --format json",
        ] {
            let cli = parse_line(line).unwrap();
            assert_eq!(cli.options.store.as_deref(), Some("a"), "{line}");
            assert_eq!(cli.options.format, Format::Json, "{line}");
        }
    }

    #[test]
    fn wrong_usage_is_refused() {
        for line in [
            "sds --format xml entry list",
            "sds nonsense",
            "sds entry nonsense",
            "sds entry move root",
            "sds entry create --at -1",
            "sds entry create --at abc",
            "sds entry create --value a --file b",
            "sds entry create --target root --value a",
            "sds entry get not-an-id",
            "sds store sync --timeout 0",
            "sds store export --encoding yaml",
        ] {
            let error = parse_line(line).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
