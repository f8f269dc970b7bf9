//! Everything that `sds` prints. A reader that went away (`| head`) is no error; a disk that is full is one.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::sync::Mutex;

use serde_json::{Value as Json, json};

use crate::args::Format;
use crate::failure::{Exit, Failure};

/// Why something of what was to be said is not there, for [`finish`] to tell.
static LOST: Mutex<Option<ErrorKind>> = Mutex::new(None);

/// Prints a line on stdout.
pub(crate) fn line(text: impl fmt::Display) {
    if let Err(error) = print(&mut io::stdout().lock(), format_args!("{text}"))
        && error.kind() != ErrorKind::BrokenPipe
        && let Ok(mut lost) = LOST.lock()
    {
        lost.get_or_insert(error.kind());
    }
}

/// Says whether all that was printed is where it was to go. To be called when a command has done its work.
pub(crate) fn finish() -> Result<(), Failure> {
    let lost = LOST.lock().ok().and_then(|lost| *lost);
    lost.map_or(Ok(()), |kind| {
        let message = format_args!("done, but the output cannot be written: {kind}").to_string();
        Err(Failure::new(Exit::General, message))
    })
}

/// Prints a line on stderr.
pub(crate) fn error_line(text: impl fmt::Display) {
    // Nobody is left to tell if that fails.
    drop(print(&mut io::stderr().lock(), format_args!("{text}")));
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

fn print(out: &mut dyn Write, text: fmt::Arguments<'_>) -> io::Result<()> {
    let text = text.to_string();
    writeln!(out, "{}", text.trim_end_matches('\n'))?;
    out.flush()
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
