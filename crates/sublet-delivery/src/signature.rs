//! Signatures of requests: AWS Signature Version 4, in a header, over the body too.
//!
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html>
//!
//! Deliberately absent: signatures in the query, bodies in signed chunks.

use ring::{digest, hmac};
use sublet_core::Timestamp;

/// What is signed of a request. The path is one that needs no escapes, and nothing of the query is escaped yet.
pub struct Signed<'a> {
    pub method: &'a str,
    /// With its port, if that is not the scheme's.
    pub host: &'a str,
    pub path: &'a str,
    pub query: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
}

/// As whom, where and when.
pub struct Signer<'a> {
    pub access_key_id: &'a str,
    pub secret: &'a str,
    pub region: &'a str,
    pub now: Timestamp,
}

/// The headers that a signed request has besides those that it had.
#[derive(Debug)]
pub struct Headers {
    pub date: String,
    pub body_sha256: String,
    pub authorization: String,
}

impl Signer<'_> {
    pub fn sign(&self, request: &Signed<'_>) -> Headers {
        let date = basic_format(self.now);
        let (day, _) = date.split_at(8);
        let body_sha256 = sha256(request.body);
        let headers = "host;x-amz-content-sha256;x-amz-date";
        let canonical = format!(
            "{}\n{}\n{}\nhost:{}\nx-amz-content-sha256:{body_sha256}\nx-amz-date:{date}\n\n{headers}\n{body_sha256}",
            request.method,
            request.path,
            canonical_query(request.query),
            request.host
        );
        let scope = format!("{day}/{}/s3/aws4_request", self.region);
        let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
        let mut key = format!("AWS4{}", self.secret).into_bytes();
        for part in [day, self.region, "s3", "aws4_request"] {
            key = mac(&key, part).as_ref().to_vec();
        }
        let signature = hexadecimal(mac(&key, &text).as_ref());
        let authorization =
            format!("AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={headers},Signature={signature}", self.access_key_id);
        Headers { date, body_sha256, authorization }
    }
}

/// A query as it is signed and sent: in the order of names, with all escaped that is not unreserved.
pub fn canonical_query(query: &[(&str, &str)]) -> String {
    let mut pairs: Vec<String> = query.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.sort();
    pairs.join("&")
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn mac(key: &[u8], text: &str) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), text.as_bytes())
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `20130524T000000Z`.
fn basic_format(now: Timestamp) -> String {
    let text = now.to_string();
    let seconds = text.split('.').next().unwrap_or_default();
    format!("{}Z", seconds.replace(['-', ':'], ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the documentation whose headers are those that are sent here.
    #[test]
    fn requests_are_signed_as_the_examples_of_the_documentation() {
        let signer = Signer {
            access_key_id: "AKIAIOSFODNN7EXAMPLE",
            secret: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
            region: "us-east-1",
            now: Timestamp::from_seconds(1_369_353_600),
        };
        for (query, signature) in [
            (&[("lifecycle", "")][..], "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"),
            (&[("prefix", "J"), ("max-keys", "2")][..], "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"),
        ] {
            let request = Signed { method: "GET", host: "examplebucket.s3.amazonaws.com", path: "/", query, body: b"" };
            let headers = signer.sign(&request);
            assert_eq!(headers.date, "20130524T000000Z");
            assert_eq!(headers.body_sha256, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,Signature={signature}"
            );
            assert_eq!(headers.authorization, expected);
        }
    }

    #[test]
    fn what_is_not_unreserved_is_escaped_in_queries() {
        assert_eq!(canonical_query(&[("uploadId", "a/b+c=~"), ("partNumber", "10")]), "partNumber=10&uploadId=a%2Fb%2Bc%3D~");
    }
}
