//! Files as objects of a bucket: uploads in parts, however short they are.
//!
//! Parts are nothing that anybody sees until the upload is completed. What an earlier attempt left unfinished is found by
//! its key and aborted, so it costs nothing, and that attempt cannot complete it. An object that is put in one call could
//! not be taken from who puts it.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html>

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use quick_xml::Reader;
use quick_xml::events::Event;
use sublet_core::delivery::{Bucket, Delivered, Delivery, DeliveryFailure};
use sublet_core::{BoxFuture, Result};

use crate::client::{Answer, Call, Client, told};

/// Bytes of a part; all but the last have at least 5 MiB.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Most parts of an upload.
const PARTS_MAX: usize = 10_000;

pub async fn begin(client: &Arc<Client>, bucket: &Bucket, file: &Delivered) -> Result<Box<dyn Delivery>, DeliveryFailure> {
    let object = Object { client: Arc::clone(client), bucket: bucket.clone(), key: bucket.key(&file.name) };
    object.abort_unfinished().await?;
    let id = object.begin_upload().await?;
    Ok(Box::new(Upload { object, id, etags: Vec::new(), buffer: Vec::new() }))
}

/// One key of a bucket.
struct Object {
    client: Arc<Client>,
    bucket: Bucket,
    key: String,
}

impl Object {
    async fn call(&self, method: Method, query: &[(&str, &str)], body: Bytes) -> Result<Answer, DeliveryFailure> {
        self.client.call(Call { bucket: &self.bucket, method, key: &self.key, query, body }).await
    }

    /// Aborts uploads to this key that nobody completed. A list of them is cut at a thousand, which are aborted first.
    async fn abort_unfinished(&self) -> Result<(), DeliveryFailure> {
        let query = [("uploads", ""), ("prefix", self.key.as_str())];
        let listed =
            self.client.call(Call { bucket: &self.bucket, method: Method::GET, key: "", query: &query, body: Bytes::new() });
        for id in uploads_of(&listed.await?.body, &self.key) {
            self.call(Method::DELETE, &[("uploadId", &id)], Bytes::new()).await?;
        }
        Ok(())
    }

    /// Begins an upload, and gives its id.
    async fn begin_upload(&self) -> Result<String, DeliveryFailure> {
        let answer = self.call(Method::POST, &[("uploads", "")], Bytes::new()).await?;
        text_of(&answer.body, "UploadId").ok_or_else(|| self.failure("the upload that began has no id"))
    }

    fn failure(&self, why: &str) -> DeliveryFailure {
        DeliveryFailure(format!("{}/{}/{}: {why}", self.bucket.endpoint.as_str(), self.bucket.bucket.as_str(), self.key))
    }
}

/// An object on its way.
struct Upload {
    object: Object,
    id: String,
    /// Of each part that was sent, in their order.
    etags: Vec<String>,
    /// What was not sent yet.
    buffer: Vec<u8>,
}

impl Upload {
    async fn add(&mut self, bytes: Vec<u8>) -> Result<(), DeliveryFailure> {
        self.buffer.extend(bytes);
        while self.buffer.len() > PART_BYTES {
            let rest = self.buffer.split_off(PART_BYTES);
            let part = std::mem::replace(&mut self.buffer, rest);
            self.send_part(part).await?;
        }
        Ok(())
    }

    async fn send_part(&mut self, part: Vec<u8>) -> Result<(), DeliveryFailure> {
        if self.etags.len() >= PARTS_MAX {
            return Err(self.object.failure("it has more parts than an object may have"));
        }
        let number = (self.etags.len() + 1).to_string();
        let query = [("partNumber", number.as_str()), ("uploadId", self.id.as_str())];
        let answer = self.object.call(Method::PUT, &query, part.into()).await?;
        let etag = answer.headers.get("etag").and_then(|etag| etag.to_str().ok());
        let etag = etag.ok_or_else(|| self.object.failure("a part that was taken has no ETag"))?;
        self.etags.push(etag.to_owned());
        Ok(())
    }

    async fn finish(mut self) -> Result<(), DeliveryFailure> {
        // An upload has a part, if only an empty one.
        let last = std::mem::take(&mut self.buffer);
        self.send_part(last).await?;
        let completed = completion(&self.etags);
        let answer = self.object.call(Method::POST, &[("uploadId", &self.id)], completed.into()).await?;
        // A store that takes long begins to answer before it knows.
        match text_of(&answer.body, "ETag") {
            Some(_) => Ok(()),
            None => Err(self.object.failure(&format!("the upload was not completed{}", told(&answer.body)))),
        }
    }
}

