//! Mail by SMTP.
//!
//! Invariants: a password, and mail, go over TLS, or to a server on loopback that the operator named so; a server that
//! does not offer `STARTTLS` where it has to gets neither. An answer that did not come is unclear and never a refusal, and
//! so is every one that is about us: to the connection, the login or the sender.

use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use lettre::Address;
use lettre::transport::smtp::Error as SmtpError;
use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::{AsyncSmtpConnection, TlsParameters};
use lettre::transport::smtp::commands::{Data, Mail, Rcpt};
use lettre::transport::smtp::extension::ClientId;
use sublet_core::mail::{MailFailure, MailPort, Message};
use sublet_core::supply::{SecretName, SecretSource};
use sublet_core::{BoxFuture, Error, ErrorCode, Result};

use crate::mime;

/// How many times the longest wait of one step a whole message may take.
const STEPS_MAX: u32 = 4;
/// Answers that are about us and not about the message: 530, 534, 535 and 538 (RFC 4954), and 454.
const LOGIN_ANSWERS: [&str; 5] = ["530", "534", "535", "538", "454"];

/// How a server is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SmtpSecurity {
    /// TLS from the first byte: `smtps://`.
    Tls,
    /// TLS before anything is said: `smtp://`.
    StartTls,
    /// None, to a server on loopback: `smtp+plain://`.
    Plain,
}

/// Where mail is handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmtpServer {
    pub host: String,
    pub port: u16,
    pub security: SmtpSecurity,
}

impl FromStr for SmtpServer {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorCode::Usage, format!("a server for mail {why}"))
                .alternative("smtps://mail.example.com, smtp://mail.example.com:587, or smtp+plain://127.0.0.1:25")
        };
        let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("is named by an address"))?;
        let (security, usual) = match scheme {
            "smtps" => (SmtpSecurity::Tls, 465),
            "smtp" => (SmtpSecurity::StartTls, 587),
            "smtp+plain" => (SmtpSecurity::Plain, 25),
            _ => return Err(wrong("has one of the schemes smtps, smtp and smtp+plain")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().map_err(|_| wrong("has a port from 1 to 65535"))?),
            None => (rest, usual),
        };
        let is_host = !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        if !is_host || port == 0 {
            return Err(wrong("has a host, and perhaps a port; its user and password are said apart"));
        }
        if security == SmtpSecurity::Plain && host != "localhost" && !host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback()) {
            return Err(wrong("that is not on this machine is spoken to over TLS"));
        }
        Ok(Self { host: host.to_owned(), port, security })
    }
}

/// As whom mail is handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmtpLogin {
    pub user: String,
    /// The name of the secret that has the password.
    pub password: SecretName,
}

/// How mail is handed in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SmtpConfig {
    pub server: SmtpServer,
    pub login: Option<SmtpLogin>,
    /// How long a server may take for one answer.
    pub timeout: Duration,
}

/// A server that takes mail.
pub struct Smtp {
    config: SmtpConfig,
    secrets: Arc<dyn SecretSource>,
}

impl Smtp {
    pub fn new(config: SmtpConfig, secrets: Arc<dyn SecretSource>) -> Self {
        Self { config, secrets }
    }

    /// A connection of its own for each message: mail is rare, and a password may have changed.
    async fn connect(&self, from_host: &str) -> Result<AsyncSmtpConnection, MailFailure> {
        let SmtpServer { host, port, security } = &self.config.server;
        let unusable = |error: String| MailFailure::Unclear(format!("{host} cannot be asked: {error}"));
        let parameters = || TlsParameters::new(host.clone()).map_err(|error| unusable(error.to_string()));
        let wrapper = if *security == SmtpSecurity::Tls { Some(parameters()?) } else { None };
        let (server, hello) = ((host.as_str(), *port), ClientId::Domain(from_host.to_owned()));
        let connected = AsyncSmtpConnection::connect_tokio1(server, Some(self.config.timeout), &hello, wrapper, None).await;
        let mut connection = connected.map_err(|error| about_us(&error))?;
        if *security == SmtpSecurity::StartTls {
            connection.starttls(parameters()?, &hello).await.map_err(|error| about_us(&error))?;
        }
        if let Some(login) = &self.config.login {
            let password = self.secrets.read(&login.password).map_err(|error| unusable(format!("{error:?}")))?;
            let credentials = Credentials::new(login.user.clone(), password);
            let known = connection.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            known.map_err(|error| about_us(&error))?;
        }
        Ok(connection)
    }

