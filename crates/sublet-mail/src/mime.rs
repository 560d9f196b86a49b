//! A message as RFC 5322 and MIME have it.

use std::time::{Duration, UNIX_EPOCH};

use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Attachment, Mailbox, MultiPart, SinglePart};
use lettre::{Address, Message as Mime};
use sublet_core::mail::{MailAddress, MailFailure, Message};

/// RFC 3834: nobody's holiday notice answers this.
const AUTO_SUBMITTED: HeaderName = HeaderName::new_from_ascii_str("Auto-Submitted");

pub(crate) fn address(address: &MailAddress) -> Result<Address, MailFailure> {
    let parsed: Result<Address, _> = address.as_str().parse();
    parsed.map_err(|error| MailFailure::Refused(format!("{address} is not an address for mail: {error}")))
}

/// The message. The same one has the same bytes.
pub(crate) fn written(message: &Message) -> Result<Mime, MailFailure> {
    let wrong = |error: lettre::error::Error| MailFailure::Refused(format!("the message cannot be written: {error}"));
    let at = u64::try_from(message.written_at.seconds()).unwrap_or(0);
    // A line is one line whatever it is made of.
    let subject: String = message.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut builder = Mime::builder()
        .from(Mailbox::new(None, address(&message.from)?))
        .subject(subject)
        .date(UNIX_EPOCH + Duration::from_secs(at))
        .message_id(Some(format!("<{}@{}>", message.id, message.from.host())))
        .raw_header(HeaderValue::new(AUTO_SUBMITTED, "auto-generated".to_owned()));
    for to in &message.to {
        builder = builder.to(Mailbox::new(None, address(to)?));
    }
    let text = SinglePart::plain(message.text.clone());
    if message.attachments.is_empty() {
        return builder.singlepart(text).map_err(wrong);
    }
    // Parts of ours never have this line: an id is not chosen by who writes a text.
    let mut parts = MultiPart::mixed().boundary(format!("=_{}", message.id)).singlepart(text);
    for attachment in &message.attachments {
        let kind = ContentType::parse(attachment.media_type);
        let kind = kind.map_err(|error| MailFailure::Refused(format!("{}: {error}", attachment.media_type)))?;
        parts = parts.singlepart(Attachment::new(attachment.name.clone()).body(attachment.content.clone(), kind));
    }
    builder.multipart(parts).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use sublet_core::Timestamp;
    use sublet_core::mail::Attachment;

    use super::*;

    fn message(subject: &str) -> Message {
        Message {
            id: "op_1".parse().unwrap(),
            from: "billing@cloud.example".parse().unwrap(),
            to: vec!["a@customer.example".parse().unwrap(), "b@customer.example".parse().unwrap()],
            subject: subject.to_owned(),
            text: "Zahlen Sie 5 €.\n.\nThe end.\n".to_owned(),
            attachments: vec![],
            written_at: Timestamp::from_seconds(1_700_000_000),
        }
    }

    fn text(message: &Message) -> String {
        String::from_utf8(written(message).unwrap().formatted()).unwrap()
    }

    /// Names of all headers of the message itself, those of continued lines once.
    fn headers(text: &str) -> Vec<&str> {
        let head = text.split("\r\n\r\n").next().unwrap();
        let lines = head.split("\r\n").filter(|line| !line.starts_with([' ', '\t']));
        lines.map(|line| line.split_once(':').unwrap().0).collect()
    }

    #[test]
    fn a_message_follows_from_its_row_alone() {
        let mut message = message("Invoice INV-1");
        message.attachments = vec![Attachment {
            name: "INV-1.pdf".to_owned(),
            media_type: "application/pdf",
            content: b"%PDF-1.7 \x00\xff".to_vec(),
        }];
        let text = text(&message);
        assert_eq!(text, self::text(&message));
        for part in [
            "Message-ID: <op_1@cloud.example>\r\n",
            "Date: Tue, 14 Nov 2023 22:13:20 +0000\r\n",
            "Subject: Invoice INV-1\r\n",
            "To: a@customer.example, b@customer.example\r\n",
            "Auto-Submitted: auto-generated\r\n",
            "boundary=\"=_op_1\"",
            "Content-Disposition: attachment; filename=\"INV-1.pdf\"",
            "Content-Type: application/pdf",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert!(text.split("\r\n").all(|line| line.len() <= 998 && !line.contains('\n') && line.is_ascii()), "{text}");
    }

    #[test]
    fn no_text_of_a_subject_becomes_a_header() {
        let plain = message("Invoice");
        let expected = text(&plain);
        for subject in [
            "Invoice\r\nBcc: all@example.com",
            "Invoice\nBcc: all@example.com",
            "Invoice\rBcc: all@example.com",
            "Invoice\r\n\r\nanother body",
            "Invoice\u{2028}Bcc: all@example.com",
            "Invoice\u{85}Bcc: all@example.com",
            "=?utf-8?q?Invoice=0D=0ABcc:_all@example.com?=",
        ] {
            let text = text(&message(subject));
            assert_eq!(headers(&text), headers(&expected), "{subject:?}");
            assert!(!text.contains("\nBcc") && !text.contains("\rBcc"), "{text}");
        }
    }
}
