//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use serde::Serialize;
use serde::de::DeserializeOwned;
use sublet_core::error::{Error, Result};

use crate::batch::CreateBatch;
use crate::credit::CreateCreditGrant;
use crate::job::CreateJob;
use crate::key::CreateKey;
use crate::lease::CreateLease;
use crate::list::ListQuery;
use crate::money::Money;
use crate::organization::CreateOrganization;
use crate::quote::CreateQuote;
use crate::remote_model::{CreateRemoteModel, CreateReplica};
use crate::time::{QueryInstant, Rfc3339};
use crate::user::CreateUser;
use crate::{ErrorBody, parse_body, parse_query};

/// Longest message of a refusal, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1_024;

/// A body of the control plane: what is accepted is written again as what reads the same.
pub fn api_bodies(data: &[u8]) {
    again::<CreateBatch>(data);
    again::<CreateCreditGrant>(data);
    again::<CreateJob>(data);
    again::<CreateKey>(data);
    again::<CreateLease>(data);
    again::<CreateOrganization>(data);
    again::<CreateQuote>(data);
    again::<CreateRemoteModel>(data);
    again::<CreateReplica>(data);
    again::<CreateUser>(data);
    again::<Money>(data);
    if let Ok(body) = serde_json::from_slice::<ErrorBody>(data) {
        for status in [0, 200, 400, 429, 503, u16::MAX] {
            // What a server calls its error need not be one that we know.
            assert!(body.clone().into_error(status).code().status() >= 400);
        }
    }
}

fn again<T: DeserializeOwned + Serialize>(data: &[u8]) {
    let Some(value) = accepted(parse_body::<T>(data)) else { return };
    let written = serde_json::to_vec(&value).expect("a body is JSON");
    let read = parse_body::<T>(&written).expect("what was accepted is accepted again");
    assert_eq!(serde_json::to_vec(&read).expect("a body is JSON"), written);
}

fn accepted<T>(parsed: Result<T>) -> Option<T> {
    parsed.map_err(|error| check_refusal(&error)).ok()
}

fn check_refusal(error: &Error) {
    assert!((400..500).contains(&error.code().status()), "{error:?}");
    assert!(!error.message().is_empty() && error.message().len() <= MESSAGE_BYTES_MAX, "{} bytes", error.message().len());
    assert!(error.param_name().is_none_or(|param| param.len() <= MESSAGE_BYTES_MAX));
}

/// Query strings, cursors among them, and instants.
pub fn api_queries(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for query in [text.to_owned(), format!("after={text}"), format!("limit={text}&order=asc")] {
        if let Some(query) = accepted(parse_query::<ListQuery>(&query)) {
            let page = query.page();
            assert!((1..=100).contains(&page.limit.get()));
            let cursors = [page.after, page.before];
            assert!(cursors.into_iter().flatten().all(|cursor| (1..=128).contains(&cursor.0.len())));
        }
    }
    if let Some(at) = accepted(text.parse::<Rfc3339>()) {
        let written = String::from(at);
        assert_eq!(written.parse::<Rfc3339>().ok(), Some(at), "{text} was written as {written}");
    }
    if let Some(at) = accepted(QueryInstant::try_from(text.to_owned())) {
        assert!(!String::from(at).is_empty());
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: api_bodies, api_queries);
}
