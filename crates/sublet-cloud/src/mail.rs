//! Mail: queued in the transaction of its cause, delivered by a reconciler.
//!
//! Invariants: a key is queued once for ever; nothing is sent in a transaction; the same row gives the same message, but
//! for addresses, which are read when it is sent.
//!
//! Deliberately absent: HTML, and what happens to a message once a server took it.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sublet_core::id::{InvoiceId, OrganizationId, OutboxId};
use sublet_core::mail::{Attachment, MailAddress, MailFailure, MailPort, Message};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::party::{MAIL_SCHEME, Party};
use sublet_store::outbox::{self, Effect, OutboxJob, OutboxState};
use sublet_store::{Page, PageRequest, Tx, billing_profile, seller};
use tokio::sync::watch;

use crate::audit::Deed;
use crate::document::DocumentFormat;
use crate::{Action, Actor, Cloud};

/// What rows of the outbox are called that are mail.
const KIND: &str = "mail";
/// The kind of mail that reminds of an invoice.
pub(crate) const REMINDER: &str = "dunning_reminder";
/// How often it is looked for mail that is due.
const LOOK_PERIOD: DurationMs = DurationMs::from_seconds(2);
/// What is sent in one look.
const AT_ONCE: usize = 20;
/// Nobody else sends the same one meanwhile.
const CLAIM: DurationMs = DurationMs::from_seconds(180);
/// The first repetition comes so much later; each one after twice as late.
const BACKOFF_BASE: DurationMs = DurationMs::from_seconds(60);
const BACKOFF_MAX: DurationMs = DurationMs::from_hours(4);
/// With these pauses more than four days, as RFC 5321 (4.5.4.1) asks of senders.
pub const ATTEMPTS_MAX: i64 = 33;
/// What is kept of the words of a server, in characters.
const PROBLEM_CHARS_MAX: usize = 300;

/// How mail goes out.
#[derive(Clone)]
pub struct Mailer {
    pub port: Arc<dyn MailPort>,
    pub from: MailAddress,
    /// Where the operator reads; the seller's contact if `None`.
    pub operator: Option<MailAddress>,
}

/// Who has to know.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Recipient {
    /// Whoever pays for it.
    Organization(OrganizationId),
    Operator,
}

/// What is made when a mail is sent, and comes with it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailAttachment {
    Invoice(InvoiceId),
    /// Of an invoice, by its number.
    CreditNote(InvoiceId, String),
}

/// A mail to be queued.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mail {
    /// The same is queued once for ever: what it is about, and the id of that.
    pub key: String,
    pub to: Recipient,
    /// What it is about, as lists name it: `invoice_issued`.
    pub kind: &'static str,
    /// One line.
    pub subject: String,
    pub text: String,
    pub attachment: Option<MailAttachment>,
}

/// What the row of a mail says of it.
#[derive(Serialize, Deserialize)]
struct Payload {
    kind: String,
    subject: String,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    attachment: Option<MailAttachment>,
}

/// A mail, and how far it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct QueuedMail {
    pub id: OutboxId,
    /// `None` for the operator's.
    pub organization: Option<OrganizationId>,
    pub kind: String,
    pub subject: String,
    pub text: String,
    pub state: OutboxState,
    pub attempts: i64,
    /// While it is queued.
    pub next_at: Option<Timestamp>,
    /// Why the last attempt failed.
    pub problem: Option<String>,
    /// To whom it was sent.
    pub sent_to: Option<String>,
    pub created_at: Timestamp,
}

impl QueuedMail {
    fn of(job: OutboxJob) -> Result<Self> {
        let payload = read(&job.effect)?;
        Ok(Self {
            id: job.effect.id,
            organization: job.effect.organization,
            kind: payload.kind,
            subject: payload.subject,
            text: payload.text,
            state: job.state,
            attempts: job.attempts,
            next_at: (job.state == OutboxState::Queued).then_some(job.run_at),
            problem: Some(job.last_error).filter(|error| !error.is_empty()),
            sent_to: Some(job.outcome).filter(|outcome| !outcome.is_empty()),
            created_at: job.effect.created_at,
        })
    }
}

fn read(effect: &Effect) -> Result<Payload> {
    let payload = serde_json::from_str(&effect.payload);
    payload.map_err(|error| Error::internal(format!("the mail {} cannot be read: {error}", effect.id)))
}

/// What one look did.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct MailReport {
    pub sent: u64,
    /// Of these nothing is known, or they were not taken yet.
    pub later: u64,
    /// Given up.
    pub failed: u64,
}

