//! The real ports: a folder, and SMTP against a server on loopback.
#![cfg(test)]

use sublet_core::Timestamp;
use sublet_core::mail::{Attachment, MailFailure, MailPort, Message};
use sublet_mail::{MailFolder, SmtpSecurity};
use sublet_testkit::smtp::{FakeSmtp, MailTrouble};

fn message() -> Message {
    Message {
        id: "op_1".parse().unwrap(),
        from: "billing@cloud.example".parse().unwrap(),
        to: vec!["a@customer.example".parse().unwrap(), "b@customer.example".parse().unwrap()],
        subject: "Invoice INV-1 über 5 €".to_owned(),
        text: "Please pay.\n.\n..dots\n".to_owned(),
        attachments: vec![Attachment { name: "INV-1.pdf".to_owned(), media_type: "application/pdf", content: vec![b'%'; 3_000] }],
        written_at: Timestamp::from_seconds(1_700_000_000),
    }
}

#[tokio::test]
async fn a_server_takes_a_message_as_it_is() {
    let server = FakeSmtp::start();
    server.port().send(&message()).await.unwrap();
    let taken = server.taken();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].from, "billing@cloud.example");
    assert_eq!(taken[0].to, ["a@customer.example", "b@customer.example"]);
    assert_eq!(taken[0].header("Message-ID"), Some("<op_1@cloud.example>"));
    assert!(taken[0].content.contains("\r\nPlease pay.\r\n.\r\n..dots\r\n"), "{}", taken[0].content);
    assert_eq!(server.wrong(), Vec::<String>::new());
}

#[tokio::test]
async fn only_what_a_server_says_of_the_message_is_a_refusal() {
    for (trouble, is_refused, is_taken) in [
        (MailTrouble::RefuseRecipient("550 5.1.1 nobody of that name"), true, false),
        (MailTrouble::RefuseRecipient("450 4.2.1 come again"), false, false),
        (MailTrouble::RefuseRecipient("550 no such user"), true, false),
        (MailTrouble::RefuseRecipient("554 5.7.1 your machine is on a list"), false, false),
        (MailTrouble::RefuseRecipient("550 5.1.8 the sender's domain is nowhere"), false, false),
        (MailTrouble::RefuseGreeting("554 5.3.2 not now"), false, false),
        (MailTrouble::RefuseHello("550 5.7.1 not from there"), false, false),
        (MailTrouble::RefuseSender("553 5.1.7 not as that"), false, false),
        (MailTrouble::RefuseContent("554 5.7.1 it looks like an advertisement"), true, false),
        (MailTrouble::RefuseContent("552 5.3.4 too big"), true, false),
        (MailTrouble::RefuseContent("451 4.3.0 come again"), false, false),
        (MailTrouble::RefuseLogin("535 5.7.8 who are you"), false, false),
        (MailTrouble::RefuseLogin("454 4.7.0 come again"), false, false),
        (MailTrouble::LoseAnswer, false, true),
        (MailTrouble::Break, false, false),
        (MailTrouble::Hang, false, false),
    ] {
        let server = FakeSmtp::start();
        server.fail_next(trouble);
        let failed = server.port().send(&message()).await.unwrap_err();
        assert_eq!(matches!(failed, MailFailure::Refused(_)), is_refused, "{trouble:?}: {failed:?}");
        assert_eq!(server.taken().len(), usize::from(is_taken), "{trouble:?}");
        // A repeat is the same mail, to the byte.
        server.port().send(&message()).await.unwrap();
        let taken = server.taken();
        assert!(taken.iter().all(|mail| *mail == taken[0]), "{trouble:?}");
        assert_eq!(server.wrong(), Vec::<String>::new(), "{trouble:?}");
    }
}

#[tokio::test]
async fn nothing_is_said_to_a_server_without_tls_where_there_has_to_be_some() {
    for security in [SmtpSecurity::StartTls, SmtpSecurity::Tls] {
        let server = FakeSmtp::start();
        let failed = server.port_with(security).send(&message()).await.unwrap_err();
        assert!(matches!(failed, MailFailure::Unclear(_)), "{security:?}: {failed:?}");
        assert_eq!(server.taken(), []);
        let said = server.said();
        assert!(said.iter().all(|line| line.starts_with("EHLO") || line.starts_with("QUIT")), "{security:?}: {said:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_asked_later() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let server = sublet_mail::SmtpServer { host: "127.0.0.1".to_owned(), port, security: SmtpSecurity::Plain };
    let config = sublet_mail::SmtpConfig { server, login: None, timeout: std::time::Duration::from_secs(2) };
    let port = sublet_mail::Smtp::new(config, std::sync::Arc::new(NoSecrets));
    assert!(matches!(port.send(&message()).await, Err(MailFailure::Unclear(_))));
}

struct NoSecrets;

impl sublet_core::supply::SecretSource for NoSecrets {
    fn read(&self, name: &sublet_core::supply::SecretName) -> sublet_core::Result<String> {
        Err(sublet_core::Error::internal(format!("there is no secret {}", name.as_str())))
    }
}

#[tokio::test]
async fn a_folder_has_each_message_once_and_whole() {
    let place = tempfile::tempdir().unwrap();
    let folder = MailFolder::open(&place.path().join("mail")).unwrap();
    for _ in 0..2 {
        folder.send(&message()).await.unwrap();
    }
    let names: Vec<_> = std::fs::read_dir(place.path().join("mail")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["op_1.eml"]);
    let server = FakeSmtp::start();
    server.port().send(&message()).await.unwrap();
    let written = std::fs::read_to_string(place.path().join("mail/op_1.eml")).unwrap();
    // The end of the dialogue begins with an end of a line.
    assert_eq!(format!("{written}\r\n"), server.taken()[0].content, "both ports write the same");
    // Where nothing can be written it is tried again.
    std::fs::remove_dir_all(place.path().join("mail")).unwrap();
    assert!(matches!(folder.send(&message()).await, Err(MailFailure::Unclear(_))));
}
