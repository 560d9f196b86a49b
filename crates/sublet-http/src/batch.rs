//! Batches.

use sublet_api::batch as wire;
use sublet_api::list::ListQuery;
use sublet_api::object::{BatchTag, ListTag};
use sublet_cloud::batch::{BatchStatement, NewBatch};
use sublet_cloud::data::{BatchQuote, LineCounts, Problem};
use sublet_core::admission::TokenUsage;
use sublet_core::batch::BatchStatus;
use sublet_core::id::BatchId;
use sublet_core::{DurationMs, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::{count, metadata, money};

const fn status(status: BatchStatus) -> wire::BatchStatus {
    match status {
        BatchStatus::Validating => wire::BatchStatus::Validating,
        BatchStatus::Failed => wire::BatchStatus::Failed,
        BatchStatus::InProgress => wire::BatchStatus::InProgress,
        BatchStatus::Finalizing => wire::BatchStatus::Finalizing,
        BatchStatus::Completed => wire::BatchStatus::Completed,
        BatchStatus::Expired => wire::BatchStatus::Expired,
        BatchStatus::Cancelling => wire::BatchStatus::Cancelling,
        BatchStatus::Cancelled => wire::BatchStatus::Cancelled,
    }
}

fn errors(problems: &[Problem]) -> Option<wire::BatchErrors> {
    let to_wire = |problem: &Problem| wire::BatchError {
        code: problem.code.clone(),
        message: problem.message.clone(),
        param: problem.param.clone(),
        line: problem.line,
    };
    let data: Vec<_> = problems.iter().map(to_wire).collect();
    (!data.is_empty()).then_some(wire::BatchErrors { object: ListTag, data })
}

fn counts(counts: &LineCounts) -> Result<wire::RequestCounts> {
    Ok(wire::RequestCounts { total: count(counts.total)?, completed: count(counts.completed)?, failed: count(counts.failed)? })
}

fn usage(tokens: &TokenUsage) -> Result<wire::BatchUsage> {
    Ok(wire::BatchUsage {
        input_tokens: count(tokens.prompt().get())?,
        input_tokens_details: wire::BatchInputDetails { cached_tokens: count(tokens.cached_input.get())? },
        output_tokens: count(tokens.output.get())?,
        output_tokens_details: wire::BatchOutputDetails { reasoning_tokens: 0 },
        total_tokens: count(tokens.total().get())?,
    })
}

fn quote(quote: &BatchQuote) -> Result<wire::BatchQuote> {
    Ok(wire::BatchQuote {
        answers: quote.answers,
        input_tokens: count(quote.input_tokens.get())?,
        output_tokens_max: count(quote.output_tokens_max.get())?,
        least: money(quote.least, quote.currency),
        most: money(quote.most, quote.currency),
    })
}

fn extension(statement: &BatchStatement) -> Result<wire::BatchExtension> {
    let batch = &statement.batch;
    // While the file is read, a part of it is added up.
    let quoted = batch.quote.as_ref().filter(|_| batch.status != BatchStatus::Validating);
    let forecast = batch.forecast_at.zip(statement.meets_deadline());
    Ok(wire::BatchExtension {
        project: batch.project.clone(),
        key: batch.key.clone(),
        quote: quoted.map(quote).transpose()?,
        forecast: forecast.map(|(at, meets_deadline)| wire::BatchForecast { ends_at: at.into(), meets_deadline }),
    })
}

fn to_wire(statement: &BatchStatement) -> Result<wire::Batch> {
    let (batch, times) = (&statement.batch, &statement.batch.times);
    Ok(wire::Batch {
        object: BatchTag,
        id: batch.id.clone(),
        endpoint: batch.endpoint.as_str().to_owned(),
        errors: errors(&batch.problems),
        input_file_id: batch.input_file.clone(),
        completion_window: batch.completion_window.clone(),
        status: status(batch.status),
        output_file_id: batch.output_file.clone(),
        error_file_id: batch.error_file.clone(),
        created_at: batch.created_at.into(),
        in_progress_at: times.in_progress.map(Into::into),
        expires_at: batch.expires_at.into(),
        finalizing_at: times.finalizing.map(Into::into),
        completed_at: times.completed.map(Into::into),
        failed_at: times.failed.map(Into::into),
        expired_at: times.expired.map(Into::into),
        cancelling_at: times.cancelling.map(Into::into),
        cancelled_at: times.cancelled.map(Into::into),
        request_counts: counts(&statement.counts)?,
        usage: usage(&statement.counts.tokens)?,
        metadata: metadata(&batch.metadata)?,
        sublet: extension(statement)?,
    })
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateBatch = context.body()?;
    let new = NewBatch {
        input_file: body.input_file_id,
        endpoint: body.endpoint.parse()?,
        completion_window: body.completion_window,
        output_expires_after: body.output_expires_after.map(|after| DurationMs::from_seconds(i64::from(after.seconds))),
        metadata: body.metadata.unwrap_or_default().into(),
    };
    let outcome = app.batches.create(&context.call()?, &new, &|statement| text_of(&to_wire(statement)?)).await?;
    once(outcome, |statement| to_wire(statement).ok())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: BatchId = context.path("id")?;
    json(&to_wire(&app.batches.get(&context.actor, &id).await?)?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.batches.list(&context.actor, &page_request(&asked)?).await?;
    let items = page.items.iter().map(to_wire).collect::<Result<Vec<_>>>()?;
    page_answer(&asked, sublet_cloud::data::Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn cancel(app: App, context: Context) -> Result<Answer> {
    let id: BatchId = context.path("id")?;
    json(&to_wire(&app.batches.cancel(&context.actor, &id).await?)?)
}
