//! A server that takes mail on loopback: as strict about the dialogue of SMTP as RFC 5321 is, and can be told to fail.
//!
//! Deliberately absent: TLS. Whoever insists on it gets nothing said here.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use sublet_core::mail::MailPort;
use sublet_mail::{Smtp, SmtpConfig, SmtpLogin, SmtpSecurity, SmtpServer};

use crate::secret::KnownSecrets;

pub const USER: &str = "sublet";
pub const PASSWORD: &str = "open sesame";
/// `\0sublet\0open sesame` in base 64.
const PLAIN: &str = "AHN1YmxldABvcGVuIHNlc2FtZQ==";
/// How long the port waits for an answer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Longest line, in bytes (RFC 5321, 4.5.3.1.6).
const LINE_BYTES_MAX: usize = 1_000;

/// How the next message fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MailTrouble {
    /// It does not.
    None,
    /// Its recipient is answered like this.
    RefuseRecipient(&'static str),
    /// Its content is answered like this; nothing is kept.
    RefuseContent(&'static str),
    /// The connection is greeted like this.
    RefuseGreeting(&'static str),
    /// The greeting is answered like this.
    RefuseHello(&'static str),
    /// Its sender is answered like this.
    RefuseSender(&'static str),
    /// The login is answered like this.
    RefuseLogin(&'static str),
    /// Taken, and the answer is lost.
    LoseAnswer,
    /// The connection ends in the middle of its content; nothing is kept.
    Break,
    /// Not taken, and no answer ever comes.
    Hang,
}

/// A message that was taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TakenMail {
    pub from: String,
    pub to: Vec<String>,
    /// With lines that end with `\r\n`, and dots as they were.
    pub content: String,
}

impl TakenMail {
    /// The value of a header that is on one line.
    pub fn header(&self, name: &str) -> Option<&str> {
        let head = self.content.split("\r\n\r\n").next()?;
        head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

#[derive(Default)]
struct State {
    taken: Vec<TakenMail>,
    troubles: VecDeque<MailTrouble>,
    /// What was wrong with the dialogue.
    wrong: Vec<String>,
    /// Every command.
    said: Vec<String>,
    /// What waits for answers that never come.
    hung: Vec<TcpStream>,
}

/// The server. It listens until the test's process ends.
#[derive(Clone)]
pub struct FakeSmtp {
    state: Arc<Mutex<State>>,
    port: u16,
}

const SECRETS: KnownSecrets = KnownSecrets(&[("smtp", PASSWORD)]);

/// What a dialogue has come to.
#[derive(Default)]
struct Dialogue {
    is_greeted: bool,
    is_known: bool,
    from: Option<String>,
    to: Vec<String>,
}

/// What follows an answer.
enum Then {
    GoOn,
    End,
}

impl FakeSmtp {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let port = listener.local_addr().expect("an address").port();
        let fake = Self { state: Arc::default(), port };
        let serving = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        fake
    }

    /// The real port, which hands in here.
    pub fn port(&self) -> Arc<dyn MailPort> {
        self.port_with(SmtpSecurity::Plain)
    }

    /// The same, with what it insists on.
    pub fn port_with(&self, security: SmtpSecurity) -> Arc<dyn MailPort> {
        let server = SmtpServer { host: "127.0.0.1".to_owned(), port: self.port, security };
        let login = SmtpLogin { user: USER.to_owned(), password: "smtp".parse().expect("a name") };
        Arc::new(Smtp::new(SmtpConfig { server, login: Some(login), timeout: TIMEOUT }, Arc::new(SECRETS)))
    }

    pub fn url(&self) -> String {
        format!("smtp+plain://127.0.0.1:{}", self.port)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }
    /// The next message fails in this way; those after it in the ways that are said afterwards.
    pub fn fail_next(&self, trouble: MailTrouble) {
        self.state().troubles.push_back(trouble);
    }
    pub fn taken(&self) -> Vec<TakenMail> {
        self.state().taken.clone()
    }
    /// What was wrong with the dialogue; tests expect nothing.
    pub fn wrong(&self) -> Vec<String> {
        self.state().wrong.clone()
    }
    /// Every command so far.
    pub fn said(&self) -> Vec<String> {
        self.state().said.clone()
    }

    fn note_wrong(&self, what: &str) -> (String, Then) {
        self.state().wrong.push(what.to_owned());
        ("503 bad sequence".to_owned(), Then::End)
    }

    fn serve(&self, stream: TcpStream) {
        let trouble = self.state().troubles.pop_front().unwrap_or(MailTrouble::None);
        let mut reader = BufReader::new(stream);
        let mut dialogue = Dialogue::default();
        let mut answer = match trouble {
            MailTrouble::RefuseGreeting(said) => (said.to_owned(), Then::End),
            _ => ("220 fake.example ESMTP".to_owned(), Then::GoOn),
        };
        loop {
            if write!(reader.get_mut(), "{}\r\n", answer.0).is_err() || matches!(answer.1, Then::End) {
                return;
            }
            let Some(line) = self.line(&mut reader) else { return };
            if line == "DATA" && dialogue.from.is_some() && !dialogue.to.is_empty() {
                self.state().said.push(line);
                match self.take(&mut reader, &mut dialogue, trouble) {
                    Some(said) => answer = (said, Then::GoOn),
                    None => {
                        if trouble == MailTrouble::Hang {
                            self.state().hung.push(reader.into_inner());
                        }
                        return;
                    }
                }
            } else {
                answer = self.answer(&mut dialogue, &line, trouble);
                self.state().said.push(line);
            }
        }
    }

    /// One command, or one line of content; lines end as they have to.
    fn line(&self, reader: &mut BufReader<TcpStream>) -> Option<String> {
        let mut bytes = Vec::new();
        reader.read_until(b'\n', &mut bytes).ok()?;
        if bytes.is_empty() {
            return None;
        }
        let line = bytes.strip_suffix(b"\r\n").filter(|line| !line.contains(&b'\r') && line.is_ascii());
        let Some(line) = line.filter(|line| line.len() + 2 <= LINE_BYTES_MAX) else {
            self.state().wrong.push(format!("a line that is none: {:?}", String::from_utf8_lossy(&bytes)));
            return None;
        };
        Some(String::from_utf8_lossy(line).into_owned())
    }

    fn answer(&self, dialogue: &mut Dialogue, line: &str, trouble: MailTrouble) -> (String, Then) {
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let ok = |text: &str| (text.to_owned(), Then::GoOn);
        match verb {
            "EHLO" if !rest.is_empty() => match trouble {
                MailTrouble::RefuseHello(said) => ok(said),
                _ => {
                    dialogue.is_greeted = true;
                    ok("250-fake.example\r\n250 AUTH PLAIN LOGIN")
                }
            },
            "QUIT" => ("221 bye".to_owned(), Then::End),
            _ if !dialogue.is_greeted => self.note_wrong("a command before EHLO"),
            "AUTH" => match trouble {
                MailTrouble::RefuseLogin(said) => ok(said),
                _ if rest == format!("PLAIN {PLAIN}") => {
                    dialogue.is_known = true;
                    ok("235 welcome")
                }
                _ => self.note_wrong("a wrong login"),
            },
            _ if !dialogue.is_known => self.note_wrong("mail before the login"),
            "MAIL" => match (trouble, rest.strip_prefix("FROM:<").and_then(|rest| rest.split_once('>'))) {
                (MailTrouble::RefuseSender(said), Some(_)) => ok(said),
                (_, Some((from, _))) if dialogue.from.is_none() && !from.is_empty() => {
                    dialogue.from = Some(from.to_owned());
                    ok("250 ok")
                }
                _ => self.note_wrong("a wrong MAIL"),
            },
            "RCPT" => match rest.strip_prefix("TO:<").and_then(|rest| rest.strip_suffix('>')) {
                Some(_) if dialogue.from.is_none() => self.note_wrong("RCPT before MAIL"),
                Some(to) if to.contains('@') && !to.contains(['<', '>', ' ']) => match trouble {
                    MailTrouble::RefuseRecipient(said) => ok(said),
                    _ => {
                        dialogue.to.push(to.to_owned());
                        ok("250 ok")
                    }
                },
                _ => self.note_wrong("a wrong RCPT"),
            },
            _ => self.note_wrong(&format!("an unexpected command: {line}")),
        }
    }

    /// Reads the content; `None` if nothing is to be answered.
    fn take(&self, reader: &mut BufReader<TcpStream>, dialogue: &mut Dialogue, trouble: MailTrouble) -> Option<String> {
        reader.get_mut().write_all(b"354 go on\r\n").ok()?;
        let mut content = String::new();
        loop {
            let line = self.line(reader)?;
            if trouble == MailTrouble::Break {
                return None;
            }
            if line == "." {
                break;
            }
            content.push_str(line.strip_prefix('.').unwrap_or(&line));
            content.push_str("\r\n");
        }
        let taken = TakenMail { from: dialogue.from.take()?, to: std::mem::take(&mut dialogue.to), content };
        match trouble {
            MailTrouble::Hang => None,
            MailTrouble::RefuseContent(said) => Some(said.to_owned()),
            MailTrouble::LoseAnswer => {
                self.state().taken.push(taken);
                None
            }
            MailTrouble::None
            | MailTrouble::RefuseRecipient(_)
            | MailTrouble::RefuseGreeting(_)
            | MailTrouble::RefuseHello(_)
            | MailTrouble::RefuseSender(_)
            | MailTrouble::RefuseLogin(_)
            | MailTrouble::Break => {
                self.state().taken.push(taken);
                Some("250 taken".to_owned())
            }
        }
    }
}
