//! The journal alone, over a disk that loses and tears.

use std::sync::Arc;

use sublet_gateway::OpenReport;

use crate::disk::Disk;
use crate::world::{World, config, text};

/// Serves some requests, one after the other, and answers how many records were acknowledged at each state of the disk.
async fn short_life() -> (World, Vec<(crate::disk::Image, usize)>) {
    let mut config = config();
    config.journal.segment_max = sublet_core::Bytes::new(900);
    let world = World::with(config).await;
    world.cloud.unreachable.store(false, std::sync::atomic::Ordering::SeqCst);
    world.disk.record_history();
    text(world.chat("please say 100").await).await;
    world.gateway.flush(crate::world::SOON).await.unwrap();
    world.cloud.unreachable.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut states = Vec::new();
    for acknowledged in 1..=5 {
        let images = world.disk.history();
        states.extend(images.into_iter().skip(states.len()).map(|image| (image, acknowledged)));
        text(world.chat("please say 3").await).await;
    }
    let images = world.disk.history();
    states.extend(images.into_iter().skip(states.len()).map(|image| (image, 6)));
    (world, states)
}

fn open(disk: &Disk) -> sublet_core::Result<OpenReport> {
    let clock = Arc::new(NoClock);
    sublet_gateway::journal::Journal::open(Arc::new(disk.clone()), config().journal, clock).map(|(_, report)| report)
}

struct NoClock;

impl sublet_core::Clock for NoClock {
    fn now(&self) -> sublet_core::Timestamp {
        sublet_core::Timestamp::EPOCH
    }
}

#[tokio::test]
async fn at_every_crash_point_what_was_acknowledged_is_there_and_nothing_else() {
    let (world, states) = short_life().await;
    let sent = world.gateway.metrics().journal_records;
    assert_eq!(sent, 6);
    let mut points = 0;
    let mut previous = 0;
    for (image, next_acknowledged) in &states {
        // A state belongs to the request that was running: all before it were acknowledged.
        let acknowledged = next_acknowledged - 1;
        assert!(acknowledged >= previous);
        previous = acknowledged;
        for kept in 0..=image.unsynced() {
            for torn in [false, true] {
                let disk = image.crashed(kept, torn);
                let report = open(&disk).unwrap_or_else(|e| panic!("{acknowledged} acknowledged, {kept} kept, torn {torn}: {e:?}"));
                let found = usize::try_from(report.records).unwrap();
                assert!((acknowledged..=acknowledged + 1).contains(&found), "{found} of {acknowledged}, {kept} kept, torn {torn}");
                points += 1;
            }
        }
    }
    assert!(points > 1_000, "{points} crash points");
}

#[tokio::test]
async fn damage_to_synced_data_stops_the_start_and_names_the_place() {
    let (world, _) = short_life().await;
    let files = world.disk.files();
    assert!(files.len() > 2, "{files:?}");
    for (file, at) in [(&files[0], 30), (&files[1], 2)] {
        let disk = world.disk.crashed(0, false);
        disk.flip_bit(file, at);
        let error = open(&disk).unwrap_err();
        assert_eq!(error.code().as_str(), "ledger_mismatch");
        assert!(error.message().contains(file.as_str()) && error.message().contains("byte 0"), "{error}");
    }
    let disk = world.disk.crashed(0, false);
    sublet_gateway::JournalDirectory::remove(&disk, &files[1]).unwrap();
    assert!(open(&disk).unwrap_err().message().contains("are missing before it"));
}

#[test]
fn a_name_that_no_segment_has_stops_the_start() {
    for number in ["0", "18446744073709551615"] {
        let disk = Disk::default();
        let name = format!("usage-{number:0>20}.journal");
        drop(sublet_gateway::JournalDirectory::create(&disk, &name).unwrap());
        let error = open(&disk).unwrap_err();
        assert!(error.message().contains(&name), "{error}");
    }
}

#[tokio::test]
async fn a_torn_tail_is_cut_and_reported() {
    let (world, states) = short_life().await;
    let (image, _) = states.iter().rev().find(|(image, _)| image.unsynced() > 0).unwrap();
    let disk = image.crashed(image.unsynced() - 1, false);
    let report = open(&disk).unwrap();
    let torn = report.torn.unwrap();
    assert!(torn.bytes > 0 && world.disk.files().contains(&torn.file), "{torn:?}");
    assert_eq!(open(&disk).unwrap().torn, None);
}

#[tokio::test]
async fn real_files_keep_what_was_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("journal");
    let open = || Arc::new(sublet_gateway::FileDirectory::open(&path).unwrap());
    let cloud = crate::cloud::Cloud::new();
    let key = cloud.add_key(1, "a", sublet_core::rate::RateLimits::default());
    {
        let world = World::on(config(), Arc::clone(&cloud), open(), key.clone()).await;
        for _ in 0..3 {
            text(world.chat("please say 4").await).await;
        }
        world.gateway.flush(crate::world::SOON).await.unwrap();
    }
    let (_, report) = sublet_gateway::journal::Journal::open(open(), config().journal, Arc::new(NoClock)).unwrap();
    assert_eq!(report, OpenReport { records: 3, torn: None });
}
