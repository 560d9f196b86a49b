//! The table of pages. The router registers it, tests enumerate it.

use axum::body::Body;
use http::Response;
use sublet_api::Method;
use sublet_core::key::KeyPlane;
use sublet_core::{BoxFuture, Result};

use super::visit::{Guest, Visit};
use super::{Console, asset, audit, contract, customer, device, invoice, job, key, ledger, login, margin, model, operator};
use super::{monthly_return, offering, organization, playground, price_index, request, revenue, top_up_rule, why};

/// Renders a page for everybody.
pub type OpenHandler = fn(Console, Guest) -> BoxFuture<'static, Result<Response<Body>>>;
/// Renders a page for somebody who signed in.
pub type Handler = fn(Console, Visit) -> BoxFuture<'static, Result<Response<Body>>>;

/// Who may come in.
#[derive(Clone, Copy)]
pub enum Door {
    Open(OpenHandler),
    /// Sessions of keys of these planes.
    Planes(&'static [KeyPlane], Handler),
}

/// One page, or one form's target.
pub struct Page {
    pub method: Method,
    pub path: &'static str,
    pub door: Door,
}

const EVERYONE: &[KeyPlane] = &[KeyPlane::Project, KeyPlane::Admin, KeyPlane::Operator];
const CUSTOMERS: &[KeyPlane] = &[KeyPlane::Project, KeyPlane::Admin];
const PROJECT: &[KeyPlane] = &[KeyPlane::Project];
const ADMIN: &[KeyPlane] = &[KeyPlane::Admin];
const OVERSEERS: &[KeyPlane] = &[KeyPlane::Admin, KeyPlane::Operator];
const OPERATOR: &[KeyPlane] = &[KeyPlane::Operator];

macro_rules! guest {
    ($method:ident $path:literal $handler:path) => {
        Page { method: Method::$method, path: $path, door: Door::Open(|console, guest| Box::pin($handler(console, guest))) }
    };
}

macro_rules! page {
    ($method:ident $path:literal $planes:ident $handler:path) => {
        Page {
            method: Method::$method,
            path: $path,
            door: Door::Planes($planes, |console, visit| Box::pin($handler(console, visit))),
        }
    };
}

/// Every page.
pub const PAGES: &[Page] = &[
    guest!(Get "/" login::front_door),
    guest!(Get "/console/login" login::form),
    guest!(Post "/console/login" login::sign_in),
    guest!(Get "/console/static/{name}" asset::get),
    guest!(Get "/console/{*rest}" login::missing),
    page!(Post "/console/logout" EVERYONE login::sign_out),
    page!(Get "/console" EVERYONE customer::home_of_plane),
    page!(Get "/console/models" CUSTOMERS model::list),
    page!(Get "/console/playground" PROJECT playground::form),
    page!(Post "/console/playground" PROJECT playground::send),
    page!(Get "/console/requests" PROJECT request::list),
    page!(Get "/console/jobs" EVERYONE job::list),
    page!(Get "/console/jobs/{id}" EVERYONE job::show),
    page!(Get "/console/jobs/{id}/log" EVERYONE job::log),
    page!(Post "/console/jobs/{id}/cancel" PROJECT job::cancel),
    page!(Get "/console/keys" ADMIN key::list),
    page!(Post "/console/keys" ADMIN key::create),
    page!(Post "/console/keys/{id}/revoke" ADMIN key::revoke),
    page!(Get "/console/invoices" ADMIN invoice::draft),
    page!(Get "/console/invoices/{id}/document" ADMIN invoice::document),
    page!(Get "/console/top-up" ADMIN top_up_rule::show),
    page!(Get "/console/indexes" OVERSEERS price_index::list),
    page!(Get "/console/why" EVERYONE why::ask),
    page!(Get "/console/why/{id}" EVERYONE why::show),
    page!(Get "/console/audit" OVERSEERS audit::list),
    page!(Get "/console/fleet" OPERATOR device::list),
    page!(Get "/console/earnings" OPERATOR operator::earnings),
    page!(Get "/console/return" OPERATOR monthly_return::show),
    page!(Get "/console/revenue" OPERATOR revenue::show),
    page!(Get "/console/margin" OPERATOR margin::show),
    page!(Get "/console/contracts" OPERATOR contract::list),
    page!(Get "/console/offerings" OPERATOR offering::list),
    page!(Get "/console/organizations" OPERATOR organization::list),
    page!(Get "/console/organizations/{id}" OPERATOR organization::show),
    page!(Get "/console/ledger" OPERATOR ledger::show),
    page!(Post "/console/ledger" OPERATOR ledger::verify),
];
