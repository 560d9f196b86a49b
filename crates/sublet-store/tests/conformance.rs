//! What both databases have to do alike, whatever use case is on top.
#![cfg(test)]

use std::time::Duration;

use sublet_core::file::FilePurpose;
use sublet_core::id::OutboxId;
use sublet_core::{Bytes, DurationMs, ErrorCode, Result, Timestamp};
use sublet_money::period::Interval;
use sublet_money::storage::KeptBytes;
use sublet_store::change::{self, Subject};
use sublet_store::database::INSERT_ROWS_MAX;
use sublet_store::file::{self, File};
use sublet_store::idempotency::{self, IdempotentCall, StoredAnswer};
use sublet_store::outbox::{self, Effect, OutboxJob};
use sublet_store::row::Value;
use sublet_store::{Store, Tx, params, setting, storage};
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

/// Writers at once, and what each adds.
const WRITERS: i64 = 8;
const ADDITIONS: i64 = 10;

async fn set(store: &Store, name: &str, value: &str) -> Result<()> {
    store.write((name, value), |(name, value), tx| Box::pin(setting::set(tx, name, value))).await
}

async fn find(store: &Store, name: &str) -> Option<String> {
    store.read(name, |name, tx| Box::pin(setting::find(tx, name))).await.expect("a setting")
}

async fn add_one(tx: &mut Tx) -> Result<()> {
    let sum: i64 = setting::find(tx, "sum").await?.map_or(0, |text| text.parse().expect("a number"));
    setting::set(tx, "sum", &(sum + 1).to_string()).await
}

fn effect(cloud: &TestCloud, key: &str) -> Effect {
    let id = cloud.cloud.ids().mint::<OutboxId>();
    let (kind, dedup_key, payload) = ("mail".to_owned(), key.to_owned(), "{}".to_owned());
    Effect { id, kind, dedup_key, organization: None, endpoint: None, payload, created_at: cloud.now() }
}

async fn claim(store: &Store, now: Timestamp) -> Option<OutboxJob> {
    let lease = DurationMs::from_seconds(10);
    store.write((), move |(), tx| Box::pin(outbox::claim(tx, ("mail", "worker"), now, lease))).await.expect("a claim")
}

