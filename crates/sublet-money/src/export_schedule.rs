//! What a schedule writes, and which of its files is due: open months every day, each month once more when it is closed.
//!
//! Invariants: a month is written as closed once and never again; none is passed over, whatever time nobody looked; on one
//! day an open month is written once.
//!
//! Deliberately absent: when a month counts as closed, and the files themselves.

use std::str::FromStr;

use sublet_core::Timestamp;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::encoder::Format;
use crate::export::JournalFormat;
use crate::focus::FocusVersion;
use crate::focus_dataset::SupportingDataset;
use crate::period::{BillingCalendar, PeriodKey, PeriodLength};

/// What files of a schedule are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExportContent {
    /// Cost and usage for FinOps programs.
    Focus(FocusVersion, Format),
    /// Single charges.
    Charges(Format),
    /// What FOCUS has beside cost and usage.
    Supporting(SupportingDataset, Format),
    /// The whole journal: it has no months.
    Journal(JournalFormat),
}

impl ExportContent {
    /// Of what it is asked for by; what is not said is the default.
    pub fn from_parts(dataset: &str, version: Option<&str>, format: Option<&str>) -> Result<Self> {
        if let (Some(_), "charges" | "journal") = (version, dataset) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("the dataset {dataset} has no version"))
                .param("version")
                .alternative("leave version out, or ask for dataset focus"));
        }
        let format_of_table = || format.map(str::parse).transpose().map(Option::unwrap_or_default);
        if let Some(dataset) = SupportingDataset::find(dataset) {
            dataset.check_version(version)?;
            return Ok(Self::Supporting(dataset, format_of_table()?));
        }
        match dataset {
            "focus" => Ok(Self::Focus(version.map(str::parse).transpose()?.unwrap_or_default(), format_of_table()?)),
            "charges" => Ok(Self::Charges(format_of_table()?)),
            "journal" => {
                let format = format.unwrap_or(JournalFormat::Beancount.as_str());
                format.parse().map(Self::Journal).map_err(|error: Error| error.param("format"))
            }
            other => {
                let shown: String = other.chars().take(20).collect();
                Err(Error::new(ErrorCode::InvalidRequest, format!("there is no export called '{shown}'"))
                    .param("dataset")
                    .alternative("ask for dataset focus, charges, billing-period, invoice-detail, contract-commitment or journal"))
            }
        }
    }

    pub const fn dataset(self) -> &'static str {
        match self {
            Self::Focus(..) => "focus",
            Self::Charges(_) => "charges",
            Self::Supporting(dataset, _) => dataset.as_str(),
            Self::Journal(_) => "journal",
        }
    }
    /// Of the specification, where there is one.
    pub const fn version(self) -> Option<&'static str> {
        match self {
            Self::Focus(version, _) => Some(version.as_str()),
            Self::Supporting(dataset, _) => Some(dataset.version().as_str()),
            Self::Charges(_) | Self::Journal(_) => None,
        }
    }
    pub const fn format(self) -> &'static str {
        match self {
            Self::Focus(_, format) | Self::Charges(format) | Self::Supporting(_, format) => format.as_str(),
            Self::Journal(format) => format.as_str(),
        }
    }
    pub const fn has_months(self) -> bool {
        !matches!(self, Self::Journal(_))
    }
    /// What all names of its files begin with, and how they end.
    fn label(self) -> (String, &'static str) {
        let version = self.version().map_or_else(String::new, |version| format!("-{version}"));
        (format!("{}{version}", self.dataset()), self.format())
    }
    /// What the file of a month is called.
    pub fn file_name(self, period: Option<PeriodKey>) -> String {
        let (label, ending) = self.label();
        let period = period.map_or_else(String::new, |period| format!("-{period}"));
        format!("{label}{period}.{ending}")
    }
    /// What the file is called that says what is in the file of a month. Each format has its own, or they would meet.
    pub fn manifest_name(self, period: Option<PeriodKey>) -> String {
        format!("{}.manifest.json", self.file_name(period))
    }
}

/// How often a schedule writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cadence {
    /// Every open month each day, in the place of the file before, and for the last time when it is closed.
    Daily,
    /// A month when it is closed.
    Monthly,
}

impl Cadence {
    pub const ALL: [Self; 2] = [Self::Daily, Self::Monthly];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Monthly => "monthly",
        }
    }
}

impl FromStr for Cadence {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|cadence| cadence.as_str() == text)
            .ok_or_else(|| Error::new(ErrorCode::InvalidRequest, "a cadence is daily or monthly").param("cadence"))
    }
}

/// What a file has of a month.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Coverage {
    /// What there is by now: more may come.
    Open,
    /// All of it, for ever.
    Closed,
}

impl Coverage {
    pub const ALL: [Self; 2] = [Self::Open, Self::Closed];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }
}

impl FromStr for Coverage {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let known = Self::ALL.into_iter().find(|coverage| coverage.as_str() == text);
        known.ok_or_else(|| Error::internal(format!("'{text}' is not what a file has of a month")))
    }
}

/// A file to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Due {
    /// `None` for what has no months: all there is.
    pub period: Option<PeriodKey>,
    pub coverage: Coverage,
}

/// How far a schedule is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ScheduleProgress {
    /// The oldest month that was not written as closed; `None` for what has no months.
    pub next: Option<PeriodKey>,
    /// What was written last of what is open.
    pub open: Option<OpenWritten>,
}

/// The last file that was open.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenWritten {
    /// When the day began on which it was written.
    pub day: Timestamp,
    /// `None` for what has no months.
    pub period: Option<PeriodKey>,
}

/// What is due now; nothing where it is `None`.
pub fn plan_export(
    progress: &ScheduleProgress,
    cadence: Cadence,
    (calendar, now): (&BillingCalendar, Timestamp),
    next_is_closed: bool,
) -> Result<Option<Due>> {
    let today = day_of(calendar, now)?;
    let written_today = progress.open.filter(|open| open.day == today);
    let Some(next) = progress.next else {
        return Ok(written_today.is_none().then_some(Due { period: None, coverage: Coverage::Open }));
    };
    if next_is_closed {
        return Ok(Some(Due { period: Some(next), coverage: Coverage::Closed }));
    }
    if cadence == Cadence::Monthly {
        return Ok(None);
    }
    let period = match written_today.and_then(|open| open.period) {
        Some(last) => last.next()?.max(next),
        None => next,
    };
    let current = calendar.period_at(now)?.key;
    Ok((period <= current).then_some(Due { period: Some(period), coverage: Coverage::Open }))
}

impl ScheduleProgress {
    /// How far it is after a file that was begun at `now`.
    pub fn after(&self, due: &Due, (calendar, now): (&BillingCalendar, Timestamp)) -> Result<Self> {
        match (due.coverage, due.period) {
            (Coverage::Closed, Some(period)) => Ok(Self { next: Some(period.next()?), ..*self }),
            (Coverage::Closed, None) | (Coverage::Open, _) => {
                let open = OpenWritten { day: day_of(calendar, now)?, period: due.period };
                Ok(Self { open: Some(open), ..*self })
            }
        }
    }
}

/// When the day of an instant began.
fn day_of(calendar: &BillingCalendar, now: Timestamp) -> Result<Timestamp> {
    calendar.interval_at(PeriodLength::Day, now).map(|day| day.starts_at)
}

#[cfg(test)]
#[path = "export_schedule_tests.rs"]
mod tests;
