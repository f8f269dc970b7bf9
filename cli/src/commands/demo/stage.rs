//! What the demo says while it goes on: lines for people, a bar on a terminal, nothing for programs.

use std::fmt;
use std::time::Instant;

use indicatif::{ProgressBar, ProgressStyle};

use crate::args::Format;
use crate::output;

#[derive(Clone, Copy, Debug)]
pub(super) struct Stage {
    format: Format,
}

impl Stage {
    pub(super) const fn new(format: Format) -> Self {
        Self { format }
    }

    /// Says a line.
    pub(super) fn say(&self, text: impl fmt::Display) {
        if self.format == Format::Text {
            output::line(text);
        }
    }

    /// Says what was done, and how long it took since `began`.
    pub(super) fn done(&self, what: &str, began: Instant, text: impl fmt::Display) {
        let seconds = began.elapsed().as_secs_f64();
        self.say(format_args!("  {what:<9} {text} ({seconds:.2} s)"));
    }

    /// A bar that counts up to `len`, on a terminal's stderr.
    pub(super) fn bar(&self, what: &'static str, len: usize) -> ProgressBar {
        if self.format == Format::Json {
            return ProgressBar::hidden();
        }
        let style = ProgressStyle::with_template("  {msg:<9} {bar:40} {pos}/{len}");
        ProgressBar::new(len as u64)
            .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
            .with_message(what)
    }
}

/// A number of bytes as people read it.
pub(super) fn size(bytes: u64) -> impl fmt::Display {
    indicatif::HumanBytes(bytes)
}

/// A number of things, in words: `[one, several]` names them.
pub(super) fn counted(count: usize, [one, several]: [&str; 2]) -> String {
    format!("{count} {}", if count == 1 { one } else { several })
}
