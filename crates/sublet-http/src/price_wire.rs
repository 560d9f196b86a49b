//! Prices as the API writes them, and as the price book has them: what is read back can be published again.

use sublet_api::money::Amount;
use sublet_api::price as wire;
use sublet_cloud::data::{
    Band, DeviceKind, MarketPrice, ModelName, PriceEntry, PriceListDraft, PriceModel, Quantity, SkuName, Tier, TimeOfUse,
    TokenKind, Weekday, Window, Zone,
};
use sublet_core::{Currency, Error, ErrorCode, Result, Timestamp};

use crate::App;
use crate::wire::{FILES, PROJECT, SkuParts, count, sku_parts};

/// The three members that a price and a band share.
struct Terms {
    amount: Option<Amount>,
    model: Option<wire::PriceModel>,
    minimum: Option<Amount>,
}

pub fn to_wire(entry: &PriceEntry) -> Result<wire::Price> {
    let SkuParts { subject, meter, notice, service_tier, site, isolation } = sku_parts(&entry.sku);
    let Terms { amount, model, minimum } = terms_to_wire(&entry.model)?;
    let time_of_use = entry.time_of_use.as_ref().map(time_of_use_to_wire).transpose()?;
    let per = count(entry.unit.base_units())?;
    let market = entry.market.as_ref().map(|market| wire::MarketPrice {
        index: market.index.to_string(),
        floor: market.floor.to_string(),
        ceiling: market.ceiling.to_string(),
    });
    Ok(wire::Price { subject, meter, notice, site, isolation, service_tier, amount, model, minimum, per, time_of_use, market })
}

fn terms_to_wire(model: &PriceModel) -> Result<Terms> {
    let tiers = |tiers: &[Tier]| -> Result<Vec<wire::PriceTier>> {
        let tier = |tier: &Tier| {
            let up_to = tier.up_to.map(|bound| count(bound.get())).transpose()?;
            Ok(wire::PriceTier { up_to, amount: Amount(tier.price) })
        };
        tiers.iter().map(tier).collect()
    };
    let model = match model {
        PriceModel::PerUnit { price } => return Ok(Terms { amount: Some(Amount(*price)), model: None, minimum: None }),
        PriceModel::Minimum { least, of } => return Ok(Terms { minimum: Some(Amount(*least)), ..terms_to_wire(of)? }),
        PriceModel::Graduated { tiers: list } => wire::PriceModel::Graduated { tiers: tiers(list)? },
        PriceModel::Volume { tiers: list } => wire::PriceModel::Volume { tiers: tiers(list)? },
        PriceModel::Package { size, price } => wire::PriceModel::Package { size: count(size.get())?, amount: Amount(*price) },
    };
    Ok(Terms { amount: None, model: Some(model), minimum: None })
}

pub fn time_of_use_to_wire(bands: &TimeOfUse) -> Result<wire::TimeOfUse> {
    let window = |window: &Window| wire::PriceWindow {
        days: Some(window.days.iter().map(|day| day.as_str().to_owned()).collect()),
        from: window.from.to_string(),
        until: window.until.to_string(),
    };
    let band = |band: &Band| {
        let Terms { amount, model, minimum } = terms_to_wire(&band.model)?;
        let windows = band.windows.iter().map(window).collect();
        Ok(wire::PriceBand { name: band.name.to_string(), windows, amount, model, minimum })
    };
    Ok(wire::TimeOfUse { time_zone: bands.zone.to_string(), bands: bands.bands.iter().map(band).collect::<Result<_>>()? })
}

/// The prices of a body as the next version of the list in their currency, or as the first of a new list.
pub fn draft(app: &App, currency: Currency, effective_at: Timestamp, prices: &[wire::Price]) -> Result<PriceListDraft> {
    let lists = app.cloud.prices().snapshot();
    let known = lists.values().find(|list| list.currency == currency);
    let list = known.map_or_else(|| app.cloud.ids().mint(), |list| list.id.clone());
    let entries = prices.iter().enumerate().map(entry).collect::<Result<_>>()?;
    Ok(PriceListDraft { list, currency, effective_at, entries })
}

/// A price of a body, numbered from 0.
fn entry((index, price): (usize, &wire::Price)) -> Result<PriceEntry> {
    from_wire(price).map_err(|error| match error.param_name() {
        Some(_) => error,
        None => error.param(format!("prices[{index}]")),
    })
}

pub fn from_wire(price: &wire::Price) -> Result<PriceEntry> {
    let sku = sku_of(price)?;
    let per = i64::try_from(price.per).unwrap_or(0);
    let wanted = sku.pricing_unit().base_units();
    if per != wanted {
        return Err(invalid(format!("the price of {sku} is written per {wanted} units, not per {per}")));
    }
    let terms = Terms { amount: price.amount, model: price.model.clone(), minimum: price.minimum };
    let model = model_of(terms).map_err(|error| error.prefixed(&format!("price of {sku}")))?;
    let time_of_use = price.time_of_use.as_ref().map(time_of_use_of).transpose();
    let time_of_use = time_of_use.map_err(|error| error.prefixed(&format!("price of {sku}")))?;
    let market = price.market.as_ref().map(market_of).transpose();
    let market = market.map_err(|error| error.prefixed(&format!("price of {sku}")))?;
    let entry = PriceEntry { time_of_use, market, ..PriceEntry::new(sku, model) };
    entry.validate()?;
    Ok(entry)
}

fn market_of(wire: &wire::MarketPrice) -> Result<MarketPrice> {
    Ok(MarketPrice { index: wire.index.parse()?, floor: wire.floor.parse()?, ceiling: wire.ceiling.parse()? })
}

