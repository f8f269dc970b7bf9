//! The listener: HTTP/1.1 with a bound on everything that somebody who connects can take.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};

use super::answer::{ApiError, TOO_SLOW};
use super::auth::From;
use crate::limits::{
    ADMIN_BODY_BYTES_MAX, ADMIN_CONNECTION_TIME, ADMIN_CONNECTIONS_MAX, ADMIN_HEAD_BYTES_MAX,
    ADMIN_HEAD_TIME, ADMIN_REQUEST_TIME, Limit,
};
use crate::metrics::Metrics;

/// How long to wait when the system gives no connection: it has run out of something.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Takes connections until it is dropped.
pub(super) async fn serve(listener: TcpListener, router: Router, metrics: Arc<Metrics>) {
    let router = router.layer(DefaultBodyLimit::max(ADMIN_BODY_BYTES_MAX));
    let router = router.layer(from_fn_with_state(Arc::clone(&metrics), bounded));
    let places = Arc::new(Semaphore::new(ADMIN_CONNECTIONS_MAX));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        let (router, metrics) = (router.clone(), Arc::clone(&metrics));
                        connections.spawn(serve_connection(stream, from, router, metrics, place));
                    }
                    Err(_) => metrics.limit_hit(Limit::Admin),
                },
                Err(error) => {
                    tracing::warn!(%error, "cannot take an admin connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    from: SocketAddr,
    router: Router,
    metrics: Arc<Metrics>,
    _place: OwnedSemaphorePermit,
) {
    let service = TowerToHyperService::new(router.layer(axum::Extension(From(from))));
    let has_asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        has_asked.store(true, Ordering::Relaxed);
        service.call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ADMIN_HEAD_TIME)
        .max_header_size(ADMIN_HEAD_BYTES_MAX)
        .max_buf_size(ADMIN_HEAD_BYTES_MAX.max(ADMIN_BODY_BYTES_MAX))
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    // Whoever does not read its answers is cut off when the time is up.
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = sleep(ADMIN_CONNECTION_TIME) => {
            connection.as_mut().graceful_shutdown();
            match timeout(ADMIN_REQUEST_TIME, &mut connection).await {
                Ok(ended) => ended,
                Err(_) => return metrics.limit_hit(Limit::Admin),
            }
        }
    };
    // Who has asked and keeps the connection for later only loses that.
    let is_limit = |error: hyper::Error| {
        error.is_parse_too_large() || (error.is_timeout() && !has_asked.load(Ordering::Relaxed))
    };
    if ended.is_err_and(is_limit) {
        metrics.limit_hit(Limit::Admin);
    }
}

/// Answers in time, and counts who is past a bound.
async fn bounded(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let response = timeout(ADMIN_REQUEST_TIME, next.run(request)).await;
    let response = response.unwrap_or_else(|_| TOO_SLOW.into_response());
    if response.extensions().get::<ApiError>().is_some_and(|error| error.is_limit()) {
        metrics.limit_hit(Limit::Admin);
    }
    response
}
