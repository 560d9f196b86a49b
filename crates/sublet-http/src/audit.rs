//! The audit log.

use sublet_api::audit as wire;
use sublet_api::object::AuditEntryTag;
use sublet_cloud::data::AuditEntry;
use sublet_core::{Error, ErrorCode, Result};

use crate::App;
use crate::answer::Answer;
use crate::context::{Context, page_answer, page_request};

fn to_wire(entry: AuditEntry) -> wire::AuditEntry {
    let kind = if entry.actor == "system" { wire::ActorKind::System } else { wire::ActorKind::Key };
    let present = |text: String| Some(text).filter(|text| !text.is_empty());
    wire::AuditEntry {
        object: AuditEntryTag,
        id: entry.id,
        action: entry.action,
        effective_at: entry.occurred_at.into(),
        actor: wire::AuditActor { kind, id: entry.actor },
        address: present(entry.address),
        target: present(entry.target),
        organization: entry.organization,
        request_id: None,
        result: entry.result,
        detail: present(entry.detail).map(serde_json::Value::String),
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::AuditListQuery = context.query()?;
    let filters = [query.action.is_some(), query.target.is_some(), query.start_time.is_some(), query.end_time.is_some()];
    if filters.contains(&true) {
        return Err(Error::new(ErrorCode::UnsupportedField, "the audit log cannot be filtered yet")
            .alternative("page through it with after"));
    }
    let asked = query.page();
    let page = app.cloud.list_audit(&context.actor, &page_request(&asked)?).await?;
    page_answer(&asked, page, to_wire, |wire| wire.id.to_string())
}
