//! The error envelope: OpenAI's shape, with the request id and what would work instead.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::error::{Error, ErrorCode};
use sublet_core::id::RequestId;

use crate::schema::{CodeText, IdText};

/// `{"error":{…}}`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

/// What went wrong and what to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ErrorDetail {
    pub message: String,
    /// OpenAI's coarse vocabulary, such as `invalid_request_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The stable reason.
    #[schemars(with = "Option<CodeText>")]
    pub code: Option<String>,
    /// The request field at fault.
    pub param: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<RequestId>>")]
    pub request_id: Option<RequestId>,
    /// A page about the code, on this server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc_url: Option<String>,
    /// What would work instead, nearest first.
    #[serde(default)]
    pub alternatives: Vec<String>,
}

impl ErrorBody {
    /// The public part of an error. Private context stays behind.
    pub fn new(error: &Error, request: Option<&RequestId>) -> Self {
        let code = error.code();
        Self {
            error: ErrorDetail {
                message: error.message().to_owned(),
                kind: code.kind().to_owned(),
                code: Some(code.as_str().to_owned()),
                param: error.param_name().map(str::to_owned),
                request_id: request.cloned(),
                doc_url: Some(format!("/errors/{code}")),
                alternatives: error.alternatives().to_vec(),
            },
        }
    }

    /// The error again, for a client. A code this version does not know keeps its text in the
    /// message and becomes the nearest code by status.
    pub fn into_error(self, status: u16) -> Error {
        let detail = self.error;
        let known = detail.code.as_deref().and_then(|code| code.parse::<ErrorCode>().ok());
        let message = match (&known, &detail.code) {
            (None, Some(code)) => format!("{} ({code})", detail.message),
            _ => detail.message,
        };
        let mut error = Error::new(known.unwrap_or_else(|| code_for_status(status)), message);
        if let Some(param) = detail.param {
            error = error.param(param);
        }
        if let Some(request) = detail.request_id {
            error = error.context(request.as_str());
        }
        detail.alternatives.into_iter().fold(error, Error::alternative)
    }
}

/// The nearest code for an answer whose body says nothing usable, such as a proxy's.
pub fn code_for_status(status: u16) -> ErrorCode {
    match status {
        401 => ErrorCode::InvalidApiKey,
        403 => ErrorCode::PermissionDenied,
        404 => ErrorCode::NotFound,
        405 => ErrorCode::MethodNotAllowed,
        409 => ErrorCode::Conflict,
        412 => ErrorCode::PreconditionFailed,
        413 => ErrorCode::BodyTooLarge,
        415 => ErrorCode::UnsupportedMediaType,
        429 => ErrorCode::RateLimitExceeded,
        502..=504 => ErrorCode::Unreachable,
        400..=499 => ErrorCode::InvalidRequest,
        _ => ErrorCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_envelope_has_openai_s_fields_and_the_remedy() {
        let error = Error::new(ErrorCode::InsufficientQuota, "the key's monthly limit is used up")
            .param("max_cost")
            .alternative("raise the limit")
            .context("private");
        let request: RequestId = "req_1".parse().unwrap();
        let body = serde_json::to_value(ErrorBody::new(&error, Some(&request))).unwrap();
        let expected = serde_json::json!({"error": {
            "message": "the key's monthly limit is used up", "type": "insufficient_quota",
            "code": "insufficient_quota", "param": "max_cost", "request_id": "req_1",
            "doc_url": "/errors/insufficient_quota", "alternatives": ["raise the limit"],
        }});
        assert_eq!(body, expected);
    }

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            let text = serde_json::to_string(&ErrorBody::new(&Error::new(*code, "m"), None)).unwrap();
            let back: ErrorBody = serde_json::from_str(&text).unwrap();
            assert_eq!(back.into_error(code.status()).code(), *code);
        }
    }

    #[test]
    fn a_code_of_a_newer_server_becomes_the_nearest_one() {
        let body = r#"{"error":{"message":"m","type":"t","code":"too_shiny","param":null}}"#;
        let error = serde_json::from_str::<ErrorBody>(body).unwrap().into_error(404);
        assert_eq!((error.code(), error.message()), (ErrorCode::NotFound, "m (too_shiny)"));
    }
}
