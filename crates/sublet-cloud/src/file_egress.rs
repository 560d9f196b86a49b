//! Downloads: contents of files that are sent to whoever fetches them, and what is paid for that.
//!
//! Where sending has a price, the money for all of a file is held before its first byte. What was handed to the connection is
//! captured when the download ends, whoever ends it, and the rest goes back. A suspended account is not locked out of its own
//! data: nothing is held for what it fetches, within a bound, and what was sent is owed. A download is dropped wherever its connection is,
//! so it only notes what it sent; a task settles that, and ends those whose time is up, also where nobody reads any more.
//!
//! Deliberately absent: what a process that died had sent. Nobody knows it: it costs nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::{DownloadId, FileId, ProjectId};
use sublet_core::{Bytes, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, RatedLine, rate_line};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_money::spend_limit::Work;
use sublet_store::charge::{self, Charge};
use sublet_store::download::{self, Download as StoredDownload, DownloadEnd};
use sublet_store::file::{self, File};
use sublet_store::{Tx, dunning, hold, organization};
use tokio::sync::{Notify, watch};

use crate::billing::Billing;
use crate::file::Files;
use crate::hold::HoldOwner;
use crate::{Action, Actor, Cloud};

/// How long a download takes at most.
const DOWNLOAD_MAX: DurationMs = DurationMs::from_hours(2);
/// A download of another process that is open for longer is of one that died.
const LOST_AFTER: DurationMs = DurationMs::from_hours(3);
/// Lost downloads that one pass closes at most.
const LOST_PER_PASS: i64 = 100;
/// Downloads that are paid for, of one process: under way, and ended but not settled.
const DOWNLOADS_MAX: usize = 4_096;
/// Those of one project, of these.
const DOWNLOADS_OF_PROJECT_MAX: usize = DOWNLOADS_MAX / 4;
/// How often it is tried again to settle what could not be settled.
const SETTLE_PERIOD: DurationMs = DurationMs::from_seconds(10);
/// How long a process that stops waits for downloads under way.
const DRAIN_MAX: DurationMs = DurationMs::from_seconds(5);
/// How often it is tried to settle them meanwhile.
const DRAIN_PAUSE: DurationMs = DurationMs::from_millis(200);
/// Bytes of a content that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

/// How often a suspended account may fetch each of its files, by their bytes.
const FETCHES_WHILE_SUSPENDED: i64 = 2;

const SKU: SkuName = SkuName::FileEgress;
const FAMILY: SkuFamily = SkuFamily::FileEgress;

/// A content on its way to whoever fetches it. Dropping it ends it.
pub struct Download {
    files: Files,
    file: File,
    /// What was handed on.
    sent: u64,
    paid: Option<Paid>,
}

/// The part of a download that is paid for.
struct Paid {
    desk: Desk,
    id: DownloadId,
    opened_at: Timestamp,
    /// Whether it has, or may have, a row.
    is_open: bool,
}

/// A download under way.
struct UnderWay {
    project: ProjectId,
    opened_at: Timestamp,
    sent: u64,
}

/// The downloads of one process. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Desk {
    downloads: Arc<Mutex<Downloads>>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct Downloads {
    under_way: BTreeMap<DownloadId, UnderWay>,
    /// What was sent by those that ended, until they are settled.
    ended: BTreeMap<DownloadId, u64>,
}

impl Downloads {
    fn end(&mut self, id: DownloadId) {
        if let Some(download) = self.under_way.remove(&id) {
            self.ended.insert(id, download.sent);
        }
    }
}

