use super::*;
use sublet_core::admission::{ModelAccess, PriceVersion, TokenRates};
use sublet_core::supplier::{CostPrice, CostVersion, DataConsent, PerMille, SupplierTerms};
use sublet_core::supply::{Audience, EngineKind};
use sublet_core::{Currency, Nanos, Rate, TokenCount};

const EACH: i64 = 1_000_000;

fn rates(nanos: i64) -> TokenRates {
    let rate = Rate::new(Nanos::new(nanos), EACH).unwrap();
    TokenRates { input: rate, cached_input: rate, output: rate }
}

/// Flex costs 50, default 100, priority is not sold.
fn prices(tier: ServiceTier) -> Option<Arc<TokenPrices>> {
    let nanos = match tier {
        ServiceTier::Flex => 50,
        ServiceTier::Default => 100,
        ServiceTier::Priority => return None,
    };
    let TokenRates { input, cached_input, output } = rates(nanos);
    let (version, currency, least) = (PriceVersion("v".into()), Currency::EUR, rates(nanos));
    let request = Nanos::ZERO;
    Some(Arc::new(TokenPrices { tier, version, currency, request, input, cached_input, output, least }))
}

fn access(external: &str, regions: &[&str]) -> Access {
    let data: DataConsent = serde_json::from_value(serde_json::json!({ "external": external, "regions": regions })).unwrap();
    Access {
        key: "key_1".parse().unwrap(),
        project: "proj_1".parse().unwrap(),
        organization: "org_1".parse().unwrap(),
        currency: Currency::EUR,
        models: ModelAccess::All,
        limits: Vec::new(),
        narrow_limits: Vec::new(),
        expires_at: None,
        licences: Vec::new(),
        entitlements: sublet_core::offering::Entitlements::default(),
        data,
    }
}

fn fleet(number: u32) -> Replica {
    Replica {
        id: format!("rep_{number}").parse().unwrap(),
        base_url: "http://127.0.0.1:9/v1".parse().unwrap(),
        upstream_model: "m".to_owned(),
        secret: None,
        engine: EngineKind::OpenAi,
        kv_events: None,
        in_flight_max: 1,
        state: ReplicaState::Serving,
        source: ReplicaSource::Fleet,
        terms: None,
        costs: Vec::new(),
    }
}

/// A supplier in the EU that keeps data for so long and costs so much from the 10th second on.
fn bought(number: u32, (retention, cost): (&str, i64)) -> Replica {
    let data =
        SupplierPolicy { retention: retention.parse().unwrap(), used_for_training: false, region: Some("eu".parse().unwrap()) };
    let terms = SupplierTerms { supplier: "org_9".parse().unwrap(), data, margin_min: PerMille::default() };
    let (version, effective_at) = (CostVersion(format!("c{cost}").into()), Timestamp::from_seconds(10));
    let cost = CostPrice { version, currency: Currency::EUR, effective_at, rates: rates(cost) };
    Replica { source: ReplicaSource::Supplier, terms: Some(terms), costs: vec![cost], ..fleet(number) }
}

fn ask(access: &Access, tier: ServiceTier, at: i64, replicas: Vec<Replica>) -> Result<Permitted> {
    let model = Arc::new(RemoteModel {
        name: "far/mini".to_owned(),
        owned_by: "o".to_owned(),
        created_at: Timestamp::EPOCH,
        context_window: TokenCount::new(10),
        output_max: TokenCount::new(10),
        audience: Audience::Everyone,
        tokenizer: None,
        replicas: replicas.into_iter().map(Arc::new).collect(),
    });
    let sold = prices(tier).unwrap();
    permit(&model, Sale { access, prices: &sold, now: Timestamp::from_seconds(at), card: None, at_tier: &prices })
}

fn names(permitted: &Permitted) -> Vec<&str> {
    permitted.model.replicas.iter().map(|replica| replica.id.as_str()).collect()
}