fn sku_of(price: &wire::Price) -> Result<SkuName> {
    let sku = sold(price)?;
    if let SkuName::Device { notice, device, .. } = sku {
        return Ok(SkuName::Device { notice, device, site: price.site.clone(), isolation: price.isolation });
    }
    if price.site.is_none() && price.isolation.is_none() {
        return Ok(sku);
    }
    Err(invalid(format!("the price of {sku} names a site or an isolation, and only device time has them")))
}

/// Wherever it is.
fn sold(price: &wire::Price) -> Result<SkuName> {
    let kind = match price.meter {
        wire::Meter::InputTokens => Some(TokenKind::Input),
        wire::Meter::CachedInputTokens => Some(TokenKind::CachedInput),
        wire::Meter::OutputTokens => Some(TokenKind::Output),
        wire::Meter::Requests
        | wire::Meter::DeviceMilliseconds
        | wire::Meter::Starts
        | wire::Meter::ProjectMonths
        | wire::Meter::Fees
        | wire::Meter::ByteHours
        | wire::Meter::BytesSent => None,
    };
    let is = |meter| price.meter == meter;
    match (&price.subject, kind, (price.notice, price.service_tier)) {
        (wire::Subject::Model(name), Some(kind), (None, tier)) => {
            Ok(SkuName::Tokens { tier: tier.unwrap_or_default(), kind, model: name.parse::<ModelName>()? })
        }
        (wire::Subject::Model(name), None, (None, tier)) if is(wire::Meter::Requests) => {
            Ok(SkuName::Requests { tier: tier.unwrap_or_default(), model: name.parse::<ModelName>()? })
        }
        (wire::Subject::Sku(name), None, (None, None)) if is(wire::Meter::ProjectMonths) && name == PROJECT => {
            Ok(SkuName::ProjectMonth)
        }
        (wire::Subject::Sku(name), None, (None, None)) if is(wire::Meter::ByteHours) && name == FILES => Ok(SkuName::FileStorage),
        (wire::Subject::Sku(name), None, (None, None)) if is(wire::Meter::BytesSent) && name == FILES => Ok(SkuName::FileEgress),
        (wire::Subject::Sku(name), None, (None, None)) if is(wire::Meter::Starts) => Ok(SkuName::Starts { device: name.parse()? }),
        (wire::Subject::Sku(name), None, (None, None)) if is(wire::Meter::Fees) => Ok(SkuName::Fee { fee: name.parse()? }),
        (wire::Subject::Sku(name), None, (Some(notice), None)) if is(wire::Meter::DeviceMilliseconds) => {
            Ok(SkuName::device(notice, name.parse::<DeviceKind>()?))
        }
        _ => Err(invalid(
            "a model has prices of tokens and requests, perhaps with a service_tier, and no notice; a device kind has device time \
             with notice, perhaps with a site and an isolation, and starts without; the sku 'project' has months of projects, the sku 'files' \
             byte hours and bytes sent, and a fee has its name"
                .to_owned(),
        )),
    }
}

fn model_of(terms: Terms) -> Result<PriceModel> {
    let model = match (terms.amount, terms.model) {
        (Some(amount), None) => PriceModel::PerUnit { price: amount.0 },
        (None, Some(wire::PriceModel::Graduated { tiers })) => PriceModel::Graduated { tiers: tiers_of(&tiers)? },
        (None, Some(wire::PriceModel::Volume { tiers })) => PriceModel::Volume { tiers: tiers_of(&tiers)? },
        (None, Some(wire::PriceModel::Package { size, amount })) => PriceModel::Package { size: quantity(size)?, price: amount.0 },
        (Some(_), Some(_)) | (None, None) => {
            return Err(invalid("a price has either an amount or a model".to_owned())
                .alternative("write \"amount\" where it is the same for every unit, and \"model\" where it depends on how many"));
        }
    };
    Ok(match terms.minimum {
        Some(least) => PriceModel::Minimum { least: least.0, of: Box::new(model) },
        None => model,
    })
}

fn tiers_of(tiers: &[wire::PriceTier]) -> Result<Vec<Tier>> {
    let tier = |tier: &wire::PriceTier| Ok(Tier { up_to: tier.up_to.map(quantity).transpose()?, price: tier.amount.0 });
    tiers.iter().map(tier).collect()
}

fn quantity(units: u64) -> Result<Quantity> {
    // What is beyond the range is beyond every bound too, and refused as such.
    Quantity::new(i64::try_from(units).unwrap_or(i64::MAX))
}

pub fn time_of_use_of(wire: &wire::TimeOfUse) -> Result<TimeOfUse> {
    let band = |band: &wire::PriceBand| {
        let terms = Terms { amount: band.amount, model: band.model.clone(), minimum: band.minimum };
        Ok(Band {
            name: band.name.parse()?,
            windows: band.windows.iter().map(window_of).collect::<Result<_>>()?,
            model: model_of(terms).map_err(|error| error.prefixed(&format!("band '{}'", band.name)))?,
        })
    };
    Ok(TimeOfUse { zone: Zone::new(&wire.time_zone)?, bands: wire.bands.iter().map(band).collect::<Result<_>>()? })
}

fn window_of(window: &wire::PriceWindow) -> Result<Window> {
    let day = |name: &String| {
        Weekday::ALL.into_iter().find(|day| day.as_str() == name).ok_or_else(|| {
            let shown: String = name.chars().take(20).collect();
            invalid(format!("'{shown}' is not a day of the week")).alternative(Weekday::ALL.map(Weekday::as_str).join(", "))
        })
    };
    let days = match &window.days {
        Some(days) => days.iter().map(day).collect::<Result<_>>()?,
        None => Weekday::ALL.into_iter().collect(),
    };
    Ok(Window { days, from: window.from.parse()?, until: window.until.parse()? })
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorCode::InvalidPrice, reason)
}
