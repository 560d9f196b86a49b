use proptest::prelude::*;
use sublet_core::Currency;

use super::*;
use crate::encoder::{Encoder, Format};
use crate::focus_columns::focus_columns;
use crate::period::BillingCalendar;
use crate::price_book::{PriceEntry, PriceListDraft};
use crate::price_model::Tier;
use crate::rating::{LineState, rate};
use crate::sku::Quantity;
use crate::table::{Cell, Column};

fn nanos(amount: i64) -> Nanos {
    Nanos::new(amount)
}
fn quantity(count: i64) -> Quantity {
    Quantity::new(count).unwrap()
}
fn tiers(first: i64, rest: i64) -> Vec<Tier> {
    vec![Tier { up_to: Some(quantity(1_000)), price: nanos(first) }, Tier { up_to: None, price: nanos(rest) }]
}

fn prices() -> PriceListVersion {
    let entry = |sku: &str, model| PriceEntry::new(sku.parse().unwrap(), model);
    let entries = vec![
        entry("tokens/output/m", PriceModel::PerUnit { price: nanos(600_000_001) }),
        entry("tokens/input/m", PriceModel::Graduated { tiers: tiers(0, 150_000_000) }),
        entry("tokens/cached_input/m", PriceModel::Volume { tiers: tiers(75_000_000, 50_000_000) }),
        entry("device/n0/cpu", PriceModel::Package { size: quantity(900_000), price: nanos(10_000_000) }),
        entry(
            "device/n2m/cpu",
            PriceModel::Minimum { least: nanos(1_000_000_000), of: Box::new(PriceModel::PerUnit { price: nanos(20_000_000) }) },
        ),
    ];
    let draft =
        PriceListDraft { list: "plist_1".parse().unwrap(), currency: Currency::EUR, effective_at: Timestamp::EPOCH, entries };
    PriceListVersion::new(draft).unwrap()
}

fn month(zone: &str, key: &str) -> Period {
    BillingCalendar::new(zone).unwrap().period(key.parse().unwrap()).unwrap()
}

fn statement(zone: &str) -> Statement {
    Statement {
        account: InvoiceAccount {
            organization: "org_1".parse().unwrap(),
            name: "Zahnräder, \"Söhne\"".to_owned(),
            currency: Currency::EUR,
            zone: zone.to_owned(),
        },
        seller: "Idle Works".to_owned(),
        period: month(zone, "2026-03"),
        invoice: Some("INV-2026-000007".parse().unwrap()),
        places: LinePlaces::default(),
        counts: None,
    }
}

fn hour(version: &PriceListVersion, sku: &str, (count, amount): (i64, i64), starts_at: Timestamp) -> ChargedHour {
    ChargedHour {
        project: "proj_1".parse().unwrap(),
        sku: sku.parse().unwrap(),
        price_version: version.version().clone(),
        band: None,
        resource: sku.starts_with("device").then(|| "job_1".to_owned()),
        site: sku.starts_with("device").then(|| "site_local".parse().unwrap()),
        isolation: sku.starts_with("device").then_some(sublet_core::runner::IsolationLevel::Sandbox),
        starts_at,
        quantity: quantity(count).into(),
        amount: nanos(amount),
        charges: 3,
    }
}

/// A cell as text.
fn cell(row: &FocusRow, version: FocusVersion, name: &str) -> String {
    let columns = focus_columns(version);
    let column: &Column<FocusRow> = columns.iter().find(|column| column.name == name).unwrap_or_else(|| panic!("{name}"));
    match (column.cell)(row) {
        Cell::Absent => "-".to_owned(),
        Cell::Text(text) => text.into_owned(),
        Cell::Decimal(number) => number.to_string(),
        Cell::Instant(at) => at.to_string(),
        Cell::Count(count) => count.to_string(),
    }
}

