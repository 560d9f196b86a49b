//! Steps of the accounts: payments, limits, prices, keys, invoices.

use sublet_cloud::Actor;
use sublet_cloud::credit::NewCredit;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::key::NewKey;
use sublet_cloud::limit::LimitSubject;
use sublet_core::admission::ModelAccess;
use sublet_core::id::{PriceListId, ProjectId};
use sublet_core::key::KeyPlane;
use sublet_core::rate::RateLimits;
use sublet_core::{DurationMs, ErrorCode, Nanos, Result, Scope};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::{CreditScope, CreditTerms};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_model::PriceModel;
use sublet_money::sku::SkuFamily;
use sublet_store::budget::BudgetWindow;
use sublet_store::credit::CreditGrant;

use super::{KeyHolder, Simulation};
use crate::tenant::created;

/// Keys of one tenant.
const KEYS_MAX: usize = 12;
/// Versions of one price list in a run.
const VERSIONS_MAX: usize = 40;

/// A payment under its key: repeated, it is the same one.
pub(super) struct Payment {
    pub tenant: usize,
    pub call: Call,
    pub credit: NewCredit,
}

pub(super) fn grant_id(grant: &CreditGrant) -> Result<String> {
    Ok(grant.id.to_string())
}

impl Simulation {
    pub(super) fn some_payment(&mut self) -> Payment {
        let tenant = self.below(self.tenants.len());
        let amount = Nanos::new(self.number(1, 3_000_000_000));
        let name = format!("payment-{}", self.next_number());
        let call = Call::under_key(Actor::system(), "credit.grant", &name, &amount.to_string()).expect("a call");
        let credit = NewCredit {
            organization: self.tenants[tenant].id.clone(),
            kind: if self.chance(4) { CreditKind::Promotional } else { CreditKind::Paid },
            amount,
            currency: None,
            reference: name,
            terms: self.some_terms(),
        };
        Payment { tenant, call, credit }
    }

    fn some_terms(&mut self) -> CreditTerms {
        if !self.chance(3) {
            return CreditTerms::default();
        }
        let end = DurationMs::from_seconds(self.number(600, 3 * 86_400));
        let scope = [CreditScope::All, CreditScope::Family(SkuFamily::ModelTokens), CreditScope::Family(SkuFamily::DeviceTime)];
        CreditTerms {
            priority: u16::try_from(self.number(98, 102)).expect("small"),
            expires_at: self.chance(2).then(|| self.now().plus(end)),
            scope: scope[self.below(scope.len())],
        }
    }

    pub(super) async fn pay_in(&mut self) {
        let payment = self.some_payment();
        let (first, second) = (self.below(2), self.below(2));
        created(self.processes[first].cloud.grant_credit(&payment.call, &payment.credit, &grant_id).await);
        let deposited = &mut self.tenants[payment.tenant].deposited;
        *deposited = deposited.checked_add(payment.credit.amount).expect("simulated amounts are small");
        if self.chance(3) {
            let again = self.processes[second].cloud.grant_credit(&payment.call, &payment.credit, &grant_id).await;
            assert!(matches!(again, Ok(Answer::Replayed(_))), "a repeated payment is the same payment: {again:?}");
        }
        if self.chance(6) {
            let key = &payment.credit.reference;
            let other = Call::under_key(Actor::system(), "credit.grant", key, "another body").expect("a call");
            let error =
                self.processes[second].cloud.grant_credit(&other, &payment.credit, &grant_id).await.expect_err("another body");
            assert_eq!(error.code(), ErrorCode::IdempotencyMismatch);
        }
        self.did("a payment comes in");
    }

    fn some_subject(&self, tenant: usize) -> LimitSubject {
        let tenant = &self.tenants[tenant];
        match self.rng.below(3) {
            0 => LimitSubject::Organization(tenant.id.clone()),
            1 => LimitSubject::Project(self.pick(&tenant.projects).expect("a project").clone()),
            _ => LimitSubject::Key(self.pick(&tenant.keys).expect("a key").id.clone()),
        }
    }

    pub(super) async fn set_limit(&mut self) {
        let tenant = self.below(self.tenants.len());
        let subject = self.some_subject(tenant);
        let window = *self.pick(&BudgetWindow::ALL).expect("a window");
        let amount = Nanos::new(match self.rng.below(4) {
            0 => self.number(0, 1_000_000),
            1 => self.number(0, 100_000_000),
            _ => self.number(100_000_000, 3_000_000_000),
        });
        let cloud = self.processes[self.below(2)].cloud.clone();
        let admin = self.tenants[tenant].admin.clone();
        cloud.set_limit(&admin, &subject, window, amount).await.expect("a limit is set");
        let limits = cloud.list_limits(&admin, Some(&subject)).await.expect("limits");
        let (limit, budget) = limits.into_iter().find(|(limit, _)| limit.window == window).expect("the limit that was set");
        assert_eq!(limit.amount, amount);
        let used = budget.settled.checked_add(budget.reserved).expect("simulated amounts are small");
        let reference = budget.reference;
        self.expected.ceilings.insert((reference.subject, window, reference.starts_at), amount.max(used));
        self.did("a limit is set");
    }

