//! Everything that `sds` prints. A reader that went away (`| head`) is no error.

use std::fmt;
use std::io::Write;

use serde_json::{Value as Json, json};

use crate::args::Format;
use crate::failure::Failure;

/// Prints a line on stdout.
pub(crate) fn line(text: impl fmt::Display) {
    print(&mut std::io::stdout().lock(), format_args!("{text}"));
}

/// Prints a line on stderr.
pub(crate) fn error_line(text: impl fmt::Display) {
    print(&mut std::io::stderr().lock(), format_args!("{text}"));
}

/// Prints a result: JSON as it is, or as text.
pub(crate) fn result(format: Format, json: &Json, text: impl fmt::Display) {
    match format {
        Format::Text => line(text),
        Format::Json => line(format_args!("{json:#}")),
    }
}

/// Prints a failed command's message.
pub(crate) fn failure(format: Format, failure: &Failure) {
    match format {
        Format::Text => error_line(format_args!("sds: error: {failure}")),
        Format::Json => {
            let exit_code = failure.exit() as u8;
            error_line(json!({ "error": failure.to_string(), "exitCode": exit_code }));
        }
    }
}

fn print(out: &mut dyn Write, text: fmt::Arguments<'_>) {
    let text = text.to_string();
    // Nobody is left to tell when the output is closed.
    drop(writeln!(out, "{}", text.trim_end_matches('\n')));
}
