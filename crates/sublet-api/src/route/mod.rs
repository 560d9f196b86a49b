//! The one list of routes. Servers bind a handler to each [`Operation`], tests enumerate
//! [`ROUTES`], the OpenAPI document and the reference are made from it.
//!
//! Invariants: an operation is in the table exactly once; a path belongs to exactly one plane of
//! keys; a billable route passes admission; a route that creates or charges takes an
//! `Idempotency-Key`. Deliberately absent: handlers, and the console's pages.

mod table;

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use sublet_core::key::KeyPlane;

pub use table::{Operation, ROUTES};

/// Largest body of a route that takes an ordinary object, in bytes.
pub const BODY_BYTES_MAX: usize = 256 * 1024;
/// Largest body of an inference request, in bytes.
pub const INFERENCE_BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Largest body of a job with its files, in bytes (base 64 adds a third to the files).
pub const JOB_BODY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Largest form that uploads a file, in bytes: 200 MiB of file, and the form around it.
pub const FILE_BODY_BYTES_MAX: usize = 201 * 1024 * 1024;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;

/// One route of the API.
#[derive(Clone, Copy)]
pub struct Route {
    pub operation: Operation,
    pub method: Method,
    /// In axum's syntax: `/v1/jobs/{id}`, `/v1/models/{*id}`.
    pub path: &'static str,
    pub plane: Plane,
    /// One sentence for the reference.
    pub summary: &'static str,
    /// Costs money: it must pass the hold before it does anything.
    pub billable: bool,
    pub idempotency: Idempotency,
    /// Larger bodies are refused unread; 0 takes no body.
    pub body_bytes_max: usize,
    /// The body is a form that its handler reads piece by piece.
    pub takes_form: bool,
    /// Served without `/v1` and under `/openai/v1` too.
    pub aliased: bool,
    pub request: Option<SchemaOf>,
    pub query: Option<SchemaOf>,
    pub answer: Answer,
}

/// Makes a type's schema inside a document.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// Which keys open a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Plane {
    /// Everybody, without a key.
    Public,
    Project,
    Admin,
    Operator,
}

impl Plane {
    /// The plane a key must be of; `None` needs no key.
    pub const fn key(self) -> Option<KeyPlane> {
        match self {
            Self::Public => None,
            Self::Project => Some(KeyPlane::Project),
            Self::Admin => Some(KeyPlane::Admin),
            Self::Operator => Some(KeyPlane::Operator),
        }
    }
}

/// What an `Idempotency-Key` does on a route.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Idempotency {
    /// Nothing: the route changes nothing, or repeating it changes nothing.
    Ignored,
    /// The first answer is stored and given again.
    Stored,
    /// No output is stored: a repeat of a finished request is refused with its id and never charged.
    OutcomeOnly,
}

/// HTTP methods the table uses.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a route answers with when all is well. The status is then always 200.
#[derive(Clone, Copy)]
pub enum Answer {
    Json(SchemaOf),
    /// JSON, or server-sent events of the second schema if the body says `"stream": true`.
    JsonOrEvents(SchemaOf, SchemaOf),
    /// Plain text.
    Text,
    /// Plain text that is sent while it is made.
    TextStream,
    /// The content of a file.
    File,
    /// Rows, as CSV or as Parquet.
    Table,
    /// For people as PDF, or for their programs as XML.
    Document,
    /// Nothing: whatever is asked, the answer is an error that says what would work.
    Refusal,
}

impl Route {
    const fn new(operation: Operation, method: Method, path: &'static str) -> Self {
        let body_bytes_max = match method {
            Method::Post | Method::Put => BODY_BYTES_MAX,
            Method::Get | Method::Delete => 0,
        };
        Self {
            operation,
            method,
            path,
            plane: Plane::Public,
            summary: "",
            billable: false,
            idempotency: Idempotency::Ignored,
            body_bytes_max,
            takes_form: false,
            aliased: false,
            request: None,
            query: None,
            answer: Answer::Text,
        }
    }
    const fn open(self, plane: Plane, summary: &'static str) -> Self {
        Self { plane, summary, ..self }
    }
    const fn takes<T: JsonSchema>(self) -> Self {
        Self { request: Some(schema_of::<T>), ..self }
    }
    const fn query<T: JsonSchema>(self) -> Self {
        Self { query: Some(schema_of::<T>), ..self }
    }
    const fn gives<T: JsonSchema>(self) -> Self {
        Self { answer: Answer::Json(schema_of::<T>), ..self }
    }
    const fn gives_or_streams<T: JsonSchema, E: JsonSchema>(self) -> Self {
        Self { answer: Answer::JsonOrEvents(schema_of::<T>, schema_of::<E>), ..self }
    }
    const fn text(self) -> Self {
        Self { answer: Answer::Text, ..self }
    }
    const fn streams_text(self) -> Self {
        Self { answer: Answer::TextStream, ..self }
    }
    const fn gives_file(self) -> Self {
        Self { answer: Answer::File, ..self }
    }
    const fn gives_table(self) -> Self {
        Self { answer: Answer::Table, ..self }
    }
    const fn gives_document(self) -> Self {
        Self { answer: Answer::Document, ..self }
    }
    /// A route that clients know and that is not offered.
    const fn refuses(self) -> Self {
        Self { answer: Answer::Refusal, ..self.counts() }
    }
    const fn takes_form<T: JsonSchema>(self, bytes_max: usize) -> Self {
        Self { takes_form: true, ..self.takes::<T>().body_up_to(bytes_max) }
    }
    const fn creates(self) -> Self {
        Self { idempotency: Idempotency::Stored, ..self }
    }
    const fn bills(self) -> Self {
        Self { billable: true, ..self }
    }
    /// Reads what an inference route reads, and changes nothing.
    const fn counts(self) -> Self {
        Self { body_bytes_max: INFERENCE_BODY_BYTES_MAX, aliased: true, ..self }
    }
    const fn inference(self) -> Self {
        Self {
            billable: true,
            idempotency: Idempotency::OutcomeOnly,
            body_bytes_max: INFERENCE_BODY_BYTES_MAX,
            aliased: true,
            ..self
        }
    }
    const fn aliased(self) -> Self {
        Self { aliased: true, ..self }
    }
    const fn body_up_to(self, bytes: usize) -> Self {
        Self { body_bytes_max: bytes, ..self }
    }