    pub(super) async fn remove_limit(&mut self) {
        let tenant = self.below(self.tenants.len());
        let admin = self.tenants[tenant].admin.clone();
        let cloud = self.processes[self.below(2)].cloud.clone();
        let limits = cloud.list_limits(&admin, None).await.expect("limits");
        let Some((limit, _)) = self.pick(&limits) else { return };
        let subject = LimitSubject::parse(&limit.subject).expect("a subject");
        cloud.remove_limit(&admin, &subject, limit.window).await.expect("a limit is removed");
        self.expected.ceilings.retain(|(subject, window, _), _| *subject != limit.subject || *window != limit.window);
        self.did("a limit is removed");
    }

    /// A version with other prices, from now or from soon on. The other process hears of it later.
    pub(super) async fn publish_prices(&mut self) {
        let process = self.below(2);
        let cloud = self.processes[process].cloud.clone();
        let lists = cloud.prices().snapshot();
        let ids: Vec<&PriceListId> = lists.keys().collect();
        let list = &lists[*self.pick(&ids).expect("a list")];
        if list.versions().len() >= VERSIONS_MAX {
            return;
        }
        let now = self.now();
        let effective_at = if self.chance(3) { now.plus(DurationMs::from_seconds(self.number(1, 7_200))) } else { now };
        let factor = self.number(50, 200);
        let last = list.versions().last().expect("a version");
        let entries = last.entries().map(|entry| self.changed(entry, factor)).collect();
        let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at, entries };
        let result = cloud.publish_prices(&Call::once(Actor::system()), &list.name, draft, now).await;
        // Another process published a later one, or the clock was set back behind the last.
        let allowed = [ErrorCode::InvalidPrice, ErrorCode::Conflict];
        if self.settle_for("publishing prices", result.map(|_| ()), &allowed).is_some() {
            self.did("prices are published");
        }
    }

    fn changed(&self, entry: &PriceEntry, percent: i64) -> PriceEntry {
        let PriceModel::PerUnit { price } = &entry.model else { return entry.clone() };
        let scaled = (price.get() * percent / 100).clamp(1_000, 20_000_000_000);
        PriceEntry { model: PriceModel::PerUnit { price: Nanos::new(scaled) }, ..entry.clone() }
    }

    pub(super) async fn create_key(&mut self) {
        let tenant = self.below(self.tenants.len());
        if self.tenants[tenant].keys.len() >= KEYS_MAX {
            return;
        }
        let project = match self.chance(4) {
            true => self.create_project(tenant).await,
            false => self.pick(&self.tenants[tenant].projects).expect("a project").clone(),
        };
        let process = self.below(2);
        self.add_key(process, tenant, &project).await;
        self.did("a key is created");
    }

    pub(super) async fn create_project(&mut self, tenant: usize) -> ProjectId {
        let name = format!("project {}", self.next_number());
        let call = Call::once(self.tenants[tenant].admin.clone());
        let project = created(self.processes[0].cloud.create_project(&call, &name, &|_| Ok(String::new())).await);
        self.tenants[tenant].projects.push(project.id.clone());
        project.id
    }

    pub(super) async fn add_key(&mut self, process: usize, tenant: usize, project: &ProjectId) {
        let new = NewKey { name: "key".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
        let call = Call::once(self.tenants[tenant].admin.clone());
        let made = created(self.processes[process].cloud.create_project_key(&call, project, &new).await);
        let organization = self.tenants[tenant].id.clone();
        let actor = Actor {
            plane: KeyPlane::Project,
            scope: Scope::Project { organization, project: project.clone() },
            key: Some(made.key.id.clone()),
            address: String::new(),
        };
        self.tenants[tenant].keys.push(KeyHolder { id: made.key.id, secret: made.secret, actor, revoked: false });
    }

    pub(super) async fn revoke_key(&mut self) {
        let (tenant, key) = self.some_key();
        // One key of each tenant stays.
        if key == 0 {
            return;
        }
        let (admin, id) = (self.tenants[tenant].admin.clone(), self.tenants[tenant].keys[key].id.clone());
        let process = self.below(2);
        self.processes[process].cloud.revoke_key(&admin, &id).await.expect("a key is revoked");
        self.tenants[tenant].keys[key].revoked = true;
        self.did("a key is revoked");
    }

    pub(super) async fn close_months(&mut self) {
        let process = self.below(2);
        let expired = self.processes[process].cloud.expire_credit().await.expect("credit that is over is looked for");
        if expired > 0 {
            self.did("credit expires");
        }
        let report = self.processes[process].cloud.close_months().await.expect("months are looked at");
        assert_eq!(report.failed, 0, "every month that is over can be closed");
        if report.issued > 0 {
            self.did("invoices are issued");
        }
    }

    pub(super) async fn draft_invoice(&mut self) {
        let (tenant, process) = (self.below(self.tenants.len()), self.below(2));
        let periods: Vec<_> = self.tenants[tenant].periods.iter().copied().collect();
        let period = *self.pick(&periods).expect("a month");
        self.check_invoice(process, tenant, period).await;
        self.did("an invoice is drafted");
    }
}
