//! Contracts.

use sublet_api::contract as wire;
use sublet_api::money::Amount;
use sublet_api::object::ContractTag;
use sublet_cloud::contract::{ContractState, ContractView, MonthUse, NewAmendment, NewContract, PeriodUse};
use sublet_cloud::data::{
    AdvanceLine, Billed, Commitment, CommitmentLine, ContractTerms, Discount, Discounted, Exit, ExitTerms, FeeTerms, Offer,
    OfferState, OveragePrice, Page, PeriodKey, PriceProtection, PriceTerms, Quantity, QuantityStep, QuantityTerms, QuantityUse,
    RenewalTerms, SkuFamily,
};
use sublet_cloud::idempotency::Answer as Once;
use sublet_core::admission::PriceVersion;
use sublet_core::id::ContractId;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, page_answer, page_request};
use crate::price_wire;
use crate::tax;
use crate::wire::{count, money};

fn terms_to_wire(terms: &ContractTerms) -> Result<wire::ContractTerms> {
    let commitments = terms.commitments.iter();
    Ok(wire::ContractTerms {
        currency: terms.currency,
        starts: terms.starts.to_string(),
        months: terms.months,
        period_months: terms.period_months,
        commitments: commitments
            .map(|step| wire::Commitment { from_period: step.from_period, amount: Amount(step.amount) })
            .collect(),
        covers: terms.covers.iter().copied().map(family_to_wire).collect(),
        roll_over_periods: terms.roll_over_periods,
        exit: terms.exit.map(|exit| wire::ExitTerms {
            after_periods: exit.after_periods,
            notice_months: exit.notice_months,
            fee_ppm: exit.fee_ppm,
        }),
        renewal: terms.renewal.map(|renewal| wire::RenewalTerms { months: renewal.months, notice_months: renewal.notice_months }),
        payment: terms.payment.as_ref().map(tax::terms_to_wire),
        pricing: terms.pricing.as_ref().map(pricing_to_wire).transpose()?,
        quantities: terms.quantities.as_ref().map(quantities_to_wire).transpose()?,
        fee: terms.fee.map(|fee| Amount(fee.amount)),
        billed: terms.billed.map(|Billed::InAdvance| wire::CommitmentBilling::InAdvance),
    })
}

fn quantities_to_wire(terms: &QuantityTerms) -> Result<wire::QuantityCommitment> {
    let step =
        |step: &QuantityStep| Ok(wire::QuantityStep { from_period: step.from_period, quantity: count(step.quantity.get())? });
    Ok(wire::QuantityCommitment {
        sku: terms.sku.to_string(),
        steps: terms.steps.iter().map(step).collect::<Result<_>>()?,
        overage: terms.overage.map(|overage| Amount(overage.price)),
    })
}

fn quantities_from_wire(terms: &wire::QuantityCommitment) -> Result<QuantityTerms> {
    let step = |step: &wire::QuantityStep| -> Result<QuantityStep> {
        let too_much = |_| Error::new(ErrorCode::InvalidRequest, "a quantity is too large").param("terms.quantities.steps");
        let quantity = Quantity::new(i64::try_from(step.quantity).map_err(too_much)?)?;
        Ok(QuantityStep { from_period: step.from_period, quantity })
    };
    Ok(QuantityTerms {
        overage: terms.overage.map(|price| OveragePrice { price: price.0 }),
        sku: terms.sku.parse().map_err(|error: Error| error.param("terms.quantities.sku"))?,
        steps: terms.steps.iter().map(step).collect::<Result<_>>()?,
    })
}

/// `amended` is the contract that gets other terms.
async fn terms_from_wire(
    (app, context): (&App, &Context),
    terms: wire::ContractTerms,
    amended: Option<&ContractId>,
) -> Result<ContractTerms> {
    let pricing = match terms.pricing {
        Some(pricing) => {
            let wants_version = pricing.protection.as_ref().is_some_and(|protection| protection.version.is_none());
            let in_force = match wants_version {
                true => Some(app.cloud.version_to_protect(&context.actor, terms.currency, amended).await?),
                false => None,
            };
            Some(pricing_from_wire(pricing, in_force)?)
        }
        None => None,
    };
    let commitments = terms.commitments.into_iter();
    Ok(ContractTerms {
        currency: terms.currency,
        starts: month(&terms.starts, "terms.starts")?,
        months: terms.months,
        period_months: terms.period_months,
        commitments: commitments.map(|step| Commitment { from_period: step.from_period, amount: step.amount.0 }).collect(),
        covers: terms.covers.into_iter().map(family_from_wire).collect(),
        roll_over_periods: terms.roll_over_periods,
        exit: terms.exit.map(|exit| ExitTerms {
            after_periods: exit.after_periods,
            notice_months: exit.notice_months,
            fee_ppm: exit.fee_ppm,
        }),
        renewal: terms.renewal.map(|renewal| RenewalTerms { months: renewal.months, notice_months: renewal.notice_months }),
        payment: terms.payment.map(tax::terms_from_wire),
        pricing,
        quantities: terms.quantities.as_ref().map(quantities_from_wire).transpose()?,
        fee: terms.fee.map(|fee| FeeTerms { amount: fee.0 }),
        billed: match terms.billed {
            Some(wire::CommitmentBilling::InAdvance) => Some(Billed::InAdvance),
            Some(wire::CommitmentBilling::InArrears) | None => None,
        },
    })
}

