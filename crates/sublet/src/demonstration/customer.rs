//! What simulated customers do: they quote, lease, run, save their work, cancel, go on, and buy again.
//!
//! Each call is one of the API, with the customer's own key. A wish that nothing could be had for is over, as one is that
//! came up long ago. What this thread knows of older leases is lost with the process: they end by themselves.

use std::collections::{BTreeMap, VecDeque};

use sublet_api::client::{Client, IdempotencyKey};
use sublet_api::job::{CreateJob, OnEnd};
use sublet_api::lease::{CreateLease, Lease, LeaseStatus};
use sublet_api::object::Metadata;
use sublet_api::quote::CreateQuote;
use sublet_api::reclaim::DeclareCheckpoint;
use sublet_api::sku::SkuName;
use sublet_core::id::LeaseId;
use sublet_core::notice::NoticeClass;
use sublet_core::{Error, ErrorCode, Result};

use super::account::Accounts;
use super::wish::{CUSTOMERS, Habit, Wish, wishes};

/// Wishes that wait for their turn.
const WAITING_MAX: usize = 64;
/// A wish that is older is over.
const WISH_LIFE_S: i64 = 2 * 3_600;
/// Wishes that are followed and leases that are looked at in one turn.
const WISHES_PER_TURN: usize = 3;
const LOOKS_PER_TURN: usize = 6;
/// Leases that one buyer has at once.
const LEASES_EACH_MAX: usize = 6;
/// How often an interrupted piece of work is bought anew.
const AGAIN_MAX: u32 = 5;
/// Less than this is not worth another lease.
const WORTHWHILE_S: i64 = 900;
/// How often work is saved.
const SAVED_EVERY_S: i64 = 3_600;
/// A lease may last so much longer than its work: a start takes time.
const ROOM_S: i64 = 1_800;
/// How long simulated work goes on after its notice, in seconds.
const ENDS_ON_NOTICE: &str = "20";
const DAY_S: i64 = 86_400;

/// Who buys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Buyer {
    Customer(usize),
    /// The owner's own, on what an order took back.
    Team,
}

/// A wish on its way to a lease.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wanted {
    buyer: Buyer,
    wish: Wish,
    again: u32,
}

/// A lease that is looked after.
struct Running {
    wanted: Wanted,
    saved_s: i64,
    /// It was cancelled, or its successor bought.
    has_turned: bool,
}

/// The owner's launch: a team runs on a machine that was taken back.
pub struct Launch {
    pub name: String,
    pub at_s: i64,
    pub kind: String,
    pub units: u32,
    pub seconds: i64,
}

/// All customers, and the owner's team.
pub struct Customers {
    operator: Client,
    team: Client,
    seed: u64,
    drawn_s: i64,
    paid_day: Option<i64>,
    waiting: VecDeque<Wanted>,
    running: BTreeMap<LeaseId, Running>,
    looked: Option<LeaseId>,
}

impl Customers {
    /// They want what came up of late, too: after a restart the same calls find the same leases again.
    pub fn new((operator, team): (Client, Client), seed: u64, now_s: i64) -> Self {
        let (waiting, running) = (VecDeque::new(), BTreeMap::new());
        Self { operator, team, seed, drawn_s: now_s - WISH_LIFE_S, paid_day: None, waiting, running, looked: None }
    }

    pub fn operator(&self) -> &Client {
        &self.operator
    }

    pub fn launch(&mut self, launch: Launch) {
        let Launch { name, at_s, kind, units, seconds } = launch;
        let (notice, habit) = (NoticeClass::N15m, Habit::RunsThrough);
        let wish = Wish { name, at_s, kinds: vec![(kind, units)], notice, seconds, habit, turns_after_s: None };
        self.want(Wanted { buyer: Buyer::Team, wish, again: 0 });
    }

    /// Does what is due, as far as one turn goes.
    pub fn turn(&mut self, now_s: i64, accounts: &Accounts, is_over: &impl Fn() -> bool) {
        self.pay_in(now_s, accounts);
        for customer in 0..CUSTOMERS.len() {
            for wish in wishes(self.seed, customer, (self.drawn_s, now_s)) {
                self.want(Wanted { buyer: Buyer::Customer(customer), wish, again: 0 });
            }
        }
        self.drawn_s = self.drawn_s.max(now_s);
        self.waiting.retain(|wanted| now_s - wanted.wish.at_s < WISH_LIFE_S);
        for _ in 0..WISHES_PER_TURN {
            let Some(place) = self.waiting.iter().position(|wanted| wanted.wish.at_s <= now_s) else { break };
            let Some(wanted) = self.waiting.remove(place).filter(|_| !is_over()) else { break };
            self.follow_wish(wanted, now_s, accounts);
        }
        for _ in 0..LOOKS_PER_TURN {
            let next = self.looked.take().and_then(|last| self.running.keys().find(|id| **id > last));
            let Some(id) = next.or_else(|| self.running.keys().next()).cloned().filter(|_| !is_over()) else { break };
            self.look_after(&id, now_s, accounts);
            self.looked = Some(id);
        }
    }

