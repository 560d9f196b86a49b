//! Use cases, authorization and reconcilers: one module per noun.
//!
//! A use case checks what its actor may do, decides with the pure crates and writes the effect,
//! its postings and its audit entry in one transaction of `sublet-store`. It implements the ports
//! through which the gateway asks for money and reports usage.
//!
//! Deliberately absent: SQL, HTTP, real time and randomness.
#![deny(clippy::float_arithmetic)]

pub mod actor;
pub mod archived_file;
pub mod attempt;
mod audit;
pub mod batch;
mod batch_aside;
pub mod batch_figures;
mod batch_input;
mod batch_output;
mod batch_pace;
mod batch_places;
mod batch_progress;
mod batch_reconciler;
mod batch_turns;
mod batch_validation;
pub mod billing;
pub mod bootstrap;
pub mod budget;
pub mod calendar;
mod checkpoint;
pub mod clock;
pub mod compensation;
pub mod compute;
pub mod compute_reconciler;
pub mod contract;
mod contract_drawdown;
mod contract_fee;
pub mod contract_price;
mod contract_use;
mod cover;
pub mod credit;
mod credit_lot;
pub mod demand;
pub mod demonstration;
pub mod device;
pub mod document;
mod drawdown_gift;
pub mod dunning;
mod early_credit;
pub mod export;
mod export_columns;
mod export_delivery;
mod export_rows;
pub mod export_schedule;
mod export_supporting;
pub mod fee;
pub mod file;
pub mod file_egress;
pub mod file_room;
mod file_storage;
pub mod forecast;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod hold;
pub mod idempotency;
mod idle_loop;
pub mod incoming_payment;
pub mod invoice;
mod invoice_mail;
pub mod job;
mod job_start;
pub mod key;
pub mod leakage;
pub mod lease;
mod lease_event;
pub mod lease_notice;
pub mod ledger;
pub mod licence;
pub mod limit;
pub mod lost_gateway;
pub mod machine;
pub mod mail;
pub mod margin;
pub mod model_card;
pub mod monthly_return;
pub mod offering;
pub mod organization;
pub mod payment;
mod payment_step;
pub mod payout;
mod placed_price;
mod plan_reconciler;
pub mod price;
pub mod price_index;
pub mod price_simulation;
pub mod project;
mod project_fee;
pub mod proof;
pub mod quote;
pub mod rate_limit;
pub mod reclaim;
pub mod refund;
pub mod remote_model;
pub mod rerate;
mod rerate_plan;
pub mod response;
pub mod restart;
pub mod revenue;
pub mod saved_card;
pub mod settlement;
mod settlement_cost;
pub mod slice;
pub mod spend;
pub mod spend_alert;
pub mod supplier;
pub mod supply_cost;
pub mod tax;
pub mod tax_report;
mod ticket;
mod told;
pub mod top_up;
pub mod top_up_rule;
mod unfilled;
pub mod usage;
pub mod user;
pub mod webhook;
pub mod why;

