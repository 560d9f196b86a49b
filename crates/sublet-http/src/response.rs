//! Responses that were kept: read, listed by what they were asked, forgotten.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sublet_api::list::{Cursor, List, ListQuery, Order, PageRequest};
use sublet_api::object::Deleted;
use sublet_api::responses::ResponseQuery;
use sublet_core::id::ResponseId;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: ResponseId = context.path("id")?;
    if context.query::<ResponseQuery>()?.stream == Some(true) {
        return Err(Error::new(ErrorCode::UnsupportedField, "a kept response is given whole, not as a stream")
            .param("stream")
            .alternative(format!("GET /v1/responses/{id} without 'stream'"))
            .alternative("POST /v1/responses with 'stream': true streams an answer while it is made"));
    }
    app.cloud.get_response(&context.actor, &id).await.map(|turn| Answer::Json(turn.object))
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: ResponseId = context.path("id")?;
    app.cloud.delete_response(&context.actor, &id).await?;
    json(&Deleted { object: "response".to_owned(), id: id.to_string(), deleted: true })
}

/// Whoever may see the response learns that it cannot be cancelled; nobody else learns that it is there.
pub async fn cancel(app: App, context: Context) -> Result<Answer> {
    let id: ResponseId = context.path("id")?;
    app.cloud.get_response(&context.actor, &id).await?;
    Err(Error::new(
        ErrorCode::NotOffered,
        "responses are not cancelled here: none runs in the background, and this one is complete",
    )
    .alternative("close the connection of a stream to end its response")
    .alternative(format!("DELETE /v1/responses/{id} to forget this one")))
}

/// One item, as it was stored.
#[derive(Deserialize)]
struct Named<'a> {
    id: &'a str,
}

pub async fn list_input_items(app: App, context: Context) -> Result<Answer> {
    let id: ResponseId = context.path("id")?;
    let asked = context.query::<ListQuery>()?.page();
    let turn = app.cloud.get_response(&context.actor, &id).await?;
    let broken = |error: serde_json::Error| Error::internal(format!("the stored input of {id}: {error}"));
    let items: Vec<&RawValue> = serde_json::from_str(&turn.input).map_err(broken)?;
    let named = |item: &'_ &RawValue| -> Result<String> {
        let named: Named<'_> = serde_json::from_str(item.get()).map_err(broken)?;
        Ok(named.id.to_owned())
    };
    let ids = items.iter().map(named).collect::<Result<Vec<_>>>()?;
    let page = page(ids.into_iter().zip(items).collect(), &asked)?;
    json(&page)
}

/// A part of a list that is in memory already.
fn page<T: Serialize>(mut items: Vec<(String, T)>, asked: &PageRequest) -> Result<List<T>> {
    if asked.order == Order::Desc {
        items.reverse();
    }
    let limit = usize::try_from(asked.limit.get()).unwrap_or(1);
    let (range, has_more) = match (&asked.after, &asked.before) {
        (Some(_), Some(_)) => {
            return Err(Error::new(ErrorCode::InvalidRequest, "give after or before, not both").param("before"));
        }
        (None, Some(before)) => {
            let end = place(&items, "before", before)?;
            let start = end.saturating_sub(limit);
            (start..end, start > 0)
        }
        (after, None) => {
            let start = after.as_ref().map(|after| place(&items, "after", after)).transpose()?.map_or(0, |place| place + 1);
            let end = items.len().min(start.saturating_add(limit));
            (start..end, end < items.len())
        }
    };
    let (ids, data): (Vec<String>, Vec<T>) = items.drain(range).unzip();
    let (first_id, last_id) = (ids.first().cloned().map(Cursor), ids.last().cloned().map(Cursor));
    Ok(List { first_id, last_id, has_more, ..List::whole(data) })
}

fn place<T>(items: &[(String, T)], param: &str, cursor: &Cursor) -> Result<usize> {
    items.iter().position(|(id, _)| *id == cursor.0).ok_or_else(|| {
        Error::new(ErrorCode::InvalidRequest, format!("'{param}' is not the id of an item of this response"))
            .param(param)
            .alternative("use the first_id or last_id of an earlier page")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_api::list::PageLimit;

    #[test]
    fn items_are_paged_in_both_orders_and_directions() {
        let items = || (0..5).map(|n| (format!("i{n}"), n)).collect::<Vec<(String, i32)>>();
        let cursor = |id: &str| (!id.is_empty()).then(|| Cursor(id.to_owned()));
        for (order, after, before, expected, has_more) in [
            (Order::Asc, "", "", vec![0, 1], true),
            (Order::Asc, "i1", "", vec![2, 3], true),
            (Order::Asc, "i3", "", vec![4], false),
            (Order::Asc, "i4", "", vec![], false),
            (Order::Asc, "", "i3", vec![1, 2], true),
            (Order::Asc, "", "i1", vec![0], false),
            (Order::Desc, "", "", vec![4, 3], true),
            (Order::Desc, "i1", "", vec![0], false),
            (Order::Desc, "", "i2", vec![4, 3], false),
        ] {
            let asked = PageRequest { limit: PageLimit::try_from(2).unwrap(), after: cursor(after), before: cursor(before), order };
            let page = page(items(), &asked).unwrap();
            assert_eq!((&page.data, page.has_more), (&expected, has_more), "{asked:?}");
            assert_eq!(page.first_id.map(|id| id.0), expected.first().map(|n| format!("i{n}")));
        }
        let wrong = PageRequest { after: cursor("i9"), ..PageRequest::default() };
        assert_eq!(page(items(), &wrong).unwrap_err().param_name(), Some("after"));
    }
}
