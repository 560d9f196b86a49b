//! `sublet demo`: the whole story on one machine, told step by step, as an outside client sees it.

mod taken_back;

use std::io::{Read, Write};
use std::time::Duration;

use sublet_api::client::{Client, IdempotencyKey, Keys};
use sublet_api::invoice::{ChargeListQuery, DraftInvoice, Invoice};
use sublet_api::job::{CreateJob, Job, JobLogQuery, OnEnd};
use sublet_api::key::SecretText;
use sublet_api::lease::CreateLease;
use sublet_api::list::PageLimit;
use sublet_api::object::Metadata;
use sublet_api::openai::{ChatMessage, ChatRequest, StreamOptions};
use sublet_api::quote::CreateQuote;
use sublet_api::route::Plane;
use sublet_api::sku::{AvailabilityQuery, SkuName};
use sublet_api::usage::UsageQuery;
use sublet_core::engine::Role;
use sublet_core::notice::NoticeClass;
use sublet_core::{Clock, Error, ErrorCode, Nanos, Result};

use crate::data_directory::Credentials;
use crate::real::SystemClock;

use self::taken_back::Interrupted;

/// Looks at something that is about to happen, [`LOOK_PAUSE`] apart: one minute.
const LOOKS_MAX: u32 = 600;
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Pages of charges that are added up.
const CHARGE_PAGES_MAX: u32 = 1_000;
const QUESTION: &str = "What is Sublet?";
/// A small real computation: it prints what it was given and what it found.
const PROGRAM: &str = "echo \"devices: $SUBLET_DEVICES\"; echo \"user: $(id -u), processes I can see: $(ls -d /proc/[0-9]* | wc -l)\"; \
                       n=0; s=0; while [ $n -lt 20000 ]; do n=$((n+1)); s=$((s+n*n)); done; echo \"sum of squares to $n: $s\"";

/// Tells the story to a writer.
pub struct Story<'a> {
    client: Client,
    /// The owner's own team.
    team: Client,
    model: String,
    out: &'a mut dyn Write,
    step: u32,
    /// What this telling's calls are known by, so that none is taken for one of an earlier telling.
    telling: String,
}

impl<'a> Story<'a> {
    pub fn new(credentials: &Credentials, out: &'a mut dyn Write) -> Result<Self> {
        let secret = |text: &str| Some(SecretText::new(text));
        let keys = Keys {
            project: secret(&credentials.project_key),
            admin: secret(&credentials.admin_key),
            operator: secret(&credentials.operator_key),
        };
        let client = Client::new(&credentials.api_base, keys)?;
        let team = Keys { project: secret(&credentials.internal_key), ..Keys::default() };
        let team = Client::new(&credentials.api_base, team)?;
        let telling = format!("demo-{}", SystemClock.now().micros());
        Ok(Self { client, team, model: credentials.model.clone(), out, step: 0, telling })
    }

    /// Every step; the first that does not hold ends the story with its reason.
    pub fn tell(mut self) -> Result<()> {
        self.see_idle_capacity()?;
        let request = self.stream_tokens()?;
        let job = self.run_job()?;
        let interrupted = self.take_back()?;
        self.show_usage()?;
        let invoice = self.check_invoice(&interrupted)?;
        self.check_books()?;
        self.explain(&request, &job, &invoice)
    }

    fn head(&mut self, text: &str) -> Result<()> {
        self.step += 1;
        let step = self.step;
        self.say(&format!("\n{step}. {text}\n"))
    }

