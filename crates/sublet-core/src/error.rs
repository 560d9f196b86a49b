//! One use-case error: a stable code, a public message, private context, and what would work.
//!
//! The table below is the single list from which statuses, exit codes, `sublet explain` and
//! the reference pages are made.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::DurationMs;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. Cheap to move: the parts are boxed.
#[derive(Clone, PartialEq, Eq)]
pub struct Error(Box<Parts>);

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    code: ErrorCode,
    message: String,
    param: Option<String>,
    alternatives: Vec<String>,
    retry_after: Option<DurationMs>,
    bottleneck: Option<Arc<str>>,
    reason: Option<&'static str>,
    context: Vec<String>,
}

impl Error {
    /// `message` is shown to the caller: it names the subject and never holds a secret.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self(Box::new(Parts {
            code,
            message: message.into(),
            param: None,
            alternatives: Vec::new(),
            retry_after: None,
            bottleneck: None,
            reason: None,
            context: Vec::new(),
        }))
    }
    /// An internal failure: the caller sees a neutral message, the log sees `context`.
    pub fn internal(context: impl Into<String>) -> Self {
        Self::new(ErrorCode::Internal, "something failed on our side; only what was delivered before it is charged")
            .context(context)
    }
    /// Moderation by a classifier, which no model here is.
    pub fn no_moderations() -> Self {
        Self::new(ErrorCode::NotOffered, "moderations are not offered here: no classifier for them is served")
            .alternative("POST /v1/chat/completions with a model that judges text, and a response_format for its verdict")
            .alternative("the moderation endpoint of another provider, before the text is sent here")
    }
    /// A response to go on from is not there, whoever it may belong to. Clients know the words.
    pub fn previous_response_not_found(id: &str) -> Self {
        let shown: String = id.chars().take(80).collect();
        Self::new(ErrorCode::PreviousResponseNotFound, format!("Previous response with id '{shown}' not found"))
            .param("previous_response_id")
            .alternative("send 'store': true with each request whose response is gone on from")
            .alternative("send the conversation as items of 'input'")
    }
    /// Names the request field at fault.
    #[must_use]
    pub fn param(mut self, param: impl Into<String>) -> Self {
        self.0.param = Some(param.into());
        self
    }
    /// Adds something that would work instead.
    #[must_use]
    pub fn alternative(mut self, alternative: impl Into<String>) -> Self {
        self.0.alternatives.push(alternative.into());
        self
    }
    /// Says when a repeat may succeed.
    #[must_use]
    pub fn retry_after(mut self, after: DurationMs) -> Self {
        self.0.retry_after = Some(after);
        self
    }
    /// Names what was short, where other requests of the same key do not need it: a limit on one model or one end
    /// user, or a model's servers. Callers never see it.
    #[must_use]
    pub fn bottleneck(mut self, name: impl Into<Arc<str>>) -> Self {
        self.0.bottleneck = Some(name.into());
        self
    }
    /// Names the rule that refused, for records. Callers never see it.
    #[must_use]
    pub fn reason(mut self, name: &'static str) -> Self {
        self.0.reason = Some(name);
        self
    }
    /// Says in the message what it is about.
    #[must_use]
    pub fn prefixed(mut self, about: &str) -> Self {
        self.0.message = format!("{about}: {}", self.0.message);
        self
    }
    /// Adds what only the operator's log may show.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        self.0.context.push(context.into());
        self
    }
    pub fn code(&self) -> ErrorCode {
        self.0.code
    }
    pub fn message(&self) -> &str {
        &self.0.message
    }
    pub fn param_name(&self) -> Option<&str> {
        self.0.param.as_deref()
    }
    pub fn alternatives(&self) -> &[String] {
        &self.0.alternatives
    }
    pub fn retry_after_hint(&self) -> Option<DurationMs> {
        self.0.retry_after
    }
    /// What was short, if not everything of the key.
    pub fn bottleneck_name(&self) -> Option<&Arc<str>> {
        self.0.bottleneck.as_ref()
    }
    /// The rule that refused, if it has a name.
    pub fn reason_name(&self) -> Option<&'static str> {
        self.0.reason
    }
    /// Private context for the log, outermost last.
    pub fn private_context(&self) -> &[String] {
        &self.0.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.code, self.0.message)?;
        for context in &self.0.context {
            write!(f, " [{context}]")?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

macro_rules! error_codes {
    ($($variant:ident = $code:literal, $status:literal, $kind:literal, $exit:literal, $advice:literal;)+) => {
        /// A stable, documented reason. The text is part of the API.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
        pub enum ErrorCode { $(#[serde(rename = $code)] $variant),+ }

        impl ErrorCode {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// The `code` field of the error body.
            pub const fn as_str(self) -> &'static str { match self { $(Self::$variant => $code),+ } }
            /// The HTTP status.
            pub const fn status(self) -> u16 { match self { $(Self::$variant => $status),+ } }
            /// The `type` field of the error body (OpenAI's vocabulary).
            pub const fn kind(self) -> &'static str { match self { $(Self::$variant => $kind),+ } }
            /// The exit status of a command that ends with this error.
            pub const fn exit_status(self) -> u8 { match self { $(Self::$variant => $exit),+ } }
            /// A paragraph for `sublet explain` and the reference page.
            pub const fn advice(self) -> &'static str { match self { $(Self::$variant => $advice),+ } }
        }
    };
}

impl ErrorCode {
    /// Whether clients that repeat refused calls by themselves are told not to.
    pub const fn is_final(self) -> bool {
        matches!(
            self,
            Self::InsufficientQuota | Self::StorageFull | Self::AlreadyServed | Self::ContextLengthExceeded | Self::NotOffered
        )
    }
}

error_codes! {
    InvalidRequest = "invalid_request", 400, "invalid_request_error", 2,
        "A field has a value that this endpoint cannot use. The message names the field and the values that work.";
    InvalidJson = "invalid_json", 400, "invalid_request_error", 2,
        "The body is not valid JSON, or not a JSON object. Send Content-Type: application/json and one object.";
    UnsupportedField = "unsupported_field", 400, "invalid_request_error", 2,
        "The model behind this name cannot honour a field that would change the answer. Leave the field out or choose another model.";
    ContextLengthExceeded = "context_length_exceeded", 400, "invalid_request_error", 2,
        "Prompt and requested output do not fit the model's context window. Shorten the prompt, lower max_tokens, or choose a model with a longer context.";
    PreviousResponseNotFound = "previous_response_not_found", 400, "invalid_request_error", 4,
        "The response that a request goes on from is not kept here for this project: it was not asked for with 'store': true, has expired, was deleted, or is another project's. Send the conversation again as items of 'input'.";
    InvalidId = "invalid_id", 400, "invalid_request_error", 2,
        "An identifier is malformed. Ids are a prefix, an underscore and lower-case letters and digits, exactly as they were returned.";
    InvalidAmount = "invalid_amount", 400, "invalid_request_error", 2,
        "Amounts are plain decimal strings with at most nine decimals, such as \"12.50\".";
    InvalidPrice = "invalid_price", 400, "invalid_request_error", 2,
        "A price is a non-negative amount for a positive number of units.";
    AmountOverflow = "amount_overflow", 400, "invalid_request_error", 2,
        "One amount is bounded by 9223372036 currency units. Split the amount, or use a currency with larger units.";
    UnknownCurrency = "unknown_currency", 400, "invalid_request_error", 2,
        "Accounts are kept in one ISO 4217 currency, written in upper case.";
    CurrencyMismatch = "currency_mismatch", 400, "invalid_request_error", 2,
        "Amounts of two currencies met. Use the currency of the organization's account.";
    UnknownNoticeClass = "unknown_notice_class", 400, "invalid_request_error", 2,
        "Notice classes are n0, n2m, n15m, n1h, n24h and firm.";
    MissingApiKey = "missing_api_key", 401, "authentication_error", 3,
        "Send the key as 'Authorization: Bearer sk-…' or as 'x-api-key'.";
    InvalidApiKey = "invalid_api_key", 401, "authentication_error", 3,
        "The key is unknown, expired or revoked. Create a new one in the console or with the organization's admin key.";
    WrongKeyPlane = "wrong_key_plane", 403, "permission_error", 3,
        "Project keys (sk-sub-) open models and compute, admin keys (sk-adm-) the organization, operator keys (sk-opr-) the cloud. None works on another plane.";
    PermissionDenied = "permission_denied", 403, "permission_error", 3,
        "The key is valid but its role or its limits do not allow this action.";
    ModelNotAllowed = "model_not_allowed", 403, "permission_error", 8,
        "This key may use only the models it was created for. Use one of them or ask for a key with the model.";
    LicenceNotAccepted = "licence_not_accepted", 403, "permission_error", 8,
        "The model's licence has to be accepted by your organization first: read it, then run 'sublet models accept MODEL --licence NAME' with an admin key, or call POST /v1/organization/licences.";
    NotFound = "not_found", 404, "invalid_request_error", 4,
        "There is no such object in your project or organization.";
    ModelNotFound = "model_not_found", 404, "invalid_request_error", 4,
        "No model of this name is served to you. GET /v1/models lists the names that work.";
    NotOffered = "not_offered", 404, "invalid_request_error", 4,
        "The route is known, but nothing here serves it. The message says what would work instead; repeating the call does not.";
    UnknownUrl = "unknown_url", 404, "invalid_request_error", 4,
        "There is no such route. /openapi.json lists all of them.";
    MethodNotAllowed = "method_not_allowed", 405, "invalid_request_error", 2,
        "The route exists but not with this method.";
    Conflict = "conflict", 409, "invalid_request_error", 5,
        "The object changed since it was read, or is not in a state that allows this. Read it again and repeat.";
    IdempotencyInProgress = "idempotency_in_progress", 409, "invalid_request_error", 5,
        "A request with the same Idempotency-Key is still running. Wait and repeat.";
    AlreadyServed = "already_served", 409, "invalid_request_error", 5,
        "This Idempotency-Key was used by a request that finished; outputs are not stored, but for responses that were asked to be kept. The earlier request id is in the message; it was charged once.";
    PreconditionFailed = "precondition_failed", 412, "invalid_request_error", 5,
        "If-Match named another generation than the current one. Read the object again.";
    BodyTooLarge = "body_too_large", 413, "invalid_request_error", 6,
        "The body is larger than this route accepts. The limit is in the message.";
    UnsupportedMediaType = "unsupported_media_type", 415, "invalid_request_error", 2,
        "Send JSON with Content-Type: application/json.";
    IdempotencyMismatch = "idempotency_mismatch", 422, "invalid_request_error", 5,
        "This Idempotency-Key was used with another body. Use a new key for a new request.";
    InsufficientQuota = "insufficient_quota", 429, "insufficient_quota", 6,
        "A spend limit or the credit balance is used up. The message names the limit, what was needed and what is left. Raise the limit or add credit. An account that is suspended for an overdue invoice is refused too: the message says so and what is owed.";
    RateLimitExceeded = "rate_limit_exceeded", 429, "rate_limit_error", 6,
        "Too many requests or tokens in a short time. Repeat after the time in Retry-After.";
    ConcurrencyExceeded = "concurrency_exceeded", 429, "rate_limit_error", 6,
        "Too many requests of this key are in flight. Wait for one to finish.";
    QueueFull = "queue_full", 503, "overloaded_error", 9,
        "The model's queue is full. Repeat after the time in Retry-After.";
    Preempted = "preempted", 503, "overloaded_error", 9,
        "The capacity was needed by requests of a higher tier. Only what was delivered before is charged. Repeat after the time in Retry-After, or ask for service_tier 'default'.";
    ModelUnavailable = "model_unavailable", 503, "overloaded_error", 9,
        "None of the servers of this model can be reached now. Nothing was charged. Repeat after the time in Retry-After.";
    UpstreamFailed = "upstream_failed", 502, "server_error", 9,
        "The server of this model gave no usable answer, and no other one could take over. Only what was delivered before it is charged.";
    UpstreamTimeout = "upstream_timeout", 504, "server_error", 9,
        "The server of this model fell silent for too long. Only what was delivered before it is charged.";
    CapacityUnavailable = "capacity_unavailable", 409, "capacity_error", 7,
        "There is not enough free capacity of this kind and notice now. The alternatives name the nearest thing that works.";
    PolicyRefused = "policy_refused", 403, "policy_error", 8,
        "A hard constraint (isolation, site, data policy, tier) cannot be met. Constraints are never relaxed silently.";
    PriceAboveMaximum = "price_above_maximum", 409, "capacity_error", 6,
        "The price is above the maximum cost that was given. Raise it or ask for less.";
    UnknownPrice = "unknown_price", 409, "invalid_request_error", 8,
        "There is no price in force for this, so it is not served. The operator must publish one.";
    QuoteExpired = "quote_expired", 409, "invalid_request_error", 5,
        "The quote is past its expiry. Ask for a new one.";
    LimitUnenforceable = "limit_unenforceable", 400, "invalid_request_error", 2,
        "A limit that cannot be enforced is refused when it is set.";
    LedgerMismatch = "ledger_mismatch", 500, "server_error", 1,
        "The books do not balance or differ from their postings. Stop selling and call support with the report.";
    ProofInvalid = "proof_invalid", 422, "invalid_request_error", 1,
        "A bundle or receipt was changed, is damaged, or proves something else. The message names what is wrong first. Get it anew; if it is still wrong, the bill is.";
    ModelFileInvalid = "model_file_invalid", 400, "invalid_request_error", 2,
        "The model's files are missing, damaged or of an architecture this engine does not run. The message names the file.";
    HubUnreachable = "hub_unreachable", 503, "server_error", 9,
        "The model hub cannot be reached from here. Copy the model's files and use 'sublet models import PATH'.";
    DataDirectoryNewer = "data_directory_newer", 500, "server_error", 5,
        "The data was written by a newer version. Run that version or restore a backup; nothing was changed.";
    DataDirectoryBusy = "data_directory_busy", 500, "server_error", 5,
        "Another process uses this data directory. Stop it or choose another --data-dir.";
    AddressInUse = "address_in_use", 500, "server_error", 5,
        "Another process listens on this address. Choose another with --listen.";
    StorageFull = "storage_full", 507, "server_error", 9,
        "The disk or a quota is full. What was acknowledged is safe; free space and repeat.";
    StoreUnavailable = "store_unavailable", 503, "server_error", 9,
        "The database cannot be reached. Amounts granted before are still served; repeat shortly.";
    ShuttingDown = "shutting_down", 503, "server_error", 9,
        "The cloud is stopping. Repeat shortly.";
    Unreachable = "unreachable", 503, "server_error", 9,
        "The cloud did not answer. Check --url, SUBLET_URL, and that 'sublet up' runs.";
    Usage = "usage", 400, "invalid_request_error", 2,
        "The command line was not understood. 'sublet help' lists the commands.";
    Internal = "internal_error", 500, "server_error", 1,
        "A failure on our side. It is in the log under the request id; only what was delivered before it is charged.";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for ErrorCode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            Error::new(ErrorCode::NotFound, format!("'{shown}' is not an error code of this cloud"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_parse_back() {
        for code in ErrorCode::ALL {
            assert_eq!(code.as_str().parse::<ErrorCode>().ok(), Some(*code));
            assert!(!code.advice().is_empty() && code.status() >= 400);
        }
    }

    #[test]
    fn private_context_is_not_displayed() {
        let error = Error::internal("pool timed out");
        assert!(!error.to_string().contains("pool"));
        assert!(format!("{error:?}").contains("pool"));
    }
}