on_both_databases! {
    async fn a_failed_transaction_leaves_nothing(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let failed: Result<()> = store
            .write((), |(), tx| Box::pin(async move {
                setting::set(tx, "half", "done").await?;
                Err(sublet_core::Error::new(ErrorCode::Conflict, "no"))
            }))
            .await;
        assert_eq!(failed.expect_err("it failed").code(), ErrorCode::Conflict);
        assert_eq!(find(store, "half").await, None);
    }

    async fn a_reading_that_is_abandoned_at_any_point_leaves_its_connection_as_it_was(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        for polls in 0..300 {
            let reading = store.read((), |(), tx| Box::pin(setting::find(tx, "any")));
            let patience = async {
                for _ in 0..polls {
                    tokio::task::yield_now().await;
                }
            };
            tokio::select! {
                biased;
                read = reading => assert_eq!(read.expect("a setting"), None),
                () = patience => {}
            }
            set(store, "written", "yes").await.expect("whoever has that connection next may write");
        }
    }

    async fn an_abandoned_transaction_leaves_nothing_and_holds_nobody_up(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let forever = store.write((), |(), tx| Box::pin(async move {
            setting::set(tx, "half", "done").await?;
            std::future::pending::<Result<()>>().await
        }));
        assert!(tokio::time::timeout(Duration::from_millis(100), forever).await.is_err(), "it never ends by itself");
        set(store, "next", "written").await.expect("the lock is free");
        assert_eq!((find(store, "half").await, find(store, "next").await), (None, Some("written".to_owned())));
    }

    async fn a_reading_sees_one_state_to_its_end(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        set(store, "x", "old").await.expect("written");
        store
            .read(store, |store, tx| Box::pin(async move {
                let before = setting::find(tx, "x").await?;
                set(store, "x", "new").await?;
                assert_eq!((before.as_deref(), setting::find(tx, "x").await?.as_deref()), (Some("old"), Some("old")));
                Ok(())
            }))
            .await
            .expect("read");
        assert_eq!(find(store, "x").await.as_deref(), Some("new"));
    }

    async fn writers_at_once_lose_no_addition(cloud: &TestCloud) {
        let tasks: Vec<_> = (0..WRITERS)
            .map(|_| {
                let store = cloud.cloud.store().clone();
                tokio::spawn(async move {
                    for _ in 0..ADDITIONS {
                        store.write((), |(), tx| Box::pin(add_one(tx))).await.expect("added");
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(find(cloud.cloud.store(), "sum").await, Some((WRITERS * ADDITIONS).to_string()));
    }

    async fn what_exists_already_is_a_conflict(cloud: &TestCloud) {
        let call = IdempotentCall { scope: "s".to_owned(), key: "k".to_owned(), request_hash: "h".to_owned() };
        let answer = StoredAnswer { status: 200, response: "{}".to_owned() };
        let now = cloud.now();
        let insert = || cloud.cloud.store().write((&call, &answer), move |(call, answer), tx| {
            Box::pin(idempotency::insert(tx, call, answer, now))
        });
        insert().await.expect("the first");
        assert_eq!(insert().await.expect_err("the second").code(), ErrorCode::Conflict);
        let deleted = cloud.cloud.store().write((), move |(), tx| {
            Box::pin(idempotency::delete_before(tx, now.plus(DurationMs::from_seconds(1))))
        });
        assert!(deleted.await.expect("deleted"), "there are no more");
        insert().await.expect("it is forgotten");
    }

    async fn every_value_comes_back_as_it_went_in(cloud: &TestCloud) {
        let text = "ä 中 \u{1F600} '\" $1".to_owned();
        let row = cloud
            .cloud
            .store()
            .read(&text, |text, tx| Box::pin(async move {
                // The third parameter comes first: numbers name parameters, places do not.
                let sql = "SELECT CAST($3 AS BIGINT), CAST($1 AS TEXT), CAST($2 AS BIGINT), CAST($1 AS TEXT), CAST($4 AS TEXT)";
                tx.fetch_one(sql, params![text.as_str(), i64::MIN, i64::MAX, None::<String>]).await
            }))
            .await
            .expect("a row");
        let mut row = row.reader();
        assert_eq!((row.int().expect("a number"), row.string().expect("text")), (i64::MAX, text.clone()));
        assert_eq!((row.int().expect("a number"), row.string().expect("text")), (i64::MIN, text.clone()));
        assert_eq!(row.optional_text().expect("a column"), None);
        assert!(row.int().is_err(), "there is no sixth column");
    }

    async fn many_rows_are_inserted_in_pieces(cloud: &TestCloud) {
        let count = INSERT_ROWS_MAX * 2 + 3;
        let inserted = cloud
            .cloud
            .store()
            .write(count, |count, tx| Box::pin(async move {
                let rows: Vec<Vec<Value<'_>>> =
                    (0..*count).map(|number| vec![Value::from(format!("many {number}")), Value::from(number.to_string())]).collect();
                let prefix = "INSERT INTO settings (name, value) VALUES ";
                let first = tx.insert_many(prefix, "", &rows).await?;
                let again = tx.insert_many(prefix, "ON CONFLICT (name) DO NOTHING", &rows).await?;
                Ok((first, again))
            }))
            .await
            .expect("inserted");
        assert_eq!(inserted, (u64::try_from(count).expect("a small number"), 0));
        assert_eq!(find(cloud.cloud.store(), &format!("many {}", count - 1)).await, Some((count - 1).to_string()));
    }

    async fn an_effect_is_queued_once_and_done_once(cloud: &TestCloud) {
        let (store, now) = (cloud.cloud.store(), cloud.now());
        let (job, twin) = (effect(cloud, "a"), effect(cloud, "a"));
        for job in [&job, &twin] {
            store.write(job, move |job, tx| Box::pin(outbox::enqueue(tx, job))).await.expect("queued");
        }
        let other = store.write((), move |(), tx| Box::pin(outbox::claim(tx, ("other", "w"), now, DurationMs::ZERO))).await;
        assert_eq!(other.expect("a claim"), None, "it is of another kind");
        let late = claim(store, now).await.expect("it is due");
        assert_eq!((&late.effect, late.attempts), (&job, 1));
        assert_eq!(claim(store, now).await, None, "a worker has it");
        let later = now.plus(DurationMs::from_seconds(11));
        let claimed = claim(store, later).await.expect("that worker did not come back");
        assert_eq!(claimed.attempts, 2);
        store.write(&late, |late, tx| Box::pin(outbox::fail(tx, late, "late", None))).await.expect("of no effect");
        let again = later.plus(DurationMs::from_seconds(60));
        store.write(&claimed, move |job, tx| Box::pin(outbox::fail(tx, job, "down", Some(again)))).await.expect("put back");
        assert_eq!(claim(store, later).await, None, "its time has not come");
        let claimed = claim(store, again).await.expect("it is due");
        assert_eq!((claimed.attempts, claimed.last_error.as_str()), (3, "down"));
        store.write(&job.id, move |id, tx| Box::pin(outbox::complete(tx, id, ("done", now)))).await.expect("done");
        store.write(&claimed, |job, tx| Box::pin(outbox::fail(tx, job, "late", None))).await.expect("of no effect");
        store.write(&twin, |job, tx| Box::pin(outbox::enqueue(tx, job))).await.expect("ignored");
        assert_eq!(claim(store, again.plus(DurationMs::from_hours(1))).await, None, "once for ever");
        let retried = store.write(&job.id, move |id, tx| Box::pin(outbox::retry(tx, id, again))).await.expect("asked");
        assert!(!retried, "what is done is not done again");
    }

    async fn what_was_given_up_is_tried_again_only_when_somebody_says_so(cloud: &TestCloud) {
        let (store, now) = (cloud.cloud.store(), cloud.now());
        let job = effect(cloud, "a");
        store.write(&job, |job, tx| Box::pin(outbox::enqueue(tx, job))).await.expect("queued");
        let claimed = claim(store, now).await.expect("it is due");
        assert!(!store.write(&job.id, move |id, tx| Box::pin(outbox::retry(tx, id, now))).await.expect("asked"), "it is on its way");
        store.write(&claimed, |job, tx| Box::pin(outbox::fail(tx, job, "no", None))).await.expect("given up");
        let later = now.plus(DurationMs::from_hours(24));
        assert_eq!(claim(store, later).await, None);
        assert!(store.write(&job.id, move |id, tx| Box::pin(outbox::retry(tx, id, later))).await.expect("asked"));
        assert_eq!(claim(store, later).await.map(|job| job.attempts), Some(1));
    }

    async fn an_effect_of_a_failed_transaction_is_not_queued(cloud: &TestCloud) {
        let (store, now) = (cloud.cloud.store(), cloud.now());
        let failed: Result<()> = store
            .write(effect(cloud, "b"), move |job, tx| Box::pin(async move {
                outbox::enqueue(tx, job).await?;
                Err(sublet_core::Error::new(ErrorCode::Conflict, "its cause did not happen"))
            }))
            .await;
        failed.expect_err("it failed");
        assert_eq!(claim(store, now).await, None);
    }

    async fn changes_are_counted_by_subject(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let numbers = || async { store.read((), |(), tx| Box::pin(change::read(tx))).await.expect("numbers") };
        let before = numbers().await;
        store.write((), |(), tx| Box::pin(change::announce(tx, Subject::Access))).await.expect("announced");
        let after = numbers().await;
        assert_eq!((after.access, after.models, after.prices), (before.access + 1, before.models, before.prices));
    }

    async fn projects_with_files_from_before_anything_was_metered_are_metered_from_an_instant_on(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let actor = actor(&cloud.cloud, &cloud.keys.project).await;
        let (organization, project) = actor.project().expect("a project");
        let (created_at, from) = (cloud.now(), cloud.now().plus(DurationMs::from_hours(30)));
        let file = File {
            id: cloud.cloud.ids().mint(),
            organization: organization.clone(),
            project: project.clone(),
            home: "home".to_owned(),
            purpose: FilePurpose::UserData,
            filename: "a".to_owned(),
            bytes: Bytes::new(10),
            content_hash: String::new(),
            expires_at: None,
            created_at,
        };
        store
            .write(&file, move |file, tx| Box::pin(async move {
                file::insert(tx, file).await?;
                assert_eq!(storage::find_meter(tx, &file.project).await?.expect("a mark").metered_until, created_at);
                tx.execute("DELETE FROM storage_meters", &[]).await?;
                assert!(!storage::is_behind(tx, &file.organization, from).await?);
                for at in [from, from.plus(DurationMs::from_hours(1))] {
                    storage::begin_all(tx, at).await?;
                    assert_eq!(storage::find_meter(tx, &file.project).await?.expect("a mark").metered_until, from);
                }
                assert!(storage::is_behind(tx, &file.organization, from.plus(DurationMs::from_millis(1))).await?);
                storage::forget(tx, &file.project, from).await?;
                assert!(storage::find_meter(tx, &file.project).await?.is_some(), "it keeps a file");
                assert!(file::delete(tx, file, from).await?);
                let life = Interval { starts_at: created_at, ends_at: from };
                let kept = storage::kept_partly(tx, &file.project, life, &mut Default::default()).await?;
                assert_eq!(kept, [KeptBytes { bytes: file.bytes, interval: life }]);
                storage::forget(tx, &file.project, from).await?;
                assert_eq!(storage::find_meter(tx, &file.project).await?, None);
                Ok(())
            }))
            .await
            .expect("it is so");
    }

    async fn a_newer_schema_is_refused_and_left_as_it_is(cloud: &TestCloud) {
        let store = cloud.cloud.store();
        let set_version = |version: i64| store.write(version, |version, tx| Box::pin(async move {
            tx.execute("INSERT INTO schema_versions (version, name) VALUES ($1, 'future')", params![*version]).await
        }));
        set_version(9_999).await.expect("a version of the future");
        let refused = Store::open(&cloud.database.config).await.err().expect("it is refused");
        assert_eq!(refused.code(), ErrorCode::DataDirectoryNewer);
        store
            .write((), |(), tx| Box::pin(async move { tx.execute("DELETE FROM schema_versions WHERE version = 9999", &[]).await }))
            .await
            .expect("back");
        Store::open(&cloud.database.config).await.expect("nothing else was changed").close().await;
    }
}
