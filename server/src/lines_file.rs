//! A file of lines that only grows: a line is there whole, or not at all.
//!
//! A disk that is full or a machine that goes down can leave half a line at the end. Nobody was
//! told that it had been written, so it is cut off before the next one, which would continue it
//! otherwise.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use sds_sync::new_file::sync_folder;

/// How much is read at once while looking for the last line end, in bytes.
const BLOCK_BYTES: usize = 4 << 10;

/// Appends whole lines to the file, which is made if it is not there; on disk when this returns.
/// Only its owner can read a new one.
///
/// # Errors
/// If they cannot be written. Then none of them is in the file, or half of the last one, which the
/// next call cuts off.
pub(crate) fn append(path: &Path, lines: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let len = file.metadata()?.len();
    let whole = end_of_lines(&mut file, len)?;
    if whole < len {
        cut(&file, whole)?;
    }
    let written = file.write_all(lines).and_then(|()| file.sync_data());
    if written.is_err() {
        cut(&file, whole)?;
    } else if len == 0 {
        sync_folder(path)?;
    }
    written
}

/// The whole lines of a file's bytes, without half a one at its end, which may be half a character
/// too.
pub(crate) fn whole_lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"))
}

fn cut(file: &File, len: u64) -> io::Result<()> {
    file.set_len(len)?;
    file.sync_data()
}

/// Where the last whole line of a file of `len` bytes ends. Looks no further than that.
fn end_of_lines(file: &mut File, len: u64) -> io::Result<u64> {
    let mut block = Vec::new();
    let mut end = len;
    while end > 0 {
        let start = end.saturating_sub(BLOCK_BYTES as u64);
        file.seek(SeekFrom::Start(start))?;
        block.clear();
        file.take(end - start).read_to_end(&mut block)?;
        if let Some(found) = block.iter().rposition(|byte| *byte == b'\n') {
            return Ok(start + found as u64 + 1);
        }
        end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Goal: however long the half line is, it goes, and nothing else does. Method: lengths around
    /// those of a block, behind no line, an empty one and others.
    #[test]
    fn half_a_line_is_cut_off_before_the_next() {
        for whole in ["", "\n", "a\n", "a\n\nb\n"] {
            for half in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 3 * BLOCK_BYTES] {
                let folder = TempDir::new().unwrap();
                let path = folder.path().join("f");
                std::fs::write(&path, whole.to_owned() + &"x".repeat(half)).unwrap();
                append(&path, b"one\ntwo\n").unwrap();
                let text = std::fs::read_to_string(&path).unwrap();
                assert_eq!(text, format!("{whole}one\ntwo\n"), "{half}");
                let with_half = text.clone() + "half";
                assert!(whole_lines(with_half.as_bytes()).eq(text.lines().map(str::as_bytes)));
            }
        }
    }
}
