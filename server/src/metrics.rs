//! What the relay counts, for Prometheus to read.
//!
//! Labels are words of this program: no store, subject or address ever becomes one, so nobody can
//! make the number of series grow. `Label` holds only `&'static str` to keep it so.
//!
//! A counter costs an atomic addition. What is known elsewhere (rooms, lag, disk) is not counted
//! but looked up when somebody asks for the metrics: see `admin`.

use std::fmt;
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use sds_sync::RefusalCode;
use sds_sync::access::Scope;

use crate::limits::Limit;

/// The media type of what [`Metrics::encode`] returns.
pub const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The shortest commit that is told apart, in seconds; each bucket is twice the one before it.
const COMMIT_SECONDS_MIN: f64 = 0.000_25;
const COMMIT_BUCKETS: u16 = 16;

/// The name of a label, and its value.
type Label = [(&'static str, &'static str); 1];

/// How a handshake ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handshake {
    /// With a connection.
    Completed,
    /// The client had to prove its address first.
    Retried,
    /// There was no room.
    Refused,
    /// Without a connection, or not in time.
    Failed,
}

impl Handshake {
    const ALL: [Self; 4] = [Self::Completed, Self::Retried, Self::Refused, Self::Failed];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::Retried => "retried",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// All counters of a relay. Cheap to count with from anywhere.
pub struct Metrics {
    registry: Registry,
    /// Connections that are open.
    pub connections: Gauge,
    /// Stores that somebody has open.
    pub stores_open: Gauge,
    /// Changes that became durable.
    pub changes_appended: Counter,
    /// Changes that were handed to clients.
    pub changes_delivered: Counter,
    /// Bytes of datagrams that came from clients.
    pub received_bytes: Counter,
    /// Bytes of datagrams that went to clients.
    pub sent_bytes: Counter,
    /// Bytes of blobs that came from clients.
    pub blob_received_bytes: Counter,
    /// Bytes of blobs that went to clients.
    pub blob_sent_bytes: Counter,
    /// Presence messages that were taken in.
    pub presence_received: Counter,
    /// Presence messages that went to clients.
    pub presence_delivered: Counter,
    /// Signals that were passed on.
    pub signals: Counter,
    /// Transactions that could not be written, or reads that failed.
    pub storage_failures: Counter,
    /// By how many changes the slowest subscriber is behind.
    pub lag_max: Gauge,
    /// What the relay's file takes on disk.
    pub disk_bytes: Gauge,
    commits: Histogram,
    handshakes: Family<Label, Counter>,
    sessions: Family<Label, Gauge>,
    refusals: Family<Label, Counter>,
    limits: Family<Label, Counter>,
    tokens_minted: Family<Label, Counter>,
    certificate_reloads: Family<Label, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("sds_relay"),
            connections: Gauge::default(),
            stores_open: Gauge::default(),
            changes_appended: Counter::default(),
            changes_delivered: Counter::default(),
            received_bytes: Counter::default(),
            sent_bytes: Counter::default(),
            blob_received_bytes: Counter::default(),
            blob_sent_bytes: Counter::default(),
            presence_received: Counter::default(),
            presence_delivered: Counter::default(),
            signals: Counter::default(),
            storage_failures: Counter::default(),
            lag_max: Gauge::default(),
            disk_bytes: Gauge::default(),
            commits: Histogram::new(exponential_buckets(COMMIT_SECONDS_MIN, 2.0, COMMIT_BUCKETS)),
            handshakes: Family::default(),
            sessions: Family::default(),
            refusals: Family::default(),
            limits: Family::default(),
            tokens_minted: Family::default(),
            certificate_reloads: Family::default(),
        };
        metrics.register_traffic();
        metrics.register_service();
        metrics.register_families();
        metrics
    }
}

impl Metrics {
    /// Counts a handshake that ended.
    pub fn handshake(&self, outcome: Handshake) {
        self.handshakes.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// Counts a session that has begun, or ended.
    pub fn session(&self, scope: Scope, has_begun: bool) {
        let sessions = self.sessions.get_or_create(&[("scope", scope.as_str())]);
        if has_begun {
            sessions.inc();
        } else {
            sessions.dec();
        }
    }

    /// Counts a refusal that was sent.
    pub fn refused(&self, code: RefusalCode) {
        self.refusals.get_or_create(&[("code", code.code())]).inc();
    }

    /// Counts somebody who met a limit.
    pub fn limit_hit(&self, limit: Limit) {
        self.limits.get_or_create(&[("limit", limit.as_str())]).inc();
    }

    /// How often somebody met a limit since the start.
    #[must_use]
    pub fn limit_hits(&self, limit: Limit) -> u64 {
        self.limits.get_or_create(&[("limit", limit.as_str())]).get()
    }

    /// Counts a commit, with what it added and how long it took.
    pub fn committed(&self, changes: usize, took: Duration) {
        self.changes_appended.inc_by(changes as u64);
        self.commits.observe(took.as_secs_f64());
    }

    /// Counts a token that was given out.
    pub fn minted(&self, scope: Scope) {
        self.tokens_minted.get_or_create(&[("scope", scope.as_str())]).inc();
    }

    /// Counts a certificate that was read anew, or could not be.
    pub fn certificate_reloaded(&self, is_good: bool) {
        let outcome = if is_good { "good" } else { "failed" };
        self.certificate_reloads.get_or_create(&[("outcome", outcome)]).inc();
    }

    /// Everything, as text in the OpenMetrics form.
    #[must_use]
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string never fails.
        let _ = encode(&mut text, &self.registry);
        text
    }