    fn want(&mut self, wanted: Wanted) {
        if self.waiting.len() < WAITING_MAX {
            self.waiting.push_back(wanted);
        }
    }

    fn client<'a>(&'a self, buyer: Buyer, accounts: &'a Accounts) -> Option<&'a Client> {
        match buyer {
            Buyer::Customer(customer) => accounts.client(customer),
            Buyer::Team => Some(&self.team),
        }
    }

    fn pay_in(&mut self, now_s: i64, accounts: &Accounts) {
        let day = now_s.div_euclid(DAY_S);
        if self.paid_day.replace(day) == Some(day) {
            return;
        }
        for customer in 0..CUSTOMERS.len() {
            if let Err(error) = accounts.pay_in(&self.operator, customer, day) {
                tracing::debug!(?error, "a simulated customer could not pay in");
            }
        }
    }

    fn follow_wish(&mut self, wanted: Wanted, now_s: i64, accounts: &Accounts) {
        let has = self.running.values().filter(|running| running.wanted.buyer == wanted.buyer).count();
        let Some(client) = self.client(wanted.buyer, accounts).filter(|_| has < LEASES_EACH_MAX) else { return };
        match buy(client, &wanted) {
            Ok(lease) => {
                tracing::debug!(wish = wanted.wish.name, lease = %lease.id, "a simulated wish was met");
                self.running.insert(lease.id, Running { wanted, saved_s: now_s, has_turned: false });
            }
            Err(error) => tracing::debug!(wish = wanted.wish.name, ?error, "a simulated wish was not met"),
        }
    }

    fn look_after(&mut self, id: &LeaseId, now_s: i64, accounts: &Accounts) {
        let Some(running) = self.running.get(id) else { return };
        let Some(client) = self.client(running.wanted.buyer, accounts) else { return };
        let done = match client.lease(id) {
            Ok(lease) => self.attend(&lease, (client.clone(), now_s)),
            Err(error) if error.code() == ErrorCode::NotFound => {
                self.running.remove(id);
                Ok(())
            }
            Err(error) => Err(error),
        };
        if let Err(error) = done {
            tracing::debug!(lease = %id, ?error, "a simulated customer could not look after a lease");
        }
    }

    fn attend(&mut self, lease: &Lease, (client, now_s): (Client, i64)) -> Result<()> {
        let Some(running) = self.running.get_mut(&lease.id) else { return Ok(()) };
        let wish = running.wanted.wish.clone();
        let began_s = lease.starts_at.0.seconds();
        match lease.status {
            LeaseStatus::Ending => Ok(()),
            LeaseStatus::Ended => {
                let Some(over) = self.running.remove(&lease.id) else { return Ok(()) };
                let ran_s = lease.ended_at.map_or(0, |ended| ended.0.seconds() - began_s);
                if let Some(rest) = rest_of(&over, (began_s, ran_s), now_s) {
                    self.want(rest);
                }
                Ok(())
            }
            LeaseStatus::Active => {
                if wish.habit == Habit::BuysAgain && now_s - running.saved_s >= SAVED_EVERY_S {
                    client.declare_checkpoint(&lease.id, &DeclareCheckpoint::default())?;
                    running.saved_s = now_s;
                }
                let is_due = wish.turns_after_s.is_some_and(|after| now_s - began_s >= after) && !running.has_turned;
                if !is_due {
                    return Ok(());
                }
                running.has_turned = true;
                if wish.habit == Habit::Cancels {
                    return client.cancel_lease(&lease.id).map(|_| ());
                }
                let next = goes_on(&running.wanted, now_s);
                self.want(next);
                Ok(())
            }
        }
    }
}

/// Buys the kind that is wanted, or the first that will do and is there.
fn buy(client: &Client, wanted: &Wanted) -> Result<Lease> {
    let mut refused = Error::new(ErrorCode::CapacityUnavailable, "nothing is wanted");
    for kind in &wanted.wish.kinds {
        match buy_kind(client, &wanted.wish, kind) {
            Err(error) if error.code() == ErrorCode::CapacityUnavailable => refused = error,
            bought => return bought,
        }
    }
    Err(refused)
}

