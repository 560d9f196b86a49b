//! Credit for promises that were not kept, and the rules of what interrupted leases are owed.

use std::collections::BTreeMap;

use sublet_api::compensation as wire;
use sublet_api::object::{CompensationRulesTag, CompensationTag};
use sublet_cloud::compensation::NewServiceCredit;
use sublet_cloud::data::{
    CompensationKind, CompensationRule, CompensationRules, SkuFamily, StoredCompensation, StoredCompensationRules,
};
use sublet_core::id::CompensationId;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Error, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::money;

const fn family_to_wire(family: SkuFamily) -> wire::ChargedFamily {
    match family {
        SkuFamily::ModelTokens => wire::ChargedFamily::ModelTokens,
        SkuFamily::ModelRequests => wire::ChargedFamily::ModelRequests,
        SkuFamily::DeviceTime => wire::ChargedFamily::DeviceTime,
        SkuFamily::JobStarts => wire::ChargedFamily::JobStarts,
        SkuFamily::ProjectFees => wire::ChargedFamily::ProjectFees,
        SkuFamily::OneTimeFees => wire::ChargedFamily::OneTimeFees,
        SkuFamily::FileStorage => wire::ChargedFamily::FileStorage,
        SkuFamily::FileEgress => wire::ChargedFamily::FileEgress,
    }
}

const fn family_from_wire(family: wire::ChargedFamily) -> SkuFamily {
    match family {
        wire::ChargedFamily::ModelTokens => SkuFamily::ModelTokens,
        wire::ChargedFamily::ModelRequests => SkuFamily::ModelRequests,
        wire::ChargedFamily::DeviceTime => SkuFamily::DeviceTime,
        wire::ChargedFamily::JobStarts => SkuFamily::JobStarts,
        wire::ChargedFamily::ProjectFees => SkuFamily::ProjectFees,
        wire::ChargedFamily::OneTimeFees => SkuFamily::OneTimeFees,
        wire::ChargedFamily::FileStorage => SkuFamily::FileStorage,
        wire::ChargedFamily::FileEgress => SkuFamily::FileEgress,
    }
}

fn to_wire(given: &StoredCompensation) -> wire::Compensation {
    wire::Compensation {
        object: CompensationTag,
        id: given.id.clone(),
        organization: given.organization.clone(),
        kind: match given.kind {
            CompensationKind::Reclaim => wire::CompensationKind::Reclaim,
            CompensationKind::Sla => wire::CompensationKind::Sla,
            CompensationKind::Early => wire::CompensationKind::Early,
        },
        subject: given.subject.clone(),
        family: given.family.map(family_to_wire),
        share_ppm: (given.kind == CompensationKind::Sla).then_some(given.share_ppm),
        amount: money(given.amount, given.currency),
        evidence: given.evidence.clone(),
        note: given.note.clone(),
        credit_grant: given.grant.clone(),
        created_at: given.created_at.into(),
    }
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateCompensation = context.body()?;
    let new = NewServiceCredit {
        invoice: body.invoice,
        family: body.family.map(family_from_wire),
        share_ppm: body.share_ppm,
        evidence: body.evidence,
        note: body.note,
    };
    let outcome = app.cloud.grant_service_credit(&context.call()?, &new, &|given| text_of(&to_wire(given))).await?;
    once(outcome, to_wire)
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: CompensationId = context.path("id")?;
    json(&to_wire(&app.cloud.get_compensation(&context.actor, &id).await?))
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::CompensationListQuery = context.query()?;
    let asked = query.page();
    let page = app.cloud.list_compensations(&context.actor, query.organization.as_ref(), &page_request(&asked)?).await?;
    page_answer(&asked, page, |given| to_wire(&given), |wire| wire.id.to_string())
}

fn rules_to_wire(stored: &StoredCompensationRules) -> wire::CompensationRules {
    let rule = |rule: CompensationRule| wire::CompensationRule {
        free_ms: rule.free_ms.millis(),
        hour_ppm: rule.hour_ppm,
        missing_ppm: rule.missing_ppm,
        early_ppm: rule.early_ppm,
    };
    wire::CompensationRules {
        object: CompensationRulesTag,
        version: stored.version,
        rules: stored.rules.iter().map(|(class, of_it)| (class.to_string(), rule(of_it))).collect(),
        created_at: stored.created_at.map(Into::into),
    }
}

pub async fn get_rules(app: App, context: Context) -> Result<Answer> {
    json(&rules_to_wire(&app.cloud.compensation_rules(&context.actor).await?))
}

pub async fn set_rules(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetCompensationRules = context.body()?;
    let mut rules = BTreeMap::new();
    for (class, rule) in body.rules {
        let class: NoticeClass = class.parse().map_err(|error: Error| error.param("rules"))?;
        let wire::CompensationRule { free_ms, hour_ppm, missing_ppm, early_ppm } = rule;
        let free_ms = DurationMs::from_millis(free_ms);
        rules.insert(class, CompensationRule { free_ms, hour_ppm, missing_ppm, early_ppm });
    }
    let rules = CompensationRules::new(rules)?;
    json(&rules_to_wire(&app.cloud.set_compensation_rules(&context.actor, &rules).await?))
}
