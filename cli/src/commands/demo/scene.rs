//! The part of the tree that the peers fight over: who plays in it, what is done to it, how it looks.

use std::collections::HashSet;

use sds_store::limits::LITERAL_SIZE_LIMIT;
use sds_store::{DataStore, Entry, EntryId, ItemValue, StoreError, ValueKind};

use super::folder::{FOLDER_TYPE, new_item};
use crate::commands::now;
use crate::output;

/// The entries that all peers edit at once: real ones where the folder has them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cast {
    /// A text that all three edit.
    pub(super) text: EntryId,
    /// An item that all three rename.
    pub(super) renamed: EntryId,
    /// Two folders that are moved into each other.
    pub(super) folders: [EntryId; 2],
    /// A folder that one deletes while another puts something in.
    pub(super) doomed: EntryId,
}

impl Cast {
    /// Picks the entries, and makes those that the folder does not have.
    pub(super) fn choose(store: &mut DataStore) -> Result<Self, StoreError> {
        let entries = all_entries(store);
        let mut folders = preferred(entries.iter().filter(|entry| is_folder(entry))).into_iter();
        let (first, second, third) = (folders.next(), folders.next(), folders.next());
        let mut texts = preferred(entries.iter().filter(|entry| is_prose(entry))).into_iter();
        let (text, renamed) = (texts.next(), texts.next());
        store.transact(|store| {
            let mut folder = |known: Option<EntryId>, label| match known {
                Some(known) => Ok(known),
                None => new_item(store, EntryId::ROOT, FOLDER_TYPE, label),
            };
            let folders = [folder(first, "plans")?, folder(second, "archive")?];
            let doomed = folder(third, "drafts")?;
            let text = text.map_or_else(|| new_text(store, "notes.md"), Ok)?;
            let renamed = renamed.map_or_else(|| new_text(store, "list.md"), Ok)?;
            Ok(Self { text, renamed, folders, doomed })
        })
    }

    fn all(&self) -> [EntryId; 5] {
        let [first, second] = self.folders;
        [self.text, self.renamed, first, second, self.doomed]
    }
}

/// What the peers did while apart, to be looked for afterwards.
#[derive(Clone, Debug)]
pub(super) struct Edits {
    /// What each of them typed into the text.
    typed: Vec<String>,
    /// What each of them called the renamed item.
    names: Vec<String>,
    /// The item that was put into the folder that was deleted meanwhile.
    inserted: Vec<EntryId>,
}

impl Edits {
    pub(super) const fn new() -> Self {
        Self { typed: Vec::new(), names: Vec::new(), inserted: Vec::new() }
    }

    /// Lets peer number `nth`, called `name`, do its edits as one transaction, and says what it did.
    pub(super) fn act(
        &mut self,
        store: &mut DataStore,
        cast: &Cast,
        (nth, name): (usize, &str),
    ) -> Result<String, StoreError> {
        store.transact(|store| {
            let label = format!("{} ({name})", label_of(store, cast.renamed));
            store.set_label(cast.renamed, &label)?;
            self.names.push(label);
            let typed = format!("[{name} was here] ");
            let range = place_to_type(store, cast.text, nth);
            store.change_value(cast.text, range..range, &typed)?;
            self.typed.push(typed);
            let [first, second] = cast.folders;
            let name_of = |id| output::label(&label_of(store, id));
            let folders = format!("'{}' and '{}'", name_of(first), name_of(second));
            Ok(match nth {
                0 => {
                    store.move_entry_to(first, second, None)?;
                    format!("types at the start, renames, moves the first of {folders} into the second")
                }
                1 => {
                    store.move_entry_to(second, first, None)?;
                    store.delete_entry(cast.doomed, now())?;
                    format!("types in the middle, renames, moves the second of {folders} into the first, deletes a folder")
                }
                _ => {
                    let item = new_item(store, cast.doomed, "text/plain", "put in meanwhile")?;
                    self.inserted.push(item);
                    "types at the end, renames, puts an item into the folder that is being deleted"
                        .to_owned()
                }
            })
        })
    }

    /// What of the edits is missing in a store that should have them all.
    pub(super) fn missing(&self, store: &DataStore, cast: &Cast) -> Vec<String> {
        let mut missing = Vec::new();
        let text = text_of(store, cast.text);
        for typed in self.typed.iter().filter(|typed| !text.contains(typed.as_str())) {
            missing.push(format!("typed text {typed:?}"));
        }
        if !self.names.contains(&label_of(store, cast.renamed)) {
            missing.push("any of the new names".to_owned());
        }
        let at_root = |id: &EntryId| parent_of(store, *id) == Some(EntryId::ROOT);
        if cast.folders.iter().filter(|id| at_root(id)).count() != 1 {
            missing.push("one folder inside the other".to_owned());
        }
        if parent_of(store, cast.doomed) != Some(EntryId::TRASH) {
            missing.push("the deletion".to_owned());
        }
        if self.inserted.iter().any(|id| parent_of(store, *id) != Some(cast.doomed)) {
            missing.push("the item put into the deleted folder".to_owned());
        }
        missing
    }
}