impl Delivery for Upload {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>> {
        Box::pin(self.add(bytes))
    }
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>> {
        Box::pin(self.finish())
    }
}

/// The parts that an upload is completed of.
fn completion(etags: &[String]) -> String {
    let mut text = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
    for (index, etag) in etags.iter().enumerate() {
        let etag = quick_xml::escape::escape(etag.as_str());
        text.push_str(&format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", index + 1));
    }
    text.push_str("</CompleteMultipartUpload>");
    text
}

/// Every text of an answer, with the name of the element that it is in. What is no XML ends where it is wrong.
fn texts(body: &[u8]) -> Vec<(String, String)> {
    let Ok(text) = std::str::from_utf8(body) else { return Vec::new() };
    let mut reader = Reader::from_str(text);
    let (mut texts, mut open) = (Vec::new(), String::new());
    loop {
        match reader.read_event() {
            Ok(Event::Start(start)) => {
                open = start.local_name().as_ref().to_owned();
                texts.push((open.clone(), String::new()));
            }
            Ok(Event::Text(text)) => append(&mut texts, &open, &text),
            Ok(Event::GeneralRef(reference)) => {
                let written = format!("&{};", &*reference);
                append(&mut texts, &open, &quick_xml::escape::unescape(&written).unwrap_or_default());
            }
            Ok(Event::End(_)) => open.clear(),
            Ok(Event::Eof) | Err(_) => return texts,
            Ok(_) => {}
        }
    }
}

fn append(texts: &mut [(String, String)], open: &str, more: &str) {
    if let Some((_, text)) = texts.last_mut().filter(|(name, _)| name == open) {
        text.push_str(more);
    }
}

/// The text of the first element with a name.
pub fn text_of(body: &[u8], name: &str) -> Option<String> {
    texts(body).into_iter().find(|(known, _)| known == name).map(|(_, text)| text)
}

/// The ids of unfinished uploads to a key. The store was asked for a beginning, which longer keys have too.
fn uploads_of(body: &[u8], key: &str) -> Vec<String> {
    // Stores differ in what they say first of an upload.
    let mut uploads: Vec<(Option<String>, Option<String>)> = Vec::new();
    for (name, text) in texts(body) {
        match (name.as_str(), uploads.last_mut()) {
            ("Upload", _) => uploads.push((None, None)),
            ("Key", Some((of, _))) => *of = Some(text),
            ("UploadId", Some((_, id))) => *id = Some(text),
            _ => {}
        }
    }
    uploads.into_iter().filter(|(of, _)| of.as_deref() == Some(key)).filter_map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_to_longer_keys_are_left_alone() {
        let body = br#"<?xml version="1.0" encoding="UTF-8"?>
            <ListMultipartUploadsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Bucket>b</Bucket>
            <Upload><Key>a/focus.csv</Key><UploadId>one&amp;1</UploadId></Upload>
            <Upload><Key>a/focus.csv.manifest.json</Key><UploadId>two</UploadId></Upload>
            <Upload><UploadId>three</UploadId><Key>a/focus.csv</Key></Upload></ListMultipartUploadsResult>"#;
        assert_eq!(uploads_of(body, "a/focus.csv"), ["one&1", "three"]);
        assert!(uploads_of(b"no xml at all", "a").is_empty());
    }

    #[test]
    fn an_error_is_told_by_its_code_and_words() {
        let body = b"<Error><Code>AccessDenied</Code><Message>no &lt;rights&gt;</Message><RequestId>1</RequestId></Error>";
        assert_eq!(told(body), ", AccessDenied: no <rights>");
        assert_eq!(told(b""), "");
    }

    #[test]
    fn a_completion_names_each_part_by_its_number() {
        let text = completion(&["\"a\"".to_owned(), "\"b\"".to_owned()]);
        assert_eq!(text_of(text.as_bytes(), "ETag").as_deref(), Some("\"a\""));
        assert!(text.contains("<PartNumber>2</PartNumber><ETag>&quot;b&quot;</ETag>"), "{text}");
    }
}
