//! `sds tree`: the whole tree at a glance.

use sds_store::{DataStore, Entry};
use serde_json::{Value as Json, json};

use crate::args::{Format, Options, TreeCommand, TreeShowArgs};
use crate::failure::{Exit, Failure};
use crate::open_store::StorePlace;
use crate::output;

/// The most levels of nested JSON; most parsers give up at 128.
const JSON_DEPTH_MAX: usize = 60;

pub(super) fn run(options: &Options, command: &TreeCommand) -> Result<(), Failure> {
    let TreeCommand::Show(args) = command;
    show(options.format, StorePlace::of(options)?.read()?.store(), args)
}

fn show(format: Format, store: &DataStore, args: &TreeShowArgs) -> Result<(), Failure> {
    let depth = args.depth.unwrap_or(usize::MAX);
    match format {
        Format::Text => {
            output::line("root/");
            draw(store.root_item(), depth, |line| output::line(line));
        }
        Format::Json => {
            let children = nested(store.root_item(), depth, 0)?;
            output::line(format_args!("{:#}", json!({ "root": children })));
        }
    }
    Ok(())
}

/// Draws what is inside an item, a line each, down to `depth` levels.
pub(super) fn draw(item: Entry<'_>, depth: usize, mut line: impl FnMut(&str)) {
    if item.inner_entry_count() == 0 && depth > 0 {
        return line("  (empty)");
    }
    let mut rest = Vec::new();
    push_inner(&mut rest, item, String::new(), depth);
    while let Some(row) = rest.pop() {
        let branch = if row.is_last { "└── " } else { "├── " };
        let label = output::label(&row.entry.label());
        let mut text = format!("{}{branch}{}  {label}", row.indent, row.entry.id());
        if let Some(target) = row.entry.target_id() {
            text += &format!(" → {target}");
        }
        line(&text);
        let indent = row.indent + if row.is_last { "    " } else { "│   " };
        push_inner(&mut rest, row.entry, indent, row.depth);
    }
}

/// One line to draw.
struct Row<'a> {
    entry: Entry<'a>,
    indent: String,
    is_last: bool,
    /// How many levels below it are drawn.
    depth: usize,
}

/// Puts the entries inside an item on the stack, the first on top.
fn push_inner<'a>(rest: &mut Vec<Row<'a>>, item: Entry<'a>, indent: String, depth: usize) {
    let Some(depth) = depth.checked_sub(1) else { return };
    let inner = item.inner_entries().rev().enumerate();
    rest.extend(inner.map(|(from_end, entry)| {
        let is_last = from_end == 0;
        Row { entry, indent: indent.clone(), is_last, depth }
    }));
}

/// The entries inside an item as JSON, down to `depth` levels.
fn nested(item: Entry<'_>, depth: usize, level: usize) -> Result<Vec<Json>, Failure> {
    if depth == 0 || item.inner_entry_count() == 0 {
        return Ok(Vec::new());
    }
    if level == JSON_DEPTH_MAX {
        let why = "the tree is too deep for nested JSON: give --depth, or use 'sds entry list'";
        return Err(Failure::new(Exit::General, why));
    }
    let node = |entry: Entry<'_>| {
        let mut node = json!({
            "Id": entry.id().to_string(),
            "Kind": if entry.is_item() { "item" } else { "link" },
            "Label": entry.label(),
        });
        if let Some(target) = entry.target_id() {
            node["TargetId"] = target.to_string().into();
        }
        node["Children"] = nested(entry, depth - 1, level + 1)?.into();
        Ok(node)
    };
    item.inner_entries().map(node).collect()
}
