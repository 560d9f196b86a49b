//! Slices: what the gateway admits with. Implements the gateway's port.

use std::sync::Arc;

use sublet_core::admission::{
    Access, Admission, SliceClosed, SliceGrant, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenPrices,
};
use sublet_core::id::{GatewayId, KeyId, OrganizationId, ProjectId, SliceId};
use sublet_core::key::Secret;
use sublet_core::rate::{DrawRequest, Drawn};
use sublet_core::tier::ServiceTier;
use sublet_core::{BoxFuture, Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::sku::SkuFamily;
use sublet_money::spend_limit::Work;
use sublet_store::budget::{self, Budget, BudgetRef};
use sublet_store::organization::Organization;
use sublet_store::slice::{self, Slice};
use sublet_store::{Tx, key, ledger, organization, top_up_rule};

use crate::Cloud;
use crate::budget::periods_at;
use crate::credit_lot::{StoredCredit, put_back};

/// What slices pay for.
const FAMILY: SkuFamily = SkuFamily::ModelTokens;

/// The port a gateway talks to: the cloud on behalf of one gateway.
#[derive(Clone)]
pub struct GatewayPort {
    cloud: Cloud,
    gateway: GatewayId,
}

impl GatewayPort {
    pub fn new(cloud: Cloud, gateway: GatewayId) -> Self {
        Self { cloud, gateway }
    }
}

impl Admission for GatewayPort {
    fn authenticate<'a>(&'a self, secret: &'a Secret) -> BoxFuture<'a, Result<Arc<Access>>> {
        Box::pin(self.cloud.access_of(secret))
    }
    fn access_epoch(&self) -> u64 {
        self.cloud.epoch()
    }
    fn prices(&self, access: &Access, (model, tier): (&str, ServiceTier), at: Timestamp) -> Result<Arc<TokenPrices>> {
        self.cloud.prices.token_prices((&access.organization, access.currency), (model, tier), at).map(Arc::new)
    }
    fn public_prices(&self, access: &Access, (model, tier): (&str, ServiceTier), at: Timestamp) -> Result<Arc<TokenPrices>> {
        self.cloud.prices.in_force(access.currency, at)?.token_prices(&model.parse()?, tier, at).map(Arc::new)
    }
    fn price_range(&self, access: &Access, (model, tier): (&str, ServiceTier), at: Timestamp) -> Result<[TokenPrices; 2]> {
        let version = self.cloud.prices.in_force_for((&access.organization, access.currency), at)?;
        version.token_price_range(&model.parse()?, tier, at)
    }
    fn grant_slice(&self, request: SliceRequest) -> BoxFuture<'_, Result<SliceGrant>> {
        Box::pin(async move {
            // A refusal is committed: it is noted that a limit was reached, if nothing else is tried.
            self.cloud.store.write((&self.cloud, request), |(cloud, request), tx| Box::pin(cloud.grant_slice(tx, request))).await?
        })
    }
    fn draw_limits(&self, request: DrawRequest) -> BoxFuture<'_, Result<Vec<Drawn>>> {
        Box::pin(self.cloud.draw_limits(request))
    }
    fn return_slice(&self, request: SliceReturn) -> BoxFuture<'_, Result<SliceClosed>> {
        Box::pin(async move {
            self.cloud
                .store
                .write((self, request), |(port, request), tx| Box::pin(port.cloud.return_slice(tx, &port.gateway, request)))
                .await
        })
    }
}

/// Where the money of a grant comes from, and how much there is.
struct Source {
    organization: Organization,
    budgets: Vec<Budget>,
    credit: StoredCredit,
    now: Timestamp,
}

/// A grant, or the refusal that is to be told.
type Granted = Result<SliceGrant, Error>;

/// What is granted, and whether the slice goes beyond a limit with it.
struct Part {
    amount: Nanos,
    work: Work,
    closed_to_new: Option<Error>,
}