fn pricing_to_wire(pricing: &PriceTerms) -> Result<wire::PricingTerms> {
    let on = |on: &Discounted| match on {
        Discounted::Family(family) => wire::Discounted::Family(family_to_wire(*family)),
        Discounted::Model(model) => wire::Discounted::Model(model.to_string()),
        Discounted::Device(kind) => wire::Discounted::Device(kind.to_string()),
        Discounted::Notice(notice) => wire::Discounted::Notice(*notice),
        Discounted::Sku(sku) => wire::Discounted::Sku(sku.to_string()),
    };
    let discount = |discount: &Discount| wire::Discount { on: on(&discount.on), off_ppm: discount.off_ppm };
    Ok(wire::PricingTerms {
        discounts: pricing.discounts.iter().map(discount).collect(),
        fixed: pricing.fixed.iter().map(price_wire::to_wire).collect::<Result<_>>()?,
        protection: pricing.protection.as_ref().map(|protection| wire::PriceProtection {
            version: Some(protection.list.clone()),
            until: protection.until.map(|month| month.to_string()),
        }),
    })
}

/// `in_force` is protected where nothing else is said.
fn pricing_from_wire(pricing: wire::PricingTerms, in_force: Option<PriceVersion>) -> Result<PriceTerms> {
    let on = |on: wire::Discounted| -> Result<Discounted> {
        Ok(match on {
            wire::Discounted::Family(family) => Discounted::Family(family_from_wire(family)),
            wire::Discounted::Model(model) => Discounted::Model(model.parse()?),
            wire::Discounted::Device(kind) => Discounted::Device(kind.parse()?),
            wire::Discounted::Notice(notice) => Discounted::Notice(notice),
            wire::Discounted::Sku(sku) => Discounted::Sku(sku.parse()?),
        })
    };
    let discount = |(index, discount): (usize, wire::Discount)| -> Result<Discount> {
        let on = on(discount.on).map_err(|error| error.param(format!("terms.pricing.discounts[{index}].on")))?;
        Ok(Discount { off_ppm: discount.off_ppm, on })
    };
    let fixed = |(index, price)| price_wire::from_wire(price).map_err(|error| error.param(format!("terms.pricing.fixed[{index}]")));
    let protection = pricing.protection.map(|protection| -> Result<PriceProtection> {
        let list = protection.version.or(in_force).ok_or_else(|| Error::internal("no version was found to protect"))?;
        let until = protection.until.map(|until| month(&until, "terms.pricing.protection.until")).transpose()?;
        Ok(PriceProtection { list, until })
    });
    Ok(PriceTerms {
        discounts: pricing.discounts.into_iter().enumerate().map(discount).collect::<Result<_>>()?,
        fixed: pricing.fixed.iter().enumerate().map(fixed).collect::<Result<_>>()?,
        protection: protection.transpose()?,
    })
}

const fn family_to_wire(family: SkuFamily) -> wire::CoveredFamily {
    match family {
        SkuFamily::ModelTokens => wire::CoveredFamily::ModelTokens,
        SkuFamily::ModelRequests => wire::CoveredFamily::ModelRequests,
        SkuFamily::DeviceTime => wire::CoveredFamily::DeviceTime,
        SkuFamily::JobStarts => wire::CoveredFamily::JobStarts,
        SkuFamily::ProjectFees => wire::CoveredFamily::ProjectFees,
        SkuFamily::OneTimeFees => wire::CoveredFamily::OneTimeFees,
        SkuFamily::FileStorage => wire::CoveredFamily::FileStorage,
        SkuFamily::FileEgress => wire::CoveredFamily::FileEgress,
    }
}

