//! Which of a host's addresses to talk to: the one that answers first.
//!
//! A name often has an address at which nobody listens, for example one of the other family. Trying
//! them in turn would wait for each until it times out; trying all at once would load every relay
//! with handshakes that nobody wants. So each attempt gets a short lead (RFC 8305).

use std::net::SocketAddr;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::TransportError;
use crate::limits::CONNECT_LEAD;

/// The addresses in their order, but with the families taking turns.
pub(super) fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<SocketAddr> = addresses.into_iter().collect();
    let begins_with_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (first, second): (Vec<_>, Vec<_>) =
        addresses.into_iter().partition(|address| address.is_ipv6() == begins_with_v6);
    let (mut first, mut second) = (first.into_iter(), second.into_iter());
    let mut mixed = Vec::new();
    loop {
        let (one, other) = (first.next(), second.next());
        if one.is_none() && other.is_none() {
            return mixed;
        }
        mixed.extend(one.into_iter().chain(other));
    }
}

/// Starts an attempt for each address, the next one when the former has failed or has had its lead.
/// The first success ends all others.
///
/// # Errors
/// If none succeeds: why, as far as an answer told; `none` if there are no addresses.
pub(super) async fn race<T, F>(
    addresses: Vec<SocketAddr>,
    attempt: impl Fn(SocketAddr) -> F,
    none: TransportError,
) -> Result<T, TransportError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, TransportError>> + Send + 'static,
{
    let mut waiting = addresses.into_iter();
    let mut attempts = JoinSet::new();
    let mut failure = None;
    loop {
        let next = waiting.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(attempt(address));
        }
        let ended = tokio::select! {
            ended = attempts.join_next() => ended,
            () = sleep(CONNECT_LEAD), if !is_last => continue,
        };
        match ended {
            Some(Ok(Ok(winner))) => return Ok(winner),
            Some(Ok(Err(error))) => failure = Some(more_telling(failure, error)),
            // An attempt that panicked has failed; without any left, so has the race.
            Some(Err(_)) => {}
            None if is_last => return Err(failure.unwrap_or(none)),
            None => {}
        }
    }
}

/// Silence says less than any answer.
fn more_telling(former: Option<TransportError>, error: TransportError) -> TransportError {
    match (former, error) {
        (Some(former), TransportError::TimedOut) => former,
        (_, error) => error,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;

    const SILENT: u16 = 1;
    const GOOD: u16 = 2;
    const STRANGER: u16 = 3;

    fn addresses(ports: &[u16]) -> Vec<SocketAddr> {
        ports.iter().map(|port| SocketAddr::from(([127, 0, 0, 1], *port))).collect()
    }

    async fn race_to(ports: &[u16], patience: Duration) -> Result<u16, TransportError> {
        let attempt = move |address: SocketAddr| async move {
            match address.port() {
                GOOD => Ok(GOOD),
                STRANGER => Err(TransportError::Untrusted),
                _ => {
                    sleep(patience).await;
                    Err(TransportError::TimedOut)
                }
            }
        };
        let none = TransportError::NoAddress { host: "nowhere".to_owned() };
        race(addresses(ports), attempt, none).await
    }

    #[tokio::test]
    async fn a_silent_address_costs_only_its_lead() {
        let begin = Instant::now();
        let winner = race_to(&[SILENT, SILENT, GOOD], Duration::from_secs(60)).await;
        assert_eq!(winner.unwrap(), GOOD);
        assert!(begin.elapsed() >= 2 * CONNECT_LEAD);
        assert!(begin.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn a_failure_is_followed_by_the_next_at_once_and_told_rather_than_silence() {
        let patience = Duration::from_millis(10);
        let winner = race_to(&[STRANGER, GOOD], patience).await;
        assert_eq!(winner.unwrap(), GOOD);
        for (ports, code) in [
            (&[STRANGER, SILENT][..], "untrusted-certificate"),
            (&[SILENT, STRANGER], "untrusted-certificate"),
            (&[SILENT], "no-answer"),
            (&[], "unknown-host"),
        ] {
            assert_eq!(race_to(ports, patience).await.unwrap_err().code(), code, "{ports:?}");
        }
    }

    #[tokio::test]
    async fn whoever_has_lost_is_let_go() {
        let held = Arc::new(());
        let attempt = |address: SocketAddr| {
            let held = Arc::clone(&held);
            async move {
                if address.port() == SILENT {
                    std::future::pending::<()>().await;
                }
                drop(held);
                Ok(())
            }
        };
        race(addresses(&[SILENT, GOOD]), attempt, TransportError::TimedOut).await.unwrap();
        for _ in 0..1_000 {
            if Arc::strong_count(&held) == 1 {
                return;
            }
            tokio::task::yield_now().await;
        }
        panic!("an attempt goes on");
    }

    #[test]
    fn the_families_take_turns() {
        let rows = [
            ("[::1]:1 [::2]:1 1.1.1.1:1", "[::1]:1 1.1.1.1:1 [::2]:1"),
            ("1.1.1.1:1 2.2.2.2:1 [::1]:1", "1.1.1.1:1 [::1]:1 2.2.2.2:1"),
            ("1.1.1.1:1 2.2.2.2:1", "1.1.1.1:1 2.2.2.2:1"),
            ("", ""),
        ];
        let parse = |text: &str| -> Vec<SocketAddr> {
            text.split_whitespace().map(|address| address.parse().unwrap()).collect()
        };
        for (input, expected) in rows {
            assert_eq!(interleave(parse(input)), parse(expected));
        }
    }
}
