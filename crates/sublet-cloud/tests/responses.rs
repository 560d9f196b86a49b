//! Responses on both databases: whose they are, how long they are there, and how much of them.
#![cfg(test)]

use std::sync::Arc;

use sublet_cloud::idempotency::Call;
use sublet_cloud::key::NewKey;
use sublet_cloud::response::ResponsePort;
use sublet_cloud::slice::GatewayPort;
use sublet_core::admission::{Access, Admission, ModelAccess};
use sublet_core::id::{RequestId, ResponseId};
use sublet_core::key::Secret;
use sublet_core::rate::RateLimits;
use sublet_core::response::{KEPT_BYTES_MAX, KeptResponse, ResponseStore, TURNS_MAX};
use sublet_core::{DurationMs, ErrorCode, Scope};
use sublet_store::{PageRequest, response};
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{TestCloud, on_both_databases};

const KEPT_FOR: DurationMs = DurationMs::from_hours(24);

fn port(cloud: &TestCloud) -> ResponsePort {
    ResponsePort::new(cloud.cloud.clone(), KEPT_FOR)
}

async fn access(cloud: &TestCloud, secret: &Secret) -> Arc<Access> {
    let port = GatewayPort::new(cloud.cloud.clone(), "gw_1".parse().expect("an id"));
    port.authenticate(secret).await.expect("the key works")
}