const fn family_from_wire(family: wire::CoveredFamily) -> SkuFamily {
    match family {
        wire::CoveredFamily::ModelTokens => SkuFamily::ModelTokens,
        wire::CoveredFamily::ModelRequests => SkuFamily::ModelRequests,
        wire::CoveredFamily::DeviceTime => SkuFamily::DeviceTime,
        wire::CoveredFamily::JobStarts => SkuFamily::JobStarts,
        wire::CoveredFamily::ProjectFees => SkuFamily::ProjectFees,
        wire::CoveredFamily::OneTimeFees => SkuFamily::OneTimeFees,
        wire::CoveredFamily::FileStorage => SkuFamily::FileStorage,
        wire::CoveredFamily::FileEgress => SkuFamily::FileEgress,
    }
}

fn month(text: &str, param: &str) -> Result<PeriodKey> {
    text.parse().map_err(|error: Error| error.param(param.to_owned()))
}

fn offer_to_wire(offer: &Offer) -> Result<wire::ContractVersion> {
    Ok(wire::ContractVersion {
        terms_hash: offer.version.hash.clone(),
        status: match offer.state {
            OfferState::Offered => wire::OfferStatus::Offered,
            OfferState::Accepted => wire::OfferStatus::Accepted,
            OfferState::Withdrawn => wire::OfferStatus::Withdrawn,
        },
        from: offer.version.from.to_string(),
        terms: terms_to_wire(&offer.version.terms)?,
        offered_at: offer.offered_at.into(),
        expires_at: offer.expires_at.into(),
        answered_at: offer.answered_at.map(Into::into),
    })
}

fn period_to_wire(period: &PeriodUse, currency: Currency) -> Result<wire::CommitmentPeriod> {
    let money = |amount: Nanos| money(amount, currency);
    let quantity = period.quantity.as_ref().map(|used| -> Result<_> {
        Ok(wire::PeriodQuantity {
            sku: used.sku.to_string(),
            committed: count(used.committed.get())?,
            counted: count(used.counted.get())?,
            missing: count(used.missing.get())?,
            roll_over_used: count(used.roll_over_used.get())?,
        })
    });
    let month = |month: &MonthUse| -> Result<_> {
        Ok(wire::ContractMonth {
            month: month.month.to_string(),
            counted: money(month.counted),
            quantity: period.quantity.as_ref().map(|_| count(month.quantity.get())).transpose()?,
            used: month.used.map(money),
            billed: month.is_billed,
        })
    };
    Ok(wire::CommitmentPeriod {
        number: period.number,
        first_month: period.first.to_string(),
        last_month: period.last.to_string(),
        committed: money(period.committed),
        counted: money(period.counted),
        shortfall: money(period.shortfall),
        roll_over_used: money(period.roll_over_used),
        exit_fee: money(period.exit_fee),
        overage: money(period.overage),
        quantity: quantity.transpose()?,
        drawdown: period.drawdown.map(|drawdown| wire::PeriodDrawdown {
            drawn: money(drawdown.drawn),
            left: money(drawdown.left),
            lapsed: money(drawdown.lapsed),
        }),
        utilisation_ppm: period.utilisation_ppm(),
        coverage_ppm: period.coverage_ppm(),
        months: period.months.iter().map(month).collect::<Result<_>>()?,
        settled: period.is_settled,
    })
}

fn exit_to_wire(exit: &Exit, currency: Currency) -> wire::ContractExit {
    wire::ContractExit {
        last_month: exit.last_month.to_string(),
        notice_by: exit.notice_by.map(|month| month.to_string()),
        fee: money(exit.fee, currency),
        committed: money(exit.committed, currency),
        term_end: exit.is_term_end,
    }
}

fn to_wire(view: &ContractView) -> Result<wire::Contract> {
    let contract = &view.contract;
    let currency = view.currency;
    let notice = contract.notice.as_ref();
    Ok(wire::Contract {
        object: ContractTag,
        id: contract.id.clone(),
        organization: contract.organization.clone(),
        name: contract.name.clone(),
        status: match view.state {
            ContractState::Offered => wire::ContractStatus::Offered,
            ContractState::Expired => wire::ContractStatus::Expired,
            ContractState::Withdrawn => wire::ContractStatus::Withdrawn,
            ContractState::Agreed => wire::ContractStatus::Agreed,
            ContractState::Active => wire::ContractStatus::Active,
            ContractState::Ended => wire::ContractStatus::Ended,
        },
        versions: contract.offers.iter().map(offer_to_wire).collect::<Result<_>>()?,
        last_month: view.last_month.map(|month| month.to_string()),
        notice: notice.map(|given| wire::ContractNotice {
            last_month: given.notice.last_month.to_string(),
            fee: money(given.notice.fee, currency),
            given_at: given.at.into(),
        }),
        periods: view.periods.iter().map(|period| period_to_wire(period, currency)).collect::<Result<_>>()?,
        exits: view.exits.iter().map(|exit| exit_to_wire(exit, currency)).collect(),
        created_at: contract.created_at.into(),
    })
}

