//! The port to customers' webhooks: where an event is posted, and what became of it.
//!
//! Invariants: an address is parsed, and goes over TLS to the public internet unless the operator allows others; a secret
//! is in no message and no log.
//!
//! Deliberately absent: when events are posted and how often.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::error::{Error, ErrorCode, Result};
use crate::id::OutboxId;

/// Longest address, in bytes.
pub const URL_BYTES_MAX: usize = 512;
/// What a secret begins with, by Standard Webhooks.
pub const SECRET_PREFIX: &str = "whsec_";

/// Where events are posted: `https://host/path`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct WebhookUrl(Arc<str>);

impl WebhookUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Whether it goes without TLS.
    pub fn is_plain(&self) -> bool {
        self.0.starts_with("http://")
    }
    /// Name or address of the host, without its port.
    pub fn host(&self) -> &str {
        let authority = authority(&self.0);
        match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, _)) => address,
            None => authority.rsplit_once(':').map_or(authority, |(host, _)| host),
        }
    }
    /// The address, where the host is one.
    pub fn address(&self) -> Option<IpAddr> {
        self.host().parse().ok()
    }
    /// Refuses what only an operator may allow. What a name stands for is known when it is posted to.
    pub fn check_public(&self) -> Result<()> {
        let is_local_name = self.host().eq_ignore_ascii_case("localhost");
        let problem = match self.address() {
            _ if self.is_plain() => "goes without TLS",
            Some(address) if !is_public(address) => "is not on the public internet",
            None if is_local_name => "is not on the public internet",
            Some(_) | None => return Ok(()),
        };
        Err(Error::new(ErrorCode::PolicyRefused, format!("'{self}' {problem}"))
            .param("url")
            .alternative("name an https address that the cloud reaches from outside, as https://hooks.example.com/sublet")
            .alternative("the operator allows others with --webhooks-anywhere"))
    }
}

fn authority(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

impl FromStr for WebhookUrl {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(60).flat_map(char::escape_default).collect();
            Error::new(ErrorCode::InvalidRequest, format!("'{shown}' {why}"))
                .param("url")
                .alternative("https://hooks.example.com/sublet")
        };
        if text.len() > URL_BYTES_MAX {
            return Err(wrong(&format!("has more than {URL_BYTES_MAX} bytes")));
        }
        if !text.starts_with("https://") && !text.starts_with("http://") {
            return Err(wrong("begins with neither https:// nor http://"));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains(['#', '@', '\\', '"', '<', '>']) {
            return Err(wrong("has other characters than an address, or a user"));
        }
        let url = Self(Arc::from(text));
        let rest = authority(text).strip_prefix(&format!("[{}]", url.host())).or_else(|| authority(text).strip_prefix(url.host()));
        let port = rest.and_then(|rest| rest.strip_prefix(':'));
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
        let is_name =
            |host: &str| !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        // Brackets are for addresses with colons, and for nothing else.
        let is_host = match (url.address(), authority(text).starts_with('[')) {
            (Some(address), is_bracketed) => address.is_ipv6() == is_bracketed,
            (None, is_bracketed) => !is_bracketed && is_name(url.host()),
        };
        if is_host && is_port && rest.is_some() { Ok(url) } else { Err(wrong("names no host")) }
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<WebhookUrl> for String {
    fn from(url: WebhookUrl) -> Self {
        url.0.to_string()
    }
}
/// The host alone: a path or query may be what whoever posts there is known by.
impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WebhookUrl({})", self.host())
    }
}
impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether an address is one of the public internet, by the special-purpose registries of IANA. What carries another one
/// inside is what that is.
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = a == 0
        || a == 10
        || a == 127
        || a >= 224
        || (a == 100 && (64..128).contains(&b))
        || (a == 169 && b == 254)
        || (a == 172 && (16..32).contains(&b))
        || (a == 192 && b == 168)
        || (a == 192 && b == 0 && (c == 0 || c == 2))
        || (a == 192 && b == 88 && c == 99)
        || (a == 198 && (b == 18 || b == 19))
        || (a == 198 && b == 51 && c == 100)
        || (a == 203 && b == 0 && c == 113);
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let parts = address.segments();
    let inner = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match parts {
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => inner(high, low),
        // 6to4 and Teredo lead to addresses that somebody else chose.
        [0x2002, ..] | [0x2001, 0, ..] => false,
        [0x2001, 0x0db8, ..] | [0x2001, 2, 0, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Global unicast is all that is given to anybody.
        [first, ..] => (0x2000..0x4000).contains(&first),
    }
}