impl Source {
    /// What could be granted at most; never negative.
    fn headroom(&self, work: Work) -> Result<Nanos> {
        let credit = self.credit.credit.spendable(FAMILY, self.now)?;
        Ok(self.budgets.iter().map(|budget| budget.room(work)).fold(credit, Nanos::min))
    }
    /// The refusal that names what is too tight.
    fn refusal(&self, needed: Nanos, work: Work) -> Result<Error> {
        let tight = self.budgets.iter().filter(|budget| budget.room(work) < needed);
        if let Some(budget) = tight.min_by_key(|budget| budget.room(work)) {
            return Ok(budget::exhausted(budget, needed));
        }
        let left = self.headroom(work)?;
        let currency = self.organization.currency;
        Ok(Error::new(ErrorCode::InsufficientQuota, format!("the credit is used up: {needed} {currency} needed, {left} left"))
            .alternative("add credit to the organization's account"))
    }
    /// At most half of what is left, so that one key does not keep the others from it; at least what is needed. What was
    /// admitted gets of what is for finishing only when the limit itself gives no more.
    fn part(&self, request: &SliceRequest) -> Result<Result<Part, Error>> {
        let least = request.least;
        let of = |headroom: Nanos| request.wanted.min(Nanos::new(headroom.get() / 2)).max(least);
        let headroom = self.headroom(Work::New)?;
        if least <= headroom {
            return Ok(Ok(Part { amount: of(headroom), work: Work::New, closed_to_new: None }));
        }
        if matches!(request.slice, SliceTarget::Finish(_)) {
            let headroom = self.headroom(Work::Admitted)?;
            if least <= headroom {
                let closed_to_new = Some(self.refusal(least, Work::New)?);
                return Ok(Ok(Part { amount: of(headroom), work: Work::Admitted, closed_to_new }));
            }
            return Ok(Err(self.refusal(least, Work::Admitted)?));
        }
        Ok(Err(self.refusal(least, Work::New)?))
    }
    /// The same; a refusal that nothing follows is noted with the limits that it comes from, and wakes the account's rule
    /// for top-ups.
    async fn part_or_note(&self, tx: &mut Tx, request: &SliceRequest) -> Result<Result<Part, Error>> {
        let part = self.part(request)?;
        if part.is_err() && request.is_final {
            self.note_reached(tx, request.least).await?;
            top_up_rule::wake(tx, &self.organization.id, self.now).await?;
        }
        Ok(part)
    }
    /// Notes which limits were reached by something that needs so much. After what is reserved: rows are locked in one order.
    async fn note_reached(&self, tx: &mut Tx, needed: Nanos) -> Result<()> {
        for budget in self.budgets.iter().filter(|budget| budget.reached_at.is_none() && budget.room(Work::New) < needed) {
            budget::mark_reached(tx, &budget.reference, self.now).await?;
        }
        Ok(())
    }
    fn references(&self) -> Vec<BudgetRef> {
        self.budgets.iter().map(|budget| budget.reference.clone()).collect()
    }
    /// The first instant at which one of the budgets starts anew.
    fn window_ends_at(&self) -> Option<Timestamp> {
        self.budgets.iter().filter_map(|budget| budget.ends_at).min()
    }
}

impl Cloud {
    /// A gateway's new session; what earlier sessions hold is fenced off.
    pub async fn start_gateway(&self, gateway: &GatewayId) -> Result<i64> {
        let now = self.now();
        let fence = self.store.write(gateway, move |gateway, tx| Box::pin(slice::start_gateway(tx, gateway, now))).await?;
        self.sessions.started(gateway, fence, now);
        Ok(fence)
    }

    async fn grant_slice(&self, tx: &mut Tx, request: &SliceRequest) -> Result<Granted> {
        if slice::find_fence(tx, &request.gateway).await? != Some(request.fence) {
            return Err(Error::new(ErrorCode::Conflict, "another session of this gateway has taken over"));
        }
        self.follow_changes(tx).await?;
        match &request.slice {
            SliceTarget::Extend(id) | SliceTarget::Finish(id) => self.extend_slice(tx, request, id).await,
            SliceTarget::Open(id) => match slice::find(tx, &request.gateway, id).await? {
                None => self.open_slice(tx, request, id).await,
                Some(known) => self.answer_again(tx, request, &known).await,
            },
        }
    }