    fn register_traffic(&mut self) {
        self.register("connections", "Open connections", self.connections.clone());
        self.register_bytes("received", "Received from clients", self.received_bytes.clone());
        self.register_bytes("sent", "Sent to clients", self.sent_bytes.clone());
        let (received, sent) = (self.blob_received_bytes.clone(), self.blob_sent_bytes.clone());
        self.register_bytes("blob_received", "Of blobs, received from clients", received);
        self.register_bytes("blob_sent", "Of blobs, sent to clients", sent);
        let (taken, told) = (self.presence_received.clone(), self.presence_delivered.clone());
        self.register("presence_received", "Presence messages taken in", taken);
        self.register("presence_delivered", "Presence messages sent to clients", told);
        self.register("signals", "Signals passed on", self.signals.clone());
    }

    fn register_service(&mut self) {
        self.register("stores_open", "Stores that somebody has open", self.stores_open.clone());
        let (appended, delivered) = (self.changes_appended.clone(), self.changes_delivered.clone());
        self.register("changes_appended", "Changes that became durable", appended);
        self.register("changes_delivered", "Changes handed to clients", delivered);
        let commits = self.commits.clone();
        self.registry.register_with_unit("commit", "Durable commits", Unit::Seconds, commits);
        let failures = self.storage_failures.clone();
        self.register("storage_failures", "Reads and writes that failed", failures);
        let lag = self.lag_max.clone();
        self.register("lag_max", "Changes that the slowest subscriber is behind", lag);
        self.register_bytes("disk", "What the relay's file takes", self.disk_bytes.clone());
    }

    fn register_families(&mut self) {
        for outcome in Handshake::ALL {
            drop(self.handshakes.get_or_create(&[("outcome", outcome.as_str())]));
        }
        for scope in [Scope::Read, Scope::Write, Scope::Admin] {
            drop(self.sessions.get_or_create(&[("scope", scope.as_str())]));
            drop(self.tokens_minted.get_or_create(&[("scope", scope.as_str())]));
        }
        for limit in Limit::ALL {
            drop(self.limits.get_or_create(&[("limit", limit.as_str())]));
        }
        self.register("handshakes", "Handshakes by how they ended", self.handshakes.clone());
        self.register("sessions", "Open stores of open connections", self.sessions.clone());
        self.register("refusals", "Refusals sent", self.refusals.clone());
        self.register("limit_hits", "Limits that somebody met", self.limits.clone());
        self.register("tokens_minted", "Tokens given out", self.tokens_minted.clone());
        let reloads = self.certificate_reloads.clone();
        self.register("certificate_reloads", "Certificates read anew", reloads);
    }

    fn register(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }

    fn register_bytes(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register_with_unit(name, help, Unit::Bytes, metric);
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The value of the series that begins with `name`.
    fn value(text: &str, name: &str) -> Option<String> {
        let line = text.lines().find(|line| line.starts_with(name))?;
        line.rsplit(' ').next().map(str::to_owned)
    }

    #[test]
    fn what_was_counted_is_told() {
        let metrics = Metrics::default();
        metrics.committed(3, Duration::from_millis(2));
        metrics.refused(RefusalCode::ReadOnly);
        metrics.limit_hit(Limit::Connections);
        metrics.session(Scope::Write, true);
        metrics.session(Scope::Write, true);
        metrics.session(Scope::Write, false);
        metrics.received_bytes.inc_by(7);
        let text = metrics.encode();
        let rows = [
            ("sds_relay_changes_appended_total", "3"),
            ("sds_relay_commit_seconds_count", "1"),
            ("sds_relay_refusals_total{code=\"read-only\"}", "1"),
            ("sds_relay_limit_hits_total{limit=\"connections\"}", "1"),
            ("sds_relay_limit_hits_total{limit=\"streams\"}", "0"),
            ("sds_relay_sessions{scope=\"write\"}", "1"),
            ("sds_relay_received_bytes_total", "7"),
            ("# EOF", "EOF"),
        ];
        for (name, expected) in rows {
            assert_eq!(value(&text, name).as_deref(), Some(expected), "{name} in\n{text}");
        }
    }

    #[test]
    fn each_limit_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Limit::ALL.iter().map(|limit| limit.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Limit::ALL.len());
    }
}
