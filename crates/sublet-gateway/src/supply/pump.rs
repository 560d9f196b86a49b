//! Exchanges that may be told to give way: each is driven by a task of its own, so that a caller who does not
//! read keeps no place from those who need it.

use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::Stream;
use sublet_core::engine::{GenerationEvent, GenerationStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::exchange::Exchange;

/// Events that wait for a reader before the server is read no further.
const EVENTS_BUFFERED_MAX: usize = 32;

/// Drives an exchange. Dropping the stream ends it.
pub(super) fn detached(exchange: Exchange) -> GenerationStream {
    let (sender, events) = mpsc::channel(EVENTS_BUFFERED_MAX);
    Box::pin(Pumped { events, task: tokio::spawn(drive(exchange, sender)) })
}

async fn drive(mut exchange: Exchange, sender: mpsc::Sender<GenerationEvent>) {
    loop {
        let asked_to_go = exchange.asked_to_go();
        let step = async {
            let Some(event) = exchange.next().await else { return false };
            // Nobody listens any more: the stream was dropped, and this task is about to be.
            sender.send(event).await.is_ok()
        };
        tokio::select! {
            biased;
            goes_on = step => if !goes_on {
                return;
            },
            () = asked_to_go => {
                // The place first: its caller may read the end much later. What was not passed on is not charged.
                let error = exchange.preempted();
                drop(exchange);
                let _nobody = sender.send(GenerationEvent::Failed(error)).await;
                return;
            }
        }
    }
}

struct Pumped {
    events: mpsc::Receiver<GenerationEvent>,
    task: JoinHandle<()>,
}

impl Stream for Pumped {
    type Item = GenerationEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<GenerationEvent>> {
        self.events.poll_recv(context)
    }
}

impl Drop for Pumped {
    fn drop(&mut self) {
        self.task.abort();
    }
}
