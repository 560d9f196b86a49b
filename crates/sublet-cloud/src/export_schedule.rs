//! Schedules of files for finance: what is delivered where, how often, and what became of it.
//!
//! Deliberately absent: changing a schedule. Another one takes its place, so that what a place has is of one kind.

use sublet_core::delivery::{FileName, Target};
use sublet_core::id::{ExportScheduleId, OrganizationId};
use sublet_core::{Error, ErrorCode, Result, Scope};
use sublet_money::export_schedule::{Cadence, ExportContent, ScheduleProgress};
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_store::export_schedule::{self, ExportRun, ExportSchedule};
use sublet_store::{Tx, organization};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::{Action, Actor, Cloud};

/// Months back that a schedule may begin with.
const MONTHS_BACK_MAX: u32 = 120;

/// What an operator wants delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewExportSchedule {
    /// Of all if `None`.
    pub organization: Option<OrganizationId>,
    pub content: ExportContent,
    pub cadence: Cadence,
    pub target: Target,
    /// The first month; the one that runs if `None`.
    pub from: Option<PeriodKey>,
}

impl NewExportSchedule {
    fn check(&self) -> Result<()> {
        let invalid = |param: &str, message: &str| Err(Error::new(ErrorCode::InvalidRequest, message).param(param));
        if self.content.has_months() {
            return Ok(());
        }
        match (self.cadence, &self.organization, self.from) {
            (Cadence::Monthly, _, _) => invalid("cadence", "the journal is one file for all months: it is written daily"),
            (_, Some(_), _) => invalid("organization", "the journal is that of all organizations"),
            (_, _, Some(_)) => invalid("from", "the journal is written from its beginning"),
            (Cadence::Daily, None, None) => Ok(()),
        }
    }

    /// Where its files go: no two schedules have one place.
    fn place(&self) -> Result<String> {
        let name: FileName = self.content.file_name(None).parse()?;
        Ok(format!("{}/{name}", self.target))
    }
}

/// The days and months of whom a schedule is for.
pub(crate) async fn calendar(tx: &mut Tx, of: Option<&OrganizationId>) -> Result<BillingCalendar> {
    match of {
        Some(id) => BillingCalendar::new(&organization::get(tx, &Scope::Operator, id).await?.time_zone),
        None => BillingCalendar::new("UTC"),
    }
}

impl Cloud {
    /// Has files delivered from now on. The first is due at once.
    pub async fn create_export_schedule(
        &self,
        call: &Call,
        new: &NewExportSchedule,
        render: &Render<ExportSchedule>,
    ) -> Result<Answer<ExportSchedule>> {
        call.actor.require(Action::ManageExports)?;
        new.check()?;
        if self.settings.exports.is_none() {
            return Err(Error::new(ErrorCode::Conflict, "this cloud delivers no files"));
        }
        self.once(call, render, (self, &call.actor, new), |(cloud, actor, new), tx| Box::pin(cloud.insert_schedule(tx, actor, new)))
            .await
    }

    async fn insert_schedule(&self, tx: &mut Tx, actor: &Actor, new: &NewExportSchedule) -> Result<ExportSchedule> {
        let now = self.now();
        let current = calendar(tx, new.organization.as_ref()).await?.period_at(now)?.key;
        let next = new.from.unwrap_or(current);
        if next > current || next < current.minus(MONTHS_BACK_MAX)? {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("{next} is not one of the last {MONTHS_BACK_MAX} months"))
                .param("from")
                .alternative(format!("the newest month is {current}")));
        }
        let schedule = ExportSchedule {
            id: self.ids.mint(),
            organization: new.organization.clone(),
            content: new.content,
            cadence: new.cadence,
            target: new.target.clone(),
            progress: ScheduleProgress { next: new.content.has_months().then_some(next), open: None },
            next_at: now,
            attempt: 0,
            failures: 0,
            problem: String::new(),
            created_by: actor.name().to_owned(),
            created_at: now,
        };
        let place = new.place()?;
        if !export_schedule::insert(tx, &schedule, &place).await? {
            return Err(Error::new(ErrorCode::Conflict, format!("another schedule delivers to {place}"))
                .alternative("a folder or prefix of its own, or deleting the other one"));
        }
        self.note_deed(tx, actor, &schedule, ("export_schedule.create", place)).await?;
        Ok(schedule)
    }

    async fn note_deed(&self, tx: &mut Tx, actor: &Actor, of: &ExportSchedule, (action, detail): (&str, String)) -> Result<()> {
        let deed = Deed { organization: of.organization.as_ref(), action, target: of.id.as_str(), detail };
        self.record(tx, actor, deed, self.now()).await
    }

    /// All schedules, oldest first.
    pub async fn list_export_schedules(&self, actor: &Actor) -> Result<Vec<ExportSchedule>> {
        actor.require(Action::ManageExports)?;
        self.store.read((), |(), tx| Box::pin(export_schedule::list(tx))).await
    }

    /// One, and its latest attempts, the last one first.
    pub async fn get_export_schedule(&self, actor: &Actor, id: &ExportScheduleId) -> Result<(ExportSchedule, Vec<ExportRun>)> {
        actor.require(Action::ManageExports)?;
        self.store.read(id, |id, tx| Box::pin(with_runs(tx, id))).await
    }

    /// Has one looked at at once, whatever it waited for, and what is open written again.
    pub async fn run_export_schedule(&self, actor: &Actor, id: &ExportScheduleId) -> Result<(ExportSchedule, Vec<ExportRun>)> {
        actor.require(Action::ManageExports)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let known = export_schedule::get(tx, id).await?;
                    export_schedule::wake(tx, id, cloud.now()).await?;
                    cloud.note_deed(tx, actor, &known, ("export_schedule.run", String::new())).await?;
                    with_runs(tx, id).await
                })
            })
            .await
    }

    /// Delivers no more of one. What was delivered stays where it is.
    pub async fn delete_export_schedule(&self, actor: &Actor, id: &ExportScheduleId) -> Result<()> {
        actor.require(Action::ManageExports)?;
        self.store
            .write((self, actor, id), |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let known = export_schedule::get(tx, id).await?;
                    export_schedule::remove(tx, id).await?;
                    cloud.note_deed(tx, actor, &known, ("export_schedule.delete", known.target.to_string())).await
                })
            })
            .await
    }
}

async fn with_runs(tx: &mut Tx, id: &ExportScheduleId) -> Result<(ExportSchedule, Vec<ExportRun>)> {
    let schedule = export_schedule::get(tx, id).await?;
    let runs = export_schedule::list_runs(tx, id).await?;
    Ok((schedule, runs))
}