    /// The answer of a grant that got lost on its way: what the slice has, or that and what is still needed.
    async fn answer_again(&self, tx: &mut Tx, request: &SliceRequest, slice: &Slice) -> Result<Granted> {
        let granted = slice.granted.total()?;
        let is_fresh = slice.open && !slice.lost && slice.fence == request.fence && slice.key == request.key && slice.records == 0;
        if is_fresh && granted >= request.least {
            live_owner(tx, &request.key, self.now()).await?;
            let (id, window_ends_at) = (slice.id.clone(), slice.window_ends_at);
            let added = granted;
            return Ok(Ok(SliceGrant { slice: id, added, granted, window_ends_at, available: None, closed_to_new: None }));
        }
        // Closed, it is refused as every closed slice is.
        let short = request.least.checked_sub(granted)?.max(Nanos::ZERO);
        let rest = SliceRequest { least: short, wanted: request.wanted.checked_sub(granted)?.max(short), ..request.clone() };
        self.extend_slice(tx, &rest, &slice.id).await
    }

    /// What a key could spend if nothing else were going on: its limits and the credit, without regard to
    /// what is reserved at the moment. An estimate to refuse early with; money is held elsewhere.
    pub(crate) async fn affordable(&self, key: &KeyId) -> Result<Nanos> {
        let now = self.now();
        self.store
            .write((self, key), move |(cloud, key), tx| {
                Box::pin(async move {
                    let (owner, project) = live_owner(tx, key, now).await?;
                    let organization = organization::get(tx, &Scope::Operator, &owner).await?;
                    let periods = periods_at(&organization.time_zone, now)?;
                    let budgets =
                        budget::chain(tx, &[key.as_str(), project.as_str(), owner.as_str()], &SpendClass::default(), &periods)
                            .await?;
                    let in_slices = slice::open_total(tx, &owner).await?;
                    let most = (Nanos::new(i64::MAX), FAMILY);
                    let spendable = cloud.credit_for(tx, &organization, most, now).await?.credit.spendable(FAMILY, now)?;
                    let credit = spendable.checked_add(in_slices)?;
                    let free = budgets.iter().map(|budget| budget.at_limit.room(budget.amount, budget.settled, Work::New));
                    Ok(free.fold(credit, Nanos::min))
                })
            })
            .await
    }