/// Another project of the same organization, and a key of it.
async fn neighbour(cloud: &TestCloud) -> Secret {
    let admin = Call::once(actor(&cloud.cloud, &cloud.keys.admin).await);
    let project = created(cloud.cloud.create_project(&admin, "second", &|_| Ok(String::new())).await);
    let new = NewKey { name: "second".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
    created(cloud.cloud.create_project_key(&admin, &project.id, &new).await).secret
}

fn kept(cloud: &TestCloud, access: &Access, previous: Option<&ResponseId>, text: &str) -> KeptResponse {
    KeptResponse {
        id: ResponseId::of(&cloud.cloud.ids().mint::<RequestId>()),
        organization: access.organization.clone(),
        project: access.project.clone(),
        key: access.key.clone(),
        previous: previous.cloned(),
        input: format!("[\"{text}\"]"),
        object: format!("{{\"said\":\"{text}\"}}"),
        created_at: cloud.now(),
    }
}

/// Keeps a conversation of so many turns; answers the ids, oldest first.
async fn conversation(cloud: &TestCloud, access: &Access, turns: usize) -> Vec<ResponseId> {
    let mut responses: Vec<KeptResponse> = Vec::new();
    for turn in 0..turns {
        let response = kept(cloud, access, responses.last().map(|last| &last.id), &turn.to_string());
        responses.push(response);
    }
    let expires_at = cloud.now().plus(KEPT_FOR);
    let write = cloud.cloud.store().write(&responses, move |responses, tx| {
        Box::pin(async move {
            for response in *responses {
                response::insert(tx, response, expires_at).await?;
            }
            Ok(())
        })
    });
    write.await.expect("kept");
    responses.into_iter().map(|response| response.id).collect()
}

/// How many rows there are, whoever may see them.
async fn rows(cloud: &TestCloud, access: &Access) -> i64 {
    let read = cloud.cloud.store().read(access, |access, tx| Box::pin(response::count(tx, &access.project)));
    read.await.expect("a count").responses
}

on_both_databases! {
    async fn a_project_sees_and_deletes_its_own_responses_only(cloud: &TestCloud) {
        let access_ = access(cloud, &cloud.keys.project).await;
        let ids = conversation(cloud, &access_, 2).await;
        let owner = actor(&cloud.cloud, &cloud.keys.project).await;
        let turn = cloud.cloud.get_response(&owner, &ids[1]).await.expect("kept");
        assert_eq!((turn.input.as_str(), turn.object.as_str()), ("[\"1\"]", "{\"said\":\"1\"}"));
        for stranger in [neighbour(cloud).await, cloud.keys.internal.clone()] {
            let (actor, access) = (actor(&cloud.cloud, &stranger).await, access(cloud, &stranger).await);
            for id in &ids {
                assert_eq!(cloud.cloud.get_response(&actor, id).await.expect_err("hidden").code(), ErrorCode::NotFound);
                assert_eq!(cloud.cloud.delete_response(&actor, id).await.expect_err("hidden").code(), ErrorCode::NotFound);
                let error = port(cloud).conversation(&access, id).await.expect_err("hidden");
                assert_eq!(error.code(), ErrorCode::PreviousResponseNotFound);
                port(cloud).take_back(&access, id).await.expect("nothing to take back");
            }
            assert_eq!(port(cloud).turns(&access, &ids).await.expect("none"), []);
        }
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        assert_eq!(cloud.cloud.get_response(&admin, &ids[0]).await.expect_err("content").code(), ErrorCode::WrongKeyPlane);
        cloud.cloud.delete_response(&owner, &ids[0]).await.expect("deleted");
        assert_eq!(cloud.cloud.delete_response(&owner, &ids[0]).await.expect_err("gone").code(), ErrorCode::NotFound);
        let audit = cloud.cloud.list_audit(&admin, &PageRequest::default()).await.expect("a page");
        let deeds: Vec<_> = audit.items.iter().filter(|entry| entry.action == "response.delete").collect();
        assert_eq!((deeds.len(), deeds[0].target.as_str(), deeds[0].detail.contains("said")), (1, ids[0].as_str(), false));
        assert_eq!(rows(cloud, &access_).await, 1);
    }

    async fn a_conversation_is_read_in_order_and_whole(cloud: &TestCloud) {
        let access = access(cloud, &cloud.keys.project).await;
        let ids = conversation(cloud, &access, TURNS_MAX + 1).await;
        let turns = port(cloud).conversation(&access, &ids[TURNS_MAX - 1]).await.expect("as long as it may be");
        assert!(turns.iter().map(|turn| &turn.id).eq(&ids[..TURNS_MAX]), "oldest first");
        let error = port(cloud).conversation(&access, &ids[TURNS_MAX]).await.expect_err("too long");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("previous_response_id")));
        let owner = actor(&cloud.cloud, &cloud.keys.project).await;
        cloud.cloud.delete_response(&owner, &ids[1]).await.expect("deleted");
        let error = port(cloud).conversation(&access, &ids[3]).await.expect_err("broken");
        assert_eq!(error.code(), ErrorCode::PreviousResponseNotFound);
        assert!(error.message().contains(ids[1].as_str()), "{error}");
        assert_eq!(port(cloud).conversation(&access, &ids[0]).await.expect("whole").len(), 1);
        let found = port(cloud).turns(&access, &[ids[3].clone(), ids[1].clone()]).await.expect("what is there");
        assert_eq!(found.iter().map(|turn| &turn.id).collect::<Vec<_>>(), [&ids[3]]);
    }

    async fn what_has_expired_is_gone_and_is_swept_in_steps(cloud: &TestCloud) {
        let access = access(cloud, &cloud.keys.project).await;
        let old = conversation(cloud, &access, 150).await;
        cloud.clock.advance(KEPT_FOR);
        let young = conversation(cloud, &access, 1).await;
        let owner = actor(&cloud.cloud, &cloud.keys.project).await;
        assert_eq!(cloud.cloud.get_response(&owner, &old[0]).await.expect_err("expired").code(), ErrorCode::NotFound);
        assert_eq!(cloud.cloud.delete_response(&owner, &old[0]).await.expect_err("expired").code(), ErrorCode::NotFound);
        let error = port(cloud).conversation(&access, &old[149]).await.expect_err("expired");
        assert_eq!(error.code(), ErrorCode::PreviousResponseNotFound);
        assert_eq!((rows(cloud, &access).await, cloud.cloud.sweep_responses().await), (151, Ok(150)));
        assert_eq!((rows(cloud, &access).await, cloud.cloud.sweep_responses().await), (1, Ok(0)));
        assert!(cloud.cloud.get_response(&owner, &young[0]).await.is_ok());
    }

    async fn what_is_too_large_or_not_wanted_is_refused(cloud: &TestCloud) {
        let access = access(cloud, &cloud.keys.project).await;
        port(cloud).check_room(&access).await.expect("room");
        let large = kept(cloud, &access, None, &"w".repeat(KEPT_BYTES_MAX));
        assert_eq!(port(cloud).keep(&large).await.expect_err("too large").code(), ErrorCode::BodyTooLarge);
        let none = ResponsePort::new(cloud.cloud.clone(), DurationMs::ZERO);
        let error = none.check_room(&access).await.expect_err("turned off");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::UnsupportedField, Some("store")));
        let response = kept(cloud, &access, None, "a");
        port(cloud).keep(&response).await.expect("kept");
        assert_eq!(port(cloud).keep(&response).await.expect_err("it is there").code(), ErrorCode::Conflict);
        port(cloud).take_back(&access, &response.id).await.expect("taken back");
        assert_eq!(rows(cloud, &access).await, 0);
    }

    async fn large_conversations_are_refused_before_they_are_read(cloud: &TestCloud) {
        let access = access(cloud, &cloud.keys.project).await;
        let mut last: Option<ResponseId> = None;
        for _ in 0..3 {
            let response = kept(cloud, &access, last.as_ref(), &"w".repeat(2 * 1024 * 1024));
            port(cloud).keep(&response).await.expect("kept");
            last = Some(response.id);
        }
        let last = last.expect("the last one");
        let error = port(cloud).conversation(&access, &last).await.expect_err("too large");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("previous_response_id")));
        let scope = Scope::Project { organization: access.organization.clone(), project: access.project.clone() };
        let now = cloud.now();
        let read = cloud.cloud.store().read((scope, &last), move |(scope, last), tx| Box::pin(response::list_links(tx, scope, last, now, 9)));
        let ids: Vec<ResponseId> = read.await.expect("links").into_iter().map(|link| link.id).collect();
        assert_eq!(ids.len(), 3);
        let error = port(cloud).turns(&access, &ids).await.expect_err("too large");
        assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("input")));
    }
}