/// Quotes, leases, and starts the work.
fn buy_kind(client: &Client, wish: &Wish, (kind, units): &(String, u32)) -> Result<Lease> {
    let key = |call: &str| IdempotencyKey(format!("demonstration-{}-{kind}-{call}", wish.name));
    let asked = CreateQuote {
        sku: SkuName(kind.clone()),
        units: *units,
        notice: wish.notice,
        site: None,
        isolation: None,
        maximum_seconds: u64::try_from(wish.seconds + ROOM_S).ok(),
        maximum_cost: None,
        maximum_price: None,
        metadata: Metadata::default(),
    };
    let quote = client.create_quote(&asked, &key("quote"))?;
    let lease = client.create_lease(&CreateLease { quote: quote.id, metadata: Metadata::default() }, &key("lease"))?;
    let command = ["simulate", "--seconds", &wish.seconds.to_string(), "--end-on-notice", ENDS_ON_NOTICE];
    let body = CreateJob {
        lease: lease.id.clone(),
        command: command.map(str::to_owned).to_vec(),
        environment: BTreeMap::new(),
        files: Vec::new(),
        memory_bytes: None,
        disk_bytes: None,
        on_end: OnEnd::EndLease,
        restart: None,
        metadata: Metadata::default(),
    };
    client.create_job(&body, &key("job"))?;
    Ok(lease)
}

/// What an interruption left undone, if somebody wants it.
fn rest_of(over: &Running, (began_s, ran_s): (i64, i64), now_s: i64) -> Option<Wanted> {
    let Wanted { buyer, wish, again } = &over.wanted;
    let saved_s = (over.saved_s - began_s).clamp(0, ran_s);
    let left_s = wish.seconds - saved_s;
    let is_undone = ran_s < wish.seconds && left_s >= WORTHWHILE_S && wish.habit == Habit::BuysAgain && *again < AGAIN_MAX;
    is_undone.then(|| {
        let first = wish.name.split('+').next().unwrap_or(&wish.name);
        let name = format!("{first}+{}", again + 1);
        Wanted { buyer: *buyer, wish: Wish { name, at_s: now_s, seconds: left_s, ..wish.clone() }, again: again + 1 }
    })
}

/// The lease that follows one that is nearly over.
fn goes_on(wanted: &Wanted, now_s: i64) -> Wanted {
    let wish = &wanted.wish;
    let least_s = wish.notice.notice().map_or(WORTHWHILE_S, |notice| notice.millis() / 1_000);
    let seconds = (wish.seconds / 2).max(least_s);
    let name = format!("{}-on", wish.name);
    Wanted { wish: Wish { name, at_s: now_s, seconds, turns_after_s: None, ..wish.clone() }, ..wanted.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(habit: Habit) -> Wanted {
        let (kinds, notice, turns_after_s) = (vec![("h200".to_owned(), 4)], NoticeClass::N2m, None);
        let wish = Wish { name: "a-1".to_owned(), at_s: 0, kinds, notice, seconds: 20_000, habit, turns_after_s };
        Wanted { buyer: Buyer::Customer(1), wish, again: 0 }
    }

    fn over(wanted: Wanted, saved_s: i64) -> Running {
        Running { wanted, saved_s, has_turned: false }
    }

    #[test]
    fn what_is_bought_again_is_what_was_not_saved() {
        let first = rest_of(&over(wanted(Habit::BuysAgain), 1_000 + 7_200), (1_000, 9_000), 12_000).unwrap();
        assert_eq!((first.wish.seconds, first.wish.name.as_str(), first.wish.at_s), (12_800, "a-1+1", 12_000));
        let second = rest_of(&over(first, 12_000), (12_000, 100), 13_000).unwrap();
        assert_eq!((second.wish.seconds, second.wish.name.as_str(), second.again), (12_800, "a-1+2", 2));
    }

    #[test]
    fn nothing_is_bought_again_that_is_done_nearly_done_or_given_up() {
        assert_eq!(rest_of(&over(wanted(Habit::BuysAgain), 0), (0, 20_000), 20_000), None);
        assert_eq!(rest_of(&over(wanted(Habit::BuysAgain), 19_500), (0, 19_600), 20_000), None);
        assert_eq!(rest_of(&over(wanted(Habit::RunsThrough), 0), (0, 100), 20_000), None);
        let tired = Wanted { again: AGAIN_MAX, ..wanted(Habit::BuysAgain) };
        assert_eq!(rest_of(&over(tired, 0), (0, 100), 20_000), None);
    }
}
