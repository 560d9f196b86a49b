//! Replicas that say what their caches have: here words are tokens, by their length.

use std::time::Duration;

use rmpv::Value as Packed;
use serde_json::{Value, json};
use sublet_core::supply::{RemoteModel, Replica};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use crate::supply::post;
use crate::upstream::{Upstream, model, replica, usage, whole};
use crate::world::World;

/// Tokens of a block.
const BLOCK: usize = 2;
const WAIT_MAX: Duration = Duration::from_secs(30);

/// An engine's side of the events: it waits for a subscriber, and says what it is told to.
struct Publisher {
    listener: TcpListener,
    stream: Option<TcpStream>,
    number: u64,
}

impl Publisher {
    async fn bind() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap(), stream: None, number: 0 }
    }

    fn endpoint(&self) -> String {
        format!("tcp://{}", self.listener.local_addr().unwrap())
    }

    async fn accept(&mut self) {
        let (mut stream, _) = timeout(WAIT_MAX, self.listener.accept()).await.expect("somebody subscribes").unwrap();
        let mut greeting = [0; 64];
        stream.read_exact(&mut greeting).await.unwrap();
        assert_eq!((greeting[0], greeting[10], &greeting[12..17]), (0xff, 3, b"NULL\0".as_slice()));
        stream.write_all(&greeting).await.unwrap();
        stream.write_all(b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB").await.unwrap();
        let mut said = [0; 27 + 3];
        stream.read_exact(&mut said).await.unwrap();
        assert_eq!((&said[2..8], &said[27..]), (b"\x05READY".as_slice(), b"\x00\x01\x01".as_slice()), "it subscribes to all");
        self.stream = Some(stream);
    }

    async fn publish(&mut self, events: Vec<Packed>) {
        let mut batch = Vec::new();
        rmpv::encode::write_value(&mut batch, &Packed::Array(vec![1.0.into(), Packed::Array(events), 0.into()])).unwrap();
        let mut message = vec![1, 0, 1, 8];
        message.extend_from_slice(&self.number.to_be_bytes());
        message.push(2);
        message.extend_from_slice(&u64::try_from(batch.len()).unwrap().to_be_bytes());
        message.extend_from_slice(&batch);
        self.stream.as_mut().unwrap().write_all(&message).await.unwrap();
        self.number += 1;
    }
}

fn stored(first: u64, words: &str, salt: Option<&str>) -> Packed {
    let tokens: Vec<Packed> = words.split_whitespace().map(|word| Packed::from(word.len())).collect();
    let names = (first..).take(tokens.len() / BLOCK).map(Packed::from).collect();
    let key = salt.map_or(Packed::Nil, |salt| Packed::Array(vec![salt.into()]));
    let fields = [
        "BlockStored".into(),
        Packed::Array(names),
        Packed::Nil,
        Packed::Array(tokens),
        BLOCK.into(),
        Packed::Nil,
        "GPU".into(),
        Packed::Nil,
        Packed::Array(vec![key]),
    ];
    Packed::Array(fields.to_vec())
}

fn publishing(number: u32, upstream: &Upstream, publisher: &Publisher) -> Replica {
    Replica { kv_events: Some(publisher.endpoint().parse().unwrap()), ..replica(number, &upstream.base_url) }
}

fn ask(words: &str) -> Value {
    json!({"model": "far/away", "messages": [{"role": "user", "content": words}]})
}

/// Waits until the replicas are known to have so many tokens; `None` where nobody says.
async fn known(world: &World, expected: &[Option<u64>]) {
    let said = || world.gateway.replicas().into_iter().map(|status| status.cached_tokens).collect::<Vec<_>>();
    let looking = async {
        while said() != expected {
            tokio::task::yield_now().await;
        }
    };
    assert!(timeout(WAIT_MAX, looking).await.is_ok(), "{:?} instead of {expected:?}", said());
}

#[tokio::test]
async fn a_request_goes_where_its_beginning_is_said_to_be() {
    let (first, second) = (Upstream::start().await, Upstream::start().await);
    for upstream in [&first, &second] {
        (0..20).for_each(|_| {
            upstream.then(whole("hi", usage(7, 3)));
        });
    }
    let mut publishers = [Publisher::bind().await, Publisher::bind().await];
    let world = World::new().await;
    let replicas = vec![publishing(1, &first, &publishers[0]), publishing(2, &second, &publishers[1])];
    world.cloud.offer([RemoteModel { tokenizer: Some("words".parse().unwrap()), ..model("far/away", replicas) }]);
    // Whoever is asked first is met first; both are followed from then on.
    assert_eq!(post(&world, &ask("x")).await.0, 200);
    for publisher in &mut publishers {
        publisher.accept().await;
        publisher.publish(Vec::new()).await;
    }
    known(&world, &[Some(0), Some(0)]).await;
    let long = "a bb ccc dddd eeeee ffffff ".repeat(200);
    let served = || [first.received().len(), second.received().len()];
    for (place, expected) in [(1, [0, 4]), (0, [4, 0])] {
        publishers[place].publish(vec![stored(100, &long, None)]).await;
        let mut tokens = [Some(0), Some(0)];
        tokens[place] = Some(1_200);
        known(&world, &tokens).await;
        let before = served();
        for turn in 0..4 {
            assert_eq!(post(&world, &ask(&format!("{long} turn {turn}"))).await.0, 200);
        }
        let now = served();
        assert_eq!([now[0] - before[0], now[1] - before[1]], expected, "it goes where it was said to be");
        let removed = Packed::Array((100..700).map(Packed::from).collect());
        publishers[place].publish(vec![Packed::Array(vec!["BlockRemoved".into(), removed, "GPU".into()])]).await;
        known(&world, &[Some(0), Some(0)]).await;
    }
    world.close().await;
}

#[tokio::test]
async fn who_publishes_nonsense_is_no_longer_heard_and_still_served() {
    let (upstream, other) = (Upstream::start().await, Upstream::start().await);
    upstream.then(whole("hi", usage(7, 3))).then(whole("hi", usage(7, 3)));
    other.then(whole("hi", usage(7, 3))).then(whole("hi", usage(7, 3)));
    let mut publisher = Publisher::bind().await;
    let world = World::new().await;
    let replicas = vec![publishing(1, &upstream, &publisher), replica(2, &other.base_url)];
    world.cloud.offer([RemoteModel { tokenizer: Some("words".parse().unwrap()), ..model("far/away", replicas) }]);
    assert_eq!(post(&world, &ask("x y")).await.0, 200);
    publisher.accept().await;
    publisher.publish(vec![stored(1, "x y", None)]).await;
    known(&world, &[Some(2), None]).await;
    let stream = publisher.stream.as_mut().unwrap();
    stream.write_all(b"\x00\x04nope").await.unwrap();
    known(&world, &[None, None]).await;
    assert_eq!(post(&world, &ask("x y")).await.0, 200);
    // It is asked again, and what was missed is not believed.
    publisher.accept().await;
    publisher.number = 5;
    publisher.publish(Vec::new()).await;
    known(&world, &[Some(0), None]).await;
    world.close().await;
}
