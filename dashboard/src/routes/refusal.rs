//! Why a request to `/api/` was refused: `{"error": reason, "detail": text, "field"?: name}`.

use http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, SEC_WEBSOCKET_VERSION},
};
use tracing::warn;

use super::{Answer, json};
use crate::{
    accounts::Unidentified,
    auth::{Access, Busy, TooMany},
    directory::EditError,
};

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    /// A closed set: programs tell refusals apart by it.
    pub(super) error: &'static str,
    pub(super) detail: String,
    /// Of the body, or the query, that is wrong.
    pub(super) field: Option<String>,
    pub(super) retry_after_s: Option<u64>,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self { status, error, detail: detail.into(), field: None, retry_after_s: None }
    }

    /// 400 that names the field.
    pub(super) fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let refusal = Self::new(StatusCode::BAD_REQUEST, "invalid", detail);
        Self { field: Some(field.into()), ..refusal }
    }

    pub(super) fn conflict(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, error, detail)
    }

    pub(super) fn not_logged_in() -> Self {
        let detail = "log in, or open a link that `footfall login` prints";
        Self::new(StatusCode::UNAUTHORIZED, "not_logged_in", detail)
    }

    /// What is asked for is not for this asker: who is nobody yet may log in.
    pub(super) fn not_for(access: &Access) -> Self {
        if access.is_nobody() {
            return Self::not_logged_in();
        }
        Self::new(StatusCode::FORBIDDEN, "not_allowed", "you may not do this; ask who owns this installation")
    }

    pub(super) fn unknown(error: &'static str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, error, detail)
    }

    pub(super) fn unknown_site() -> Self {
        Self::unknown("unknown_site", "site: no such site is configured here")
    }

    pub(super) fn wrong_origin() -> Self {
        let detail =
            "Origin: only this dashboard's own page may do this; behind a proxy set [dashboard] public_url";
        Self::new(StatusCode::FORBIDDEN, "wrong_origin", detail)
    }

    pub(super) fn busy(retry_after_s: u64, detail: &str) -> Self {
        let refusal = Self::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail);
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }
}

impl From<TooMany> for Refusal {
    fn from(TooMany { retry_after_s }: TooMany) -> Self {
        let detail = format!("too many attempts: try again in {retry_after_s} s");
        let refusal = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
        Self { retry_after_s: Some(retry_after_s), ..refusal }
    }
}

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Self {
        Self::busy(1, "too many passwords are being checked: try again in a moment")
    }
}

impl From<EditError> for Refusal {
    fn from(error: EditError) -> Self {
        // What Kafka says may name hosts: that is for the log.
        warn!(%error, "a change was refused");
        let detail = "the change cannot be written to the log at the moment: try again";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "not_written", detail)
    }
}

impl From<Unidentified> for Refusal {
    fn from(shown: Unidentified) -> Self {
        match shown {
            Unidentified::Key => {
                let detail = "Authorization: no such API key; write Bearer and the whole token";
                Self::new(StatusCode::UNAUTHORIZED, "wrong_key", detail)
            }
            Unidentified::Link => {
                let detail = "share: this link was revoked, has expired, or was cut";
                Self::new(StatusCode::FORBIDDEN, "wrong_link", detail)
            }
        }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut body = serde_json::json!({ "error": refusal.error, "detail": refusal.detail });
        if let Some(field) = refusal.field {
            body["field"] = field.into();
        }
        let mut answer = json(refusal.status, body.to_string());
        if let Some(seconds) = refusal.retry_after_s {
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
        }
        if refusal.error == "bad_version" {
            answer.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        }
        answer
    }
}
