//! Work that is under way, one piece at a time, for a loop that waits for other things too.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A piece of work that is under way, or nothing.
pub struct InFlight<T>(Option<Work<T>>);

impl<T> Default for InFlight<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T> InFlight<T> {
    /// Goes on with `work` from now on; what was under way before is dropped.
    pub fn begin(&mut self, work: impl Future<Output = T> + Send + 'static) {
        self.0 = Some(Box::pin(work));
    }

    /// Whether nothing is under way.
    #[must_use]
    pub const fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Waits for what comes of the work, after which nothing is under way; for ever if nothing is. The
    /// work goes on after a wait that was given up.
    pub async fn outcome(&mut self) -> T {
        let outcome = match &mut self.0 {
            Some(work) => work.await,
            None => std::future::pending().await,
        };
        self.0 = None;
        outcome
    }

    /// Waits for what comes of the work, if any is under way.
    pub async fn settle(&mut self) -> Option<T> {
        if self.is_idle() { None } else { Some(self.outcome().await) }
    }
}

impl<T> fmt::Debug for InFlight<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InFlight").field("is_idle", &self.is_idle()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn work_goes_on_after_a_wait_that_was_given_up_and_is_over_once() {
        let brief = Duration::from_millis(5);
        let mut work = InFlight::default();
        assert!(timeout(brief, work.outcome()).await.is_err(), "nothing is under way");
        let (sender, receiver) = oneshot::channel();
        work.begin(async { receiver.await.unwrap() });
        assert!(timeout(brief, work.outcome()).await.is_err());
        sender.send(7).unwrap();
        assert!(!work.is_idle());
        assert_eq!(work.outcome().await, 7);
        assert!(work.is_idle());
        assert_eq!(work.settle().await, None);
    }
}
