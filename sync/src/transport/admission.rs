//! Taking connections in: how many at a time, and from whom without a proof of its address.

use quinn::{Connection, Endpoint, Incoming};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::IDLE_CONNECTION_TIMEOUT;

/// How many may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The most connections at a time, with those that still shake hands.
    pub connections_max: usize,
    /// The most handshakes at a time before clients have to prove first that their address is theirs.
    pub unproved_max: usize,
}

/// Takes connections and serves each with `serve`, until `stopped` resolves; then waits for all to end.
pub async fn serve_connections<F: Future<Output = ()> + Send + 'static>(
    endpoint: Endpoint,
    admission: Admission,
    stopped: impl Future<Output = ()>,
    serve: impl Fn(Connection) -> F,
) {
    let mut stopped = std::pin::pin!(stopped);
    let (mut handshakes, mut connections) = (JoinSet::new(), JoinSet::new());
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            Some(shaken) = handshakes.join_next() => {
                if let Ok(Some(connection)) = shaken {
                    connections.spawn(serve(connection));
                }
            }
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                if connections.len() + handshakes.len() >= admission.connections_max {
                    incoming.refuse();
                } else if handshakes.len() >= admission.unproved_max
                    && !incoming.remote_address_validated()
                {
                    // Only who has proved its address already cannot be asked to.
                    let _asked = incoming.retry();
                } else {
                    handshakes.spawn(shake_hands(incoming));
                }
            }
        }
    }
    // Who has not even shaken hands is not waited for.
    drop(handshakes);
    while connections.join_next().await.is_some() {}
}

/// Shakes hands. `None` if the client does not, or not in time.
async fn shake_hands(incoming: Incoming) -> Option<Connection> {
    timeout(IDLE_CONNECTION_TIMEOUT, incoming).await.ok()?.ok()
}