/// What events are signed with: `whsec_` and 32 bytes in Base64.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(Arc<str>);

impl WebhookSecret {
    pub fn new(text: &str) -> Self {
        Self(Arc::from(text))
    }
    /// The secret itself: for whoever it is made for, for its row, and for signing.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(..)")
    }
}

/// An event to be posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WebhookCall {
    /// The same however often it is posted: who gets it knows it again by that.
    pub id: OutboxId,
    pub url: WebhookUrl,
    pub secret: WebhookSecret,
    pub body: String,
}

/// Why an event was not taken.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WebhookFailure {
    /// Nobody wants events there any more (status 410).
    Gone,
    /// Not reached, not answered, or answered with anything but success.
    Unclear(String),
}

/// Who posts events.
pub trait WebhookPort: Send + Sync {
    /// Posts an event once; answers with the status of success.
    fn post<'a>(&'a self, call: &'a WebhookCall) -> BoxFuture<'a, Result<u16, WebhookFailure>>;
    /// Whether addresses may be anywhere, and go without TLS.
    fn goes_anywhere(&self) -> bool;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_host_with_a_path_and_nothing_else() {
        for (text, host) in [
            ("https://hooks.example.com/a?b=c", "hooks.example.com"),
            ("https://hooks.example.com:8443", "hooks.example.com"),
            ("http://127.0.0.1:9/x", "127.0.0.1"),
            ("https://[2001:db8::1]:443/", "2001:db8::1"),
            ("https://[::1]", "::1"),
        ] {
            assert_eq!(text.parse::<WebhookUrl>().unwrap().host(), host, "{text}");
        }
        for text in [
            "",
            "hooks.example.com",
            "ftp://hooks.example.com",
            "https://",
            "https:///path",
            "https://user@hooks.example.com",
            "https://hooks.example.com#part",
            "https://hooks example.com",
            "https://hooks.example.com:0",
            "https://hooks.example.com:http",
            "https://hooks.example.com:99999",
            "https://[::1",
            "https://[hooks]/",
            "https://hooks_.example.com",
            "https://a\\b",
        ] {
            assert!(text.parse::<WebhookUrl>().is_err(), "{text}");
        }
        assert!(format!("https://{}.example", "x".repeat(URL_BYTES_MAX)).parse::<WebhookUrl>().is_err());
    }

    #[test]
    fn only_the_public_internet_is_public() {
        for text in ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"] {
            assert!(is_public(text.parse().unwrap()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.1",
            "203.0.113.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "ff02::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2001::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "::7f00:1",
        ] {
            assert!(!is_public(text.parse().unwrap()), "{text}");
        }
    }

    #[test]
    fn what_only_an_operator_allows_is_refused_with_what_would_work() {
        let check = |text: &str| text.parse::<WebhookUrl>().unwrap().check_public();
        check("https://hooks.example.com/a").unwrap();
        for text in
            ["http://hooks.example.com", "https://127.0.0.1", "https://LOCALHOST:8443/", "https://[::1]/", "https://10.0.0.1"]
        {
            let refused = check(text).unwrap_err();
            assert_eq!(refused.code(), ErrorCode::PolicyRefused, "{text}");
            assert_eq!(refused.alternatives().len(), 2);
        }
    }

    #[test]
    fn a_secret_is_in_no_log() {
        let secret = WebhookSecret::new("whsec_c2VjcmV0");
        assert!(!format!("{secret:?}").contains("c2Vj"));
        let url: WebhookUrl = "https://hooks.example.com/services/t0ken?key=k3y".parse().unwrap();
        let shown = format!("{url:?}");
        assert!(shown.contains("hooks.example.com") && !shown.contains("t0ken") && !shown.contains("k3y"), "{shown}");
        let call = format!("{:?}", WebhookCall { id: "op_1".parse().unwrap(), url, secret, body: String::new() });
        assert!(!call.contains("t0ken") && !call.contains("c2Vj"), "{call}");
    }
}