/// Plain data of the layers below that use cases take and give, for callers that know only this crate.
pub mod data {
    pub use sublet_capacity::estimate::demand::Step as DemandStep;
    pub use sublet_capacity::{
        Bucket, ClassTimes, HourFigures, Instead, KindFigures, Need, Order as ReclaimOrder, OrderedDevice, OrderedEnd, Pool,
        ReserveRule, SellingMode, TimeClass,
    };
    pub use sublet_money::account::{CreditKind, LedgerAccount};
    pub use sublet_money::advance::{AdvanceLine, FeeTerms};
    pub use sublet_money::backlog::BacklogMonth;
    pub use sublet_money::commitment::CommitmentLine;
    pub use sublet_money::committed_quantity::{OveragePrice, QuantityStep, QuantityTerms, QuantityUse};
    pub use sublet_money::compensation::{CompensationRule, CompensationRules};
    pub use sublet_money::contract::{Commitment, ContractTerms, Exit, ExitTerms, RenewalTerms};
    pub use sublet_money::contract_price::{Discount, Discounted, PriceProtection, PriceTerms};
    pub use sublet_money::credit_lot::{CreditScope, CreditTerms};
    pub use sublet_money::drawdown::{Billed, Drawdown};
    pub use sublet_money::dunning::{DunningPolicy, Reminded};
    pub use sublet_money::encoder::Format;
    pub use sublet_money::export::JournalFormat;
    pub use sublet_money::export_schedule::{Cadence, Coverage, ExportContent};
    pub use sublet_money::floor::{BelowCost, per_mille, per_unit};
    pub use sublet_money::focus::{DEFAULT_SELLER, FocusVersion};
    pub use sublet_money::forecast::{Forecast, ForecastMethod};
    pub use sublet_money::invoice::{Invoice, InvoiceContent, InvoiceLine, InvoiceState, Late};
    pub use sublet_money::invoice_text;
    pub use sublet_money::margin::{Costs, Figures, MarginLine, group_by};
    pub use sublet_money::party::{Address, BankAccount, Buyer, Contact, ElectronicAddress, Party, PaymentTerms, Seller};
    pub use sublet_money::period::{BillingCalendar, Interval, PeriodKey, PeriodLength};
    pub use sublet_money::price_book::{PriceEntry, PriceList, PriceListDraft, PriceListVersion};
    pub use sublet_money::price_index::{IndexName, Level, MarketPrice};
    pub use sublet_money::price_model::{PriceModel, Tier};
    pub use sublet_money::rating::RatedLine;
    pub use sublet_money::repricing::RepricedSku;
    pub use sublet_money::rerate::RerateNote;
    pub use sublet_money::sku::{DeviceKind, FeeName, ModelName, PricingUnit, Quantity, SkuFamily, SkuName, TokenKind};
    pub use sublet_money::spend_limit::{AlertBasis, AlertRule, AtLimit, Work};
    pub use sublet_money::supply_cost::{
        Depreciation, DeviceCost, EnergyPrice, HourlyCost, ModelCost, Power, SupplyCost, SupplyCostDraft, month_from,
        month_starts_at,
    };
    pub use sublet_money::tax::{BillingProfile, Exemption, SellerProfile, TaxRow, TaxTable, TaxTreatment};
    pub use sublet_money::tax_report::{TaxFigures, TaxKey, TaxPeriod, TaxSums};
    pub use sublet_money::time_of_use::{Band, TimeOfUse, Weekday, Window};
    pub use sublet_money::top_up_rule::{BelowThreshold, OnDay, TopUpDay, TopUpRule};
    pub use sublet_money::unfilled::{PricePoint, Unfilled, UnfilledReason, WeekPart};
    pub use sublet_money::zone::Zone;
    pub use sublet_store::attempt::Attempt;
    pub use sublet_store::audit::AuditEntry;
    pub use sublet_store::batch::{Batch, BatchQuote, LineCounts, Problem};
    pub use sublet_store::budget::{Budget, BudgetRef, BudgetWindow};
    pub use sublet_store::charge::{Charge, ChargeSummary};
    pub use sublet_store::compensation::{CompensationKind, StoredCompensation};
    pub use sublet_store::compensation_rule::StoredRules as StoredCompensationRules;
    pub use sublet_store::contract::{Contract, Offer, OfferState};
    pub use sublet_store::credit::CreditGrant;
    pub use sublet_store::credit_note::CreditNote;
    pub use sublet_store::demand::{Reported, StoredCurve};
    pub use sublet_store::device::{Device, DeviceSpan, Node};
    pub use sublet_store::dunning::{AccountDunning, OnSuspension};
    pub use sublet_store::export_schedule::{ExportRun, ExportSchedule};
    pub use sublet_store::fee::StoredFee;
    pub use sublet_store::file::File;
    pub use sublet_store::incoming_payment::{IncomingPayment, IncomingProblem, IncomingState};
    pub use sublet_store::invoice::InvoiceFilter;
    pub use sublet_store::job::{Job, JobFilter};
    pub use sublet_store::key::Key;
    pub use sublet_store::lease::{HoldBound, Lease};
    pub use sublet_store::ledger::StoredAccount;
    pub use sublet_store::licence::Acceptance;
    pub use sublet_store::limit::SpendLimit;
    pub use sublet_store::model_card::ModelCardRow;
    pub use sublet_store::offering::{Invitation, OfferingRow};
    pub use sublet_store::organization::Organization;
    pub use sublet_store::outbox::OutboxState;
    pub use sublet_store::page::Order;
    pub use sublet_store::payout::Payout;
    pub use sublet_store::price_index::{StoredIndex, StoredPoint};
    pub use sublet_store::project::Project;
    pub use sublet_store::quote::Quote;
    pub use sublet_store::rate_limit::RateLimit;
    pub use sublet_store::reclaim::{HeldDevice, StoredReclaim, StoredVictim};
    pub use sublet_store::refund::{Refund, RefundState};
    pub use sublet_store::remote_model::RemoteModelRow;
    pub use sublet_store::replica::ReplicaRow;
    pub use sublet_store::rerate::{RerateAccount, RerateAccountState, RerateState, RerateSums, StoredRerate};
    pub use sublet_store::saved_card::{SavedCard, SavedCardState};
    pub use sublet_store::spend_alert::SpendAlert;
    pub use sublet_store::supplier::{MarginRow, StoredCost};
    pub use sublet_store::supply_cost::StoredSupplyCost;
    pub use sublet_store::top_up::{TopUp, TopUpState};
    pub use sublet_store::top_up_rule::{StoredTopUpRule, TopUpRuleState};
    pub use sublet_store::usage::{UsageEvent, UsageSummary};
    pub use sublet_store::user::User;
    pub use sublet_store::webhook::{WebhookEndpoint, WebhookEvent, WebhookState};
    pub use sublet_store::{Page, PageRequest};
}

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use sublet_core::{Clock, DurationMs, IdMint, Result, Timestamp};
use sublet_store::{Store, Tx, change};