    async fn hand_in(&self, message: &Message) -> Result<(), MailFailure> {
        let content = mime::written(message)?.formatted();
        let to = message.to.iter().map(mime::address).collect::<Result<Vec<_>, _>>()?;
        if to.is_empty() {
            return Err(MailFailure::Refused("nobody to send it to".to_owned()));
        }
        let from = mime::address(&message.from)?;
        let mut connection = self.connect(message.from.host()).await?;
        let handed_in = say(&mut connection, (from, to), &content).await;
        connection.abort().await;
        handed_in
    }
}

/// Only what the server says of a recipient or of the content can be a refusal of this message.
async fn say(connection: &mut AsyncSmtpConnection, (from, to): (Address, Vec<Address>), content: &[u8]) -> Result<(), MailFailure> {
    connection.command(Mail::new(Some(from), Vec::new())).await.map_err(|error| about_us(&error))?;
    for to in to {
        connection.command(Rcpt::new(to, Vec::new())).await.map_err(|error| match is_of_recipient(&error) {
            true => about_message(&error),
            false => about_us(&error),
        })?;
    }
    connection.command(Data).await.map_err(|error| about_message(&error))?;
    connection.message(content).await.map_err(|error| about_message(&error))?;
    Ok(())
}

/// Many servers say only here what they have against the sender or its machine (RFC 3463: X.1.7, X.1.8 and X.7).
fn is_of_recipient(error: &SmtpError) -> bool {
    let said = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let detail = said.split_whitespace().next().and_then(|code| code.strip_prefix("5.")).unwrap_or_default();
    !(detail.starts_with("7.") || detail == "1.7" || detail == "1.8")
}

fn about_us(error: &SmtpError) -> MailFailure {
    MailFailure::Unclear(error.to_string())
}

fn about_message(error: &SmtpError) -> MailFailure {
    let is_login = error.status().is_some_and(|code| LOGIN_ANSWERS.contains(&code.to_string().as_str()));
    if error.is_permanent() && !is_login { MailFailure::Refused(error.to_string()) } else { about_us(error) }
}

impl MailPort for Smtp {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), MailFailure>> {
        Box::pin(async move {
            let all = self.config.timeout.saturating_mul(STEPS_MAX);
            let late = |_| MailFailure::Unclear(format!("{} took longer than {} s", self.config.server.host, all.as_secs()));
            tokio::time::timeout(all, self.hand_in(message)).await.map_err(late)?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_named_with_how_it_is_spoken_to() {
        let server = |host: &str, port, security| Ok(SmtpServer { host: host.to_owned(), port, security });
        for (text, expected) in [
            ("smtps://mail.example.com", server("mail.example.com", 465, SmtpSecurity::Tls)),
            ("smtp://mail.example.com/", server("mail.example.com", 587, SmtpSecurity::StartTls)),
            ("smtp://mail.example.com:25", server("mail.example.com", 25, SmtpSecurity::StartTls)),
            ("smtp+plain://127.0.0.1:1025", server("127.0.0.1", 1025, SmtpSecurity::Plain)),
            ("smtp+plain://localhost", server("localhost", 25, SmtpSecurity::Plain)),
            ("smtp+plain://mail.example.com", Err(())),
            ("smtp+plain://10.0.0.1", Err(())),
            ("mail.example.com", Err(())),
            ("https://mail.example.com", Err(())),
            ("smtp://", Err(())),
            ("smtp://:25", Err(())),
            ("smtp://host:0", Err(())),
            ("smtp://host:65536", Err(())),
            ("smtp://user:secret@host", Err(())),
            ("smtp://host/path", Err(())),
            ("smtp://ho st", Err(())),
        ] {
            let parsed = text.parse::<SmtpServer>();
            assert_eq!(parsed.map_err(|_| ()), expected, "{text}");
        }
    }
}