/// A contract's part of an invoice.
pub fn line_to_wire(line: &CommitmentLine, currency: Currency) -> Result<wire::InvoiceCommitment> {
    let amount = line.amount()?;
    let money = |amount: Nanos| money(amount, currency);
    Ok(wire::InvoiceCommitment {
        contract: line.contract.clone(),
        terms_hash: line.terms.clone(),
        number: line.number,
        first_month: line.first.to_string(),
        last_month: line.last.to_string(),
        committed: money(line.committed),
        counted_before: money(line.counted_before),
        counted: money(line.counted),
        roll_over: money(line.roll_over),
        shortfall: money(line.shortfall),
        roll_over_used: money(line.roll_over_used),
        exit_fee: money(line.exit_fee),
        overage: money(line.overage()),
        fee_terms_hash: line.fee_terms.clone(),
        quantity: line.quantity.as_ref().map(quantity_to_wire).transpose()?,
        drawdown: line.drawdown.as_ref().map(|drawdown| wire::InvoiceDrawdown {
            drawn: money(drawdown.drawn),
            unused: money(drawdown.unused),
            roll_over_used: money(drawdown.roll_over_used),
            lapsed: money(drawdown.lapsed),
        }),
        amount: money(amount),
    })
}

/// What an invoice bills in advance.
pub fn advance_to_wire(line: &AdvanceLine, currency: Currency) -> wire::InvoiceAdvance {
    wire::InvoiceAdvance {
        contract: line.contract.clone(),
        terms_hash: line.terms.clone(),
        number: line.number,
        first_month: line.first.to_string(),
        last_month: line.last.to_string(),
        fee: money(line.fee, currency),
        commitment: Some(line.commitment).filter(|amount| !amount.is_zero()).map(|amount| money(amount, currency)),
    }
}

fn quantity_to_wire(used: &QuantityUse) -> Result<wire::InvoiceQuantity> {
    Ok(wire::InvoiceQuantity {
        sku: used.sku.to_string(),
        committed: count(used.committed.get())?,
        counted_before: count(used.counted_before.get())?,
        counted: count(used.counted.get())?,
        roll_over: count(used.roll_over.get())?,
        missing: count(used.missing.get())?,
        roll_over_used: count(used.roll_over_used.get())?,
        overage: count(used.overage.get())?,
    })
}

fn answered(outcome: Once<ContractView>) -> Result<Answer> {
    match outcome {
        Once::New(view) => json(&to_wire(&view)?),
        Once::Replayed(text) => Ok(Answer::Json(text)),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateContract = context.body()?;
    let new = NewContract {
        organization: body.organization,
        name: body.name,
        terms: terms_from_wire((&app, &context), body.terms, None).await?,
        expires_at: body.expires_at.map(|at| at.0),
    };
    answered(app.cloud.offer_contract(&context.call()?, &new, &|view| text_of(&to_wire(view)?)).await?)
}

pub async fn amend(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateAmendment = context.body()?;
    let contract: ContractId = context.path("id")?;
    let new = NewAmendment {
        terms: terms_from_wire((&app, &context), body.terms, Some(&contract)).await?,
        contract,
        from: month(&body.from, "from")?,
        expires_at: body.expires_at.map(|at| at.0),
    };
    answered(app.cloud.offer_amendment(&context.call()?, &new, &|view| text_of(&to_wire(view)?)).await?)
}

pub async fn withdraw(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.withdraw_offer(&context.actor, &context.path("id")?).await?)?)
}

pub async fn accept(app: App, context: Context) -> Result<Answer> {
    let body: wire::AcceptContract = context.body()?;
    json(&to_wire(&app.cloud.accept_contract(&context.actor, &context.path("id")?, &body.terms_hash).await?)?)
}

pub async fn leave(app: App, context: Context) -> Result<Answer> {
    let body: wire::LeaveContract = context.body()?;
    let last_month = month(&body.last_month, "last_month")?;
    json(&to_wire(&app.cloud.leave_contract(&context.actor, &context.path("id")?, last_month).await?)?)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.get_contract(&context.actor, &context.path("id")?).await?)?)
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::ContractListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_contracts(&context.actor, query.organization.as_ref(), &page_request(&asked)?).await?;
    let items = page.items.iter().map(to_wire).collect::<Result<_>>()?;
    page_answer(&asked, Page { items, has_more: page.has_more }, |wire| wire, |wire: &wire::Contract| wire.id.to_string())
}
