//! Prompts that begin as others did: computed once, answered the same, never shared between tenants.

use sublet_core::Bytes;

use super::harness::*;
use crate::EngineConfig;
use crate::prefix::BLOCK_POSITIONS;
use crate::test_model::TinyModel;

/// A prompt of about so many tokens; a byte is a token.
fn long(name: &str, tokens: usize) -> Ask {
    let text: String = format!("{name} ").chars().cycle().take(tokens).collect();
    ask_seeded(&text, 7)
}

/// What an engine that never saw anything else answers.
fn fresh(ask: &Ask) -> Outcome {
    ask.run(&engine())
}

/// Whole blocks before the last token of a prompt.
fn reusable(outcome: &Outcome) -> i64 {
    let block = i64::try_from(BLOCK_POSITIONS).unwrap();
    (outcome.input.unwrap() - 1) / block * block
}

#[test]
fn a_repeated_prompt_is_not_computed_again_and_is_answered_the_same() {
    let engine = engine();
    for tokens in [20, 63, 64, 65, 130, 200] {
        let ask = long("once", tokens);
        let expected = fresh(&ask);
        assert_eq!(expected.cached, 0);
        let before = ask.run(&engine);
        let again = ask.run(&engine);
        assert_eq!((&before.text, &again.text, again.input), (&expected.text, &expected.text, expected.input), "{tokens}");
        assert_eq!(again.cached, reusable(&again), "{tokens}");
    }
}

#[test]
fn tenants_share_nothing() {
    let engine = engine();
    let ask = long("secret", 150);
    let mine = ask.run(&engine);
    let other = Ask { salt: "another tenant", ..ask.clone() }.run(&engine);
    assert_eq!((other.cached, &other.text), (0, &mine.text));
    assert_eq!(ask.run(&engine).cached, reusable(&mine));
}

#[test]
fn a_conversation_goes_on_from_its_own_answer() {
    let engine = engine();
    let first = Ask { max_output: Some(80), ..long("turn", 100) };
    let answer = first.run(&engine);
    let sublet_core::engine::Prompt::Text(text) = &first.prompt else { panic!("a text") };
    let next = ask_seeded(&format!("{text}{}", answer.text), 9);
    let outcome = next.run(&engine);
    // An answer's text may be cut into other tokens than it was made of; its prompt is the same in any case.
    assert!(outcome.cached >= 64, "{} cached", outcome.cached);
    assert_eq!(outcome.text, fresh(&next).text);
}

#[test]
fn a_beginning_is_shared_while_its_first_asker_still_speaks() {
    let engine = engine();
    let asks: Vec<Ask> = (0..6).map(|number| Ask { max_output: Some(30), ..long("both", 100 + number) }).collect();
    let streams: Vec<_> = asks.iter().map(|ask| ask.start(&engine).expect("it is accepted")).collect();
    for (ask, outcome) in asks.iter().zip(streams.into_iter().map(collect)) {
        assert_eq!(outcome.text, fresh(ask).text);
    }
}

#[test]
fn kept_beginnings_give_way_to_work() {
    // 512 bytes per position: one context fits, whatever is kept.
    let config = EngineConfig { kv_bytes_max: Some(Bytes::new(512 * 256)), ..EngineConfig::default() };
    let engine = engine_with(config, &TinyModel::default());
    let asks: Vec<Ask> = (0..12).map(|number| long(&format!("prompt {}", number % 5), 40 + 12 * number)).collect();
    let expected: Vec<String> = asks.iter().map(|ask| fresh(ask).text).collect();
    let one_by_one: Vec<String> = asks.iter().map(|ask| ask.run(&engine).text).collect();
    assert_eq!(one_by_one, expected);
    let streams: Vec<_> = asks.iter().map(|ask| ask.start(&engine).expect("it is accepted")).collect();
    let at_once: Vec<String> = streams.into_iter().map(|stream| collect(stream).text).collect();
    assert_eq!(at_once, expected);
}