/// The cast in its place in the tree, a line each, and the text's first and last line.
pub(super) fn outline(store: &DataStore, cast: &Cast) -> Vec<String> {
    let mut shown: HashSet<EntryId> = HashSet::new();
    let mut around: Vec<EntryId> = cast.all().to_vec();
    let doomed = store.entry_with_id(cast.doomed);
    around.extend(doomed.iter().flat_map(|folder| folder.inner_entries()).take(3).map(|e| e.id()));
    for id in around {
        let entry = store.entry_with_id(id);
        shown.extend(entry.iter().flat_map(Entry::outer_item_chain).map(|outer| outer.id()));
        shown.insert(id);
    }
    let mut lines = Vec::new();
    let mut rest = vec![(store.root_item(), 0)];
    while let Some((entry, depth)) = rest.pop() {
        let label = if depth == 0 { "root".to_owned() } else { output::label(&entry.label()) };
        lines.push(format!("{}{label}{}", "  ".repeat(depth), snippet(&entry, cast.text)));
        let inner = entry.inner_entries().rev().filter(|inner| shown.contains(&inner.id()));
        rest.extend(inner.map(|inner| (inner, depth + 1)));
    }
    lines
}

fn snippet(entry: &Entry<'_>, text: EntryId) -> String {
    if entry.id() != text {
        return String::new();
    }
    match entry.value() {
        ItemValue::Text(text) if text.chars().count() <= 160 => format!(": {text:?}"),
        ItemValue::Text(text) => {
            let start: String = text.chars().take(70).collect();
            let end: Vec<char> = text.chars().rev().take(70).collect();
            let end: String = end.into_iter().rev().collect();
            format!(": {start:?} ... {end:?}")
        }
        _ => String::new(),
    }
}

/// Where peer number `nth` types: at the start, in the middle, at the end, in UTF-16 units and never
/// inside a character.
fn place_to_type(store: &DataStore, item: EntryId, nth: usize) -> usize {
    let text = text_of(store, item);
    let chars = text.chars().count();
    let before = match nth {
        0 => 0,
        1 => chars / 2,
        _ => chars,
    };
    text.chars().take(before).map(char::len_utf16).sum()
}

fn new_text(store: &mut DataStore, label: &str) -> Result<EntryId, StoreError> {
    let item = new_item(store, EntryId::ROOT, "text/markdown", label)?;
    store.write_value(item, "A note that three people edit at once.")?;
    Ok(item)
}

/// All entries outside Trash and Lost and Found, outer ones first.
fn all_entries(store: &DataStore) -> Vec<Entry<'_>> {
    let mut entries = Vec::new();
    let mut rest = vec![store.root_item()];
    while let Some(item) = rest.pop() {
        let inner = item.inner_entries().filter(|entry| !entry.id().is_well_known());
        let from = entries.len();
        entries.extend(inner);
        rest.extend(entries[from..].iter().rev().copied());
    }
    entries
}

/// Entries in the order in which they make good examples: what people read first, hidden ones last.
fn preferred<'a>(entries: impl Iterator<Item = &'a Entry<'a>>) -> Vec<EntryId> {
    let rank = |label: &str| match label {
        hidden if hidden.starts_with('.') => 3,
        readme if readme.to_ascii_lowercase().starts_with("readme") => 0,
        prose if prose.ends_with(".md") || prose.ends_with(".txt") => 1,
        _ => 2,
    };
    let mut ranked: Vec<_> = entries.map(|entry| (rank(&entry.label()), entry.id())).collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, id)| id).collect()
}

fn is_folder(entry: &Entry<'_>) -> bool {
    entry.outer_item_id() == Some(EntryId::ROOT)
        && entry.is_item()
        && entry.mime_type() == FOLDER_TYPE
}

/// Whether the entry is a text worth showing, with room to type more: directly in Root, so that no
/// folder takes it along.
fn is_prose(entry: &Entry<'_>) -> bool {
    entry.outer_item_id() == Some(EntryId::ROOT)
        && entry.mime_type().starts_with("text/")
        && entry.value_kind() == ValueKind::Literal
        && matches!(entry.value(), ItemValue::Text(text) if text.len() < LITERAL_SIZE_LIMIT / 2)
}

fn label_of(store: &DataStore, id: EntryId) -> String {
    store.entry_with_id(id).map(|entry| entry.label().into_owned()).unwrap_or_default()
}

fn text_of(store: &DataStore, id: EntryId) -> String {
    match store.entry_with_id(id).map(|entry| entry.value()) {
        Some(ItemValue::Text(text)) => text,
        _ => String::new(),
    }
}

fn parent_of(store: &DataStore, id: EntryId) -> Option<EntryId> {
    store.entry_with_id(id)?.outer_item_id()
}
