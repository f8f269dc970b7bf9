//! The token that a connection is opened with, and where newer ones come from.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::sleep_until;

use crate::limits::TOKEN_RETRY;
use crate::message::Token;

type TokenFuture = Pin<Box<dyn Future<Output = Option<Token>> + Send>>;

/// Where an engine gets newer tokens from, before the one that it has expires or after it was refused.
///
/// ```
/// use sds_sync::{ConnectOptions, RelayUrl, Token, TokenSource, UrlError};
///
/// /// From wherever the program's users sign in.
/// async fn fetch_token() -> Option<Token> {
///     None
/// }
///
/// # fn main() -> Result<(), UrlError> {
/// let url: RelayUrl = "quic://relay.example:3000".parse()?;
/// let first = Token::from("the first token".to_owned());
/// // For `SyncEngine::connect`.
/// let options = ConnectOptions::new(url, first).with_tokens(TokenSource::new(fetch_token));
/// # drop(options);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct TokenSource(Arc<dyn Fn() -> TokenFuture + Send + Sync>);

impl TokenSource {
    /// Asks `ask` for a token whenever one is needed; none means that there is none to be had now, and
    /// that it should be asked again after a while.
    #[must_use]
    pub fn new<F>(ask: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Option<Token>> + Send + 'static,
    {
        Self(Arc::new(move || Box::pin(ask())))
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenSource(..)")
    }
}

/// The token of a driver.
pub(super) struct Credentials {
    /// What callers set; the newest counts.
    token: watch::Sender<Token>,
    changed: watch::Receiver<Token>,
    /// The one that the store was opened with, or that the relay was shown since.
    used: Token,
    source: Option<TokenSource>,
    /// When the source is to be asked.
    due: Option<Instant>,
    asking: Option<TokenFuture>,
}

impl Credentials {
    pub(super) fn new(token: watch::Sender<Token>, source: Option<TokenSource>) -> Self {
        let (changed, used) = (token.subscribe(), token.borrow().clone());
        Self { token, changed, used, source, due: None, asking: None }
    }

    /// The token to open the store with.
    pub(super) fn current(&mut self) -> Token {
        self.used = self.changed.borrow_and_update().clone();
        self.used.clone()
    }

    /// Notes how long the token holds that the relay knows: a newer one is asked for well before.
    pub(super) fn note_access(&mut self, expires_in: Duration, now: Instant) {
        self.due = now.checked_add(expires_in.mul_f64(0.8));
    }

    /// Waits for a newer token to show to the relay. May be dropped while it waits; nothing is lost.
    pub(super) async fn newer(&mut self) -> Token {
        loop {
            let (source, due) = (self.source.is_some(), self.due);
            let timer = sleep_until(due.unwrap_or_else(Instant::now).into());
            tokio::select! {
                // This side holds a sender, so waiting never fails.
                Ok(()) = self.changed.changed() => return self.current(),
                answer = answer(&mut self.asking) => self.take(answer),
                () = timer, if source && due.is_some() && self.asking.is_none() => self.ask(),
            }
        }
    }

    /// After a refusal: waits for a token other than the one that was refused. False if there is nowhere
    /// that one could come from. May be dropped while it waits; nothing is lost.
    pub(super) async fn renew(&mut self) -> bool {
        loop {
            if *self.token.borrow() != self.used {
                return true;
            }
            if self.source.is_none() {
                return false;
            }
            if self.asking.is_none() && self.due.is_none_or(|due| due <= Instant::now()) {
                self.ask();
            }
            let due = self.due;
            let timer = sleep_until(due.unwrap_or_else(Instant::now).into());
            tokio::select! {
                Ok(()) = self.changed.changed() => {}
                answer = answer(&mut self.asking) => {
                    let answer = answer.filter(|token| *token != self.used);
                    self.take(answer);
                }
                () = timer, if due.is_some() && self.asking.is_none() => {}
            }
        }
    }

    fn ask(&mut self) {
        self.due = None;
        self.asking = self.source.as_ref().map(|source| (source.0)());
    }

    fn take(&mut self, answer: Option<Token>) {
        self.asking = None;
        match answer {
            Some(token) => {
                self.token.send_replace(token);
            }
            // It is asked again after a while.
            None => self.due = Some(Instant::now() + TOKEN_RETRY),
        }
    }
}

/// Waits for the answer to a question, if there is one.
async fn answer(asking: &mut Option<TokenFuture>) -> Option<Token> {
    match asking {
        Some(asking) => asking.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn token(text: &str) -> Token {
        Token::from(text.to_owned())
    }

    /// A source that has a token only every other time.
    fn source(asked: &Arc<AtomicUsize>) -> TokenSource {
        let asked = Arc::clone(asked);
        TokenSource::new(move || {
            let count = asked.fetch_add(1, Ordering::Relaxed);
            async move { (count % 2 == 1).then(|| token(&format!("newer {count}"))) }
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_is_asked_in_time_and_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (first, _) = watch::channel(token("first"));
        let mut credentials = Credentials::new(first.clone(), Some(source(&asked)));
        assert_eq!(credentials.current(), token("first"));
        credentials.note_access(Duration::from_secs(100), tokio::time::Instant::now().into_std());
        let start = tokio::time::Instant::now();
        assert_eq!(credentials.newer().await, token("newer 1"));
        assert!(start.elapsed() >= Duration::from_secs(80));
        assert!(start.elapsed() < Duration::from_secs(100));
        first.send_replace(token("set"));
        assert_eq!(credentials.newer().await, token("set"));
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_only_another_token_helps() {
        let (first, _) = watch::channel(token("first"));
        let mut alone = Credentials::new(first.clone(), None);
        alone.current();
        assert!(!alone.renew().await);
        first.send_replace(token("set"));
        assert!(alone.renew().await);
        let asked = Arc::new(AtomicUsize::new(0));
        let mut helped = Credentials::new(first.clone(), Some(source(&asked)));
        helped.current();
        assert!(helped.renew().await, "the source is asked until it has one");
        assert_eq!((helped.current(), asked.load(Ordering::Relaxed)), (token("newer 1"), 2));
        let silent = TokenSource::new(std::future::pending);
        let mut waiting = Credentials::new(first.clone(), Some(silent));
        waiting.current();
        let set = async { first.send_replace(token("set by hand")) };
        assert!(tokio::join!(waiting.renew(), set).0, "whoever sets one is heard meanwhile");
    }
}
