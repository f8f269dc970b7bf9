//! `sds store serve`: a store that stays open, for the commands on this machine, a relay, and peers.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::{Duration, SystemTime};

use sds_sync::access::{Grant, Scope, Secret, mint};
use sds_sync::new_file::write_private;
use sds_sync::process::stop_requests;
use sds_sync::{CertificateSource, ListenOptions, Listening, StoreId, SyncEngine, Token};
use serde_json::json;

use crate::args::{Options, ServeArgs};
use crate::failure::{Exit, Failure};
use crate::open_store::{StorePlace, connect_options};
use crate::output;

/// How long the token holds that peers get.
const TOKEN_LIFETIME: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// The folder beside the stores with what peers are recognized by, and recognize this device by.
const PEERING_FOLDER: &str = "peering";

pub(super) fn run(options: &Options, args: &ServeArgs) -> Result<(), Failure> {
    let place = StorePlace::of(options)?;
    let connect = options.server.as_ref().map(|_| connect_options(options)).transpose()?;
    super::block_on(async {
        // From here on a signal ends the command in good order, however early it comes.
        let asked_to_stop = stop_requests()?;
        let engine = SyncEngine::start(place.open_or_create()?);
        if let Some(connect) = connect {
            engine.connect(connect)?;
        }
        let peering = listen(&engine, &place, args).await?;
        let id = place.id.as_str();
        let (url, token) = peering.as_ref().map(|peering| (&*peering.url, &peering.token)).unzip();
        let token = token.map(Token::reveal);
        let json = json!({ "storeId": id, "serving": true, "url": url, "token": token });
        let rows = [("store:", Some(id)), ("url:", url), ("token:", token)];
        let line = |(name, value): (_, Option<_>)| Some(format!("{name:<13}{}", value?));
        let lines: Vec<String> = rows.into_iter().filter_map(line).collect();
        output::result(options.format, &json, lines.join("\n"));
        asked_to_stop.await?;
        if let Some(peering) = peering {
            peering.listening.stop().await;
        }
        Ok(engine.stop().await?)
    })
}

/// What peers need to connect.
struct Peering {
    listening: Listening,
    url: String,
    token: Token,
}

async fn listen(
    engine: &SyncEngine,
    place: &StorePlace,
    args: &ServeArgs,
) -> Result<Option<Peering>, Failure> {
    let Some(listen) = args.listen else { return Ok(None) };
    let folder = place.dir.join(PEERING_FOLDER);
    let secret = secret(&folder)?;
    let token = token_for_peers(&secret, &place.id)?;
    let certificate = CertificateSource::SelfSigned;
    let listening = engine.listen(ListenOptions { listen, secret, certificate, folder }).await?;
    let url = listening.url(args.host.as_deref());
    let url = url.map_err(|why| Failure::usage(format_args!("--host: {why}")))?.to_string();
    Ok(Some(Peering { listening, url, token }))
}

fn token_for_peers(secret: &Secret, store: &StoreId) -> Result<Token, Failure> {
    let grant = Grant {
        stores: store.clone().into(),
        subject: "peer".to_owned(),
        scope: Scope::Write,
        lifetime: TOKEN_LIFETIME,
        issuer: None,
    };
    mint(secret, &grant, SystemTime::now()).map_err(|error| Failure::new(Exit::General, error))
}

/// The secret that the tokens of peers are signed with: made once, and kept for its owner alone.
fn secret(folder: &Path) -> Result<Secret, Failure> {
    fs::create_dir_all(folder)?;
    let path = folder.join("secret");
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => make_secret(&path)?,
        text => text?,
    };
    let short = |why| Failure::new(Exit::General, format_args!("{}: {why}", path.display()));
    Secret::new(text.trim()).map_err(short)
}

/// Makes it, unless another process is faster.
fn make_secret(path: &Path) -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    write_private(path, hex::encode(bytes).as_bytes())?;
    fs::read_to_string(path)
}
