//! `why`: the rule and the numbers behind a request, charge, invoice or key.

use sublet_core::id::{ChargeId, InvoiceId, RequestId};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::commitment::CommitmentLine;
use sublet_money::explanation::ChargeExplanation;
use sublet_money::price_book::{PriceListVersion, PriceSource};
use sublet_money::rating::{LineKey, LineState, RatedLine};
use sublet_money::tax::{InvoiceTax, TaxLine};
use sublet_store::charge::{self, Charge};
use sublet_store::usage::UsageEvent;

use crate::{Actor, Cloud};

/// The taxes of an invoice, each with its base and its rate or why there is none.
fn tax_fact(tax: &InvoiceTax, currency: Currency) -> Fact {
    let line = |line: &TaxLine| {
        let of = &line.treatment;
        let mut facts = vec![
            Fact::new("category", of.category),
            Fact::new("rate", format!("{} %", of.rate_ppm)),
            Fact::new("the total less gifts", format!("{} {currency}", line.base)),
        ];
        facts.extend(of.reason.as_ref().map(|reason| Fact::new("why", reason)));
        Fact::new(format!("{} of {}", of.name, of.jurisdiction), format!("{} {currency}", line.amount)).made_of(facts)
    };
    let gifts = Fact::new("gifts", format!("{} {currency}", tax.gifts));
    let parts = std::iter::once(gifts).chain(tax.lines.iter().map(line)).collect();
    Fact::new("tax on the total", format!("{} {currency}", tax.amount)).made_of(parts)
}

/// A number or a step, with what it was made from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fact {
    pub label: String,
    pub value: String,
    pub parts: Vec<Fact>,
}

impl Fact {
    pub fn new(label: impl Into<String>, value: impl ToString) -> Self {
        Self { label: label.into(), value: value.to_string(), parts: Vec::new() }
    }
    #[must_use]
    pub fn made_of(mut self, parts: Vec<Self>) -> Self {
        self.parts = parts;
        self
    }
}

/// Why something is as it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Explanation {
    pub id: String,
    /// One sentence: the answer.
    pub summary: String,
    /// The rule that decided, in words.
    pub rule: String,
    pub facts: Vec<Fact>,
    /// Ids worth asking about next.
    pub related: Vec<String>,
}

impl Cloud {
    /// Explains what an id names, if the actor may see it.
    pub async fn why(&self, actor: &Actor, id: &str) -> Result<Explanation> {
        self.follow().await?;
        match sublet_core::id::prefix_of(id) {
            Some("req") => self.why_request(actor, &id.parse()?).await,
            Some("job") => self.why_job(actor, &id.parse()?).await,
            Some("lease") => self.why_lease(actor, &id.parse()?).await,
            Some("quote") => self.why_quote(actor, &id.parse()?).await,
            Some("chg") => self.why_charge(actor, &id.parse()?).await,
            Some("inv") => self.why_invoice(actor, &id.parse()?).await,
            _ => Err(Error::new(ErrorCode::InvalidId, "why explains requests, jobs, leases, quotes, charges and invoices")
                .alternative("give an id that starts with req_, job_, lease_, quote_, chg_ or inv_")),
        }
    }

    async fn why_request(&self, actor: &Actor, id: &RequestId) -> Result<Explanation> {
        let usage = self.get_request(actor, id).await?;
        let mut facts = Vec::new();
        for event in &usage.events {
            facts.push(attempt_fact(event));
        }
        let mut related = Vec::new();
        for charge in &usage.charges {
            facts.push(self.charge_fact(charge).await?);
            related.push(charge.id.to_string());
        }
        for cost in self.costs_of_request(actor, id).await? {
            let value = format!("{} {} to {}", cost.amount, cost.currency, cost.supplier);
            let parts = vec![Fact::new("replica", &cost.replica), Fact::new("cost version", &cost.version.0)];
            facts.push(Fact::new("owed", value).made_of(parts));
        }
        let total = sublet_core::Nanos::checked_sum(usage.charges.iter().map(|charge| charge.amount))?;
        let first = usage.events.first().ok_or_else(|| Error::internal("a request without events"))?;
        let summary = match &first.quarantine {
            None => format!("{id} cost {total} {} and ended as {}", first.currency, first.record.outcome.as_str()),
            Some(reason) => format!("{id} is in quarantine and was not charged: {reason}"),
        };
        Ok(Explanation {
            id: id.to_string(),
            summary,
            rule: "each kind of token is charged the rounded cost of its line after the request less that before it".to_owned(),
            facts,
            related,
        })
    }

