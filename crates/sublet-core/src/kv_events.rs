//! Where an engine publishes what its cache keeps.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode, Result};

/// Longest name of a host, in bytes.
const HOST_BYTES_MAX: usize = 253;

/// `tcp://HOST:PORT`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KvEvents {
    host: Arc<str>,
    port: u16,
}

impl KvEvents {
    /// Without the brackets of an IPv6 address.
    pub fn host(&self) -> &str {
        &self.host
    }
    pub const fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for KvEvents {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':'));
        let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok().filter(|port| *port != 0)?)));
        let bare = |host: &'_ str| match host.strip_prefix('[').map(|rest| rest.strip_suffix(']')) {
            Some(inner) => inner.unwrap_or_default().to_owned(),
            None if host.contains(':') => String::new(),
            None => host.to_owned(),
        };
        let is_name = |host: &str| {
            (1..=HOST_BYTES_MAX).contains(&host.len())
                && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':'))
        };
        match parts.map(|(host, port)| (bare(host), port)) {
            Some((host, port)) if is_name(&host) => Ok(Self { host: host.into(), port }),
            _ => Err(Error::new(ErrorCode::InvalidRequest, "events of a cache come from an address such as tcp://HOST:PORT")
                .param("kv_events")
                .alternative("tcp://127.0.0.1:5557")),
        }
    }
}

impl fmt::Display for KvEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "tcp://[{host}]:{port}") } else { write!(f, "tcp://{host}:{port}") }
    }
}

impl TryFrom<String> for KvEvents {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<KvEvents> for String {
    fn from(endpoint: KvEvents) -> Self {
        endpoint.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        for text in ["tcp://127.0.0.1:5557", "tcp://gpu-7.example:1", "tcp://[::1]:65535"] {
            assert_eq!(text.parse::<KvEvents>().unwrap().to_string(), text);
        }
        assert_eq!("tcp://[::1]:9".parse::<KvEvents>().unwrap().host(), "::1");
        for text in [
            "",
            "127.0.0.1:5557",
            "tcp://127.0.0.1",
            "tcp://:5557",
            "tcp://*:5557",
            "tcp://a:0",
            "tcp://a:65536",
            "tcp://::1:9",
            "tcp://[]:9",
            "ipc://x",
        ] {
            assert!(text.parse::<KvEvents>().is_err(), "{text}");
        }
    }
}
