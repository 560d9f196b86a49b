//! Forms that upload a file: read from where the content is as they are sent, never whole in memory.

use std::fmt;
use std::io::{Cursor, Read};

use super::IdempotencyKey;

/// A file to be uploaded.
pub struct FileUpload {
    pub filename: String,
    pub purpose: String,
    /// How long it is kept; for ever if left out.
    pub expires_after_seconds: Option<u32>,
    /// How long the content is.
    pub bytes: u64,
    pub content: Box<dyn Read + Send>,
}

/// A form on its way.
pub(super) struct Form {
    pub content_type: String,
    pub bytes: u64,
    pub reader: Box<dyn Read + Send>,
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a form of {} bytes", self.bytes)
    }
}

impl Form {
    /// The key is random, and so is the boundary that is made of it: no content has it.
    pub fn new(file: FileUpload, key: &IdempotencyKey) -> Self {
        let boundary = format!("sublet-{}", key.0);
        let mut head = String::new();
        let life = file.expires_after_seconds.map(|seconds| seconds.to_string());
        let anchor = life.as_ref().map(|_| "created_at".to_owned());
        let fields = [("purpose", Some(file.purpose)), ("expires_after[anchor]", anchor), ("expires_after[seconds]", life)];
        for (name, value) in fields {
            if let Some(value) = value {
                head.push_str(&format!("--{boundary}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"));
            }
        }
        let filename = quoted(&file.filename);
        head.push_str(&format!(
            "--{boundary}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"{filename}\"\r\ncontent-type: application/octet-stream\r\n\r\n"
        ));
        let tail = format!("\r\n--{boundary}--\r\n");
        let around = u64::try_from(head.len() + tail.len()).unwrap_or(u64::MAX);
        let content = file.content.take(file.bytes);
        Self {
            content_type: format!("multipart/form-data; boundary={boundary}"),
            bytes: file.bytes.saturating_add(around),
            reader: Box::new(Cursor::new(head).chain(content).chain(Cursor::new(tail))),
        }
    }
}

/// A name as browsers write it into a form.
fn quoted(name: &str) -> String {
    name.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_as_long_as_it_says_and_a_name_stays_in_its_quotes() {
        let file = FileUpload {
            filename: "a\"b\r\n.jsonl".to_owned(),
            purpose: "batch".to_owned(),
            expires_after_seconds: Some(3_600),
            bytes: 5,
            content: Box::new(&b"12345"[..]),
        };
        let mut form = Form::new(file, &IdempotencyKey("k".to_owned()));
        let mut text = String::new();
        form.reader.read_to_string(&mut text).unwrap();
        assert_eq!(u64::try_from(text.len()).unwrap(), form.bytes);
        assert_eq!(form.content_type, "multipart/form-data; boundary=sublet-k");
        let parts: Vec<&str> = text.split("--sublet-k").collect();
        assert_eq!(parts.len(), 6, "{text}");
        assert!(parts[1].ends_with("name=\"purpose\"\r\n\r\nbatch\r\n") && parts[3].ends_with("\r\n\r\n3600\r\n"), "{text}");
        assert!(parts[4].contains("filename=\"a%22b%0D%0A.jsonl\"") && parts[4].ends_with("\r\n\r\n12345\r\n"), "{text}");
        assert_eq!(parts[5], "--\r\n");
    }
}