    async fn why_charge(&self, actor: &Actor, id: &ChargeId) -> Result<Explanation> {
        let found = self.store.read((actor, id), |(actor, id), tx| Box::pin(charge::find(tx, &actor.scope, id))).await?;
        let charge = found.ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no charge '{id}'")))?;
        let fact = self.charge_fact(&charge).await?;
        Ok(Explanation {
            id: id.to_string(),
            summary: format!("{} {} for {} of {}", charge.amount, charge.currency, charge.quantity, charge.sku),
            rule: "charge = R(line quantity after) - R(line quantity before), R rounding the exact cost half to even to nano-units"
                .to_owned(),
            facts: vec![
                fact,
                Fact::new("billing period", charge.period),
                Fact::new("occurred at", charge.occurred_at),
                Fact::new("posted at", charge.posted_at),
            ],
            related: vec![charge.source.clone()],
        })
    }

    async fn why_invoice(&self, actor: &Actor, id: &InvoiceId) -> Result<Explanation> {
        let bill = self.get_invoice(actor, id).await?;
        let invoice = &bill.invoice;
        let content = &invoice.content;
        let currency = content.account.currency;
        let lines = content
            .lines
            .iter()
            .map(|line| {
                let mut facts = vec![
                    Fact::new("quantity", format!("{} {}", line.quantity, line.unit.base_unit_name())),
                    Fact::new("price", &line.price),
                    Fact::new("charges", line.charges.count),
                    Fact::new("price version", &line.price_version.0),
                ];
                if let Some(late) = line.late {
                    facts.push(Fact::new("used in, and known after it was closed", late.period));
                    facts.push(Fact::new("invoiced before", format!("{} for {}", late.charged_before, late.quantity_before)));
                }
                Fact::new(format!("{} ({})", line.sku, line.project), format!("{} {currency}", line.charges.amount)).made_of(facts)
            })
            .collect();
        let contract = content.commitment.as_ref().map(|line| commitment_fact(line, currency)).transpose()?;
        let facts = std::iter::once(Fact::new("sum of charges", format!("{} {currency}", content.charged()?)).made_of(lines));
        let advance = content.advance.as_ref().map(|line| {
            let of = format!("of {} for {} to {}, in advance", line.contract, line.first, line.last);
            [("fee", line.fee), ("commitment", line.commitment)]
                .into_iter()
                .filter(|(_, amount)| !amount.is_zero())
                .map(move |(what, amount)| Fact::new(format!("{what} {of}"), format!("{amount} {currency}")))
        });
        let tax = content.tax.as_ref().map(|tax| tax_fact(tax, currency));
        Ok(Explanation {
            id: id.to_string(),
            summary: format!("{} {currency} for {} in {}", content.gross()?, content.account.name, content.period.key),
            rule: "the exact sum of the lines, the contract's part and what was carried over, rounded once to the currency's smallest unit"
                .to_owned(),
            facts: facts.chain(contract).chain(advance.into_iter().flatten()).chain(tax).chain([
                Fact::new("carried over", format!("{} {currency}", content.carry_before.checked_neg()?)),
                Fact::new("total", format!("{} {currency}", content.total)),
                Fact::new("rounding, carried on to the next invoice", format!("{} {currency}", content.carry_after)),
                Fact::new("number", invoice.number.map_or_else(|| "none: it is a draft".to_owned(), |number| number.to_string())),
                Fact::new("state", invoice.state.as_str()),
                Fact::new("credited", format!("{} {currency}", bill.credited)),
                Fact::new("still to pay", format!("{} {currency}", bill.due)),
            ]).collect(),
            related: Vec::new(),
        })
    }

