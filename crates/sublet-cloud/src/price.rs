//! The price book: all published versions, in memory, immutable, and the versions that contracts have of their own as far
//! as they hold now or later. Older ones of those are read when a charge names them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};

use sublet_core::admission::{PriceVersion, TokenPrices};
use sublet_core::id::{OrganizationId, PriceListId};
use sublet_core::tier::ServiceTier;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Result, Timestamp};
use sublet_money::price_book::{PriceList, PriceListDraft, PriceListVersion};
use sublet_money::sku::ModelName;
use sublet_store::Tx;
use sublet_store::change::{self, Subject};
use sublet_store::contract_price;
use sublet_store::price::StoredPriceVersion;

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::{Action, Cloud, price_index};

/// Most versions by contract that are kept in memory though they hold no more.
const EARLIER_MAX: usize = 64;

/// Published price lists. One list per currency is the public one: the first published in it.
#[derive(Default)]
pub struct PriceBook {
    edition: RwLock<Edition>,
    /// Versions by contract that were asked for and hold no more, the newest last.
    earlier: RwLock<VecDeque<Arc<PriceListVersion>>>,
}

/// The lists as they were when prices had changed `number` times.
#[derive(Clone, Default)]
struct Edition {
    number: i64,
    lists: Arc<BTreeMap<PriceListId, PriceList>>,
    by_contract: Arc<ContractLists>,
}

/// What accounts pay by contract, now and later.
#[derive(Default)]
struct ContractLists {
    /// In the order of their instants; no two hold at once.
    stretches: BTreeMap<OrganizationId, Vec<ContractStretch>>,
    versions: BTreeMap<PriceVersion, Arc<PriceListVersion>>,
}

struct ContractStretch {
    starts_at: Timestamp,
    ends_at: Option<Timestamp>,
    version: Arc<PriceListVersion>,
}

/// How long after it was admitted a request may ask for its price.
const ASKED_AFTER: DurationMs = DurationMs::from_hours(1);

impl ContractLists {
    fn find_at(&self, organization: &OrganizationId, at: Timestamp) -> Option<&Arc<PriceListVersion>> {
        let stretches = self.stretches.get(organization)?;
        let begun = stretches.partition_point(|stretch| stretch.starts_at <= at);
        let last = stretches.get(begun.checked_sub(1)?)?;
        last.ends_at.is_none_or(|end| at < end).then_some(&last.version)
    }

    /// Reads what holds, of what was not read before.
    async fn read(tx: &mut Tx, now: Timestamp, before: &Self) -> Result<Self> {
        let mut lists = Self::default();
        // What was admitted just before an end may ask just after it.
        for stretch in contract_price::live(tx, now.minus(ASKED_AFTER)).await? {
            let version = match before.versions.get(&stretch.version) {
                Some(known) => known.clone(),
                None => Arc::new(contract_price::of_hash(tx, &stretch.version).await?.ok_or_else(|| unknown(&stretch.version))?),
            };
            lists.versions.insert(stretch.version, version.clone());
            let (starts_at, ends_at) = (stretch.starts_at, stretch.ends_at);
            lists.stretches.entry(stretch.organization).or_default().push(ContractStretch { starts_at, ends_at, version });
        }
        Ok(lists)
    }
}

fn unknown(version: &PriceVersion) -> Error {
    Error::new(ErrorCode::UnknownPrice, format!("there is no price-list version {}", version.0))
}

impl PriceBook {
    /// Reads all versions again if any were published since they were last read.
    pub(crate) async fn follow(&self, tx: &mut Tx, number: i64, now: Timestamp) -> Result<()> {
        if number <= self.edition().number {
            return Ok(());
        }
        let stored = sublet_store::price::list(tx).await?;
        let mut versions: BTreeMap<PriceListId, (String, Currency, Vec<Arc<PriceListVersion>>)> = BTreeMap::new();
        for version in stored {
            let parsed = PriceListVersion::from_canonical(&version.body, &PriceVersion(version.version.as_str().into()))?;
            let entry =
                versions.entry(version.list.clone()).or_insert_with(|| (version.name.clone(), parsed.currency(), Vec::new()));
            entry.2.push(Arc::new(parsed));
        }
        let mut lists = BTreeMap::new();
        for (id, (name, currency, versions)) in versions {
            lists.insert(id.clone(), PriceList::restore(id, name, currency, versions)?);
        }
        let by_contract = ContractLists::read(tx, now, &self.edition().by_contract).await?;
        let mut edition = self.edition.write().unwrap_or_else(PoisonError::into_inner);
        if edition.number < number {
            *edition = Edition { number, lists: Arc::new(lists), by_contract: Arc::new(by_contract) };
        }
        Ok(())
    }

