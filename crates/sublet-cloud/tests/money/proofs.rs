//! What proves invoices: bundles that verify offline, receipts, and a log that only grows.

use sublet_cloud::proof::{ChargeProof, ChargeReceipt, LogTile};
use sublet_cloud::{Actor, Cloud};
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::invoice::InvoiceState;
use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::Quantity;
use sublet_proof::bundle::Place;
use sublet_proof::leaf::{ChargeLeaf, SALT_SECRET_BYTES, SaltKey, SaltSecret, leaf_hash};
use sublet_proof::merkle::{Frontier, Hash, TreeHead};
use sublet_proof::note::VerifierKey;
use sublet_proof::receipt::Receipt;
use sublet_store::PageRequest;
use sublet_store::credit_note::CreditNote;
use sublet_testkit::bundle::{bundle, verify};
use sublet_testkit::prices::republish;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;
use crate::months::{close, credit, customer, issued, month, used};

const HOUR: DurationMs = DurationMs::from_seconds(3_600);

async fn log(cloud: &Cloud) -> (VerifierKey, TreeHead) {
    let log = cloud.log().await.expect("a log");
    let key: VerifierKey = log.key.parse().expect("a key");
    let head = key.read_checkpoint(&log.checkpoint).expect("a checkpoint");
    (key, head)
}

/// Settles many uses at once.
async fn used_often(session: &Session, times: i64) -> Vec<UsageRecord> {
    let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
    let records: Vec<_> = (0..times).map(|index| session.record(&grant.slice, 1 + index, 2 * index)).collect();
    let report = session.cloud.settle(&records).await.expect("settled");
    assert_eq!((report.settled, report.quarantined), (u64::try_from(times).expect("few"), 0));
    session.give_back(&grant.slice, times).await.expect("returned");
    records
}

async fn receipts(cloud: &TestCloud, actor: &Actor, record: &UsageRecord) -> Vec<ChargeReceipt> {
    cloud.cloud.receipts(actor, record.request.as_str(), &PageRequest::default()).await.expect("receipts").items
}

