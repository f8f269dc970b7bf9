//! `sds store`: sync, inspect and export a store.

use std::fs;
use std::io::{BufWriter, Write};
use std::time::Duration;

use sds_store::{DataStore, Entry};
use sds_sync::{Finding, LocalStore, StorageError, SyncEngine, check_store};
use serde_json::json;

use crate::args::{Encoding, ExportArgs, Options, StoreCommand, SyncArgs};
use crate::failure::{Exit, Failure};
use crate::open_store::{StorePlace, connect_options};
use crate::output;
use crate::write_file::write_file;

pub(super) fn run(options: &Options, command: &StoreCommand) -> Result<(), Failure> {
    match command {
        StoreCommand::Sync(args) => sync(options, args),
        StoreCommand::Serve(args) => super::serve::run(options, args),
        StoreCommand::Info => info(options),
        StoreCommand::Export(args) => export(options, args),
        StoreCommand::Check => check(options),
    }
}

fn sync(options: &Options, args: &SyncArgs) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    let connect = connect_options(options)?;
    let server = connect.url.to_string();
    super::block_on(async {
        let engine = SyncEngine::start(place.open_or_create()?);
        engine.connect(connect)?;
        let outcome = engine.wait_until_synced(Duration::from_millis(args.timeout)).await;
        // What has arrived so far stays, whether or not it was everything.
        engine.stop().await?;
        Ok(outcome?)
    })?;
    let id = place.id.as_str();
    let json = json!({ "storeId": id, "server": server, "connected": true, "synced": true });
    output::result(options.format, &json, format_args!("store '{id}': synced"));
    Ok(())
}

fn info(options: &Options) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    let id = place.id.as_str();
    let file = place.file();
    let mut local = match LocalStore::open_to_read(&place.dir, &place.id) {
        Ok(local) => local,
        Err(StorageError::NotFound { .. }) => {
            let json = json!({ "storeId": id, "exists": false });
            let text = format!("store '{id}': not found in '{}'", place.dir.display());
            output::result(options.format, &json, text);
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let count = count_entries(local.store());
    let digest = local.store_mut().digest().to_string();
    let json = json!({
        "storeId": id,
        "exists": true,
        "entryCount": count,
        "dbPath": file.display().to_string(),
        "digest": digest,
    });
    let rows = [
        ("store:", id.to_owned()),
        ("entries:", count.to_string()),
        ("db path:", file.display().to_string()),
        ("digest:", digest),
    ];
    let lines: Vec<String> =
        rows.iter().map(|(name, value)| format!("{name:<13}{value}")).collect();
    output::result(options.format, &json, lines.join("\n"));
    Ok(())
}

fn check(options: &Options) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    let id = place.id.as_str();
    let report = check_store(&place.dir, &place.id)?;
    let finding =
        |finding: &Finding| json!({ "code": finding.code(), "message": finding.to_string() });
    let findings: Vec<_> = report.findings.iter().map(finding).collect();
    let json = json!({
        "storeId": id,
        "sound": report.is_sound(),
        "findings": findings,
        "changes": report.changes,
        "blobs": report.blobs,
        "missingBlobs": report.missing_blobs,
    });
    let verdict = if report.is_sound() { "sound" } else { "damaged" };
    let mut lines = vec![format!("store '{id}': {verdict}")];
    let finding = |finding: &Finding| format!("{}: {finding}", finding.code());
    lines.extend(report.findings.iter().map(finding));
    output::result(options.format, &json, lines.join("\n"));
    if report.is_sound() {
        return Ok(());
    }
    let file = place.file();
    let advice = "keep a copy of it, and restore it from a backup, or sync anew from a relay";
    Err(Failure::new(Exit::General, format_args!("{} is damaged: {advice}", file.display())))
}

/// All entries below Root but the trash, the lost and found, and what is in them.
pub(super) fn count_entries(store: &DataStore) -> usize {
    let mut count = 0;
    let mut rest: Vec<Entry<'_>> = vec![store.root_item()];
    while let Some(item) = rest.pop() {
        let from = rest.len();
        rest.extend(item.inner_entries().filter(|entry| !entry.id().is_well_known()));
        count += rest.len() - from;
    }
    count
}

fn export(options: &Options, args: &ExportArgs) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    let local = place.read()?;
    let Some(path) = &args.output else {
        return match write_export(local.store(), args.encoding, &mut std::io::stdout().lock()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
            done => Ok(done?),
        };
    };
    let name = path.display().to_string();
    if fs::canonicalize(path)
        .is_ok_and(|path| fs::canonicalize(place.file()).is_ok_and(|own| own == path))
    {
        return Err(Failure::usage(format_args!("--output: '{name}' is the store's own file")));
    }
    write_file(path, |out| write_export(local.store(), args.encoding, out))?;
    let form = if args.encoding == Encoding::Json { "json" } else { "binary" };
    let json = json!({ "exported": true, "file": name, "format": form });
    output::result(options.format, &json, format_args!("exported to '{name}'"));
    Ok(())
}

fn write_export(store: &DataStore, encoding: Encoding, out: &mut dyn Write) -> std::io::Result<()> {
    match encoding {
        Encoding::Binary => out.write_all(&store.as_binary())?,
        Encoding::Json => {
            let mut buffered = BufWriter::new(out);
            store.write_json(&mut buffered)?;
            buffered.write_all(b"\n")?;
            return buffered.flush();
        }
    }
    out.flush()
}
