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

/// A label as part of a line: what would break the line, or drive the terminal, is shown escaped.
pub(crate) fn label(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for char in text.chars() {
        if char.is_control() {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_cannot_break_a_line_or_drive_the_terminal() {
        assert_eq!(label("naïve 😀"), "naïve 😀");
        assert_eq!(label("a\nb\x1b[31m\u{9b}"), "a\\nb\\u{1b}[31m\\u{9b}");
    }
}
