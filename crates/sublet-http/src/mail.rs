//! Mail that the cloud sends.

use sublet_api::mail as wire;
use sublet_api::object::MailTag;
use sublet_cloud::data::OutboxState;
use sublet_cloud::mail::QueuedMail;
use sublet_core::Result;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::{Context, page_answer, page_request};

fn mail_to_wire(mail: QueuedMail) -> wire::Mail {
    wire::Mail {
        object: MailTag,
        id: mail.id,
        organization: mail.organization,
        kind: mail.kind,
        subject: mail.subject,
        text: mail.text,
        status: match mail.state {
            OutboxState::Queued => wire::MailStatus::Queued,
            OutboxState::Done => wire::MailStatus::Sent,
            OutboxState::Failed => wire::MailStatus::Failed,
        },
        attempts: mail.attempts,
        problem: mail.problem,
        sent_to: mail.sent_to,
        next_at: mail.next_at.map(Into::into),
        created_at: mail.created_at.into(),
    }
}

fn state_of(status: wire::MailStatus) -> OutboxState {
    match status {
        wire::MailStatus::Queued => OutboxState::Queued,
        wire::MailStatus::Sent => OutboxState::Done,
        wire::MailStatus::Failed => OutboxState::Failed,
    }
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::MailListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_mail(&context.actor, query.status.map(state_of), &page_request(&asked)?).await?;
    page_answer(&asked, page, mail_to_wire, |wire| wire.id.to_string())
}

pub async fn retry(app: App, context: Context) -> Result<Answer> {
    json(&mail_to_wire(app.cloud.retry_mail(&context.actor, &context.path("id")?).await?))
}
