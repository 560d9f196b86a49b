//! Customers of all notice classes: they buy, go on, cancel, give back early, and run out of credit.

use sublet_cloud::Actor;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::quote::NewQuote;
use sublet_core::id::LeaseId;
use sublet_core::job::OnEnd;
use sublet_core::lease::{EndReason, Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Error, ErrorCode, Nanos, Result};
use sublet_store::lease::Lease;

use crate::days::Days;
use crate::site::{Look, POOLS, UNIT, wanted, work};

/// How often a class is asked for, of a hundred.
const WANTED: [(NoticeClass, u64); 6] = [
    (NoticeClass::N0, 34),
    (NoticeClass::N2m, 26),
    (NoticeClass::N15m, 18),
    (NoticeClass::N1h, 12),
    (NoticeClass::N24h, 6),
    (NoticeClass::Firm, 4),
];
/// What each customer pays in on a day, in whole units of the currency. The last often runs out.
const DAILY: [i64; 4] = [600, 300, 200, 9];
const MINUTE: u32 = 60;
const HOUR: u32 = 3_600;

impl Days<'_> {
    pub async fn pay_in(&self) {
        for (customer, units) in self.site.customers.iter().zip(DAILY) {
            let organization = customer.organization().expect("an account");
            self.site.pay_in(organization, Nanos::new(units * UNIT)).await;
        }
        let team = self.site.team.organization().expect("an account");
        self.site.pay_in(team, Nanos::new(5_000 * UNIT)).await;
    }

    pub async fn follow_customers(&mut self) {
        for _ in 0..self.dice.below(6) {
            self.buy().await;
        }
        let look = self.site.look().await;
        if self.dice.one_in(4) {
            self.cancel(&look).await;
        }
        self.go_on(&look).await;
        self.yield_some(&look).await;
    }

    fn draw_class(&self) -> NoticeClass {
        let mut drawn = self.dice.below(100);
        for (class, weight) in WANTED {
            if drawn < weight {
                return class;
            }
            drawn -= weight;
        }
        NoticeClass::N0
    }

    fn draw_work(&self, notice: NoticeClass) -> String {
        let seconds = match notice {
            NoticeClass::N0 | NoticeClass::N2m => self.dice.number(10 * MINUTE, 8 * HOUR),
            NoticeClass::N15m | NoticeClass::N1h => self.dice.number(HOUR, 20 * HOUR),
            NoticeClass::N24h => self.dice.number(20 * HOUR, 70 * HOUR),
            NoticeClass::Firm => self.dice.number(150 * HOUR, 220 * HOUR),
        };
        let manners = match self.dice.below(8) {
            0 => format!(" --end-on-notice {}", self.dice.number(1, 90)),
            1 => " --ignore-signals".to_owned(),
            2 => " --exit 3".to_owned(),
            _ => String::new(),
        };
        format!("--seconds {seconds}{manners}")
    }

    fn draw_quote(&self, notice: NoticeClass) -> NewQuote {
        let index = usize::try_from(self.dice.below(3)).expect("small") % POOLS.len();
        let units = if notice == NoticeClass::Firm { 1 } else { self.dice.number(1, 5) };
        let max_duration = match notice {
            NoticeClass::Firm => Some(DurationMs::from_hours(8 * 24)),
            NoticeClass::N24h => self.dice.one_in(2).then_some(DurationMs::from_hours(48)),
            _ => self.dice.one_in(6).then_some(DurationMs::from_hours(5)),
        };
        let max_cost = self.dice.one_in(7).then_some(Nanos::new(20 * UNIT));
        NewQuote { max_duration, max_cost, ..wanted(index, units, notice) }
    }

    /// By one call, or by a quote that is looked at first.
    async fn buy(&mut self) {
        let customer = self.dice.pick(&self.site.customers).expect("there are some").clone();
        let notice = self.draw_class();
        let (quote, arguments) = (self.draw_quote(notice), self.draw_work(notice));
        let on_end = if self.dice.one_in(5) { OnEnd::KeepLease } else { OnEnd::EndLease };
        self.figures.wanted += 1;
        let bought = match self.dice.one_in(2) {
            true => self.site.run(&customer, quote, work(&arguments, on_end)).await.map(|run| run.lease.lease),
            false => self.quote_and_take(&customer, &quote, (&arguments, on_end)).await,
        };
        match bought {
            Ok(lease) => *self.figures.bought.entry(lease.notice).or_default() += 1,
            Err(error) => {
                assert_is_refusal(&error);
                *self.figures.refused.entry(error.code().as_str()).or_default() += 1;
            }
        }
    }

    async fn quote_and_take(&self, customer: &Actor, new: &NewQuote, (arguments, on_end): (&str, OnEnd)) -> Result<Lease> {
        let (compute, call) = (self.site.compute(), Call::once(customer.clone()));
        let Answer::New(quote) = compute.create_quote(&call, new, &|_| Ok(String::new())).await? else { panic!("it is new") };
        let call = Call::once(customer.clone());
        let taken = compute.accept_quote(&call, &quote.id, &quote.metadata, &|_| Ok(String::new())).await?;
        let Answer::New(taken) = taken else { panic!("it is new") };
        let call = Call::once(customer.clone());
        compute.create_job(&call, &taken.lease.id, &work(arguments, on_end), &|_| Ok(String::new())).await?;
        Ok(taken.lease)
    }

    fn holder_of(&self, lease: &Lease) -> Option<&Actor> {
        self.site.customers.iter().find(|actor| actor.organization().is_ok_and(|own| *own == lease.organization))
    }

    async fn cancel(&mut self, look: &Look) {
        let theirs: Vec<&Lease> = look.leases.iter().filter(|lease| lease.holder == Holder::External).collect();
        let Some(lease) = self.dice.pick(&theirs) else { return };
        let Some(holder) = self.holder_of(lease) else { return };
        self.site.compute().end_lease(holder, &lease.id, None).await.expect("it ends");
        self.figures.cancelled += 1;
    }

    /// A lease that was kept gets its next job, or was not needed any more.
    async fn go_on(&mut self, look: &Look) {
        let idle =
            |lease: &&Lease| lease.holder == Holder::External && lease.state == LeaseState::Active && lease.unused_since.is_some();
        for lease in look.leases.iter().filter(idle) {
            let Some(holder) = self.holder_of(lease).cloned() else { continue };
            if self.dice.one_in(3) {
                continue;
            }
            let next = work(&self.draw_work(NoticeClass::N2m), OnEnd::KeepLease);
            match self.site.compute().create_job(&Call::once(holder), &lease.id, &next, &|_| Ok(String::new())).await {
                Ok(_) => self.figures.extended += 1,
                Err(error) => assert_is_refusal(&error),
            }
        }
    }

    async fn yield_some(&mut self, look: &Look) {
        let told = |lease: &&Lease| matches!(lease.state, LeaseState::Ending { reason: EndReason::Reclaimed, .. });
        let told: Vec<LeaseId> = look.leases.iter().filter(told).map(|lease| lease.id.clone()).collect();
        for id in told {
            let lease = look.leases.iter().find(|lease| lease.id == id).expect("it is one of them");
            let Some(holder) = self.holder_of(lease) else { continue };
            if self.dice.one_in(4) {
                self.site.compute().yield_lease(holder, &id).await.expect("given back");
                self.yielded.insert(id);
            }
        }
    }
}

fn assert_is_refusal(error: &Error) {
    let known = [
        ErrorCode::CapacityUnavailable,
        ErrorCode::InsufficientQuota,
        ErrorCode::PriceAboveMaximum,
        // A kept lease ended between the look and the call.
        ErrorCode::Conflict,
    ];
    assert!(known.contains(&error.code()), "{error:?}");
}
