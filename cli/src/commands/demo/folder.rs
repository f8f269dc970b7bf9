//! A folder on disk as input: what is in it, and what of it becomes an item.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;
use sds_store::{DataStore, EntryId, NewValue, StoreError};

use crate::failure::{Exit, Failure};

/// Larger files are left out: a peer of the demo holds what it shares in memory.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// MIME type of an item made from a folder.
pub(super) const FOLDER_TYPE: &str = "inode/directory";

/// A file or folder below the scanned one.
#[derive(Clone, Debug)]
pub(super) struct Found {
    path: PathBuf,
    /// How far below the scanned folder, from 1.
    depth: usize,
    is_folder: bool,
    pub(super) bytes: u64,
}

/// What a folder holds, but for what git ignores.
#[derive(Clone, Debug)]
pub(super) struct Folder {
    dir: PathBuf,
    /// Folders before what is in them.
    pub(super) found: Vec<Found>,
    /// What was left out, and why.
    pub(super) left_out: Vec<String>,
}

impl Folder {
    /// Looks through `dir`.
    pub(super) fn scan(dir: &Path) -> Result<Self, Failure> {
        let name = dir.display();
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(Failure::usage(format_args!("'{name}' is not a folder"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Failure::not_found(format_args!("folder '{name}' does not exist")));
            }
            Err(error) => {
                let why = format_args!("cannot read '{name}': {error}");
                return Err(Failure::new(Exit::General, why));
            }
        }
        let mut folder = Self { dir: dir.to_path_buf(), found: Vec::new(), left_out: Vec::new() };
        let walk = WalkBuilder::new(dir)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| entry.file_name() != ".git")
            .sort_by_file_name(Ord::cmp)
            .build();
        for entry in walk {
            match entry {
                Ok(entry) if entry.depth() > 0 => folder.add(&entry),
                Ok(_) => {}
                Err(error) => folder.left_out.push(error.to_string()),
            }
        }
        if folder.files() == 0 {
            let why = match folder.left_out.first() {
                Some(first) => format!("no readable file in '{name}': {first}"),
                None => format!("'{name}' holds no files to share"),
            };
            return Err(Failure::not_found(why));
        }
        Ok(folder)
    }

    /// The scanned folder.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// How many files were found.
    pub(super) fn files(&self) -> usize {
        self.found.iter().filter(|found| !found.is_folder).count()
    }

    /// How many folders were found.
    pub(super) fn folders(&self) -> usize {
        self.found.len() - self.files()
    }

    fn add(&mut self, entry: &ignore::DirEntry) {
        let path = entry.path().to_path_buf();
        let mut leave_out = |why: &str| self.left_out.push(format!("{}: {why}", path.display()));
        let kind = entry.file_type();
        let is_folder = kind.is_some_and(|kind| kind.is_dir());
        if !is_folder && !kind.is_some_and(|kind| kind.is_file()) {
            return leave_out("neither a file nor a folder");
        }
        match entry.metadata() {
            Err(error) => leave_out(&error.to_string()),
            Ok(meta) if !is_folder && meta.len() > FILE_BYTES_MAX => {
                leave_out("larger than the demo takes (256 MiB)");
            }
            Ok(meta) => {
                let bytes = if is_folder { 0 } else { meta.len() };
                self.found.push(Found { path, depth: entry.depth(), is_folder, bytes });
            }
        }
    }
}

/// Makes items of what was found, one after another.
#[derive(Debug, Default)]
pub(super) struct Loader {
    /// The items of the folders around the next one found, outermost first.
    around: Vec<EntryId>,
    pub(super) left_out: Vec<String>,
    pub(super) bytes: u64,
}

impl Loader {
    /// Makes an item of a file or folder. A file that cannot be read is left out.
    pub(super) fn add(&mut self, store: &mut DataStore, found: &Found) -> Result<(), StoreError> {
        self.around.truncate(found.depth - 1);
        let outer = self.around.last().copied().unwrap_or(EntryId::ROOT);
        let name = found.path.file_name().unwrap_or_default().to_string_lossy();
        if found.is_folder {
            let item = new_item(store, outer, FOLDER_TYPE, &name)?;
            self.around.push(item);
            return Ok(());
        }
        let bytes = match fs::read(&found.path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.left_out.push(format!("{}: {error}", found.path.display()));
                return Ok(());
            }
        };
        self.bytes += bytes.len() as u64;
        let guess = mime_guess::from_path(&found.path).first_raw();
        let (value, mime_type) = match String::from_utf8(bytes) {
            Ok(text) if !text.contains('\0') => {
                (NewValue::Text(text), guess.unwrap_or("text/plain"))
            }
            Ok(text) => (NewValue::Bytes(text.into_bytes()), guess.unwrap_or(ANY_BYTES)),
            Err(error) => (NewValue::Bytes(error.into_bytes()), guess.unwrap_or(ANY_BYTES)),
        };
        let item = new_item(store, outer, mime_type, &name)?;
        store.write_value(item, value)
    }
}

const ANY_BYTES: &str = "application/octet-stream";

pub(super) fn new_item(
    store: &mut DataStore,
    outer: EntryId,
    mime_type: &str,
    label: &str,
) -> Result<EntryId, StoreError> {
    let item = store.new_item_at(Some(mime_type), outer, None)?;
    store.set_label(item, label)?;
    Ok(item)
}