pub use actor::{Action, Actor};
pub use clock::{CloudSettings, TestClock};

use crate::price::PriceBook;

/// How soon a process knows what another changed, at the latest.
const FOLLOW_PERIOD: DurationMs = DurationMs::from_millis(500);

/// The cloud's state machine over one store. Cheap to clone; every process of a deployment has its own.
#[derive(Clone)]
pub struct Cloud {
    pub(crate) store: Store,
    pub(crate) ids: IdMint,
    pub(crate) prices: Arc<PriceBook>,
    pub(crate) remote_models: Arc<remote_model::RemoteModelBook>,
    access_epoch: Arc<AtomicU64>,
    /// How often access had changed when this process last looked.
    access_changes: Arc<AtomicI64>,
    pub(crate) tickets: Arc<ticket::Tickets>,
    pub(crate) sessions: Arc<lost_gateway::Sessions>,
    pub(crate) settings: CloudSettings,
}

impl Cloud {
    /// Reads what has to be in memory: price lists and remote models.
    pub async fn open(store: Store, ids: IdMint) -> Result<Self> {
        Self::open_with(store, ids, CloudSettings::default()).await
    }

    /// As [`Self::open`], with settings.
    pub async fn open_with(store: Store, ids: IdMint, settings: CloudSettings) -> Result<Self> {
        let cloud = Self {
            store,
            ids,
            prices: Arc::default(),
            remote_models: Arc::default(),
            access_epoch: Arc::new(AtomicU64::new(1)),
            access_changes: Arc::default(),
            tickets: Arc::default(),
            sessions: Arc::default(),
            settings,
        };
        cloud.follow().await?;
        Ok(cloud)
    }

    /// Takes over what other processes of the deployment changed and this one keeps in memory: price lists, remote
    /// models, and who has access. To be called all the time; it costs one read of three numbers.
    pub async fn follow(&self) -> Result<()> {
        self.store.read(self, |cloud, tx| Box::pin(cloud.follow_changes(tx))).await
    }

    /// Follows until `stop` says so, whatever else this process is busy with.
    pub async fn run_follower(&self, mut stop: tokio::sync::watch::Receiver<bool>) {
        while !*stop.borrow() {
            if let Err(error) = self.follow().await {
                tracing::warn!(%error, private = ?error, "what other processes changed could not be read; it is tried again");
            }
            if let Err(error) = self.note_gateways().await {
                tracing::warn!(%error, private = ?error, "that this gateway runs could not be noted; it is tried again");
            }
            tokio::select! {
                () = tokio::time::sleep(FOLLOW_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// As [`Self::follow`], before a transaction relies on it.
    pub(crate) async fn follow_changes(&self, tx: &mut Tx) -> Result<()> {
        let changes = change::read(tx).await?;
        if self.access_changes.fetch_max(changes.access, Ordering::AcqRel) < changes.access {
            self.access_changed();
        }
        self.remote_models.follow(tx, changes.models).await?;
        self.prices.follow(tx, changes.prices, self.now()).await
    }

    pub fn store(&self) -> &Store {
        &self.store
    }
    pub fn ids(&self) -> &IdMint {
        &self.ids
    }
    pub fn clock(&self) -> &Arc<dyn Clock> {
        self.ids.clock()
    }
    pub fn prices(&self) -> &PriceBook {
        &self.prices
    }
    pub(crate) fn now(&self) -> Timestamp {
        self.ids.clock().now()
    }
    /// Grows with every change of a key, so that caches of access are checked again.
    pub(crate) fn epoch(&self) -> u64 {
        self.access_epoch.load(Ordering::Acquire)
    }
    /// Called after a change of a key or project was committed.
    pub(crate) fn access_changed(&self) {
        self.access_epoch.fetch_add(1, Ordering::AcqRel);
    }
}
