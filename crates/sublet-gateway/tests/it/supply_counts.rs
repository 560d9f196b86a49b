//! Models on other servers that do not count, with a tokenizer that does: here words are tokens.

use serde_json::{Value, json};
use sublet_core::supply::RemoteModel;
use sublet_core::usage::Measured;

use crate::supply::{ask, counts, only_record, post, streamed};
use crate::upstream::{Part, Reply, Upstream, chunk, counted, ended, model, replica, said, whole};
use crate::world::{World, events, text, value};

/// Eight bytes a word: by bytes it would be twice as many tokens.
const LONG_WORDS: &str = "strength distance exchange";

async fn world_with(upstream: &Upstream, tokenizer: &str) -> World {
    let world = World::new().await;
    let tokenizer = Some(tokenizer.parse().unwrap());
    world.cloud.offer([RemoteModel { tokenizer, ..model("far/away", vec![replica(1, &upstream.base_url)]) }]);
    world
}

#[tokio::test]
async fn i_usage_that_is_missing_is_counted_by_the_models_tokenizer() {
    let pieces = || ["stren", "gth dist", "ance", " ", "exchange"].into_iter().map(said);
    let ends = [vec![ended("stop"), Part::Done], vec![ended("stop")]];
    let streams = ends.map(|end| Reply::Stream(pieces().chain(end).collect()));
    for reply in streams.into_iter().chain([whole(LONG_WORDS, Value::Null), whole(LONG_WORDS, json!({"prompt_tokens": 0}))]) {
        let upstream = Upstream::start().await;
        let is_stream = matches!(reply, Reply::Stream(_));
        upstream.then(reply);
        let world = world_with(&upstream, "words").await;
        let response = world.post("/v1/chat/completions", &if is_stream { streamed() } else { ask() }).await;
        let answer = text(response).await;
        let record = only_record(&world).await;
        assert_eq!((counts(&record), record.measured), ((2, 0, 3), Measured::Estimated), "{answer}");
        assert!(answer.contains("\"prompt_tokens\":2") && answer.contains("\"completion_tokens\":3"), "what is shown is charged");
        world.close().await;
    }
}

#[tokio::test]
async fn several_answers_are_counted_each_by_itself() {
    let upstream = Upstream::start().await;
    let piece = |index: i64, text: &str| Part::Event(chunk(&json!([{"index": index, "delta": {"content": text}}])));
    let end = |index: i64| Part::Event(chunk(&json!([{"index": index, "delta": {}, "finish_reason": "stop"}])));
    upstream.then(Reply::Stream(vec![
        piece(0, "stren"),
        piece(1, "dis"),
        piece(0, "gth"),
        piece(1, "tance"),
        end(0),
        end(1),
        Part::Done,
    ]));
    let world = world_with(&upstream, "words").await;
    let mut body = streamed();
    body["n"] = json!(2);
    text(world.post("/v1/chat/completions", &body).await).await;
    assert_eq!(counts(&only_record(&world).await), (2, 0, 2));
    world.close().await;
}

#[tokio::test]
async fn who_counts_is_believed_and_only_the_rest_is_counted_here() {
    let upstream = Upstream::start().await;
    upstream.then(Reply::Stream(vec![said("strength"), counted(40, 9), said(" distance exchange"), ended("stop"), Part::Done]));
    let world = world_with(&upstream, "words").await;
    text(world.post("/v1/chat/completions", &streamed()).await).await;
    let record = only_record(&world).await;
    assert_eq!((counts(&record), record.measured), ((38, 2, 9 + 2), Measured::Estimated));
    world.close().await;
}

#[tokio::test]
async fn what_cannot_be_counted_is_estimated_from_its_bytes() {
    let picture =
        json!([{"type": "text", "text": "what is it"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}]);
    let words = json!([{"role": "user", "content": "hello there"}]);
    let thought = json!([{"role": "assistant", "content": "hello", "reasoning_content": "there"}]);
    for (tokenizer, body, output) in [
        ("none-such", json!({ "messages": words }), 8),
        ("words", json!({ "messages": [{"role": "user", "content": picture}] }), 3),
        // A prompt can be anywhere that a server looks.
        ("words", json!({ "messages": words, "chat_template": "much more than that" }), 3),
        ("words", json!({ "messages": words, "documents": [{"text": "much more"}] }), 3),
        ("words", json!({ "messages": thought }), 3),
    ] {
        let upstream = Upstream::start().await;
        upstream.then(whole(LONG_WORDS, Value::Null));
        let world = world_with(&upstream, tokenizer).await;
        let mut asked = ask();
        asked.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        let (status, answer) = post(&world, &asked).await;
        assert_eq!(status, 200, "{answer}");
        let record = only_record(&world).await;
        let (input, _, counted) = counts(&record);
        assert_eq!((counted, record.measured), (output, Measured::Estimated), "{tokenizer}");
        assert!(input > 10, "the bytes of the request: {input}");
        world.close().await;
    }
}

#[tokio::test]
async fn a_count_that_is_more_than_was_ordered_is_charged_as_far_as_it_was() {
    let upstream = Upstream::start().await;
    // By bytes it is four tokens, by words eight.
    let parts = vec![said("a b c d e f g h"), ended("stop"), Part::Done];
    upstream.then(Reply::Stream(parts));
    let world = world_with(&upstream, "words").await;
    let mut body = streamed();
    body["max_tokens"] = json!(5);
    let (events, _) = events(&text(world.post("/v1/chat/completions", &body).await).await);
    assert!(!events.is_empty());
    let record = only_record(&world).await;
    assert_eq!((counts(&record).2, record.measured), (5, Measured::Estimated), "no more than was ordered");
    world.close().await;
}

#[tokio::test]
async fn tokens_are_counted_beforehand_where_no_server_can() {
    let upstream = Upstream::start().await;
    for (tokenizer, expected) in [("words", Some(3)), ("none-such", None)] {
        let world = world_with(&upstream, tokenizer).await;
        let body = json!({"model": "far/away", "system": "be brief", "messages": [{"role": "user", "content": "hello"}]});
        let (status, _, answer) = value(world.post("/v1/messages/count_tokens", &body).await).await;
        match expected {
            Some(tokens) => assert_eq!((status, &answer["input_tokens"]), (200, &json!(tokens)), "{answer}"),
            None => assert_eq!(status, 400, "{answer}"),
        }
        assert!(upstream.received().is_empty(), "nobody was asked");
        world.close().await;
    }
}