    fn say(&mut self, text: &str) -> Result<()> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Error::internal(format!("the story cannot be printed: {error}")))
    }

    fn key(&self, call: &str) -> IdempotencyKey {
        IdempotencyKey(format!("{}-{call}", self.telling))
    }

    fn see_idle_capacity(&mut self) -> Result<()> {
        self.head("What is idle, and what it sells for")?;
        for capacity in self.client.capacity()?.data {
            self.say(&format!(
                "   {} × {}: {} idle, {} sold\n",
                capacity.total, capacity.device_kind, capacity.idle, capacity.sold
            ))?;
        }
        for offer in self.client.availability(&AvailabilityQuery::default())?.data {
            let (sku, price) = (offer.sku.as_str(), &offer.price);
            let line = format!(
                "   {:<6} {sku}: {} of {} at {} {} per device-hour\n",
                offer.notice.as_str(),
                offer.available_units,
                offer.total_units,
                price.nanos(),
                price.currency
            );
            self.say(&line)?;
        }
        Ok(())
    }

    fn stream_tokens(&mut self) -> Result<String> {
        self.head(&format!("A developer streams tokens from {}", self.model))?;
        let request = ChatRequest {
            model: self.model.clone(),
            messages: vec![ChatMessage { role: Role::User, content: QUESTION.to_owned() }],
            max_completion_tokens: Some(80),
            seed: Some(7),
            stream: true,
            stream_options: Some(StreamOptions { include_usage: true }),
        };
        self.say(&format!("   > {QUESTION}\n   "))?;
        let (mut id, mut usage) = (String::new(), None);
        for chunk in self.client.chat_stream(&request)? {
            let chunk = chunk?;
            for choice in &chunk.choices {
                if let Some(text) = &choice.delta.content {
                    self.say(text)?;
                }
            }
            usage = chunk.usage.or(usage);
            id = chunk.id;
        }
        let usage = usage.ok_or_else(|| broken("the stream carried no usage"))?;
        self.say(&format!("\n   {} tokens in, {} tokens out\n", usage.prompt_tokens, usage.completion_tokens))?;
        let parsed = id.parse()?;
        let settled = self.wait_for("the request to be charged", |client| match client.request(&parsed) {
            Ok(request) => Ok(Some(request)),
            Err(error) if error.code() == ErrorCode::NotFound => Ok(None),
            Err(error) => Err(error),
        })?;
        if u64::try_from(usage.completion_tokens) != Ok(settled.usage.output_tokens) {
            return Err(broken("the charge counts other tokens than the answer"));
        }
        self.say(&format!("   charged {} {}\n", settled.cost.nanos(), settled.cost.currency))?;
        Ok(id)
    }

    fn run_job(&mut self) -> Result<String> {
        self.head("An engineer leases a device and runs a program on it")?;
        let asked = one_device(&self.client)?;
        let quote = self.client.create_quote(&asked, &self.key("quote"))?;
        self.say(&format!("   quote {}: {} {} per device-hour\n", quote.id, quote.price.nanos(), quote.price.currency))?;
        let lease = self
            .client
            .create_lease(&CreateLease { quote: quote.id.clone(), metadata: Metadata::default() }, &self.key("lease"))?;
        let body = CreateJob {
            lease: lease.id.clone(),
            command: ["sh", "-c", PROGRAM].map(str::to_owned).to_vec(),
            environment: std::collections::BTreeMap::new(),
            files: Vec::new(),
            memory_bytes: None,
            disk_bytes: None,
            on_end: OnEnd::EndLease,
            restart: None,
            metadata: Metadata::default(),
        };
        let job = self.client.create_job(&body, &self.key("job"))?;
        self.say(&format!("   {} on {}\n", job.id, lease.id))?;
        let mut log = String::new();
        let follow = JobLogQuery { attempt: None, offset: None, follow: Some(true) };
        let read = self.client.job_log(&job.id, &follow)?.take(64 * 1024).read_to_string(&mut log);
        read.map_err(|error| broken(&format!("the log broke off: {error}")))?;
        for line in log.lines() {
            self.say(&format!("   | {line}\n"))?;
        }
        let id = job.id.clone();
        let ended =
            self.wait_for("the job to end", |client| client.job(&id).map(|job| Some(job).filter(|job| job.status.is_final())))?;
        self.say_how_it_ended(&ended)?;
        Ok(ended.id.to_string())
    }

    fn say_how_it_ended(&mut self, job: &Job) -> Result<()> {
        if job.status.as_str() != "succeeded" {
            return Err(broken(&format!("the job ended as {}", job.status.as_str())));
        }
        let isolation =
            job.isolation.as_ref().map_or_else(String::new, |isolation| format!(", isolation {}", isolation.level.as_str()));
        let (used, cost) = (job.device_milliseconds, &job.cost);
        self.say(&format!("   succeeded: {used} device-ms, cost {} {}{isolation}\n", cost.nanos(), cost.currency))?;
        if cost.nanos() <= Nanos::ZERO { Err(broken("the job cost nothing")) } else { Ok(()) }
    }

    fn show_usage(&mut self) -> Result<()> {
        self.head("What was used this month")?;
        let usage = self.client.usage(&UsageQuery::default())?;
        for line in &usage.lines {
            let text = format!(
                "   {:<12} {:<22} {:>9}  {} {}\n",
                line.subject.name(),
                line.meter.as_str(),
                line.quantity,
                line.cost.nanos(),
                line.cost.currency
            );
            self.say(&text)?;
        }
        Ok(())
    }

    fn check_invoice(&mut self, interrupted: &Interrupted) -> Result<String> {
        self.head("The invoice, and whether it adds up")?;
        let invoice = self.client.draft_invoice(&DraftInvoice::default())?;
        for line in &invoice.lines {
            let text = format!(
                "   {:<12} {:<22} {:>9} × {} / {} = {}\n",
                line.subject.name(),
                line.meter.as_str(),
                line.quantity,
                line.unit_amount.map_or_else(|| line.price.clone(), |amount| amount.0.to_string()),
                line.unit_per,
                line.amount.nanos()
            );
            self.say(&text)?;
        }
        let (count, charged, ever) = self.add_up_charges(&invoice)?;
        let currency = invoice.total.currency;
        self.say(&format!("   {count} charges add up to {charged} {currency}\n"))?;
        self.say(&format!(
            "   invoice {}: {} {currency}, in whole cents {}\n",
            invoice.id,
            invoice.subtotal.nanos(),
            invoice.total.nanos()
        ))?;
        check_sums(&invoice, charged)?;
        self.show_in_invoice(interrupted)?;
        let captured = self.client.credits()?.captured.nanos();
        if captured != ever {
            return Err(mismatch(format!("all charges add up to {ever}, the ledger says {captured}")));
        }
        self.say(&format!("   the ledger has captured {captured} {currency} in all\n"))?;
        Ok(invoice.id.to_string())
    }

    /// Number and sum of the charges of an invoice's period, and the sum of all there ever were.
    fn add_up_charges(&mut self, invoice: &Invoice) -> Result<(u64, Nanos, Nanos)> {
        let mut query = ChargeListQuery { limit: Some(PageLimit::MAX), ..ChargeListQuery::default() };
        let (mut count, mut sum, mut ever) = (0, Nanos::ZERO, Nanos::ZERO);
        for _ in 0..CHARGE_PAGES_MAX {
            let page = self.client.charges(&query)?;
            for charge in &page.data {
                ever = ever.checked_add(charge.amount.nanos())?;
                if charge.used_at >= invoice.period_start && charge.used_at < invoice.period_end {
                    sum = sum.checked_add(charge.amount.nanos())?;
                    count += 1;
                }
            }
            if !page.has_more {
                return Ok((count, sum, ever));
            }
            query.after = page.last_id;
        }
        Err(broken("there are more charges than a demo can have"))
    }

    fn check_books(&mut self) -> Result<()> {
        self.head("The books")?;
        let verification = self.client.verify_ledger()?;
        for finding in &verification.findings {
            self.say(&format!("   ! {finding}\n"))?;
        }
        if !verification.balanced {
            return Err(Error::new(ErrorCode::LedgerMismatch, "the books do not balance"));
        }
        for total in &verification.currencies {
            self.say(&format!("   debits {} = credits {} {}\n", total.debits.0, total.credits.0, total.currency))?;
        }
        let credits = self.client.credits()?;
        self.say(&format!(
            "   deposited {} = available {} + in slices {} + held {} + charged {}\n",
            credits.deposited.nanos(),
            credits.available.nanos(),
            credits.sliced.nanos(),
            credits.held.nanos(),
            credits.captured.nanos()
        ))
    }

    fn explain(&mut self, request: &str, job: &str, invoice: &str) -> Result<()> {
        self.head("Why")?;
        for (plane, id) in [(Plane::Project, request), (Plane::Project, job), (Plane::Admin, invoice)] {
            let why = self.client.why(plane, id)?;
            self.say(&format!("   {}\n", why.summary))?;
        }
        Ok(())
    }

    /// Looks again until there is something, a bounded number of times.
    fn wait_for<T>(&self, what: &str, look: impl Fn(&Client) -> Result<Option<T>>) -> Result<T> {
        for _ in 0..LOOKS_MAX {
            if let Some(found) = look(&self.client)? {
                return Ok(found);
            }
            std::thread::sleep(LOOK_PAUSE);
        }
        Err(broken(&format!("waited in vain for {what}")))
    }
}

