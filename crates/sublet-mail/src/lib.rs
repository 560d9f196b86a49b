//! Delivering mail: into a folder, or by SMTP.
//!
//! Both write a message in the same way (`mime`), with bytes that follow from the message alone, so that a repeat is
//! the same mail again.
//!
//! Deliberately absent: receiving mail, a pool of connections, keys that sign mail: relays do that.
#![deny(clippy::float_arithmetic)]

mod folder;
mod mime;
mod smtp;

pub use folder::MailFolder;
pub use smtp::{Smtp, SmtpConfig, SmtpLogin, SmtpSecurity, SmtpServer};
