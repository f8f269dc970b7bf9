//! A relay inside the test's own process.

use std::path::Path;

use sds_server::{Relay, RelayConfig};

use super::common::secret;

/// A relay with its data in `folder` and everything else as it is by itself.
pub(crate) async fn relay(folder: &Path) -> Relay {
    Relay::start(RelayConfig::new(secret(), folder)).await.unwrap()
}
