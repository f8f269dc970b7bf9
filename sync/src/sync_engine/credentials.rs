//! The token that a connection is opened with, and where newer ones come from.

use std::fmt;
use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// that it should be asked again after a while. So does the token that there is, and a panic.
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
    /// When the source is to be asked for a newer one, going by how long the token holds.
    due: Option<Instant>,
    /// When it may be asked again, after it had none.
    retry: Option<Instant>,
    asking: Option<TokenFuture>,
}

impl Credentials {
    pub(super) fn new(token: watch::Sender<Token>, source: Option<TokenSource>) -> Self {
        let (changed, used) = (token.subscribe(), token.borrow().clone());
        Self { token, changed, used, source, due: None, retry: None, asking: None }
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
            let due = self.due.filter(|_| self.source.is_some() && self.asking.is_none());
            let timer = sleep_until(due.max(self.retry).unwrap_or_else(now).into());
            tokio::select! {
                // This side holds a sender, so waiting never fails.
                Ok(()) = self.changed.changed() => return self.current(),
                answer = answer(&mut self.asking) => self.take(answer),
                () = timer, if due.is_some() => self.ask(),
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
            // However long the refused one was said to hold.
            let at = now();
            if self.asking.is_none() && self.retry.is_none_or(|retry| retry <= at) {
                self.ask();
            }
            let retry = self.retry.filter(|_| self.asking.is_none());
            let timer = sleep_until(retry.unwrap_or(at).into());
            tokio::select! {
                Ok(()) = self.changed.changed() => {}
                answer = answer(&mut self.asking) => self.take(answer),
                () = timer, if retry.is_some() => {}
            }
        }
    }

    fn ask(&mut self) {
        self.due = None;
        self.asking = self.source.as_ref().map(|source| {
            let asked = catch_unwind(AssertUnwindSafe(|| (source.0)()));
            asked.unwrap_or_else(|_| Box::pin(std::future::ready(None)))
        });
    }

    fn take(&mut self, answer: Option<Token>) {
        self.asking = None;
        // One that the relay knows already helps no more than none.
        if let Some(token) = answer.filter(|token| *token != self.used) {
            self.retry = None;
            self.token.send_replace(token);
        } else {
            self.retry = Some(now() + TOKEN_RETRY);
            self.due = self.retry;
        }
    }
}

/// The clock that timers go by.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// Waits for the answer to a question, if there is one. Who panics has none.
async fn answer(asking: &mut Option<TokenFuture>) -> Option<Token> {
    let Some(asking) = asking else { return std::future::pending().await };
    poll_fn(|context| {
        let polled = catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(context)));
        polled.unwrap_or(std::task::Poll::Ready(None))
    })
    .await
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

    /// A clock that stood still, as in a laptop that was asleep, makes a token expire before it is due.
    #[tokio::test(start_paused = true)]
    async fn after_a_refusal_the_source_is_asked_at_once_however_long_the_token_was_to_hold() {
        let asked = Arc::new(AtomicUsize::new(0));
        let (first, _) = watch::channel(token("first"));
        let mut credentials = Credentials::new(first, Some(source(&asked)));
        credentials.current();
        let start = tokio::time::Instant::now();
        credentials.note_access(Duration::from_secs(3_600), start.into_std());
        assert!(credentials.renew().await);
        assert_eq!(start.elapsed().as_secs(), TOKEN_RETRY.as_secs(), "it had none the first time");
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_that_there_is_counts_as_none() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let same = TokenSource::new(move || {
            let is_last = count.fetch_add(1, Ordering::Relaxed) == 5;
            async move { Some(token(if is_last { "newer" } else { "first" })) }
        });
        let (first, _) = watch::channel(token("first"));
        let mut credentials = Credentials::new(first, Some(same));
        credentials.current();
        let start = tokio::time::Instant::now();
        credentials.note_access(Duration::from_secs(1), start.into_std());
        assert_eq!(credentials.newer().await, token("newer"));
        assert!(start.elapsed() >= 5 * TOKEN_RETRY, "it is not asked without a pause");
    }

    #[tokio::test(start_paused = true)]
    async fn a_source_that_panics_is_asked_again() {
        let asked = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&asked);
        let moody = TokenSource::new(move || {
            let time = count.fetch_add(1, Ordering::Relaxed);
            assert!(time != 0, "a panic while it is asked");
            async move {
                assert!(time != 1, "a panic while it looks");
                Some(token("newer"))
            }
        });
        let (first, _) = watch::channel(token("first"));
        let mut credentials = Credentials::new(first, Some(moody));
        credentials.current();
        assert!(credentials.renew().await);
        assert_eq!(asked.load(Ordering::Relaxed), 3);
    }
}