    /// The numbers behind one charge.
    pub(crate) async fn charge_fact(&self, charge: &Charge) -> Result<Fact> {
        let version = self.find_prices(&charge.price_version).await?;
        let explanation = explain_charge(charge, &version)?;
        let side = |name: &str, cost: &sublet_money::explanation::CumulativeCost| {
            Fact::new(
                format!("line {name}"),
                format!(
                    "{} in all, exactly {} nano-{}, rounded {}",
                    cost.quantity, cost.exact_nanos, explanation.currency, cost.rounded
                ),
            )
        };
        let mut facts = vec![
            Fact::new("sku", &charge.sku),
            Fact::new("quantity", charge.quantity),
            Fact::new("price", &explanation.price),
            Fact::new("price version", &charge.price_version.0),
            side("before", &explanation.before),
            side("after", &explanation.after),
        ];
        facts.extend(charge.band.as_ref().map(|band| Fact::new("band of the price", band)));
        facts.extend(version.source().map(source_fact));
        Ok(Fact::new(format!("charge {}", charge.id), format!("{} {}", charge.amount, charge.currency)).made_of(facts))
    }
}

fn explain_charge(charge: &Charge, version: &PriceListVersion) -> Result<ChargeExplanation> {
    let key = LineKey {
        organization: charge.organization.clone(),
        project: charge.project.clone(),
        period: charge.period,
        price_version: charge.price_version.clone(),
        sku: charge.sku.clone(),
        band: charge.band.clone(),
    };
    let after = LineState {
        quantity: charge.before.quantity.changed_by(charge.quantity)?,
        charged: charge.before.charged.checked_add(charge.amount)?,
    };
    RatedLine { key, quantity: charge.quantity, amount: charge.amount, before: charge.before, after }.explain(version)
}

/// What a price by contract was made from.
fn source_fact(source: &PriceSource) -> Fact {
    let mut facts = vec![Fact::new("public version", &source.list.0), Fact::new("terms", &source.terms)];
    facts.extend(source.protected.as_ref().map(|version| Fact::new("never above version", &version.0)));
    Fact::new("price by contract, made from", "").made_of(facts)
}

/// A contract's part of an invoice.
fn commitment_fact(line: &CommitmentLine, currency: Currency) -> Result<Fact> {
    let amount = |label: &str, amount: Nanos| Fact::new(label, format!("{amount} {currency}"));
    let mut facts = vec![
        Fact::new("contract", &line.contract),
        Fact::new("terms", &line.terms),
        Fact::new("commitment period", format!("{}: {} to {}", line.number, line.first, line.last)),
        amount("committed", line.committed),
        amount("counted by earlier invoices", line.counted_before),
        amount("counted by the lines of this one", line.counted),
        amount("charged as missing earlier, to be used up", line.roll_over),
        amount("missing", line.shortfall),
        amount("used up of what was missing earlier", line.roll_over_used),
        amount("fee for leaving", line.exit_fee),
    ];
    if let Some(drawdown) = &line.drawdown {
        facts.extend([
            amount("paid in advance, of the lines of this one", drawdown.drawn),
            amount("left of the commitment at its end", drawdown.unused),
            amount("drawn of what rolled over", drawdown.roll_over_used),
            amount("cannot be used any more", drawdown.lapsed),
        ]);
    }
    if let Some(used) = &line.quantity {
        facts.push(amount("overage, against the price that it was charged at", used.overage_amount).made_of(vec![
            Fact::new("of", used.sku.to_string()),
            Fact::new("committed", used.committed),
            Fact::new("counted by earlier invoices", used.counted_before),
            Fact::new("counted by the lines of this one", used.counted),
            Fact::new("charged as missing earlier, to be used up", used.roll_over),
            Fact::new("missing", used.missing),
            Fact::new("used up of what was missing earlier", used.roll_over_used),
            Fact::new("overage", used.overage),
        ]));
    }
    Ok(amount("contract: missing + fee − used up + overage − paid in advance", line.amount()?).made_of(facts))
}

fn attempt_fact(event: &UsageEvent) -> Fact {
    let record = &event.record;
    let first_token = |at: Timestamp| format!("{} ms", at.since(record.admitted_at).millis());
    Fact::new(format!("attempt {}", record.attempt), record.outcome.as_str()).made_of(vec![
        Fact::new("model", &record.model),
        Fact::new("route", &record.route),
        Fact::new("key", &record.key),
        Fact::new("admitted at", record.admitted_at),
        Fact::new("time to first token", record.first_token_at.map_or_else(|| "none".to_owned(), first_token)),
        Fact::new("finished after", first_token(record.finished_at)),
        Fact::new("input tokens", record.tokens.input),
        Fact::new("cached input tokens", record.tokens.cached_input),
        Fact::new("output tokens", record.tokens.output),
        Fact::new("paid from", &record.slice),
        Fact::new("price version in force at admission", &record.price_version.0),
    ])
}
