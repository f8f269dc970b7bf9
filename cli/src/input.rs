//! The file that a command was given, which can be read as often as the command is tried.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Seek as _};
use std::path::Path;

/// What was read of a pipe or a terminal, which can be read once, is kept in a file without a name.
#[derive(Debug, Default)]
pub(crate) struct Input {
    kept: RefCell<Option<File>>,
}

impl Input {
    /// Opens the file at its beginning. Always the same path.
    pub(crate) fn open(&self, path: &Path) -> io::Result<File> {
        let mut kept = self.kept.borrow_mut();
        let kept = match &mut *kept {
            Some(kept) => kept,
            None => {
                let mut file = File::open(path)?;
                if file.metadata()?.is_file() {
                    return Ok(file);
                }
                let mut copy = tempfile::tempfile()?;
                io::copy(&mut file, &mut copy)?;
                kept.insert(copy)
            }
        };
        kept.rewind()?;
        kept.try_clone()
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn text(file: io::Result<File>) -> String {
        let mut text = String::new();
        file.unwrap().read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_pipe_can_be_read_again_and_a_file_is_read_as_it_is() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let writer = std::thread::spawn({
            let path = path.clone();
            move || File::create(path).unwrap().write_all(b"once").unwrap()
        });
        let input = Input::default();
        assert_eq!(text(input.open(&path)), "once");
        writer.join().unwrap();
        assert_eq!(text(input.open(&path)), "once");
        let (path, input) = (folder.path().join("file"), Input::default());
        std::fs::write(&path, "first").unwrap();
        assert_eq!(text(input.open(&path)), "first");
        std::fs::write(&path, "second").unwrap();
        assert_eq!(text(input.open(&path)), "second");
    }
}
