//! What every page has around it: head, navigation, who is signed in; and the headers that keep
//! browsers strict.

use askama::Template;
use axum::body::Body;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, LOCATION};
use http::{HeaderName, HeaderValue, Response, StatusCode};
use sublet_cloud::Actor;
use sublet_core::id::RequestId;
use sublet_core::key::KeyPlane;
use sublet_core::{Error, Result, Scope};

use super::{Console, asset};

/// Nothing but our own files, no frames, no inline anything.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; \
                                       form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Sent with every page.
const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
];

/// One entry of the navigation.
pub struct Link {
    pub href: &'static str,
    pub text: &'static str,
    pub current: bool,
}

/// Who is signed in.
pub struct Who {
    pub organization: String,
    pub project: Option<String>,
    pub plane: KeyPlane,
}

/// The frame around a page.
pub struct Shell {
    pub title: String,
    pub links: Vec<Link>,
    pub who: Option<Who>,
    pub style: String,
    pub script: String,
    pub icon: String,
}

const PROJECT_LINKS: &[(&str, &str)] = &[
    ("/console", "Overview"),
    ("/console/playground", "Playground"),
    ("/console/models", "Models"),
    ("/console/jobs", "Jobs"),
    ("/console/requests", "Requests"),
];
const ADMIN_LINKS: &[(&str, &str)] = &[
    ("/console", "Overview"),
    ("/console/keys", "Keys"),
    ("/console/models", "Models"),
    ("/console/jobs", "Jobs"),
    ("/console/invoices", "Invoices"),
    ("/console/top-up", "Top-up"),
    ("/console/indexes", "Price indexes"),
    ("/console/audit", "Audit log"),
];
const OPERATOR_LINKS: &[(&str, &str)] = &[
    ("/console", "Overview"),
    ("/console/fleet", "Fleet"),
    ("/console/jobs", "Jobs"),
    ("/console/return", "Return"),
    ("/console/earnings", "Earnings"),
    ("/console/revenue", "Revenue"),
    ("/console/margin", "Margin"),
    ("/console/contracts", "Contracts"),
    ("/console/offerings", "Offerings"),
    ("/console/indexes", "Price indexes"),
    ("/console/organizations", "Organizations"),
    ("/console/ledger", "Ledger"),
    ("/console/audit", "Audit log"),
];

fn links(plane: KeyPlane, section: &str) -> Vec<Link> {
    let links = match plane {
        KeyPlane::Project => PROJECT_LINKS,
        KeyPlane::Admin => ADMIN_LINKS,
        KeyPlane::Operator => OPERATOR_LINKS,
    };
    links.iter().map(|&(href, text)| Link { href, text, current: href == section }).collect()
}

impl Shell {
    /// The frame of a page for somebody; `section` is the address of its navigation entry.
    pub async fn of(console: &Console, actor: &Actor, title: impl Into<String>, section: &str) -> Result<Self> {
        let cloud = &console.app.cloud;
        let organization = match actor.scope.organization() {
            Some(id) => {
                let own = Actor { scope: Scope::Organization(id.clone()), ..actor.clone() };
                cloud.get_organization(&own, id).await?.name
            }
            None => "The whole cloud".to_owned(),
        };
        let project = match actor.scope.project() {
            Some(id) => Some(cloud.get_project(actor, id).await?.name),
            None => None,
        };
        let who = Who { organization, project, plane: actor.plane };
        Ok(Self { links: links(actor.plane, section), who: Some(who), ..Self::bare(title) })
    }

    /// The frame of a page for nobody in particular.
    pub fn bare(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            links: Vec::new(),
            who: None,
            style: asset::address("console.css"),
            script: asset::address("console.js"),
            icon: asset::address("icon.svg"),
        }
    }
}

/// A rendered page.
pub fn html(page: &impl Template) -> Result<Response<Body>> {
    let text = page.render().map_err(|error| Error::internal(format!("a page cannot be rendered: {error}")))?;
    let mut response = Response::new(Body::from(text));
    set(&mut response, CONTENT_TYPE, "text/html; charset=utf-8");
    set(&mut response, CACHE_CONTROL, "no-store");
    guard(&mut response);
    Ok(response)
}

/// The headers that every answer of the console has.
pub fn guard(response: &mut Response<Body>) {
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
}

pub fn set(response: &mut Response<Body>, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// On to another page of the console, with GET.
pub fn redirect(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    set(&mut response, LOCATION, to);
    set(&mut response, CACHE_CONTROL, "no-store");
    guard(&mut response);
    response
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    shell: Shell,
    status: u16,
    code: &'static str,
    message: &'a str,
    advice: &'static str,
    alternatives: &'a [String],
    request: &'a RequestId,
}

/// An error in the look of the console. Server errors are logged here, once.
pub async fn error_page(console: &Console, actor: Option<&Actor>, error: &Error, request: &RequestId) -> Response<Body> {
    let code = error.code();
    if code.status() >= 500 {
        tracing::error!(%request, ?error, "a page failed");
    }
    let title = match code.status() {
        404 => "Not found",
        401 => "Sign in first",
        403 => "Not allowed",
        status if status >= 500 => "Something failed on our side",
        _ => "That did not work",
    };
    let shell = match actor {
        Some(actor) => Shell::of(console, actor, title, "").await.unwrap_or_else(|_| Shell::bare(title)),
        None => Shell::bare(title),
    };
    let page = ErrorPage {
        shell,
        status: code.status(),
        code: code.as_str(),
        message: error.message(),
        advice: code.advice(),
        alternatives: error.alternatives(),
        request,
    };
    let mut response = html(&page).unwrap_or_default();
    *response.status_mut() = StatusCode::from_u16(code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    set(&mut response, HeaderName::from_static("x-request-id"), request.as_str());
    response
}