#[test]
fn each_model_has_one_list_price_and_what_was_charged_beside_it() {
    let (version, statement) = (prices(), statement("UTC"));
    let starts_at = statement.period.interval.starts_at;
    // Sku, quantity and amount; unit price, pricing quantity, list cost, billed cost.
    let cases = [
        ("tokens/output/m", (1_500_000, 900_000_002), ["0.600000001", "1.5", "0.9000000015", "0.900000002"]),
        ("tokens/input/m", (3_000, 300), ["0.15", "0.003", "0.00045", "0.0000003"]),
        ("tokens/cached_input/m", (2_000, -25), ["0.075", "0.002", "0.00015", "-0.000000025"]),
        ("device/n0/cpu", (1_000, 10_000_000), ["0.04", "0.000277777777778", "0.000011111111111", "0.01"]),
        ("device/n2m/cpu", (3_600_000, 1_000_000_000), ["0.02", "1.0", "0.02", "1.0"]),
    ];
    for (sku, charged, expected) in cases {
        let row =
            statement.usage(hour(&version, sku, charged, starts_at), &statement.period, ("work", RowPrices::of(&version))).unwrap();
        let found = ["ListUnitPrice", "PricingQuantity", "ListCost", "BilledCost"].map(|name| cell(&row, FocusVersion::V1_2, name));
        assert_eq!(found, expected, "{sku}");
        assert_eq!(cell(&row, FocusVersion::V1_4, "EffectiveCost"), expected[3]);
        assert_eq!(cell(&row, FocusVersion::V1_4, "ContractedCost"), expected[2]);
    }
}

#[test]
fn rows_say_what_they_are() {
    let (version, statement) = (prices(), statement("Asia/Kolkata"));
    let Interval { starts_at, ends_at } = statement.period.interval;
    let length = ROW_LENGTH.millis() * 1_000;
    let whole = Timestamp::from_micros(starts_at.micros().div_euclid(length) * length);
    let first = statement
        .usage(hour(&version, "device/n0/cpu", (1, 0), whole), &statement.period, ("work", RowPrices::of(&version)))
        .unwrap();
    // The month begins at half past an hour in UTC.
    assert_eq!((first.charged.starts_at, first.charged.ends_at), (starts_at, whole.plus(ROW_LENGTH)));
    let february = month("Asia/Kolkata", "2026-02");
    let used_at = february.interval.starts_at.plus(ROW_LENGTH);
    let late =
        statement.usage(hour(&version, "tokens/output/m", (7, 4), used_at), &february, ("work", RowPrices::of(&version))).unwrap();
    let note = Credited {
        number: "CN-2026-000002".parse().unwrap(),
        invoice: "INV-2026-000006".parse().unwrap(),
        amount: nanos(50_000_000),
        tax: Nanos::ZERO,
        reason: "slow, \"very\" slow".to_owned(),
        issued_at: ends_at.minus(DurationMs::from_millis(1)),
    };
    let credit = statement.credit(&note).unwrap().remove(0);
    let taxed = Credited { tax: nanos(10_000_000), ..note.clone() };
    let [_, tax] = <[_; 2]>::try_from(statement.credit(&taxed).unwrap()).unwrap();
    assert_eq!((tax.category, tax.billed, tax.document), (Category::Tax, nanos(-10_000_000), credit.document));
    assert!(credit.charged.ends_at <= ends_at);
    let rounding = statement.rounding(nanos(-4)).unwrap();
    assert_eq!(statement.rounding(Nanos::ZERO), None);
    let names = [
        "ChargeCategory",
        "ChargeClass",
        "ChargeFrequency",
        "BilledCost",
        "InvoiceId",
        "SubAccountId",
        "ResourceId",
        "SkuId",
        "x_LateOf",
    ];
    let said: Vec<String> =
        [&first, &late, &credit, &rounding].map(|row| names.map(|name| cell(row, FocusVersion::V1_2, name)).join(" ")).to_vec();
    assert_eq!(
        said,
        [
            "Usage - Usage-Based 0.0 INV-2026-000007 proj_1 job_1 device/n0/cpu -",
            "Usage Correction Usage-Based 0.000000004 INV-2026-000007 proj_1 - tokens/output/m 2026-02",
            "Credit Correction One-Time -0.05 CN-2026-000002 - - - -",
            "Adjustment - One-Time -0.000000004 INV-2026-000007 - - - -",
        ]
    );
}