#[test]
fn only_what_is_permitted_and_earns_is_asked() {
    let all = || vec![fleet(1), bought(2, ("none", 50)), bought(3, ("30d", 50)), bought(4, ("none", 101))];
    for (external, tier, expected) in [
        ("none", ServiceTier::Default, vec!["rep_1"]),
        ("no_retention", ServiceTier::Default, vec!["rep_1", "rep_2"]),
        ("any", ServiceTier::Default, vec!["rep_1", "rep_2", "rep_3"]),
        ("any", ServiceTier::Flex, vec!["rep_1", "rep_2", "rep_3"]),
    ] {
        let permitted = ask(&access(external, &[]), tier, 10, all()).unwrap();
        assert_eq!(names(&permitted), expected, "{external} {tier}");
        assert_eq!(permitted.bids.len(), expected.len() - 1);
    }
    // Before its cost is in force nobody buys.
    assert_eq!(names(&ask(&access("any", &[]), ServiceTier::Default, 9, all()).unwrap()), ["rep_1"]);
    let elsewhere = ask(&access("any", &["us"]), ServiceTier::Default, 10, all()).unwrap();
    assert_eq!(names(&elsewhere), ["rep_1"]);
}

#[test]
fn a_model_of_the_fleet_alone_is_left_as_it_is() {
    let permitted = ask(&access("none", &[]), ServiceTier::Default, 0, vec![fleet(1)]).unwrap();
    assert!(permitted.bids.is_empty() && permitted.hints.is_empty());
}

#[test]
fn who_is_refused_learns_what_would_work_and_no_cost() {
    let refused = |access: &Access, tier, replicas| {
        let error = ask(access, tier, 10, replicas).unwrap_err();
        assert!(!error.message().contains("cost") && !error.alternatives().concat().contains("cost"));
        (error.code(), error.alternatives().to_vec(), error.private_context().join("; "))
    };
    let put = |body: &str| vec![format!("PUT /v1/organization/data_policy {body}, with an admin key of the organization")];
    let (code, works, log) =
        refused(&access("none", &[]), ServiceTier::Default, vec![bought(1, ("30d", 50)), bought(2, ("none", 50))]);
    assert_eq!((code, works), (ErrorCode::PolicyRefused, put(r#"{"external":"no_retention","regions":[]}"#)));
    assert_eq!(log, "rep_1: the organization does not permit it; rep_2: the organization does not permit it");
    let (_, works, _) = refused(&access("no_retention", &["us"]), ServiceTier::Default, vec![bought(1, ("30d", 50))]);
    assert_eq!(works, put(r#"{"external":"any","regions":["us","eu"]}"#));

    let (code, works, log) = refused(&access("any", &[]), ServiceTier::Flex, vec![bought(1, ("none", 70))]);
    assert_eq!((code, works), (ErrorCode::PolicyRefused, vec!["service_tier 'default'".to_owned()]));
    assert_eq!(log, "rep_1: the margin of input tokens is below the least");
    // No tier would do: the operator has to act.
    let (code, works, _) = refused(&access("any", &[]), ServiceTier::Flex, vec![bought(1, ("none", 700))]);
    assert_eq!((code, works), (ErrorCode::ModelUnavailable, Vec::new()));
    let unpriced = Replica { costs: Vec::new(), ..bought(1, ("none", 1)) };
    let (code, _, log) = refused(&access("any", &[]), ServiceTier::Default, vec![unpriced]);
    assert_eq!((code, log.as_str()), (ErrorCode::ModelUnavailable, "rep_1: no cost is in force"));
    let nameless = Replica { terms: None, ..bought(1, ("none", 1)) };
    assert_eq!(refused(&access("any", &[]), ServiceTier::Default, vec![nameless]).0, ErrorCode::ModelUnavailable);
}

#[test]
fn a_fleet_that_drains_leaves_only_suppliers() {
    let draining = Replica { state: ReplicaState::Draining, ..fleet(1) };
    let error = ask(&access("none", &[]), ServiceTier::Default, 10, vec![draining.clone(), bought(2, ("none", 1))]).unwrap_err();
    assert_eq!(error.code(), ErrorCode::PolicyRefused);
    // With nothing but what drains it is as without suppliers.
    assert!(ask(&access("none", &[]), ServiceTier::Default, 10, vec![draining]).is_ok());
}