impl Desk {
    fn downloads(&self) -> MutexGuard<'_, Downloads> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: DownloadId, project: &ProjectId, opened_at: Timestamp) -> Result<Paid> {
        let mut downloads = self.downloads();
        let full = |most: usize, of: &str| {
            Error::new(ErrorCode::QueueFull, format!("{most} files{of} are being fetched already"))
                .alternative("fetch it again when one of them is done")
                .retry_after(DurationMs::from_seconds(1))
        };
        if downloads.under_way.len() + downloads.ended.len() >= DOWNLOADS_MAX {
            return Err(full(DOWNLOADS_MAX, ""));
        }
        let of_project = downloads.under_way.values().filter(|download| download.project == *project).count();
        if of_project >= DOWNLOADS_OF_PROJECT_MAX {
            return Err(full(DOWNLOADS_OF_PROJECT_MAX, " of the project"));
        }
        downloads.under_way.insert(id.clone(), UnderWay { project: project.clone(), opened_at, sent: 0 });
        Ok(Paid { desk: self.clone(), id, opened_at, is_open: true })
    }

    /// Notes what a download has sent. False if it was ended meanwhile.
    fn note(&self, id: &DownloadId, sent: u64) -> bool {
        self.downloads().under_way.get_mut(id).map(|download| download.sent = sent).is_some()
    }

    /// Ends the downloads whose time is up.
    fn end_overdue(&self, now: Timestamp) {
        let mut downloads = self.downloads();
        let is_overdue = |(_, download): &(&DownloadId, &UnderWay)| now.since(download.opened_at) >= DOWNLOAD_MAX;
        let overdue: Vec<DownloadId> = downloads.under_way.iter().filter(is_overdue).map(|(id, _)| id.clone()).collect();
        overdue.into_iter().for_each(|id| downloads.end(id));
    }

    fn has(&self, id: &DownloadId) -> bool {
        let downloads = self.downloads();
        downloads.under_way.contains_key(id) || downloads.ended.contains_key(id)
    }

    /// Downloads that are under way or not settled.
    fn len(&self) -> usize {
        let downloads = self.downloads();
        downloads.under_way.len() + downloads.ended.len()
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        let mut downloads = self.desk.downloads();
        if self.is_open {
            downloads.end(self.id.clone());
            self.desk.wake.notify_one();
        } else {
            downloads.under_way.remove(&self.id);
        }
    }
}

fn too_long() -> Error {
    let hours = DOWNLOAD_MAX.seconds_ceil() / 3_600;
    Error::new(ErrorCode::Unreachable, format!("a download takes at most {hours} hours"))
        .alternative("cut what is written into several files")
}

impl Download {
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The next piece of the content, which counts as sent; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let now = self.files.cloud.now();
        if self.paid.as_ref().is_some_and(|paid| now.since(paid.opened_at) >= DOWNLOAD_MAX) {
            return Err(too_long());
        }
        let piece = self.files.read(&self.file, self.sent, PIECE_BYTES).await?;
        if piece.is_empty() {
            return Ok(None);
        }
        let sent = self.sent.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if self.paid.as_ref().is_some_and(|paid| !paid.desk.note(&paid.id, sent)) {
            return Err(too_long());
        }
        self.sent = sent;
        Ok(Some(piece))
    }
}

fn owner_of(download: &StoredDownload) -> HoldOwner {
    HoldOwner {
        organization: download.organization.clone(),
        project: download.project.clone(),
        key: download.key.clone(),
        subject: download.id.to_string(),
        family: FAMILY,
    }
}

/// The line that a download is on.
pub(crate) fn line_of(download: &StoredDownload, period: PeriodKey, version: &PriceListVersion) -> Result<LineKey> {
    Ok(LineKey {
        organization: download.organization.clone(),
        project: download.project.clone(),
        period,
        price_version: version.version().clone(),
        sku: SKU,
        band: version.get(&SKU)?.band_at(download.opened_at)?.cloned(),
    })
}