impl Cloud {
    /// Queues a mail with the transaction that is its cause. The same key is queued once for ever.
    pub async fn queue_mail(&self, tx: &mut Tx, mail: &Mail) -> Result<()> {
        let payload = Payload {
            kind: mail.kind.to_owned(),
            // One line, whatever it was made of: the cause does not fail for it.
            subject: mail.subject.chars().map(|c| if c.is_control() { ' ' } else { c }).collect(),
            text: mail.text.clone(),
            attachment: mail.attachment.clone(),
        };
        let payload = serde_json::to_string(&payload).map_err(|error| Error::internal(error.to_string()))?;
        let organization = match &mail.to {
            Recipient::Organization(id) => Some(id.clone()),
            Recipient::Operator => None,
        };
        let (id, dedup_key, created_at) = (self.ids.mint(), mail.key.clone(), self.now());
        let kind = KIND.to_owned();
        outbox::enqueue(tx, &Effect { id, kind, dedup_key, organization, endpoint: None, payload, created_at }).await
    }

    /// Sends what is due until `stop` says so.
    pub async fn run_mail(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.send_due(stop.clone()).await {
                tracing::error!(%error, private = ?error, "mail was not looked at; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Sends what is due now. Where nobody delivers mail it waits.
    pub async fn reconcile_mail(&self) -> Result<MailReport> {
        let (_goes_on, never) = watch::channel(false);
        self.send_due(never).await
    }

    /// A mail that a server is slow with holds up nobody who stops: it goes back into the queue.
    async fn send_due(&self, mut stop: watch::Receiver<bool>) -> Result<MailReport> {
        let mut report = MailReport::default();
        let Some(mailer) = &self.settings.mail else { return Ok(report) };
        for _ in 0..AT_ONCE {
            if *stop.borrow() {
                break;
            }
            let now = self.now();
            let claimed = self.store.write(now, |now, tx| Box::pin(outbox::claim(tx, (KIND, "mail"), *now, CLAIM))).await?;
            let Some(job) = claimed else { break };
            let delivered = tokio::select! {
                delivered = self.deliver(mailer, &job) => delivered,
                _ = stop.wait_for(|stop| *stop) => Err(MailFailure::Unclear("this process ended before it was answered".to_owned())),
            };
            match delivered {
                Ok(to) => {
                    report.sent += 1;
                    let done = (&job.effect.id, to, self.now());
                    self.store.write(done, |(id, to, at), tx| Box::pin(outbox::complete(tx, id, (to, *at)))).await?;
                }
                Err(failure) => self.note_failure(&job, failure, &mut report).await?,
            }
        }
        Ok(report)
    }

    async fn note_failure(&self, job: &OutboxJob, failure: MailFailure, report: &mut MailReport) -> Result<()> {
        let (why, retry_at) = match failure {
            MailFailure::Refused(why) => (why, None),
            MailFailure::Unclear(why) if job.attempts >= ATTEMPTS_MAX => (why, None),
            MailFailure::Unclear(why) => (why, Some(backoff(self.now(), job.attempts))),
        };
        let why: String = why.chars().map(|c| if c.is_control() { ' ' } else { c }).take(PROBLEM_CHARS_MAX).collect();
        if retry_at.is_some() {
            report.later += 1;
            tracing::warn!(id = %job.effect.id, attempts = job.attempts, why, "a mail was not delivered yet");
        } else {
            report.failed += 1;
            tracing::error!(id = %job.effect.id, attempts = job.attempts, why, "a mail was given up; an operator can have it tried again");
        }
        self.store
            .write((self, job, why), move |(cloud, job, why), tx| {
                Box::pin(async move {
                    if outbox::fail(tx, job, why, retry_at).await? && retry_at.is_none() {
                        cloud.tell_operator(tx, job, why).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    /// An operator hears, once, of each mail that a customer did not get: what follows from a reminder waits for it.
    async fn tell_operator(&self, tx: &mut Tx, job: &OutboxJob, why: &str) -> Result<()> {
        let (Some(organization), Ok(payload)) = (&job.effect.organization, read(&job.effect)) else { return Ok(()) };
        let (id, subject) = (&job.effect.id, payload.subject);
        let mut text = format!(
            "The mail '{subject}' to {organization} was not delivered: {why}\n\nPut it right, and have it tried again: sublet mail retry {id}\n"
        );
        if payload.kind == REMINDER {
            text.push_str("\nNobody is suspended for an invoice before its last reminder is delivered.\n");
        }
        let mail = Mail {
            key: format!("mail_failed:{id}"),
            to: Recipient::Operator,
            kind: "mail_failed",
            subject: format!("A mail to {organization} was not delivered"),
            text,
            attachment: None,
        };
        self.queue_mail(tx, &mail).await
    }

    /// Sends one, and says to whom.
    async fn deliver(&self, mailer: &Mailer, job: &OutboxJob) -> Result<String, MailFailure> {
        let unclear = |error: Error| MailFailure::Unclear(format!("{error} {}", error.private_context().join("; ")));
        let payload = read(&job.effect).map_err(|error| MailFailure::Refused(error.to_string()))?;
        let addresses = self
            .store
            .read((mailer, &job.effect.organization), |(mailer, organization), tx| {
                Box::pin(addresses(tx, mailer, organization.as_ref()))
            })
            .await
            .map_err(unclear)?;
        let to = addresses.map_err(MailFailure::Refused)?;
        let attachments = match &payload.attachment {
            Some(attachment) => vec![self.attached(attachment).await.map_err(unclear)?],
            None => Vec::new(),
        };
        let message = Message {
            id: job.effect.id.clone(),
            from: mailer.from.clone(),
            to,
            subject: payload.subject,
            text: payload.text,
            attachments,
            written_at: job.effect.created_at,
        };
        mailer.port.send(&message).await?;
        let to: Vec<&str> = message.to.iter().map(MailAddress::as_str).collect();
        Ok(to.join(", "))
    }

    async fn attached(&self, attachment: &MailAttachment) -> Result<Attachment> {
        let actor = Actor::system();
        let file = match attachment {
            MailAttachment::Invoice(id) => self.invoice_document(&actor, id, DocumentFormat::Pdf).await?,
            MailAttachment::CreditNote(id, number) => self.credit_note_document(&actor, (id, number), DocumentFormat::Pdf).await?,
        };
        Ok(Attachment { name: file.name, media_type: "application/pdf", content: file.content })
    }

    /// Mail in a state, or all of it.
    pub async fn list_mail(&self, actor: &Actor, state: Option<OutboxState>, page: &PageRequest) -> Result<Page<QueuedMail>> {
        actor.require(Action::ManageOrganizations)?;
        let found = self
            .store
            .read((actor, page), move |(actor, page), tx| Box::pin(outbox::list(tx, &actor.scope, (KIND, state), page)))
            .await?;
        let items = found.items.into_iter().map(QueuedMail::of).collect::<Result<_>>()?;
        Ok(Page { items, has_more: found.has_more })
    }

    /// Has a mail tried again, at once.
    pub async fn retry_mail(&self, actor: &Actor, id: &OutboxId) -> Result<QueuedMail> {
        actor.require(Action::ManageOrganizations)?;
        let job = self.store.write((self, actor, id), |(cloud, actor, id), tx| Box::pin(cloud.retry(tx, actor, id))).await?;
        QueuedMail::of(job)
    }

    async fn retry(&self, tx: &mut Tx, actor: &Actor, id: &OutboxId) -> Result<OutboxJob> {
        let (known, now) = (outbox::get(tx, &actor.scope, (KIND, id)).await?, self.now());
        if known.state == OutboxState::Done {
            let message = format!("it was sent to {}", known.outcome);
            return Err(Error::new(ErrorCode::Conflict, message));
        }
        if outbox::retry(tx, id, now).await? {
            let organization = known.effect.organization.as_ref();
            let deed = Deed { organization, action: "mail.retry", target: id.as_str(), detail: known.last_error };
            self.record(tx, actor, deed, now).await?;
        }
        outbox::get(tx, &actor.scope, (KIND, id)).await
    }
}

/// Who reads the mail of an organization, or of the operator; or why nobody does.
async fn addresses(
    tx: &mut Tx,
    mailer: &Mailer,
    organization: Option<&OrganizationId>,
) -> Result<Result<Vec<MailAddress>, String>> {
    let (known, missing) = match organization {
        Some(id) => {
            let profile = billing_profile::find(tx, id).await?;
            (profile.map(|profile| addresses_of(&profile.buyer.party)), "the organization's billing profile has no e-mail address")
        }
        None if mailer.operator.is_some() => (mailer.operator.clone().map(|address| vec![address.to_string()]), ""),
        None => {
            let profile = seller::find(tx).await?;
            (
                profile.map(|profile| addresses_of(&profile.seller.party)),
                "neither --mail-operator nor the seller's contact has an address",
            )
        }
    };
    let known: BTreeSet<String> = known.unwrap_or_default().into_iter().collect();
    if known.is_empty() {
        return Ok(Err(missing.to_owned()));
    }
    Ok(known.iter().map(|text| text.parse().map_err(|error: Error| error.to_string())).collect())
}

fn addresses_of(party: &Party) -> Vec<String> {
    let contact = party.contact.as_ref().and_then(|contact| contact.email.clone());
    let electronic = party.electronic_address.as_ref().filter(|address| address.scheme == MAIL_SCHEME);
    contact.into_iter().chain(electronic.map(|address| address.id.clone())).collect()
}

/// When a mail is tried again that failed so often.
fn backoff(now: Timestamp, attempts: i64) -> Timestamp {
    let doublings = u32::try_from(attempts.clamp(1, 20)).unwrap_or(1) - 1;
    let wait = BACKOFF_BASE.millis().saturating_mul(1_i64 << doublings);
    now.plus(DurationMs::from_millis(wait.min(BACKOFF_MAX.millis())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_tried_for_more_than_four_days_and_less_than_five() {
        let start = Timestamp::EPOCH;
        let end = (1..ATTEMPTS_MAX).fold(start, backoff);
        let days = end.since(start).millis() / 86_400_000;
        assert_eq!(days, 4, "until {end}");
    }
}
