//! The real port: directories of a real file system, and a bucket of a server on loopback.
#![cfg(test)]

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use sublet_core::delivery::{Delivered, Delivery, DeliveryFailure, DeliveryPort, Target};
use sublet_testkit::ManualClock;
use sublet_testkit::s3::{FakeS3, StoreTrouble, deliveries};

const NAME: &str = "focus-1.2-2026-03.csv";

fn file(target: Target, attempt: i64) -> Delivered {
    Delivered { target, name: NAME.parse().unwrap(), schedule: "exp_one".parse().unwrap(), attempt }
}

fn folder(name: &str) -> Target {
    Target::Directory { folder: name.parse().unwrap() }
}

fn port(root: &Path) -> Arc<dyn DeliveryPort> {
    deliveries(root.to_owned(), Arc::new(ManualClock::default()))
}

/// Content that says where a piece is missing or twice there.
fn content(bytes: usize) -> Vec<u8> {
    (0..bytes / 8 + 1).flat_map(|number| format!("{number:07}\n").into_bytes()).take(bytes).collect()
}

async fn deliver(port: &Arc<dyn DeliveryPort>, file: &Delivered, content: &[u8]) -> Result<(), DeliveryFailure> {
    let mut delivery = port.begin(file).await?;
    for piece in content.chunks(300_001) {
        delivery.append(piece.to_vec()).await?;
    }
    delivery.commit().await
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn failure<T>(result: Result<T, DeliveryFailure>) -> String {
    let Err(DeliveryFailure(why)) = result else { panic!("it did not fail") };
    why
}

#[tokio::test]
async fn a_file_of_a_directory_is_there_whole_or_as_it_was_before() {
    let root = tempfile::tempdir().unwrap();
    let (port, place) = (port(root.path()), root.path().join("finance/focus"));
    deliver(&port, &file(folder("finance/focus"), 1), b"first").await.unwrap();
    let mut second = port.begin(&file(folder("finance/focus"), 2)).await.unwrap();
    second.append(b"half of the sec".to_vec()).await.unwrap();
    assert_eq!(std::fs::read(place.join(NAME)).unwrap(), b"first");
    second.append(b"ond".to_vec()).await.unwrap();
    second.commit().await.unwrap();
    assert_eq!(std::fs::read(place.join(NAME)).unwrap(), b"half of the second");
    drop(port.begin(&file(folder("finance/focus"), 3)).await.unwrap());
    assert_eq!(names(&place), [NAME], "what was dropped leaves nothing");
}

#[tokio::test]
async fn what_a_dead_attempt_left_is_cleared_and_it_cannot_finish_if_it_was_alive() {
    let root = tempfile::tempdir().unwrap();
    let port = port(root.path());
    let mut slow = port.begin(&file(folder(""), 1)).await.unwrap();
    slow.append(b"old".to_vec()).await.unwrap();
    // Another file's unfinished beginning is not this one's.
    let manifest = Delivered { name: format!("{NAME}.manifest.json").parse().unwrap(), ..file(folder(""), 1) };
    std::mem::forget(port.begin(&manifest).await.unwrap());
    deliver(&port, &file(folder(""), 2), b"new").await.unwrap();
    assert!(failure(slow.commit().await).contains("No such file"));
    assert_eq!(std::fs::read(root.path().join(NAME)).unwrap(), b"new");
    assert_eq!(names(root.path()), [format!(".{NAME}.manifest.json.exp_one.1.part"), NAME.to_owned()]);
}

#[tokio::test]
async fn a_schedule_in_the_place_of_one_that_was_deleted_shares_no_file_with_it() {
    let root = tempfile::tempdir().unwrap();
    let port = port(root.path());
    let mut deleted = port.begin(&file(folder(""), 1)).await.unwrap();
    deleted.append(b"old".to_vec()).await.unwrap();
    let other = Delivered { schedule: "exp_other".parse().unwrap(), ..file(folder(""), 1) };
    let mut new = port.begin(&other).await.unwrap();
    new.append(b"half of ".to_vec()).await.unwrap();
    assert_eq!(names(root.path()), [format!(".{NAME}.exp_other.1.part")], "what the other left is cleared");
    assert!(failure(deleted.commit().await).contains("No such file"));
    new.append(b"the new".to_vec()).await.unwrap();
    new.commit().await.unwrap();
    assert_eq!(std::fs::read(root.path().join(NAME)).unwrap(), b"half of the new");
    assert_eq!(names(root.path()), [NAME]);
}

#[tokio::test]
async fn links_and_files_in_the_place_of_directories_are_refused() {
    let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let port = port(root.path());
    std::os::unix::fs::symlink(elsewhere.path(), root.path().join("link")).unwrap();
    std::fs::write(root.path().join("file"), "x").unwrap();
    for name in ["link", "file", "link/deeper", "file/deeper"] {
        let why = failure(port.begin(&file(folder(name), 1)).await);
        assert!(why.contains("is a link or a file"), "{name}: {why}");
    }
    assert_eq!(names(elsewhere.path()), Vec::<String>::new());
    // A link in the place of the file is replaced, and what it leads to stays.
    let outside = elsewhere.path().join("precious");
    std::fs::write(&outside, "precious").unwrap();
    std::os::unix::fs::symlink(&outside, root.path().join(NAME)).unwrap();
    deliver(&port, &file(folder(""), 1), b"content").await.unwrap();
    assert_eq!(std::fs::read(&outside).unwrap(), b"precious");
    assert!(root.path().join(NAME).symlink_metadata().unwrap().is_file());
}

/// Unmounted when the test ends, however it ends.
struct Mounted(tempfile::TempDir);

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_the_file_before() {
    let root = tempfile::tempdir().unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=256k", "tmpfs"]).arg(root.path()).status().unwrap();
    assert!(mounted.success(), "tests run as root");
    let root = Mounted(root);
    let port = port(root.0.path());
    deliver(&port, &file(folder("small"), 1), b"before").await.unwrap();
    let why = failure(deliver(&port, &file(folder("small"), 2), &content(1_000_000)).await);
    assert!(why.ends_with("small/focus-1.2-2026-03.csv: the disk is full"), "{why}");
    assert_eq!(std::fs::read(root.0.path().join("small").join(NAME)).unwrap(), b"before");
    assert_eq!(names(&root.0.path().join("small")), [NAME]);
    deliver(&port, &file(folder("small"), 3), &content(100_000)).await.unwrap();
}

fn nowhere() -> Arc<dyn DeliveryPort> {
    port(Path::new("/nonexistent"))
}

#[tokio::test]
async fn an_object_is_sent_in_parts_and_is_the_same_however_many() {
    let (store, port) = (FakeS3::start(), nowhere());
    const MIB: usize = 1024 * 1024;
    for (bytes, parts) in [(0, 1), (1, 1), (8 * MIB, 1), (8 * MIB + 1, 2), (17 * MIB, 3)] {
        let before = store.seen().len();
        deliver(&port, &file(Target::S3(store.bucket("a/b")), 1), &content(bytes)).await.unwrap();
        let found = store.object(&format!("a/b/{NAME}")).expect("an object");
        assert!(found == content(bytes), "{bytes} bytes");
        let sent = store.seen()[before..].iter().filter(|line| line.contains("partNumber=")).count();
        assert_eq!((sent, store.unfinished()), (parts, 0), "{bytes} bytes");
    }
    deliver(&port, &file(Target::S3(store.bucket("")), 1), b"at the top").await.unwrap();
    assert_eq!(store.keys(), [format!("a/b/{NAME}"), NAME.to_owned()]);
}

async fn begun(port: &Arc<dyn DeliveryPort>, store: &FakeS3, bytes: usize) -> Box<dyn Delivery> {
    let mut delivery = port.begin(&file(Target::S3(store.bucket("x")), 1)).await.unwrap();
    delivery.append(content(bytes)).await.unwrap();
    delivery
}

#[tokio::test]
async fn uploads_that_nobody_finished_are_aborted_and_cannot_be_completed_then() {
    let (store, port) = (FakeS3::start(), nowhere());
    for bytes in [0, 3, 9 * 1024 * 1024] {
        drop(begun(&port, &store, bytes).await);
        assert_eq!(store.unfinished(), 1, "an attempt that died");
        let slow = begun(&port, &store, bytes).await;
        assert_eq!(store.unfinished(), 1, "one that is slow");
        deliver(&port, &file(Target::S3(store.bucket("x")), 2), b"new").await.unwrap();
        assert_eq!(store.unfinished(), 0);
        assert!(failure(slow.commit().await).contains("NoSuchUpload"), "{bytes} bytes");
        assert_eq!(store.object(&format!("x/{NAME}")).unwrap(), b"new");
    }
}

#[tokio::test]
async fn what_a_store_refuses_is_told_and_changes_nothing() {
    let (store, port) = (FakeS3::start(), nowhere());
    let target = || Target::S3(store.bucket("x"));
    let long = content(9 * 1024 * 1024);
    deliver(&port, &file(target(), 1), b"before").await.unwrap();
    for (trouble, content, says) in [
        (StoreTrouble::Refuse(403, "AccessDenied"), &b"short"[..], "status 403, AccessDenied: you shall not"),
        (StoreTrouble::Refuse(503, "SlowDown"), &long[..], "status 503, SlowDown"),
        (StoreTrouble::LoseAnswer, &long[..], "connection closed"),
    ] {
        store.fail_next(trouble);
        let why = failure(deliver(&port, &file(target(), 1), content).await);
        assert!(why.contains(says), "{why}");
        assert_eq!(store.object(&format!("x/{NAME}")).unwrap(), b"before");
    }
    // Of an upload in parts the last call may say only in its body that it failed.
    let mut delivery = port.begin(&file(target(), 2)).await.unwrap();
    delivery.append(long.clone()).await.unwrap();
    // The part that is left, and then the completion.
    store.fail_next(StoreTrouble::None);
    store.fail_next(StoreTrouble::LateError);
    let why = failure(delivery.commit().await);
    assert!(why.ends_with("the upload was not completed, InternalError"), "{why}");
    assert_eq!(store.object(&format!("x/{NAME}")).unwrap(), b"before");
}

#[tokio::test]
async fn a_secret_that_is_wrong_or_missing_is_said_without_saying_it() {
    let (store, port) = (FakeS3::start(), nowhere());
    for (name, says) in [("wrong", "SignatureDoesNotMatch"), ("missing", "the secret 'missing' cannot be read")] {
        let bucket = sublet_core::delivery::Bucket { secret: name.parse().unwrap(), ..store.bucket("x") };
        let why = failure(port.begin(&file(Target::S3(bucket), 1)).await);
        assert!(why.contains(says) && !why.contains("another secret"), "{why}");
    }
    assert_eq!(store.keys(), Vec::<String>::new());
}