impl Files {
    /// Begins to send a file's content. What it costs at most is held, or it is refused.
    pub async fn open(&self, actor: &Actor, id: &FileId) -> Result<Download> {
        actor.require(Action::UseModels)?;
        let now = self.cloud.now();
        let of = (&self.cloud, actor, id);
        let (file, is_priced) = self
            .cloud
            .store
            .read(of, move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let file = file::get(tx, &actor.scope, id, now).await?;
                    let is_priced = cloud.egress_list(tx, &file, now).await?.is_some();
                    Ok((file, is_priced))
                })
            })
            .await?;
        // Where the content is elsewhere, the refusal comes before anything is held.
        self.read(&file, 0, 1).await?;
        if !is_priced {
            return Ok(Download { files: self.clone(), file, sent: 0, paid: None });
        }
        // From here on it is settled, even if whoever asks is gone before there is an answer.
        let mut paid = self.desk.enter(self.cloud.ids.mint(), &file.project, now)?;
        let of = (&self.cloud, actor, &file, &paid.id);
        let held = self
            .cloud
            .store
            .write(of, move |(cloud, actor, file, id), tx| Box::pin(cloud.hold_download(tx, actor, (file, id), now)))
            .await;
        paid.is_open = match &held {
            Ok(is_held) => *is_held,
            Err(error) => crate::file::may_be_written(error),
        };
        let paid = held?.then_some(paid);
        Ok(Download { files: self.clone(), file, sent: 0, paid })
    }

    /// Settles downloads that have ended or whose time is up. What fails is tried again with the next call.
    pub async fn settle_downloads(&self) -> Result<u64> {
        self.desk.end_overdue(self.cloud.now());
        // They stay in the list until they are settled: nobody else may take them for lost.
        let ended: Vec<(DownloadId, u64)> = self.desk.downloads().ended.iter().map(|(id, sent)| (id.clone(), *sent)).collect();
        let (mut settled, mut failed) = (0, None);
        for (id, sent) in ended {
            let end = DownloadEnd::Sent(Bytes::new(i64::try_from(sent).unwrap_or(i64::MAX)));
            match self.cloud.end_download(&id, end).await {
                Ok(()) => {
                    self.desk.downloads().ended.remove(&id);
                    settled += 1;
                }
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(settled), Err)
    }

    /// Gives back what is held for downloads whose process died. This one knows what its own have sent.
    pub(crate) async fn close_lost_downloads(&self) -> Result<()> {
        self.settle_or_log().await;
        let before = self.cloud.now().minus(LOST_AFTER);
        let limit = LOST_PER_PASS.saturating_add(i64::try_from(self.desk.len()).unwrap_or(i64::MAX));
        let open = self.cloud.store.read((), move |(), tx| Box::pin(download::open_since(tx, before, limit))).await?;
        for id in open.iter().filter(|id| !self.desk.has(id)) {
            tracing::warn!(%id, "nobody knows what a download has sent: it costs nothing");
            self.cloud.end_download(id, DownloadEnd::Lost).await?;
        }
        Ok(())
    }

    /// Settles downloads until `stop` says so, and then those that end in time.
    pub async fn run_downloads(&self, mut stop: watch::Receiver<bool>) {
        while !*stop.borrow() {
            tokio::select! {
                () = self.desk.wake.notified() => {}
                () = tokio::time::sleep(SETTLE_PERIOD.to_std()) => {}
                changed = stop.changed() => {
                    if changed.is_err() {
                        break;
                    }
                }
            }
            self.settle_or_log().await;
        }
        let drained = async {
            loop {
                self.settle_or_log().await;
                if self.desk.len() == 0 {
                    return;
                }
                tokio::select! {
                    () = self.desk.wake.notified() => {}
                    () = tokio::time::sleep(DRAIN_PAUSE.to_std()) => {}
                }
            }
        };
        if tokio::time::timeout(DRAIN_MAX.to_std(), drained).await.is_err() {
            tracing::warn!("downloads were under way when the cloud stopped: what is not settled of them costs nothing");
        }
    }

    async fn settle_or_log(&self) {
        if let Err(error) = self.settle_downloads().await {
            tracing::error!(%error, private = ?error, "a download was not settled; it is tried again");
        }
    }
}

impl Cloud {
    /// The list by which it is charged what is sent of a file; `None` if that has no price.
    async fn egress_list(&self, tx: &mut Tx, file: &File, at: Timestamp) -> Result<Option<Arc<PriceListVersion>>> {
        let account = organization::get(tx, &Scope::Operator, &file.organization).await?;
        let version = self.prices.in_force_for((&account.id, account.currency), at);
        Ok(version.ok().filter(|version| version.find(&SKU).is_some()))
    }

    /// Holds what a download costs at most. False if it costs nothing.
    async fn hold_download(&self, tx: &mut Tx, actor: &Actor, of: (&File, &DownloadId), now: Timestamp) -> Result<bool> {
        self.follow_changes(tx).await?;
        let (file, id) = of;
        let Some(version) = self.egress_list(tx, file, now).await? else { return Ok(false) };
        let opened = StoredDownload {
            id: id.clone(),
            organization: file.organization.clone(),
            project: file.project.clone(),
            key: actor.key.clone(),
            file: file.id.clone(),
            price_version: version.version().clone(),
            opened_at: now,
            bytes: Bytes::ZERO,
        };
        match dunning::find_account(tx, &file.organization).await?.suspended_at {
            Some(since) => self.check_way_out(tx, file, since).await?,
            None => {
                let price = version.get(&SKU)?.price_at(now)?;
                let amount = price.hold(Quantity::ZERO, Quantity::new(file.bytes.get())?)?;
                self.place_hold(tx, &owner_of(&opened), amount, now).await?;
            }
        }
        download::insert(tx, &opened).await?;
        Ok(true)
    }

    /// A suspended account gets its files out: nothing is held, and what is sent is owed. Each file so often at most.
    async fn check_way_out(&self, tx: &mut Tx, file: &File, since: Timestamp) -> Result<()> {
        let fetched = download::bytes_since(tx, file, since).await?;
        let most = file.bytes.get().saturating_mul(FETCHES_WHILE_SUSPENDED);
        if fetched.get().saturating_add(file.bytes.get()) <= most {
            return Ok(());
        }
        let refused = self.check_suspension(tx, &file.organization, Work::New).await;
        refused.map_err(|error| {
            error.alternative(format!(
                "fetch another file: meanwhile each is sent {FETCHES_WHILE_SUSPENDED} times, as '{}' was",
                file.id
            ))
        })
    }

