//! Signing in with a key, and out again.

use askama::Template;
use axum::body::Body;
use http::header::{ORIGIN, SET_COOKIE};
use http::{Response, StatusCode};
use serde::Deserialize;
use sublet_core::key::Secret;
use sublet_core::{Error, ErrorCode, Result};

use super::visit::{Guest, SESSION_COOKIE, Visit};
use super::{Console, shell};
use crate::console::shell::Shell;

/// How long a browser keeps the cookie: as long as the session lives.
const COOKIE_SECONDS: u32 = 12 * 60 * 60;
const HOME: &str = "/console";

pub async fn front_door(_: Console, _: Guest) -> Result<Response<Body>> {
    Ok(shell::redirect(HOME))
}

pub async fn missing(_: Console, guest: Guest) -> Result<Response<Body>> {
    let shown: String = guest.url.chars().take(100).collect();
    Err(Error::new(ErrorCode::NotFound, format!("the console has no page at {shown}")).alternative("start from the overview"))
}

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    shell: Shell,
    next: String,
    problem: Option<String>,
}

#[derive(Deserialize)]
#[serde(default)]
struct Next {
    next: String,
}

impl Default for Next {
    fn default() -> Self {
        Self { next: HOME.to_owned() }
    }
}

/// The address of the login that leads back to a page.
pub fn address_for(url: &str) -> String {
    let encoded = form_urlencoded::byte_serialize(url.as_bytes()).collect::<String>();
    if url == HOME { "/console/login".to_owned() } else { format!("/console/login?next={encoded}") }
}

/// Only pages of the console: nobody is led elsewhere by a link to the login.
fn safe(next: String) -> String {
    let inside = next == HOME || next.strip_prefix(HOME).is_some_and(|rest| rest.starts_with(['/', '?']));
    if inside && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') { next } else { HOME.to_owned() }
}

pub async fn form(console: Console, guest: Guest) -> Result<Response<Body>> {
    let next = safe(guest.query::<Next>().unwrap_or_default().next);
    if let Some(token) = guest.session()
        && console.app.cloud.resume_session(token, &guest.address).await.is_ok()
    {
        return Ok(shell::redirect(&next));
    }
    shell::html(&LoginPage { shell: Shell::bare("Sign in"), next, problem: None })
}

#[derive(Deserialize)]
struct SignIn {
    key: String,
    #[serde(default)]
    next: String,
}

pub async fn sign_in(console: Console, guest: Guest) -> Result<Response<Body>> {
    let form: SignIn = guest.form()?;
    let next = safe(form.next);
    let opened = match form.key.trim().parse::<Secret>() {
        Ok(secret) => console.app.cloud.open_session(&secret, &guest.address).await,
        Err(error) => Err(error),
    };
    match opened {
        Ok((token, _)) => {
            let mut response = shell::redirect(&next);
            shell::set(&mut response, SET_COOKIE, &cookie(&guest, &token, COOKIE_SECONDS));
            Ok(response)
        }
        Err(error) if error.code() == ErrorCode::InvalidApiKey => {
            let page = LoginPage { shell: Shell::bare("Sign in"), next, problem: Some(error.message().to_owned()) };
            let mut response = shell::html(&page)?;
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            Ok(response)
        }
        Err(error) => Err(error),
    }
}

pub async fn sign_out(console: Console, visit: Visit) -> Result<Response<Body>> {
    if let Some(token) = visit.guest.session() {
        console.app.cloud.close_session(token).await?;
    }
    let mut response = shell::redirect("/console/login");
    shell::set(&mut response, SET_COOKIE, &cookie(&visit.guest, "", 0));
    Ok(response)
}

/// Scripts cannot read it, other sites cannot send it, and over TLS nothing else carries it.
fn cookie(guest: &Guest, token: &str, seconds: u32) -> String {
    let secure = guest.headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    let secure = if secure { "; Secure" } else { "" };
    format!("{SESSION_COOKIE}={token}; Path=/console; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_leads_to_pages_of_the_console_only() {
        for (next, to) in [
            ("/console", "/console"),
            ("/console/jobs?state=running", "/console/jobs?state=running"),
            ("//elsewhere.example/console", "/console"),
            ("/consoles", "/console"),
            ("https://elsewhere.example", "/console"),
            ("/console/\r\nx: y", "/console"),
            ("/console/\\elsewhere", "/console"),
        ] {
            assert_eq!(safe(next.to_owned()), to);
        }
        assert_eq!(address_for("/console/jobs?a=b"), "/console/login?next=%2Fconsole%2Fjobs%3Fa%3Db");
    }
}