    async fn open_slice(&self, tx: &mut Tx, request: &SliceRequest, id: &SliceId) -> Result<Granted> {
        let now = self.now();
        let (owner, project) = live_owner(tx, &request.key, now).await?;
        // Whoever begins something new has no access any more; a slice is for what runs.
        self.check_suspension(tx, &owner, Work::Admitted).await?;
        let organization = organization::get(tx, &Scope::Operator, &owner).await?;
        let periods = periods_at(&organization.time_zone, now)?;
        let budgets =
            budget::chain(tx, &[request.key.as_str(), project.as_str(), owner.as_str()], &request.class, &periods).await?;
        let credit = self.credit_for(tx, &organization, (request.wanted.max(request.least), FAMILY), now).await?;
        let source = Source { organization, budgets, credit, now };
        let Part { amount, work, closed_to_new } = match source.part_or_note(tx, request).await? {
            Ok(part) => part,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let burned = source.credit.burn(tx, amount, (FAMILY, now)).await?;
        let granted = burned.split()?;
        let slice = Slice {
            id: id.clone(),
            gateway: request.gateway.clone(),
            fence: request.fence,
            organization: owner,
            project,
            key: request.key.clone(),
            currency: source.organization.currency,
            granted,
            parts: burned.kept(),
            spent: Nanos::ZERO,
            records: 0,
            budgets: source.references(),
            window_ends_at: source.window_ends_at(),
            open: true,
            lost: false,
            opened_at: now,
        };
        budget::reserve(tx, &slice.budgets, amount, work).await?;
        slice::insert(tx, &slice).await?;
        self.post_slice(tx, &slice, &Fact::SliceGranted { from: granted }, now).await?;
        let available = Some(source.headroom(work)?.checked_sub(amount)?);
        let (slice, window_ends_at) = (slice.id, slice.window_ends_at);
        Ok(Ok(SliceGrant { slice, added: amount, granted: amount, window_ends_at, available, closed_to_new }))
    }

    async fn extend_slice(&self, tx: &mut Tx, request: &SliceRequest, id: &SliceId) -> Result<Granted> {
        let now = self.now();
        let found = slice::find(tx, &request.gateway, id).await?;
        let Some(slice) =
            found.filter(|slice| slice.open && !slice.lost && slice.fence == request.fence && slice.key == request.key)
        else {
            return Err(Error::new(ErrorCode::Conflict, format!("slice {id} is not open in this session")));
        };
        live_owner(tx, &request.key, now).await?;
        self.check_suspension(tx, &slice.organization, Work::Admitted).await?;
        let organization = organization::get(tx, &Scope::Operator, &slice.organization).await?;
        let mut budgets = Vec::with_capacity(slice.budgets.len());
        for reference in &slice.budgets {
            budgets.extend(budget::find(tx, reference).await?);
        }
        let credit = self.credit_for(tx, &organization, (request.wanted.max(request.least), FAMILY), now).await?;
        let source = Source { organization, budgets, credit, now };
        let Part { amount, work, closed_to_new } = match source.part_or_note(tx, request).await? {
            Ok(part) => part,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let added = source.credit.burn(tx, amount, (FAMILY, now)).await?;
        // The slice before its budgets, as settling and closing do.
        slice::extend(tx, &slice, &added).await?;
        budget::reserve(tx, &slice.budgets, amount, work).await?;
        if closed_to_new.is_some() {
            source.note_reached(tx, request.least).await?;
        }
        self.post_slice(tx, &slice, &Fact::SliceGranted { from: added.split()? }, now).await?;
        let granted = slice.granted.total()?.checked_add(amount)?;
        let available = Some(source.headroom(work)?.checked_sub(amount)?);
        let (slice, window_ends_at) = (slice.id, slice.window_ends_at);
        Ok(Ok(SliceGrant { slice, added: amount, granted, window_ends_at, available, closed_to_new }))
    }

    async fn return_slice(&self, tx: &mut Tx, gateway: &GatewayId, request: &SliceReturn) -> Result<SliceClosed> {
        let found = slice::find(tx, gateway, &request.slice).await?;
        let Some(slice) = found.filter(|slice| slice.fence == request.fence) else {
            return Err(Error::new(ErrorCode::Conflict, format!("slice {} is not of this session", request.slice)));
        };
        if !slice.open {
            return Ok(SliceClosed::Released(Nanos::ZERO));
        }
        if slice.records < request.records {
            return Ok(SliceClosed::Waiting);
        }
        self.close_slice(tx, &slice).await.map(SliceClosed::Released)
    }

    pub(crate) async fn close_slice(&self, tx: &mut Tx, slice: &Slice) -> Result<Nanos> {
        let now = self.now();
        if !slice::close(tx, slice, now).await? {
            return Ok(Nanos::ZERO);
        }
        let unspent = slice.unspent()?;
        let to = unspent.split()?;
        budget::release(tx, &slice.budgets, to.total()?).await?;
        put_back(tx, &unspent).await?;
        let fact = if slice.lost { Fact::SuspenseReleased { to } } else { Fact::SliceReturned { to } };
        self.post_slice(tx, slice, &fact, now).await?;
        to.total()
    }

    /// Closes the slices of this gateway's earlier sessions. Call it after their journal was settled
    /// whole: then everything that was served is known and the rest was never spent.
    pub async fn close_fenced_slices(&self, gateway: &GatewayId, fence: i64) -> Result<u64> {
        let mut closed = 0;
        loop {
            let step = self
                .store
                .write((self, gateway), move |(cloud, gateway), tx| {
                    Box::pin(async move {
                        let slices = slice::list_fenced(tx, gateway, fence).await?;
                        for slice in &slices {
                            cloud.close_slice(tx, slice).await?;
                        }
                        Ok(u64::try_from(slices.len()).unwrap_or(0))
                    })
                })
                .await?;
            if step == 0 {
                return Ok(closed);
            }
            closed += step;
        }
    }

    pub(crate) async fn post_slice(&self, tx: &mut Tx, slice: &Slice, fact: &Fact, now: Timestamp) -> Result<()> {
        let currency: Currency = slice.currency;
        let head = EntryHead { id: self.ids.mint(), at: now, currency, memo: format!("{} of {}", slice.id, slice.key) };
        ledger::post(tx, &post(head, &slice.organization, fact)?).await.map(|_| ())
    }
}

/// Whose key it is; an error if it works no more.
async fn live_owner(tx: &mut Tx, key: &KeyId, now: Timestamp) -> Result<(OrganizationId, ProjectId)> {
    let found = key::find(tx, &Scope::Operator, key).await?;
    let live = found.filter(|key| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now));
    live.and_then(|key| key.organization.zip(key.project))
        .ok_or_else(|| Error::new(ErrorCode::InvalidApiKey, "the key was revoked or has expired"))
}
