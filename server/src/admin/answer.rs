//! What the API answers: JSON, and for errors `{"error": ...}`.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequestParts, Path};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use super::AdminState;

/// Why a request is not done. Nothing has changed, unless the answer says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ApiError {
    pub(super) status: StatusCode,
    pub(super) message: &'static str,
}

pub(super) type Answer = Result<Response, ApiError>;

pub(super) const NOT_FOUND: ApiError = ApiError::new(StatusCode::NOT_FOUND, "not found");
pub(super) const TOO_SLOW: ApiError =
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "the request took too long");
pub(super) const STORAGE_FAILED: ApiError =
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "the relay cannot read or write its files");
const BODY_TOO_LARGE: ApiError =
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large");
pub(super) const TOO_MANY_ROWS: ApiError = ApiError::bad("limit has to be from 1 to 1000");
const INVALID_JSON: ApiError = ApiError::bad("invalid JSON body");

impl ApiError {
    pub(super) const fn new(status: StatusCode, message: &'static str) -> Self {
        Self { status, message }
    }

    /// The request makes no sense.
    pub(super) const fn bad(message: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// Whether the request is past a bound of the listener.
    pub(super) fn is_limit(self) -> bool {
        [TOO_SLOW, BODY_TOO_LARGE, TOO_MANY_ROWS].contains(&self)
    }

    /// Whether whoever asks may not.
    pub(super) fn is_refusal(self) -> bool {
        [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&self.status)
    }

    /// The token does not allow it.
    pub(super) const fn forbidden(message: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, message)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = (self.status, Json(json!({ "error": self.message }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let bearer = header::HeaderValue::from_static("Bearer");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response.extensions_mut().insert(self);
        response
    }
}

/// The last part of a path. One that is no text is the name of nothing.
pub(super) struct Named(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = Path::<String>::from_request_parts(parts, state).await;
        path.map(|Path(name)| Self(name)).map_err(|_| NOT_FOUND)
    }
}

/// Carries a deed out to its end, also if whoever asked for it leaves, or it takes too long for an
/// answer: what was done is to be written down. A relay that stops waits for it; what comes after
/// that is not done.
pub(super) async fn to_the_end(
    state: &AdminState,
    deed: impl Future<Output = Answer> + Send + 'static,
) -> Answer {
    let deeds = Arc::clone(&state.deeds);
    let deed = async move {
        let Ok(_under_way) = deeds.acquire().await else { return Err(STORAGE_FAILED) };
        deed.await
    };
    tokio::spawn(deed).await.unwrap_or(Err(STORAGE_FAILED))
}

/// A JSON answer.
pub(super) fn json_answer(value: Value) -> Response {
    Json(value).into_response()
}

/// The body, which has to be a JSON object.
pub(super) fn object(body: Result<Bytes, BytesRejection>) -> Result<Map<String, Value>, ApiError> {
    let body = body.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => BODY_TOO_LARGE,
        _ => INVALID_JSON,
    })?;
    match serde_json::from_slice(&body) {
        Ok(Value::Object(fields)) => Ok(fields),
        _ => Err(INVALID_JSON),
    }
}

/// A text of the body; nothing if it is absent or null.
pub(super) fn text<'a>(
    fields: &'a Map<String, Value>,
    name: &str,
    otherwise: ApiError,
) -> Result<Option<&'a str>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(otherwise),
    }
}

/// A whole number of the body; nothing if it is absent or null.
pub(super) fn number(
    fields: &Map<String, Value>,
    name: &str,
    otherwise: ApiError,
) -> Result<Option<u64>, ApiError> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => value.as_u64().map(Some).ok_or(otherwise),
    }
}