/// The invoice's exact sum is that of its charges, its lines add up to it, and its total is it, rounded as it says.
fn check_sums(invoice: &Invoice, charged: Nanos) -> Result<()> {
    let (subtotal, total) = (invoice.subtotal.nanos(), invoice.total.nanos());
    let lines = Nanos::checked_sum(invoice.lines.iter().map(|line| line.amount.nanos()))?;
    if charged != subtotal || lines != charged {
        return Err(mismatch(format!("the charges add up to {charged}, the lines to {lines}, the invoice says {subtotal}")));
    }
    let explained = subtotal.checked_add(invoice.carried.nanos())?.checked_add(invoice.rounding.nanos())?;
    if total != explained {
        return Err(mismatch(format!("the total is {total}, its parts add up to {explained}")));
    }
    Ok(())
}

fn mismatch(what: String) -> Error {
    Error::new(ErrorCode::LedgerMismatch, what)
}

fn broken(what: &str) -> Error {
    Error::new(ErrorCode::Internal, format!("the demo did not hold: {what}"))
}

/// One device of the first kind that can be leased.
fn one_device(client: &Client) -> Result<CreateQuote> {
    let skus = client.skus()?;
    let sku = skus.data.first().ok_or_else(|| broken("nothing can be leased"))?;
    Ok(CreateQuote {
        sku: SkuName(sku.name.clone()),
        units: 1,
        notice: NoticeClass::N2m,
        site: None,
        isolation: None,
        maximum_seconds: None,
        maximum_cost: None,
        maximum_price: None,
        metadata: Metadata::default(),
    })
}
