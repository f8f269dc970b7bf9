//! `sds`: stores at the command line. Every command opens the store, does one thing durably,
//! and says what it did; exit codes are those of [`failure::Exit`].

mod args;
mod commands;
mod entry_name;
mod failure;
mod input;
mod open_store;
mod output;
mod write_file;

use std::process::ExitCode;

use clap::error::ErrorKind;

fn main() -> ExitCode {
    let cli = match args::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&error),
    };
    let format = cli.options.format;
    match commands::run(&cli).and_then(|()| output::finish()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            output::failure(format, &failure);
            failure.exit().into()
        }
    }
}

/// Help and version go to stdout and are no failure.
fn report_usage(error: &clap::Error) -> ExitCode {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        output::line(error.render());
        return ExitCode::SUCCESS;
    }
    output::error_line(error.render());
    failure::Exit::Usage.into()
}
