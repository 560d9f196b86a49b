//! What a request refers to that was kept before it: asked for once, before the request is read.

use std::collections::BTreeSet;
use std::sync::Arc;

use sublet_api::responses::EarlierFields;
use sublet_core::admission::Access;
use sublet_core::id::ResponseId;
use sublet_core::response::TURNS_MAX;
use sublet_core::{Error, ErrorCode, Result};

use crate::dialect::{Earlier, Endpoint, json_object, references, response_of};
use crate::gateway::Gateway;
use crate::prepare::worked;

/// What a body names.
#[derive(Default)]
struct Names {
    previous: Option<String>,
    items: Vec<String>,
}

/// Finds what the body of a request names, if its API has such names.
pub(crate) async fn load(gateway: &Gateway, access: &Arc<Access>, endpoint: Endpoint, body: &bytes::Bytes) -> Result<Earlier> {
    if endpoint != Endpoint::Response {
        return Ok(Earlier::default());
    }
    let (size, body) = (body.len(), body.clone());
    let named = worked(size, move || names(&body)).await?;
    let mut earlier = match named.previous {
        Some(text) => {
            let previous: ResponseId = text.parse().map_err(|_| Error::previous_response_not_found(&text))?;
            let turns = gateway.responses.conversation(access, &previous).await?;
            let bytes = turns.iter().map(|turn| turn.input.len() + turn.object.len()).sum();
            worked(bytes, move || Earlier::conversation(previous, &turns)).await?
        }
        None => Earlier::default(),
    };
    let referred: BTreeSet<ResponseId> = named.items.iter().filter_map(|item| response_of(item)).collect();
    if referred.len() > TURNS_MAX {
        let message = format!("the items that an input refers to are of up to {TURNS_MAX} responses");
        return Err(Error::new(ErrorCode::InvalidRequest, message).param("input").alternative("send whole items"));
    }
    if !referred.is_empty() {
        let ids: Vec<ResponseId> = referred.into_iter().collect();
        earlier.refer_to(&gateway.responses.turns(access, &ids).await?)?;
    }
    Ok(earlier)
}

fn names(body: &[u8]) -> Result<Names> {
    let fields: EarlierFields<'_> = json_object(body)?;
    let previous = fields.previous_response_id.map(|raw| serde_json::from_str::<String>(raw.get()));
    let previous = previous.transpose().map_err(|_| {
        Error::new(ErrorCode::InvalidRequest, "'previous_response_id' must be a string").param("previous_response_id")
    })?;
    // Most inputs refer to nothing: the text is not read twice for them.
    let items = fields.input.filter(|input| input.get().contains("item_reference")).map(references);
    Ok(Names { previous, items: items.unwrap_or_default() })
}
