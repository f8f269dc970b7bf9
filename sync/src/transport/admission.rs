//! Taking connections in: who may come, and who has to prove first that its address is its own.

use std::net::IpAddr;
use std::time::Duration;

use quinn::{Connection, Endpoint, Incoming};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::limits::IDLE_CONNECTION_TIMEOUT;

/// Who asks for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applicant {
    /// Where it says it is.
    pub address: IpAddr,
    /// Whether that has been proved.
    pub is_proved: bool,
    /// How many shake hands.
    pub handshakes: usize,
    /// How many have done so and are connected.
    pub connections: usize,
}

/// What becomes of an applicant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may shake hands.
    Accept,
    /// It has to prove its address, and may ask again then; who has proved it is accepted.
    Prove,
    /// It may not come.
    Refuse,
}

/// How the handshake of somebody who was accepted ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shaken {
    /// There is a connection.
    Connected,
    /// It failed.
    Failed,
    /// It was cut off, as it took longer than it may.
    TooSlow,
}

/// Decides who may come.
pub trait Doorkeeper: Sync {
    /// What becomes of an applicant. Must not wait.
    fn judge(&self, applicant: Applicant) -> Verdict;

    /// How long a handshake may take.
    fn handshake_time(&self) -> Duration {
        IDLE_CONNECTION_TIMEOUT
    }

    /// Hears of each handshake of somebody who was accepted how it ended.
    fn note_handshake(&self, _applicant: Applicant, _shaken: Shaken) {}
}

/// Lets so many come, whoever they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The most connections at a time, with those that still shake hands.
    pub connections_max: usize,
    /// The most handshakes at a time before clients have to prove first that their address is theirs.
    pub unproved_max: usize,
}

impl Doorkeeper for Admission {
    fn judge(&self, applicant: Applicant) -> Verdict {
        if applicant.connections + applicant.handshakes >= self.connections_max {
            Verdict::Refuse
        } else if applicant.handshakes >= self.unproved_max && !applicant.is_proved {
            Verdict::Prove
        } else {
            Verdict::Accept
        }
    }
}

/// Takes connections and serves each with `serve`, until `stopped` resolves; then waits for all to end,
/// and refuses who comes meanwhile.
pub async fn serve_connections<F: Future<Output = ()> + Send + 'static>(
    endpoint: Endpoint,
    doorkeeper: &impl Doorkeeper,
    stopped: impl Future<Output = ()>,
    serve: impl Fn(Connection) -> F,
) {
    let mut stopped = std::pin::pin!(stopped);
    let mut handshakes: JoinSet<(Applicant, Result<Connection, Shaken>)> = JoinSet::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut stopped => break,
            Some(_) = connections.join_next() => {}
            Some(shaken) = handshakes.join_next() => {
                // The task does nothing that can panic.
                let Ok((applicant, connection)) = shaken else { continue };
                let shaken = connection.as_ref().map_or_else(|shaken| *shaken, |_| Shaken::Connected);
                doorkeeper.note_handshake(applicant, shaken);
                if let Ok(connection) = connection {
                    connections.spawn(serve(connection));
                }
            }
            incoming = endpoint.accept() => {
                let Some(incoming) = incoming else { break };
                let applicant = Applicant {
                    address: incoming.remote_address().ip(),
                    is_proved: incoming.remote_address_validated(),
                    handshakes: handshakes.len(),
                    connections: connections.len(),
                };
                match doorkeeper.judge(applicant) {
                    Verdict::Prove if incoming.may_retry() => {
                        // Who may be asked is asked.
                        let _asked = incoming.retry();
                    }
                    Verdict::Accept | Verdict::Prove => {
                        let time = doorkeeper.handshake_time();
                        handshakes.spawn(shake_hands(applicant, incoming, time));
                    }
                    Verdict::Refuse => incoming.refuse(),
                }
            }
        }
    }
    // Who has not even shaken hands is not waited for.
    drop(handshakes);
    while !connections.is_empty() {
        tokio::select! {
            _ = connections.join_next() => {}
            Some(incoming) = endpoint.accept() => incoming.refuse(),
        }
    }
}

/// Shakes hands. No connection but why not if the client does not, or not in time.
async fn shake_hands(
    applicant: Applicant,
    incoming: Incoming,
    time: Duration,
) -> (Applicant, Result<Connection, Shaken>) {
    let connection = match timeout(time, incoming).await {
        Ok(connection) => connection.map_err(|_| Shaken::Failed),
        Err(_) => Err(Shaken::TooSlow),
    };
    (applicant, connection)
}