    fn edition(&self) -> Edition {
        self.edition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All lists as they are now.
    pub fn snapshot(&self) -> Arc<BTreeMap<PriceListId, PriceList>> {
        self.edition().lists
    }

    /// The public list in a currency.
    pub fn public(&self, currency: Currency) -> Result<PriceList> {
        public_in(&self.edition(), currency).cloned()
    }

    /// The public version in force in a currency.
    pub fn in_force(&self, currency: Currency, at: Timestamp) -> Result<Arc<PriceListVersion>> {
        public_in(&self.edition(), currency)?.at(at).cloned()
    }

    /// The version in force for an account: its contract's, or the public one. By contract it knows what holds now and
    /// later, and not what held before.
    pub fn in_force_for(
        &self,
        (organization, currency): (&OrganizationId, Currency),
        at: Timestamp,
    ) -> Result<Arc<PriceListVersion>> {
        let edition = self.edition();
        match edition.by_contract.find_at(organization, at) {
            Some(version) => Ok(version.clone()),
            None => public_in(&edition, currency)?.at(at).cloned(),
        }
    }

    /// A version by its hash, whether in force or not.
    pub fn get(&self, version: &PriceVersion) -> Result<Arc<PriceListVersion>> {
        let edition = self.edition();
        let public = edition.lists.values().flat_map(PriceList::versions).find(|known| known.version() == version);
        if let Some(known) = public.or_else(|| edition.by_contract.versions.get(version)) {
            return Ok(known.clone());
        }
        let earlier = self.earlier.read().unwrap_or_else(PoisonError::into_inner);
        earlier.iter().find(|known| known.version() == version).cloned().ok_or_else(|| unknown(version))
    }

    fn keep(&self, version: &Arc<PriceListVersion>) {
        let mut earlier = self.earlier.write().unwrap_or_else(PoisonError::into_inner);
        if earlier.len() >= EARLIER_MAX {
            earlier.pop_front();
        }
        earlier.push_back(version.clone());
    }

    /// An account's prices of one model's tokens at one tier for what is admitted at an instant.
    pub fn token_prices(
        &self,
        account: (&OrganizationId, Currency),
        (model, tier): (&str, ServiceTier),
        at: Timestamp,
    ) -> Result<TokenPrices> {
        let name: ModelName = model.parse()?;
        self.in_force_for(account, at)?.token_prices(&name, tier, at)
    }
}

fn public_in(edition: &Edition, currency: Currency) -> Result<&PriceList> {
    edition.lists.values().find(|list| list.currency == currency).ok_or_else(|| {
        Error::new(ErrorCode::UnknownPrice, format!("there is no price list in {currency}"))
            .alternative("the operator publishes one in this currency")
    })
}

impl Cloud {
    /// Publishes a version. It takes over at its `effective_at`, which `now` may be the very instant of;
    /// what was admitted before keeps its price. A repeat of the call gets the hash of the version.
    pub async fn publish_prices(
        &self,
        call: &Call,
        name: &str,
        draft: PriceListDraft,
        now: Timestamp,
    ) -> Result<Answer<Arc<PriceListVersion>>> {
        call.actor.require(Action::ManagePrices)?;
        let version = Arc::new(PriceListVersion::new(draft)?);
        let render = |version: &Arc<PriceListVersion>| Ok(version.version().0.to_string());
        let answer = self
            .once(call, &render, (self, &call.actor, name, version), move |(cloud, actor, name, version), tx| {
                Box::pin(async move {
                    cloud.follow_changes(tx).await?;
                    price_index::check_indexes(tx, version).await?;
                    let (list, stored) = cloud.next_version(name, version, now)?;
                    sublet_store::price::insert(tx, &stored).await?;
                    cloud.plan_all_contract_prices(tx, &list, now).await?;
                    change::announce(tx, Subject::Prices).await?;
                    let detail =
                        format!("version {} number {} effective at {}", stored.version, stored.number, stored.effective_at);
                    let deed = Deed { organization: None, action: "price_list.publish", target: stored.list.as_str(), detail };
                    cloud.record(tx, actor, deed, now).await?;
                    Ok(version.clone())
                })
            })
            .await?;
        self.follow().await?;
        Ok(answer)
    }

    /// A version by its hash, even if another process published it a moment ago.
    pub(crate) async fn price_version(&self, tx: &mut Tx, version: &PriceVersion) -> Result<Arc<PriceListVersion>> {
        if let Ok(known) = self.prices.get(version) {
            return Ok(known);
        }
        self.follow_changes(tx).await?;
        if let Ok(known) = self.prices.get(version) {
            return Ok(known);
        }
        let earlier = Arc::new(contract_price::of_hash(tx, version).await?.ok_or_else(|| unknown(version))?);
        self.prices.keep(&earlier);
        Ok(earlier)
    }

    /// As [`PriceBook::get`], of every version that there ever was. Whoever asks has its hash from a charge.
    pub async fn find_prices(&self, version: &PriceVersion) -> Result<Arc<PriceListVersion>> {
        match self.prices.get(version) {
            Ok(known) => Ok(known),
            Err(_) => self.store.read((self, version), |(cloud, version), tx| Box::pin(cloud.price_version(tx, version))).await,
        }
    }

    /// Checks a version against the list it continues and numbers it.
    fn next_version(&self, name: &str, version: &Arc<PriceListVersion>, now: Timestamp) -> Result<(PriceList, StoredPriceVersion)> {
        let lists = self.prices.snapshot();
        let known = lists.get(version.list());
        let mut list =
            known.cloned().unwrap_or_else(|| PriceList::new(version.list().clone(), name.to_owned(), version.currency()));
        if known.is_none() && lists.values().any(|list| list.currency == version.currency()) {
            return Err(Error::new(ErrorCode::Conflict, format!("there is a price list in {} already", version.currency()))
                .alternative("publish a new version of that list"));
        }
        list.publish(version.clone(), now)?;
        let stored = StoredPriceVersion {
            list: version.list().clone(),
            number: i64::try_from(list.versions().len()).unwrap_or(i64::MAX),
            name: list.name.clone(),
            currency: version.currency().to_string(),
            version: version.version().0.to_string(),
            effective_at: version.effective_at(),
            body: version.canonical().to_owned(),
            created_at: now,
        };
        Ok((list, stored))
    }
}