    /// Every path the route is served at; the first is the one documents name.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![self.path.to_owned()];
        if let (true, Some(rest)) = (self.aliased, self.path.strip_prefix("/v1")) {
            paths.push(rest.to_owned());
            paths.push(format!("/openai/v1{rest}"));
        }
        paths
    }
    /// The names between braces, in order.
    pub fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).map(|name| name.trim_start_matches('*'))
    }
}

impl fmt::Debug for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({:?})", self.method, self.path, self.operation)
    }
}

impl Operation {
    /// The operation's row.
    pub fn route(self) -> &'static Route {
        ROUTES.iter().find(|route| route.operation == self).expect("the enum and the table are made from one list")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_routes_share_a_method_and_a_path() {
        let mut seen = BTreeSet::new();
        for route in ROUTES {
            for path in route.paths() {
                let shape: Vec<&str> = path.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
                assert!(seen.insert((route.method, shape.join("/"))), "{route:?} at {path}");
            }
        }
    }

    #[test]
    fn a_path_belongs_to_the_plane_it_shows() {
        for route in ROUTES {
            let plane = match route.path {
                path if path.starts_with("/operator/v1/") => Plane::Operator,
                path if path.starts_with("/v1/organization/") => Plane::Admin,
                path if path == "/v1/prices" || path.starts_with("/v1/price_indexes") => Plane::Public,
                path if path.starts_with("/v1/") => Plane::Project,
                _ => Plane::Public,
            };
            assert_eq!(route.plane, plane, "{route:?}");
        }
    }

    #[test]
    fn every_post_that_creates_or_charges_takes_an_idempotency_key() {
        for route in ROUTES {
            match (route.method, route.idempotency) {
                (Method::Get | Method::Delete | Method::Put, kind) => assert_eq!(kind, Idempotency::Ignored, "{route:?}"),
                (Method::Post, kind) if route.billable => assert_ne!(kind, Idempotency::Ignored, "{route:?}"),
                // What is repeatable by nature: it brings an object to a state by name.
                (Method::Post, Idempotency::Ignored) => {
                    let last = route.path.rsplit('/').next();
                    let names_a_state =
                        matches!(last, Some("cancel" | "archive" | "cordon" | "uncordon" | "accept" | "leave" | "withdraw"))
                            || matches!(last, Some("answer" | "approve" | "reject" | "pay" | "retry" | "run" | "apply"))
                            || matches!(last, Some("checkpoint" | "yield" | "test"));
                    let names_its_object =
                        matches!(route.operation, Operation::DraftInvoice | Operation::ImportModel | Operation::ReceiveStripeEvent);
                    let changes_nothing = matches!(
                        last,
                        Some("count_tokens" | "input_tokens" | "moderations" | "price_simulations" | "reclaim_previews")
                    );
                    assert!(names_a_state || names_its_object || changes_nothing, "{route:?}");
                }
                (Method::Post, Idempotency::Stored | Idempotency::OutcomeOnly) => {}
            }
        }
    }

    #[test]
    fn bodies_are_bounded_and_described() {
        for route in ROUTES {
            assert!(route.request.is_none() || route.body_bytes_max > 0, "{route:?}");
            assert!(route.summary.ends_with('.') && route.summary.len() >= 8, "{route:?}");
        }
    }

    #[test]
    fn data_plane_routes_have_their_two_aliases() {
        assert_eq!(
            Operation::CreateChatCompletion.route().paths(),
            ["/v1/chat/completions", "/chat/completions", "/openai/v1/chat/completions"]
        );
        assert_eq!(Operation::GetModel.route().path_parameters().collect::<Vec<_>>(), ["id"]);
        assert_eq!(Operation::ListJobs.route().paths(), ["/v1/jobs"]);
    }

    #[test]
    fn money_is_spent_on_billable_routes_only() {
        let billable: Vec<String> = ROUTES.iter().filter(|r| r.billable).map(|r| format!("{} {}", r.method, r.path)).collect();
        let expected = [
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/responses",
            "/v1/messages",
            "/v1/leases",
            "/v1/jobs",
        ];
        assert_eq!(billable, expected.map(|path| format!("POST {path}")));
    }
}