#[test]
fn both_versions_as_csv() {
    let (version, statement) = (prices(), statement("UTC"));
    let starts_at = statement.period.interval.starts_at;
    let device = statement.usage(
        hour(&version, "device/n0/cpu", (1_000, 10_000_000), starts_at),
        &statement.period,
        ("a,b", RowPrices::of(&version)),
    );
    let rows = [device.unwrap(), statement.rounding(nanos(5)).unwrap()];
    for focus in FocusVersion::ALL {
        let mut encoder = Encoder::new(focus_columns(focus), Format::Csv);
        let mut text = encoder.begin();
        text.extend(encoder.add(&rows).unwrap());
        text.extend(encoder.end().unwrap());
        insta::assert_snapshot!(format!("focus_{}", focus.as_str()), String::from_utf8(text).unwrap());
    }
}

#[test]
fn a_market_price_is_dynamic_and_its_list_price_is_that_of_the_hour() {
    let (index, bounds) = (r#""gpu-spot""#, r#""floor":"0.5","ceiling":"3""#);
    let market = serde_json::from_str(&format!("{{{bounds},\"index\":{index}}}")).unwrap();
    let hourly = |price| PriceModel::PerUnit { price: nanos(price) };
    let entry = |price, market| PriceEntry { market, ..PriceEntry::new("device/n2m/cpu".parse().unwrap(), hourly(price)) };
    let list = |entry| {
        let (list, currency) = ("plist_1".parse().unwrap(), Currency::EUR);
        PriceListVersion::new(PriceListDraft { list, currency, effective_at: Timestamp::EPOCH, entries: vec![entry] }).unwrap()
    };
    let public = list(entry(1_000_000_000, Some(market)));
    let statement = statement("UTC");
    let starts_at = statement.period.interval.starts_at;
    let excerpt =
        format!(r#"{{"index":{index},"lead_ms":60000,"points":[{{"from_micros":0,"level":"2","published_at_micros":0}}]}}"#);
    let index = crate::price_index::PriceIndex::past(serde_json::from_str(&excerpt).unwrap(), starts_at.plus(ROW_LENGTH)).unwrap();
    let indexes = PriceIndexes::from([(index.name().clone(), index)]);
    let row = |charged: &PriceListVersion, band: Option<&str>| {
        let used = hour(charged, "device/n2m/cpu", (3_600_000, 850_000_000), starts_at);
        let used = ChargedHour { band: band.map(|band| band.parse().unwrap()), ..used };
        let prices = RowPrices { charged, public: Some(&public), indexes: &indexes };
        statement.usage(used, &statement.period, ("work", prices)).unwrap()
    };
    let category = |row: &FocusRow| {
        let columns = focus_columns(FocusVersion::V1_2);
        let column: &Column<FocusRow> = columns.into_iter().find(|column| column.name == "PricingCategory").unwrap();
        format!("{:?}", (column.cell)(row))
    };
    let follows = row(&public, Some("level-850"));
    assert_eq!((follows.list.to_string(), follows.contracted.to_string()), ("0.85".to_owned(), "0.85".to_owned()));
    assert!(category(&follows).contains("Dynamic"), "{}", category(&follows));
    let details = follows.priced.unwrap();
    assert!(details.price_id.ends_with("/device/n2m/cpu#level-850"), "{}", details.price_id);
    assert!(details.price_details.contains(r#""x_PriceIndex":"gpu-spot""#), "{}", details.price_details);
    // Fixed by contract, where the public price follows the index.
    let fixed = row(&list(entry(850_000_000, None)), None);
    assert_eq!((fixed.list.to_string(), fixed.contracted.to_string()), ("2.0".to_owned(), "0.85".to_owned()));
    assert!(category(&fixed).contains("Standard"), "{}", category(&fixed));
}

#[test]
fn columns_are_in_order_and_cells_are_there_where_they_have_to_be() {
    let (version, statement) = (prices(), statement("UTC"));
    let starts_at = statement.period.interval.starts_at;
    let usage = statement
        .usage(hour(&version, "tokens/output/m", (1, 1), starts_at), &statement.period, ("work", RowPrices::of(&version)))
        .unwrap();
    for focus in FocusVersion::ALL {
        let columns = focus_columns(focus);
        assert!(columns.is_sorted_by_key(|column| column.name), "{focus:?}");
        for row in [&usage, &statement.rounding(nanos(1)).unwrap()] {
            for column in &columns {
                assert!(column.is_optional || (column.cell)(row) != Cell::Absent, "{}", column.name);
            }
        }
    }
    assert_eq!("1.3".parse::<FocusVersion>().unwrap_err().code(), ErrorCode::InvalidRequest);
}

proptest! {
    /// However a month's uses fall into hours, its rows and the rounding are its invoice.
    #[test]
    fn rows_add_up_to_the_invoice(
        uses in prop::collection::vec((0_usize..5, 0_i64..5_000_000, 0_i64..700), 1..60),
        carry in -4_999_999_i64..5_000_000,
    ) {
        let (version, statement) = (prices(), statement("UTC"));
        let skus = ["tokens/output/m", "tokens/input/m", "tokens/cached_input/m", "device/n0/cpu", "device/n2m/cpu"];
        let mut lines = [LineState::default(); 5];
        let mut rows = Vec::new();
        for (sku, count, hours) in uses {
            let name: SkuName = skus[sku].parse().unwrap();
            let price = version.get(&name).unwrap().price_in(None).unwrap();
            let (amount, after) = rate(lines[sku], price, quantity(count)).unwrap();
            lines[sku] = after;
            let at = statement.period.interval.starts_at.plus(DurationMs::from_hours(hours));
            let used = hour(&version, skus[sku], (count, amount.get()), at);
            rows.push(statement.usage(used, &statement.period, ("work", RowPrices::of(&version))).unwrap());
        }
        let subtotal = Nanos::checked_sum(lines.iter().map(|line| line.charged)).unwrap();
        let total = subtotal.checked_sub(nanos(carry)).unwrap().round_half_even(10_000_000).unwrap();
        rows.extend(statement.rounding(total.checked_sub(subtotal).unwrap()));
        prop_assert_eq!(Nanos::checked_sum(rows.iter().map(|row| row.billed)).unwrap(), total);
        for row in &rows {
            let Some(priced) = &row.priced else { continue };
            // What readers check: unit price times quantity is the list cost, to a thousand-millionth of it.
            let product = priced.unit_price.unscaled() / 1_000 * (priced.pricing_quantity.unscaled() / 1_000) / 1_000_000_000;
            prop_assert!((product - row.list.unscaled()).abs() <= 1_000_000, "{}", row.list);
        }
    }
}

#[test]
fn the_list_s_price_is_that_of_the_place_though_the_contract_has_one_price_for_all() {
    let list = |prices: &[(&str, i64)]| {
        let entries = prices.iter().map(|(sku, price)| PriceEntry::per_unit(sku.parse().unwrap(), nanos(*price))).collect();
        let (list, currency) = ("plist_1".parse().unwrap(), Currency::EUR);
        PriceListVersion::new(PriceListDraft { list, currency, effective_at: Timestamp::EPOCH, entries }).unwrap()
    };
    let (general, there) = ("device/n2m/cpu", "device/site_local/sandbox/n2m/cpu");
    let public = list(&[(general, 1_000_000_000), (there, 3_000_000_000)]);
    let own = list(&[(general, 500_000_000)]);
    let statement = statement("UTC");
    let row = |charged: &PriceListVersion, sku: &str, amount: i64| {
        let used = hour(charged, sku, (3_600_000, amount), statement.period.interval.starts_at);
        let prices = RowPrices { charged, public: Some(&public), indexes: &PriceIndexes::new() };
        statement.usage(used, &statement.period, ("work", prices)).unwrap()
    };
    let by_contract = row(&own, general, 500_000_000);
    assert_eq!((by_contract.list.to_string(), by_contract.contracted.to_string()), ("3.0".to_owned(), "0.5".to_owned()));
    let as_listed = row(&public, there, 3_000_000_000).priced.unwrap();
    assert!(as_listed.price_id.ends_with("/device/site_local/sandbox/n2m/cpu"), "{}", as_listed.price_id);
    assert!(as_listed.price_details.contains(r#""x_Isolation":"sandbox""#), "{}", as_listed.price_details);
    assert!(as_listed.price_details.contains(r#""x_Site":"site_local""#), "{}", as_listed.price_details);
}
