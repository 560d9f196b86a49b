//! Batches on both databases, with a line server that does what each line says: what settles, what is
//! superseded, who may claim, and what a crash leaves.
#![cfg(test)]

mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use sublet_cloud::file::NewFile;
use sublet_cloud::idempotency::Call;
use sublet_core::batch::BatchStatus;
use sublet_core::file::FilePurpose;
use sublet_core::id::{BatchId, FileId};
use sublet_core::{DurationMs, Error, ErrorCode, Nanos};
use sublet_store::PageRequest;
use sublet_store::file::File;
use sublet_testkit::tenant::created;
use sublet_testkit::{ManualClock, MemoryBlobs, on_both_databases};

use world::{LINE_NANOS, Lines, Outrun, Process, blobs, charged};

on_both_databases! {
    async fn each_line_ends_as_it_should_and_only_answers_cost(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let deeds = ["answer", "free", "refuse", "busy", "answer"];
        let id = process.create(&deeds).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Completed, 4, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!(answers.keys().collect::<Vec<_>>(), ["c1", "c2", "c4", "c5"]);
        assert_eq!(answers["c2"]["response"]["body"], json!({ "free": true }));
        let refused = json!({ "error": { "code": "context_length_exceeded" } });
        assert_eq!((&errors["c3"]["response"]["status_code"], &errors["c3"]["response"]["body"]), (&json!(400), &refused));
        assert_eq!(charged(cloud).await, 3 * LINE_NANOS, "answered, answered after it was busy, answered");
        assert_eq!(ended.counts.tokens.output.get(), 15);
        let busy: Vec<u32> = process.lines.served.lock().expect("served").iter().filter(|(name, _)| name == "busy-4").map(|(_, attempt)| *attempt).collect();
        assert_eq!(busy, [1, 1, 1], "what left no record is the same attempt again");
    }

    async fn a_server_that_fails_is_asked_again_a_few_times(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["shaky", "down"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Completed, 1, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), &errors["c2"]["response"]["status_code"]), (1, &json!(504)));
        let mut served = process.lines.served.lock().expect("served").clone();
        served.sort();
        let tries = |name: &str| vec![(name.to_owned(), 1); 3];
        assert_eq!(served, [tries("down-2"), tries("shaky-1")].concat());
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn money_that_is_short_for_a_moment_does_not_end_a_batch(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["answer", "poor", "answer"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.batch.problems.len()), (BatchStatus::Completed, 3, 0));
        let id = process.create(&["broke", "answer"]).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!(ended.batch.problems[0].code, "insufficient_quota");
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len() + errors.len(), &errors["c1"]["error"]["code"]), (2, &json!("insufficient_quota")));
        assert_eq!(charged(cloud).await, LINE_NANOS * i64::try_from(3 + answers.len()).expect("few"));
    }

    async fn a_record_offered_again_answers_and_charges_once(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["keep"]).await;
        process.work_until("the record", || async { process.lines.kept().len() == 1 }).await;
        let record = process.lines.kept().remove(0);
        assert_eq!(process.see(&id).await.counts.completed, 0, "durable is not settled");
        let first = process.lines.settle(&record).await;
        let again = process.lines.settle(&record).await;
        assert_eq!((first.settled, again.settled, again.duplicate), (1, 0, 1));
        assert_eq!((process.see(&id).await.counts.completed, charged(cloud).await), (1, LINE_NANOS));
        let usage = cloud.cloud.get_request(&process.person, &record.request).await.expect("its usage");
        let line = usage.events[0].record.line.clone().expect("its line");
        assert_eq!((line.name.number, line.answer.as_str()), (1, ""), "the answer is not kept with what it cost");
        let ended = process.work_until_ended(&id).await;
        assert_eq!(process.outputs(&ended).await[0].len(), 1);
    }

    async fn what_an_earlier_claim_still_sends_is_neither_charged_nor_given(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["keep", "answer"]).await;
        process.work_until("the record", || async { process.lines.kept().len() == 1 && process.see(&id).await.counts.completed == 1 }).await;
        let late = process.lines.kept().remove(0);
        // The process is gone and comes back: its claim is free at once, and the open line is run again.
        process.work_until("the line again", || async { process.lines.kept().len() == 2 }).await;
        let second = process.lines.kept().remove(1);
        assert_eq!((late.request == second.request, late.attempt < second.attempt), (true, true));
        let report = process.lines.settle_and_return(&late).await;
        assert_eq!((report.superseded, report.settled, report.quarantined), (1, 0, 0));
        assert_eq!((process.see(&id).await.counts.completed, charged(cloud).await), (1, LINE_NANOS));
        assert_eq!(process.lines.settle_and_return(&second).await.settled, 1);
        assert_eq!(process.lines.settle(&late).await.duplicate, 1, "a superseded record is known");
        let ended = process.work_until_ended(&id).await;
        let [answers, _] = process.outputs(&ended).await;
        assert_eq!(answers["c1"]["response"]["body"], json!({ "attempt": second.attempt }));
        assert_eq!((answers.len(), charged(cloud).await), (2, 2 * LINE_NANOS));
    }

    async fn an_answer_that_comes_after_the_end_is_neither_charged_nor_given(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["wait", "answer"]).await;
        process.work_until("an answer", || async { process.see(&id).await.counts.completed == 1 }).await;
        process.batches.cancel(&process.person, &id).await.expect("cancelled");
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Cancelled, 1, 1));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), &errors["c1"]["error"]["code"]), (1, &json!("batch_cancelled")));
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn a_line_nobody_knows_of_is_run_again_only_by_the_next_claim(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["unknown"]).await;
        let served = || process.lines.served.lock().expect("served").clone();
        process
            .work_until("the claim to be given up", || async {
                if served().len() == 1 {
                    // A small step for each look, so that the deadline stays far away.
                    process.see(&id).await;
                    cloud.clock.advance(DurationMs::from_millis(100));
                }
                served().len() == 2
            })
            .await;
        assert_eq!(served(), [("unknown-1".to_owned(), 1), ("unknown-1".to_owned(), 2)]);
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, charged(cloud).await), (BatchStatus::Completed, LINE_NANOS));
        // It was durable after all: too late.
        assert_eq!(process.lines.settle_and_return(&process.lines.kept()[0]).await.superseded, 1);
        assert_eq!(charged(cloud).await, LINE_NANOS);
    }

    async fn an_answer_that_comes_while_the_files_are_written_is_in_them(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let outruns = Arc::<Mutex<Option<BatchId>>>::default();
        let outrun = Outrun { blobs: Arc::clone(&blobs), store: cloud.cloud.store().clone(), outruns: Arc::clone(&outruns) };
        let lines = Lines::start(&cloud.cloud, "gw_1").await;
        let process = Process::over(cloud, &cloud.cloud, (Arc::new(outrun), lines), "gw_1").await;
        let id = process.create(&["wait", "free"]).await;
        process.work_until("an answer", || async { process.see(&id).await.counts.completed == 1 }).await;
        process.batches.cancel(&process.person, &id).await.expect("cancelled");
        *outruns.lock().expect("a batch") = Some(id.clone());
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed, ended.counts.failed), (BatchStatus::Cancelled, 2, 0));
        let [answers, errors] = process.outputs(&ended).await;
        assert_eq!((answers.len(), errors.len()), (2, 0));
        assert_eq!(blobs.count(), 2, "the input and the answers; what was outrun is forgotten");
    }

    async fn a_claim_that_fails_does_not_run_its_lines_again(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["unstorable"]).await;
        let attempts = || process.lines.served.lock().expect("served").iter().map(|(_, attempt)| *attempt).collect::<Vec<_>>();
        process
            .work_until("the end", || async {
                if attempts().len() == 1 {
                    // A small step for each look, so that the deadline stays far away.
                    cloud.clock.advance(DurationMs::from_millis(100));
                }
                process.see(&id).await.batch.status.has_ended()
            })
            .await;
        // SQLite can store it.
        let expected = if cloud.cloud.store().engine_name() == "postgresql" { vec![1, 2] } else { vec![1] };
        assert_eq!(attempts(), expected);
    }

    async fn two_processes_never_work_on_one_batch(cloud: &TestCloud) {
        let (blobs, other) = (blobs(cloud), cloud.another(7).await);
        let first = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let second = Process::start(cloud, &other, &blobs, "gw_2").await;
        let id = first.create(&["wait", "answer", "answer"]).await;
        first
            .work_until("its claim", || async {
                if first.see(&id).await.counts.completed < 2 {
                    return false;
                }
                let (_stop, stopped) = tokio::sync::watch::channel(false);
                let looking = second.batches.run_reconciler(stopped);
                assert!(tokio::time::timeout(Duration::from_millis(50), looking).await.is_err(), "it looks for ever");
                true
            })
            .await;
        assert_eq!(second.lines.served.lock().expect("served").len(), 0, "claimed is claimed");
        // The first one is gone without a word; its claim lapses.
        cloud.clock.advance(DurationMs::from_seconds(31));
        second.work_until("the line", || async { !second.lines.served.lock().expect("served").is_empty() }).await;
        assert_eq!(*second.lines.served.lock().expect("served"), [("wait-1".to_owned(), 2)]);
        let elsewhere = Arc::new(MemoryBlobs::new("elsewhere", Arc::clone(cloud.cloud.clock())));
        let third = Process::start(cloud, &cloud.cloud, &elsewhere, "gw_3").await;
        cloud.clock.advance(DurationMs::from_seconds(31));
        let (_stop, stopped) = tokio::sync::watch::channel(false);
        let looking = third.batches.run_reconciler(stopped);
        assert!(tokio::time::timeout(Duration::from_millis(50), looking).await.is_err(), "it looks for ever");
        assert_eq!(third.lines.served.lock().expect("served").len(), 0, "its files are elsewhere");
        let file = third.batches.files().get(&third.person, &first.see(&id).await.batch.input_file).await.expect("the row");
        assert_eq!(third.batches.files().read(&file, 0, 1).await.unwrap_err().code(), ErrorCode::Unreachable);
    }

    async fn a_reading_that_was_cut_off_goes_on_behind_what_was_written(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let mut deeds = vec!["free"; 700];
        deeds[650] = "stall";
        let id = process.create(&deeds).await;
        let read = || process.lines.read.load(Ordering::SeqCst);
        process.work_until("the reading to stall", || async { read() == 651 }).await;
        let ended = process.work_until_ended(&id).await;
        assert_eq!(read(), 651 + 100, "the first 600 lines were written and are not read again");
        assert_eq!((ended.batch.status, ended.counts.total, ended.counts.completed), (BatchStatus::Completed, 700, 700));
        let quote = ended.batch.quote.clone().expect("a quote");
        assert_eq!((quote.most, quote.input_tokens.get()), (Nanos::new(700 * LINE_NANOS), 7_000));
        assert_eq!((charged(cloud).await, process.outputs(&ended).await[0].len()), (LINE_NANOS, 700));
        let most = process.lines.at_once_most.load(Ordering::SeqCst);
        assert!((1..=16).contains(&most), "{most} lines at once");
    }

    async fn a_content_stays_while_nobody_knows_whether_it_has_a_row(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let process = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let files = process.batches.files();
        for (code, kept) in [(ErrorCode::StoreUnavailable, 1), (ErrorCode::Internal, 2), (ErrorCode::StorageFull, 2)] {
            let mut upload = process.begin().await;
            upload.append(b"content").await.expect("taken");
            let stored = upload.commit().await.expect("durable");
            let new = NewFile { purpose: FilePurpose::UserData, filename: "a".to_owned(), expires_after: None };
            let call = Call::under_key(process.person.clone(), "file.create", code.as_str(), "").expect("a call");
            let failing = move |_: &File| Err(Error::new(code, "as the test asks"));
            assert_eq!(files.create(&call, stored, &new, &failing).await.unwrap_err().code(), code);
            assert_eq!(blobs.count(), kept, "{code:?}");
        }
        cloud.clock.advance(DurationMs::from_millis(3_600_001));
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (2, 0));
    }

    async fn a_limit_of_one_end_user_does_not_hold_up_the_others(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let (limited, free) = (vec!["limited"; 30], vec!["free"; 30]);
        let id = process.create(&[limited, free].concat()).await;
        let step = AtomicUsize::new(0);
        let next = |seconds| {
            cloud.clock.advance(DurationMs::from_seconds(seconds));
            step.fetch_add(1, Ordering::SeqCst);
        };
        process
            .work_until("the end", || async {
                let seen = process.see(&id).await;
                match step.load(Ordering::SeqCst) {
                    0 if seen.counts.completed == 30 && process.batches.figures().lines_aside == 30 => {
                        assert_eq!(process.lines.count("limited"), 30);
                        next(10);
                    }
                    // Of thirty that wait for the same, one finds out, and waits again.
                    1 if process.lines.count("limited") == 31 && process.batches.figures().lines_aside == 30 => {
                        process.lines.let_through.store(100, Ordering::SeqCst);
                        next(10);
                    }
                    _ => {}
                }
                seen.batch.status.has_ended()
            })
            .await;
        let ended = process.see(&id).await;
        assert_eq!((ended.batch.status, ended.counts.completed), (BatchStatus::Completed, 60));
        assert_eq!((process.lines.count("limited"), process.lines.count("free")), (30 + 1 + 30, 30));
        let figures = process.batches.figures();
        assert_eq!((figures.lines_completed, figures.lines_aside, figures.lines_running), (60, 0, 0));
    }

    async fn a_line_of_several_answers_counts_as_several(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["gate x7"; 5]).await;
        process
            .work_until("the end", || async {
                let figures = process.batches.figures();
                assert!(figures.answers_running == 7 * figures.lines_running && figures.lines_running <= 2, "{figures:?}");
                let seen = process.see(&id).await;
                // Two at a time, and the fifth alone.
                if process.lines.at_gate(&id) == 2 || seen.counts.completed == 4 {
                    process.lines.gate.add_permits(1);
                }
                seen.batch.status.has_ended()
            })
            .await;
        assert_eq!(process.lines.at_once_most.load(Ordering::SeqCst), 2, "three would be 21 answers");
        assert_eq!(process.see(&id).await.batch.quote.expect("a quote").answers, 35);
    }

    async fn the_first_batch_gives_another_project_its_share(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let other = process.for_another(cloud).await;
        let first = process.create(&["gate"; 60]).await;
        let (second, ended) = (Mutex::new(None::<BatchId>), AtomicUsize::new(0));
        process
            .work_until("half and half", || async {
                let known = second.lock().expect("a batch").clone();
                let at_gate = [Some(&first), known.as_ref()].map(|id| id.map_or(0, |id| process.lines.at_gate(id)));
                let has_settled = process.lines.count("gate") == 16 + ended.load(Ordering::SeqCst);
                if known.is_none() && at_gate == [16, 0] {
                    *second.lock().expect("a batch") = Some(other.create(&["gate"; 60]).await);
                } else if known.is_some() && at_gate[0] > 8 && at_gate[0] + at_gate[1] == 16 && has_settled {
                    // Who came first goes first.
                    ended.fetch_add(1, Ordering::SeqCst);
                    process.lines.gate.add_permits(1);
                }
                at_gate == [8, 8]
            })
            .await;
        let started = process.lines.count("gate");
        assert!(started < 60, "the first batch still had lines of its own: {started}");
    }

    async fn a_batch_gives_way_to_a_project_that_has_none_and_to_an_earlier_deadline(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let other = process.for_another(cloud).await;
        let mut stuck = Vec::new();
        for hours in 0..8 {
            stuck.push(process.create_within(&format!("{}h", 24 - hours), &["limited", "limited"]).await);
        }
        let others = Mutex::new(None);
        process
            .work_until("the batches that came later", || async {
                if others.lock().expect("batches").is_none() && process.lines.count("limited") == 16 {
                    let (one, two) = (other.create(&["free"]).await, process.create_within("1h", &["free"]).await);
                    *others.lock().expect("batches") = Some((one, two));
                }
                let known = others.lock().expect("batches").clone();
                let Some((one, two)) = known else { return false };
                other.see(&one).await.batch.status.has_ended() && process.see(&two).await.batch.status.has_ended()
            })
            .await;
        // The one with the most time left was worked on by one claim more, and none of it was lost.
        process.lines.let_through.store(100, Ordering::SeqCst);
        for id in &stuck {
            let ended = process.work_until_ended(id).await;
            assert_eq!((ended.batch.status, ended.counts.completed), (BatchStatus::Completed, 2));
        }
        let seen = process.batches.open_figures().await.expect("figures");
        assert_eq!((seen.batches.len(), seen.oldest_waiting), (0, DurationMs::ZERO));
    }

    async fn a_reading_that_is_not_done_in_time_fails(cloud: &TestCloud) {
        let process = Process::start(cloud, &cloud.cloud, &blobs(cloud), "gw_1").await;
        let id = process.create(&["stall"]).await;
        process.work_until("the reading to stall", || async { process.lines.read.load(Ordering::SeqCst) == 1 }).await;
        cloud.clock.advance(DurationMs::from_hours(24));
        let ended = process.work_until_ended(&id).await;
        assert_eq!((ended.batch.status, ended.batch.problems[0].code.as_str()), (BatchStatus::Failed, "batch_expired"));
        assert_eq!(process.lines.read.load(Ordering::SeqCst), 1);
    }

    async fn a_content_is_as_old_as_its_store_says_however_fast_the_cloud_s_time_runs(cloud: &TestCloud) {
        let real = Arc::new(ManualClock::new(cloud.cloud.clock().now()));
        let blobs = Arc::new(MemoryBlobs::new("home", Arc::<ManualClock>::clone(&real)));
        let process = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        blobs.put(cloud.cloud.ids().mint(), b"its row is about to be written");
        cloud.clock.advance(DurationMs::from_hours(366 * 24));
        assert_eq!((process.batches.files().sweep().await.expect("swept"), blobs.count()), (0, 1));
        real.advance(DurationMs::from_millis(3_600_001));
        assert_eq!((process.batches.files().sweep().await.expect("swept"), blobs.count()), (1, 0));
    }

    async fn contents_without_a_row_and_expired_files_are_swept(cloud: &TestCloud) {
        let blobs = blobs(cloud);
        let process = Process::start(cloud, &cloud.cloud, &blobs, "gw_1").await;
        let files = process.batches.files();
        let orphan: FileId = cloud.cloud.ids().mint();
        blobs.put(orphan.clone(), b"written before a crash");
        let mut upload = process.begin().await;
        upload.append(b"kept for an hour").await.expect("taken");
        let stored = upload.commit().await.expect("durable");
        let new = NewFile { purpose: FilePurpose::UserData, filename: "a".to_owned(), expires_after: Some(DurationMs::from_hours(1)) };
        let file = created(files.create(&Call::once(process.person.clone()), stored, &new, &|_| Ok(String::new())).await);
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (0, 2), "young ones may get a row yet");
        cloud.clock.advance(DurationMs::from_millis(3_600_001));
        assert_eq!(files.get(&process.person, &file.id).await.unwrap_err().code(), ErrorCode::NotFound, "expired is gone at once");
        let page = files.list(&process.person, None, &PageRequest::default()).await.expect("a list");
        assert_eq!(page.items, []);
        assert_eq!((files.sweep().await.expect("swept"), blobs.count()), (2, 0));
        assert!(!blobs.has(&orphan));
    }
}