    async fn end_download(&self, id: &DownloadId, end: DownloadEnd) -> Result<()> {
        self.store.write((self, id, end), |(cloud, id, end), tx| Box::pin(cloud.end_download_in(tx, id, *end))).await
    }

    /// Charges what was sent, and gives back what was held for the rest. Once: an end that is repeated changes nothing.
    async fn end_download_in(&self, tx: &mut Tx, id: &DownloadId, end: DownloadEnd) -> Result<()> {
        let now = self.now();
        let Some(ended) = download::end(tx, id, end, now).await? else { return Ok(()) };
        if ended.bytes > Bytes::ZERO {
            let charge = self.charge_download(tx, &ended, now).await?;
            // Of a suspended account nothing is held.
            let covered = match hold::find_open(tx, id.as_str()).await? {
                Some(held) => {
                    let covered = charge.amount.min(held.uncaptured()?.total()?);
                    self.capture_hold(tx, &held, (FAMILY, covered), now).await?;
                    covered
                }
                None => Nanos::ZERO,
            };
            self.pay_rest(tx, &ended, charge.amount.checked_sub(covered)?).await?;
            charge::insert(tx, &[charge]).await?;
        }
        self.release_hold(tx, id.as_str(), now).await
    }

    /// What a download costs beyond its hold: its list was put right meanwhile, by one that is dearer, or nothing is held.
    async fn pay_rest(&self, tx: &mut Tx, download: &StoredDownload, rest: Nanos) -> Result<()> {
        if rest.is_zero() {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, &download.organization).await?;
        self.pay_or_owe(tx, &account, &owner_of(download), (rest, self.now())).await
    }

    async fn charge_download(&self, tx: &mut Tx, download: &StoredDownload, now: Timestamp) -> Result<Charge> {
        let version = self.price_version(tx, &download.price_version).await?;
        let billing = Billing::of(tx, &download.organization).await?;
        let period = billing.calendar.period_at(download.opened_at)?.key;
        let used = (line_of(download, period, &version)?, UsedAt::instant(download.opened_at));
        let (key, version) = self.line_now(tx, &billing, used, &version).await?;
        let state = charge::line_state(tx, &key).await?;
        let RatedLine { key, quantity, amount, before, after } =
            rate_line(key, state, &version, Quantity::new(download.bytes.get())?)?;
        charge::set_line_states(tx, &[(&key, after)]).await?;
        Ok(Charge {
            id: self.ids.mint(),
            organization: key.organization,
            project: key.project,
            key: download.key.clone(),
            source: download.id.to_string(),
            sku: key.sku,
            quantity,
            amount,
            currency: version.currency(),
            price_version: key.price_version,
            period: key.period,
            billed_in: billing.billed_in(key.period),
            band: key.band,
            before,
            occurred_at: download.opened_at,
            posted_at: now,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::id::Identifier;

    fn id(number: u16) -> DownloadId {
        let mut random = [0; 10];
        random[..2].copy_from_slice(&number.to_be_bytes());
        DownloadId::encode(Timestamp::EPOCH, random)
    }

    #[test]
    fn a_project_has_a_part_of_the_places_only_and_gets_them_back_in_time() {
        let desk = Desk::default();
        let [stalled, other]: [ProjectId; 2] = ["proj_1", "proj_2"].map(|id| id.parse().unwrap());
        let most = u16::try_from(DOWNLOADS_OF_PROJECT_MAX).unwrap();
        let paid: Vec<Paid> = (0..most).map(|number| desk.enter(id(number), &stalled, Timestamp::EPOCH).unwrap()).collect();
        let refused = desk.enter(id(most), &stalled, Timestamp::EPOCH).err().unwrap();
        assert_eq!(refused.code(), ErrorCode::QueueFull);
        assert!(desk.note(&id(0), 7));
        let late = Timestamp::EPOCH.plus(DOWNLOAD_MAX);
        let _other = desk.enter(id(most), &other, late).unwrap();
        desk.end_overdue(late);
        assert!(!desk.note(&id(0), 8), "it was ended with what it had sent");
        assert_eq!(desk.downloads().ended[&id(0)], 7);
        let _again = desk.enter(id(most + 1), &stalled, late).unwrap();
        drop(paid);
        let downloads = desk.downloads();
        assert_eq!((downloads.under_way.len(), downloads.ended.len()), (2, usize::from(most)));
        assert_eq!(downloads.ended[&id(0)], 7);
    }
}
