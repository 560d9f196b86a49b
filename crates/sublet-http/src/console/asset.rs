//! The console's own files: one style sheet, one script, one icon. Their addresses change with their
//! content, so browsers may keep them for ever.

use axum::body::Body;
use http::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sublet_core::{Error, ErrorCode, Result};

use super::visit::Guest;
use super::{Console, shell};

struct Asset {
    name: &'static str,
    kind: &'static str,
    text: &'static str,
}

const ASSETS: [Asset; 3] = [
    Asset { name: "console.css", kind: "text/css; charset=utf-8", text: include_str!("../../templates/console.css") },
    Asset { name: "console.js", kind: "text/javascript; charset=utf-8", text: include_str!("../../templates/console.js") },
    Asset { name: "icon.svg", kind: "image/svg+xml", text: include_str!("../../templates/icon.svg") },
];

/// FNV-1a, 64 bits (Fowler, Noll, Vo; <https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>): tells versions apart.
fn version(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Where a file of ours is, in its present version.
pub fn address(name: &str) -> String {
    let version = ASSETS.iter().find(|asset| asset.name == name).map_or(0, |asset| version(asset.text));
    format!("/console/static/{name}?v={version:016x}")
}

pub async fn get(_: Console, guest: Guest) -> Result<Response<Body>> {
    let name = guest.path_text("name")?;
    let asset = ASSETS.iter().find(|asset| asset.name == name);
    let asset = asset.ok_or_else(|| Error::new(ErrorCode::NotFound, "the console has no such file"))?;
    let mut response = Response::new(Body::from(asset.text));
    shell::set(&mut response, CONTENT_TYPE, asset.kind);
    shell::set(&mut response, CACHE_CONTROL, "public, max-age=31536000, immutable");
    shell::guard(&mut response);
    Ok(response)
}
