//! The one way in which all commands find and open a store. Another process may have it open: then a
//! command goes through that one, or waits for its turn.

use std::path::PathBuf;

use sds_sync::{ConnectOptions, LocalStore, RelayUrl, StoreId, Token, Trust};

use crate::args::Options;
use crate::failure::Failure;

/// Which store a command works on, and where its file is.
#[derive(Clone, Debug)]
pub(crate) struct StorePlace {
    pub(crate) id: StoreId,
    pub(crate) dir: PathBuf,
}

impl StorePlace {
    /// The store that the options name.
    pub(crate) fn of(options: &Options) -> Result<Self, Failure> {
        let id = options.store.as_deref().unwrap_or_default();
        if id.is_empty() {
            return Err(Failure::usage("no store ID: give --store or set SDS_STORE_ID"));
        }
        let id = StoreId::new(id).map_err(Failure::usage)?;
        let dir = match &options.persistence_dir {
            Some(dir) => dir.clone(),
            None => std::env::home_dir()
                .ok_or_else(|| Failure::usage("no home folder: give --persistence-dir"))?
                .join(".sds"),
        };
        Ok(Self { id, dir })
    }

    /// The store's file, which may not exist yet.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.join(self.id.file_name())
    }

    /// The store as it is now, for commands that change nothing; its file is free again at once.
    pub(crate) fn read(&self) -> Result<LocalStore, Failure> {
        Ok(LocalStore::open_to_read(&self.dir, &self.id)?)
    }

    pub(crate) fn open(&self) -> Result<LocalStore, Failure> {
        Ok(LocalStore::open_existing(&self.dir, &self.id)?)
    }

    pub(crate) fn open_or_create(&self) -> Result<LocalStore, Failure> {
        Ok(LocalStore::open_or_create(&self.dir, &self.id)?)
    }
}

/// The relay that the options name, if they name one.
pub(crate) fn relay_url(options: &Options) -> Result<Option<RelayUrl>, Failure> {
    let url = options.server.as_deref().map(str::parse::<RelayUrl>).transpose();
    url.map_err(|why| Failure::usage(format_args!("--server: {why}")))
}

/// How to reach the relay that the options name.
pub(crate) fn connect_options(options: &Options) -> Result<ConnectOptions, Failure> {
    let url = relay_url(options)?;
    let url = url.ok_or_else(|| Failure::usage("no relay: give --server or set SDS_SERVER_URL"))?;
    let token = options.token.clone();
    let token = token.ok_or_else(|| Failure::usage("no token: give --token or set SDS_TOKEN"))?;
    let mut connect = ConnectOptions::new(url, Token::from(token));
    if let Some(ca) = &options.ca {
        connect.trust = Trust::CaFile(ca.clone());
    }
    Ok(connect)
}
