//! `sds demo`: shares a folder among three peers through a relay, cuts them off, lets them edit the
//! same things at once, and shows that they meet again. Every layer is the real one.

mod folder;
mod party;
mod scene;
mod stage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;

use crate::args::{DemoArgs, Format, Options};
use crate::failure::{Exit, Failure};
use crate::output;
use folder::Folder;
use party::{Party, Standing};
use stage::Stage;

pub(super) fn run(options: &Options, args: &DemoArgs) -> Result<(), Failure> {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => checkout_around(&std::env::current_dir()?),
    };
    let started = Instant::now();
    let stage = Stage::new(options.format);
    let folder = Folder::scan(&dir)?;
    // Whatever happens, the peers' files go with this folder.
    let home = tempfile::Builder::new().prefix("sds-demo-").tempdir()?;
    let standing = super::block_on(async {
        tokio::select! {
            standing = play(&stage, &folder, home.path()) => standing,
            _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::General, "interrupted")),
        }
    })?;
    home.close()?;
    close(options.format, &standing, started.elapsed().as_secs_f64())
}

/// The whole story.
async fn play(stage: &Stage, folder: &Folder, home: &Path) -> Result<Standing, Failure> {
    stage.say(format_args!("sharing '{}' among three peers", folder.dir().display()));
    let mut party = Party::start(stage, home).await?;
    party.load(stage, folder).await?;
    party.spread(stage).await?;
    let cast = party.cast(stage).await?;
    party.show(stage, "before", &cast)?;
    party.part(stage).await;
    let edits = party.edit_apart(stage, &cast)?;
    party.meet(stage).await?;
    party.show(stage, "after", &cast)?;
    party.check(&cast, &edits)?;
    party.reopen(stage).await
}

fn close(format: Format, standing: &Standing, seconds: f64) -> Result<(), Failure> {
    let digest = standing.digest();
    let json = json!({
        "converged": standing.is_converged(),
        "peers": standing.peers(),
        "entries": standing.entries,
        "changes": standing.changes,
        "digest": digest,
        "bytes_on_disk": standing.bytes_on_disk,
        "seconds": (seconds * 1000.0).round() / 1000.0,
    });
    let verdict = if standing.is_converged() {
        format!("converged: all {} digests are equal ({digest})", standing.digests.len())
    } else {
        format!("NOT converged: the digests differ: {}", standing.digests.join(", "))
    };
    output::result(format, &json, &verdict);
    if standing.is_converged() { Ok(()) } else { Err(Failure::new(Exit::General, verdict)) }
}

/// The checkout that contains `dir`, or `dir` itself outside of any.
fn checkout_around(dir: &Path) -> PathBuf {
    let checkout = dir.ancestors().find(|above| above.join(".git").exists());
    checkout.unwrap_or(dir).to_path_buf()
}
