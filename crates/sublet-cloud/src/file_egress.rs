//! Downloads: contents of files that are sent to whoever fetches them, and what is paid for that.
//!
//! Where sending has a price, the money for all of a file is held before its first byte. What was handed to the connection is
//! captured when the download ends, whoever ends it, and the rest goes back. A download is dropped wherever its connection is,
//! so it only notes what it sent; a task settles that.
//!
//! Deliberately absent: what a process that died had sent. Nobody knows it: it costs nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sublet_core::id::{DownloadId, FileId};
use sublet_core::{Bytes, DurationMs, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_money::period::PeriodKey;
use sublet_money::price_book::PriceListVersion;
use sublet_money::rating::{LineKey, RatedLine, rate_line};
use sublet_money::rerate::UsedAt;
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::charge::{self, Charge};
use sublet_store::download::{self, Download as StoredDownload, DownloadEnd};
use sublet_store::file::{self, File};
use sublet_store::{Tx, hold, organization};
use tokio::sync::{Notify, watch};

use crate::billing::Billing;
use crate::file::Files;
use crate::hold::HoldOwner;
use crate::{Action, Actor, Cloud};

/// How long a download takes at most.
const DOWNLOAD_MAX: DurationMs = DurationMs::from_hours(2);
/// A download that is open for longer is of a process that died.
const LOST_AFTER: DurationMs = DurationMs::from_hours(3);
/// Lost downloads that one pass closes at most.
const LOST_PER_PASS: i64 = 100;
/// Downloads that are paid for, of one process: under way, and ended but not settled.
const DOWNLOADS_MAX: usize = 4_096;
/// How often it is tried again to settle what could not be settled.
const SETTLE_PERIOD: DurationMs = DurationMs::from_seconds(10);
/// How long a process that stops waits for downloads under way.
const DRAIN_MAX: DurationMs = DurationMs::from_seconds(5);
/// How often it is tried to settle them meanwhile.
const DRAIN_PAUSE: DurationMs = DurationMs::from_millis(200);
/// Bytes of a content that are read at once.
const PIECE_BYTES: usize = 256 * 1024;

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
    sent: u64,
}

/// A download that ended.
struct Ended {
    id: DownloadId,
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
    under_way: usize,
    ended: Vec<Ended>,
}

impl Desk {
    fn downloads(&self) -> MutexGuard<'_, Downloads> {
        self.downloads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, id: DownloadId, opened_at: Timestamp) -> Result<Paid> {
        let mut downloads = self.downloads();
        if downloads.under_way + downloads.ended.len() >= DOWNLOADS_MAX {
            return Err(Error::new(ErrorCode::QueueFull, format!("{DOWNLOADS_MAX} files are being fetched already"))
                .retry_after(DurationMs::from_seconds(1)));
        }
        downloads.under_way += 1;
        Ok(Paid { desk: self.clone(), id, opened_at, is_open: true, sent: 0 })
    }

    fn is_idle(&self) -> bool {
        let downloads = self.downloads();
        downloads.under_way == 0 && downloads.ended.is_empty()
    }
}

impl Drop for Paid {
    fn drop(&mut self) {
        let mut downloads = self.desk.downloads();
        downloads.under_way = downloads.under_way.saturating_sub(1);
        if self.is_open {
            downloads.ended.push(Ended { id: self.id.clone(), sent: self.sent });
            self.desk.wake.notify_one();
        }
    }
}

impl Download {
    pub const fn file(&self) -> &File {
        &self.file
    }

    /// The next piece of the content, which counts as sent; `None` at its end.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>> {
        let now = self.files.cloud.now();
        if self.paid.as_ref().is_some_and(|paid| now.since(paid.opened_at) >= DOWNLOAD_MAX) {
            let hours = DOWNLOAD_MAX.seconds_ceil() / 3_600;
            return Err(Error::new(ErrorCode::Unreachable, format!("a download takes at most {hours} hours"))
                .alternative("cut what is written into several files"));
        }
        let piece = self.files.read(&self.file, self.sent, PIECE_BYTES).await?;
        if piece.is_empty() {
            return Ok(None);
        }
        self.sent += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if let Some(paid) = &mut self.paid {
            paid.sent = self.sent;
        }
        Ok(Some(piece))
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
        let mut paid = self.desk.enter(self.cloud.ids.mint(), now)?;
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

    /// Settles downloads that have ended. What fails is tried again with the next call.
    pub async fn settle_downloads(&self) -> Result<u64> {
        let ended = std::mem::take(&mut self.desk.downloads().ended);
        let (mut settled, mut failed) = (0, None);
        for ended in ended {
            let end = DownloadEnd::Sent(Bytes::new(i64::try_from(ended.sent).unwrap_or(i64::MAX)));
            match self.cloud.end_download(&ended.id, end).await {
                Ok(()) => settled += 1,
                Err(error) => {
                    self.desk.downloads().ended.push(ended);
                    failed = Some(error);
                }
            }
        }
        failed.map_or(Ok(settled), Err)
    }

    /// Gives back what is held for downloads whose process died.
    pub(crate) async fn close_lost_downloads(&self) -> Result<()> {
        let before = self.cloud.now().minus(LOST_AFTER);
        let read = self.cloud.store.read((), move |(), tx| Box::pin(download::open_since(tx, before, LOST_PER_PASS)));
        for id in read.await? {
            tracing::warn!(%id, "nobody knows what a download has sent: it costs nothing");
            self.cloud.end_download(&id, DownloadEnd::Lost).await?;
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
                if self.desk.is_idle() {
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
        let price = version.get(&SKU)?.price_at(now)?;
        let amount = price.hold(Quantity::ZERO, Quantity::new(file.bytes.get())?)?;
        let owner = HoldOwner {
            organization: file.organization.clone(),
            project: file.project.clone(),
            key: actor.key.clone(),
            subject: id.to_string(),
            family: FAMILY,
        };
        self.place_hold(tx, &owner, amount, now).await?;
        download::insert(tx, &opened).await?;
        Ok(true)
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
            let held = hold::find_open(tx, id.as_str()).await?;
            let held = held.ok_or_else(|| Error::internal(format!("nothing is held for the download {id}")))?;
            self.capture_hold(tx, &held, (FAMILY, charge.amount), now).await?;
            charge::insert(tx, &[charge]).await?;
        }
        self.release_hold(tx, id.as_str(), now).await
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