on_both_databases! {
    async fn an_issued_invoice_has_a_bundle_that_verifies_offline(cloud: &TestCloud) {
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
        let tiers = vec![tier(Some(10_000_000), UNIT), tier(None, UNIT / 2)];
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let organization = session.access.organization.clone();
        // Two price lists in one month, and one charge that comes late.
        used_often(&session, 20).await;
        let graduated = |entry: &PriceEntry| PriceEntry::new(entry.sku.clone(), PriceModel::Graduated { tiers: tiers.clone() });
        republish(&cloud.cloud, &cloud.clock, graduated).await;
        used(&session, 8_000_000).await;
        let grant = session.grant(None, 9 * UNIT, 9 * UNIT).await.expect("credit is there");
        let late = session.record(&grant.slice, 5, 4_000_000);
        cloud.clock.set(month("Europe/Berlin", "2026-04").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        session.cloud.settle(std::slice::from_ref(&late)).await.expect("settled");
        used_often(&session, 7).await;
        cloud.clock.set(month("Europe/Berlin", "2026-05").plus(HOUR));
        assert_eq!(close(&cloud.another(7).await).await.1, 1);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let (key, head) = log(&cloud.cloud).await;
        assert_eq!(head.size, 2);
        for (place, bill) in (0_u64..).zip(issued(cloud, &organization).await) {
            let text = bundle(&cloud.cloud, &admin, &bill.invoice.id).await.expect("a bundle");
            let found = verify(&text, Some(&key)).expect("it is right");
            assert_eq!((found.index, &found.content), (place, &bill.invoice.content));
            assert_eq!((found.seal.invoice(), Some(found.seal.number())), (&bill.invoice.id, bill.invoice.number));
            assert_eq!(bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("the operator's"), text);
            let (header, leaves) = text.split_once('\n').expect("leaves");
            let dearer = format!("{header}\n{}", leaves.replacen("\"amount\":\"0.", "\"amount\":\"1.", 1));
            assert_eq!(verify(&dearer, Some(&key)).expect_err("it is wrong").place, Place::Leaf(0));
        }
    }

    async fn what_is_not_sealed_or_not_ones_own_has_no_bundle(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let other = customer(cloud, "other", "UTC", 100 * UNIT).await;
        used(&session, 1_000).await;
        used(&other, 1_000).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let draft = cloud.cloud.draft_invoice(&admin, &session.access.organization, None).await.expect("a draft");
        let refused = bundle(&cloud.cloud, &admin, &draft.invoice.id).await.expect_err("a draft is not sealed");
        assert_eq!(refused.code(), ErrorCode::Conflict);
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        let theirs = issued(cloud, &other.access.organization).await;
        let refused = bundle(&cloud.cloud, &admin, &theirs[0].invoice.id).await.expect_err("it is another's");
        assert_eq!(refused.code(), ErrorCode::NotFound);
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let own = issued(cloud, &session.access.organization).await;
        let refused = bundle(&cloud.cloud, &project, &own[0].invoice.id).await.expect_err("projects see no bills");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
    }

    /// Credit notes and payments come after the seal: they change neither what was sealed nor the bundle's bytes.
    async fn a_bundle_is_the_same_whatever_becomes_of_its_invoice(cloud: &TestCloud) {
        let session = customer(cloud, "postpaid", "UTC", 100 * UNIT).await;
        used(&session, 3_000_000).await;
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        close(&cloud.cloud).await;
        let organization = session.access.organization.clone();
        let bill = issued(cloud, &organization).await.remove(0);
        let before = bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle");
        let CreditNote { amount, .. } = credit(cloud, &bill.invoice.id, bill.invoice.content.total.get()).await.expect("a note");
        assert_eq!(amount, bill.invoice.content.total);
        assert!(matches!(issued(cloud, &organization).await[0].invoice.state, InvoiceState::Void { .. }));
        assert_eq!(bundle(&cloud.cloud, &Actor::system(), &bill.invoice.id).await.expect("a bundle"), before);
    }

    async fn every_charge_of_a_long_month_has_a_receipt(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        // Two charges each, and one for the first, which has no output: over two full blocks of 256 and a part of one.
        let records = used_often(&session, 270).await;
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let pending = receipts(cloud, &project, &records[0]).await;
        let sealed_after = month("Europe/Berlin", "2026-04");
        assert!(pending.iter().all(|receipt| receipt.proof == ChargeProof::Pending { sealed_after }), "{pending:?}");
        cloud.clock.set(sealed_after.plus(HOUR));
        close(&cloud.cloud).await;
        let other = customer(cloud, "other", "UTC", 100 * UNIT).await;
        used(&other, 1_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        close(&cloud.cloud).await;
        let (key, _) = log(&cloud.cloud).await;
        let mut charges = std::collections::BTreeSet::new();
        for record in &records {
            for receipt in receipts(cloud, &project, record).await {
                let ChargeProof::Sealed(text) = receipt.proof else { panic!("{:?}", receipt.proof) };
                let (proven, found) = Receipt::verify(&text, Some(&key)).expect("it is right");
                let charge = proven.charge().expect("a charge");
                assert_eq!((charge.charge.as_ref(), charge.source.as_ref()), (receipt.charge.as_str(), record.request.as_str()));
                assert_eq!((charge.amount, found), (receipt.amount, key.clone()));
                charges.insert(receipt.charge);
            }
        }
        assert_eq!(charges.len(), 539);
        let theirs = cloud.cloud.receipts(&actor(&cloud.cloud, &cloud.keys.admin).await, "req_none", &PageRequest::default()).await;
        assert_eq!(theirs.expect_err("there is none").code(), ErrorCode::NotFound);
        let stranger = Actor { scope: sublet_core::Scope::Organization(other.access.organization.clone()), ..project.clone() };
        let refused = cloud.cloud.receipts(&stranger, records[0].request.as_str(), &PageRequest::default()).await;
        assert_eq!(refused.expect_err("it is another's").code(), ErrorCode::NotFound);
    }

    async fn the_log_has_one_key_and_only_grows(cloud: &TestCloud) {
        let (key, empty) = log(&cloud.cloud).await;
        assert_eq!((empty.size, empty.root), (0, Hash::of_nothing()));
        let sessions = [customer(cloud, "a", "UTC", 100 * UNIT).await, customer(cloud, "b", "Asia/Kathmandu", 100 * UNIT).await];
        let mut heads = vec![empty];
        for name in ["2026-04", "2026-05", "2026-06"] {
            for session in &sessions {
                used(session, 1_000).await;
            }
            cloud.clock.set(month("UTC", name).plus(HOUR));
            let other = cloud.another(9).await;
            // Both look at once; each invoice is in the log once.
            let (here, there) = tokio::join!(cloud.cloud.close_months(), other.close_months());
            assert_eq!(here.expect("closed").issued + there.expect("closed").issued, 2);
            let (again, head) = log(&other).await;
            assert_eq!(again, key, "processes share the key");
            heads.push(head);
        }
        assert_eq!(heads.iter().map(|head| head.size).collect::<Vec<_>>(), [0, 2, 4, 6]);
        let entries = cloud.cloud.log_tile(LogTile::Entries { place: 0, width: 6 }).await.expect("read").expect("there");
        let hashes = cloud.cloud.log_tile(LogTile::Hashes { level: 0, place: 0, width: 6 }).await.expect("read").expect("there");
        let mut tree = Frontier::default();
        for (entry, hash) in entries.chunks(34).zip(hashes.chunks(32)) {
            assert_eq!(&entry[..2], [0, 32]);
            let hashed = Hash::of_entry(&entry[2..]);
            assert_eq!(hashed.bytes(), hash);
            tree.push(hashed, |_, _| {}).expect("room");
            let of_size = heads.iter().find(|head| head.size == tree.size());
            assert!(of_size.is_none_or(|head| head.root == tree.root()), "a checkpoint is of other entries");
        }
        assert_eq!(tree.size(), 6);
        for tile in [
            LogTile::Hashes { level: 0, place: 0, width: 7 },
            LogTile::Hashes { level: 1, place: 0, width: 1 },
            LogTile::Hashes { level: 0, place: 1, width: 1 },
            LogTile::Hashes { level: 9, place: u64::MAX, width: 1 },
            LogTile::Entries { place: u64::MAX, width: 1 },
        ] {
            assert_eq!(cloud.cloud.log_tile(tile).await.expect("read"), None, "{tile:?}");
        }
    }

    /// Erased as docs/operation/proof.md says: the seal, with the secret of the salts. The charges are in the books.
    async fn what_is_erased_leaves_hashes_that_say_nothing_and_all_else_is_proven(cloud: &TestCloud) {
        let erased = customer(cloud, "erased", "UTC", 100 * UNIT).await;
        let other = customer(cloud, "other", "UTC", 100 * UNIT).await;
        let (gone, kept) = (used(&erased, 1_000).await, used(&other, 2_000).await);
        cloud.clock.set(month("UTC", "2026-04").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 2);
        let (key, head) = log(&cloud.cloud).await;
        let lost = issued(cloud, &erased.access.organization).await.remove(0).invoice.id;
        let theirs = issued(cloud, &other.access.organization).await.remove(0).invoice.id;
        let before = bundle(&cloud.cloud, &Actor::system(), &lost).await.expect("a bundle");
        let others = bundle(&cloud.cloud, &Actor::system(), &theirs).await.expect("a bundle");
        let statement = include_str!("../../../sublet-store/tests/erased_seals.sql");
        let erasing = cloud.cloud.store().write((), move |(), tx| Box::pin(async move { tx.execute(statement, &[]).await }));
        assert_eq!(erasing.await.expect("erased"), 1);
        cloud.expect_erased(&lost);
        // No bundle and no receipt can be made any more, by any process.
        for process in [&cloud.cloud, &cloud.another(7).await] {
            let refused = bundle(process, &Actor::system(), &lost).await.expect_err("it is erased");
            assert_eq!(refused.code(), ErrorCode::Conflict);
            let page = PageRequest::default();
            let left = process.receipts(&Actor::system(), gone.request.as_str(), &page).await.expect("charges").items;
            assert!(!left.is_empty() && left.iter().all(|receipt| receipt.proof == ChargeProof::Never), "{left:?}");
        }
        // Who still has every word of the leaf but its salt does not find its hash with another one.
        let (sealed, text) = before.lines().nth(1).and_then(|line| line.split_once(' ')).expect("a leaf");
        let leaf: ChargeLeaf<'_> = serde_json::from_str(text).expect("a charge");
        assert_eq!(leaf_hash(&leaf.text().expect("text")).to_string(), sealed);
        for secret in [[0; SALT_SECRET_BYTES], [7; SALT_SECRET_BYTES]] {
            let salt = SaltKey::new(&SaltSecret::new(secret)).of_charge(&leaf.charge.parse().expect("an id"));
            let guessed = ChargeLeaf { salt: salt.into(), ..leaf.clone() };
            assert_ne!(leaf_hash(&guessed.text().expect("text")).to_string(), sealed);
        }
        // The log is what it was, and grows on; what others have is proven as before, and so is what the erased kept.
        assert_eq!(log(&cloud.cloud).await, (key.clone(), head));
        assert_eq!(bundle(&cloud.cloud, &Actor::system(), &theirs).await.expect("a bundle"), others);
        verify(&others, Some(&key)).expect("another's bundle is right");
        verify(&before, Some(&key)).expect("who kept a bundle has its proof");
        used(&other, 3_000).await;
        cloud.clock.set(month("UTC", "2026-05").plus(HOUR));
        assert_eq!(close(&cloud.cloud).await.1, 1);
        assert_eq!(log(&cloud.cloud).await.1.size, head.size + 1);
        for receipt in receipts(cloud, &Actor::system(), &kept).await {
            let ChargeProof::Sealed(text) = receipt.proof else { panic!("{:?}", receipt.proof) };
            Receipt::verify(&text, Some(&key)).expect("another's receipt is right");
        }
        let verified = cloud.cloud.verify_ledger(&Actor::system()).await.expect("verified");
        assert!(verified.balanced(), "the charges are in the books: {:?}", verified.findings);
    }
}
