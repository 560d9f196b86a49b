//! Steps of the data plane: requests come, grow and end; journals are synced, settled, offered again.

use sublet_core::admission::TokenUsage;
use sublet_core::id::{KeyId, RequestId};
use sublet_core::usage::{Outcome, UsageRecord, UsageSink};
use sublet_core::{ErrorCode, TokenCount};

use super::Simulation;
use super::gateway::{Generated, Prompt};

/// Requests that one gateway has open at once.
const OPEN_MAX: usize = 40;

impl Simulation {
    /// A key that may be revoked, with its tenant and its place there.
    pub(super) fn some_key(&self) -> (usize, usize) {
        let tenant = self.below(self.tenants.len());
        (tenant, self.below(self.tenants[tenant].keys.len()))
    }

    pub(super) async fn admit(&mut self) {
        let (process, (tenant, key)) = (self.below(2), self.some_key());
        let prompt = Prompt {
            input: self.number(0, 4_000),
            cached: if self.chance(3) { self.number(0, 2_000) } else { 0 },
            first_stretch: self.number(1, 200) * if self.chance(20) { 20_000 } else { 1 },
        };
        if self.processes[process].gateway.requests.len() >= OPEN_MAX {
            return;
        }
        let secret = self.tenants[tenant].keys[key].secret.clone();
        let result = self.processes[process].gateway.admit(&secret, prompt).await;
        let revoked = self.tenants[tenant].keys[key].revoked;
        let allowed: &[ErrorCode] =
            if revoked { &[ErrorCode::InvalidApiKey] } else { &[ErrorCode::InsufficientQuota, ErrorCode::AmountOverflow] };
        if self.settle_for("a request", result, allowed).is_some() {
            assert!(!revoked, "a revoked key was served");
            self.did("a request begins");
        }
    }

    /// A gateway with an open request.
    fn some_request(&self) -> Option<(usize, usize)> {
        let process = self.below(2);
        let open = self.processes[process].gateway.requests.len();
        if open == 0 { None } else { Some((process, self.below(open))) }
    }

    fn is_revoked(&self, id: &KeyId) -> bool {
        self.tenants.iter().flat_map(|tenant| &tenant.keys).any(|key| &key.id == id && key.revoked)
    }

    pub(super) async fn generate(&mut self) {
        let Some((process, request)) = self.some_request() else { return self.admit().await };
        let output = self.number(1, 300) * if self.chance(15) { 10_000 } else { 1 };
        let result = self.processes[process].gateway.generate(request, output).await;
        self.did(match result.expect("an extension is granted or refused for money or its key") {
            Generated::More => "a request goes on",
            Generated::OutOfMoney => "a request is stopped by its budget",
            Generated::KeyGone(key) => {
                assert!(self.is_revoked(&key), "{key} works and was refused");
                "a request is stopped with its key"
            }
        });
    }

    pub(super) async fn end_request(&mut self) {
        let Some((process, request)) = self.some_request() else { return self.admit().await };
        let gateway = &mut self.processes[process].gateway;
        let outcome = match self.rng.below(10) {
            0 => {
                gateway.void(request);
                return self.did("a request fails and is void");
            }
            1 | 2 => Outcome::ClientCancelled,
            3 => Outcome::ServerStopped,
            4 => Outcome::Length,
            _ => Outcome::Completed,
        };
        gateway.finish(request, outcome);
        self.did("a request ends");
    }

    pub(super) async fn sync(&mut self) {
        let process = self.below(2);
        if self.processes[process].gateway.disk.written.is_empty() {
            return self.end_request().await;
        }
        self.sync_of(process);
    }

    pub(super) fn sync_of(&mut self, process: usize) {
        let acknowledged = self.processes[process].gateway.sync();
        self.acknowledge(acknowledged);
        self.did("a journal is synced");
    }

    pub(super) fn acknowledge(&mut self, records: Vec<UsageRecord>) {
        for record in records {
            let before = self.expected.acknowledged.insert(record.request.clone(), record);
            assert!(before.is_none(), "a request has one record");
        }
    }

    pub(super) fn refuse_written(&mut self) {
        let process = self.below(2);
        let gateway = &mut self.processes[process].gateway;
        let lost: Vec<RequestId> = gateway.disk.written.iter().map(|written| written.record.request.clone()).collect();
        gateway.refuse_written();
        if !lost.is_empty() {
            self.expected.lost.extend(lost);
            self.did("a journal's disk refuses");
        }
    }

    pub(super) async fn settle(&mut self) {
        let process = self.below(2);
        let gateway = &self.processes[process].gateway;
        if gateway.settled == gateway.disk.durable.len() {
            return self.sync().await;
        }
        let most = 1 + self.below(12);
        self.settle_some(process, most).await;
    }

    /// Settles the next records of a journal, in any order and some of them twice.
    pub(super) async fn settle_some(&mut self, process: usize, most: usize) {
        let gateway = &self.processes[process].gateway;
        let fresh: Vec<UsageRecord> = gateway.disk.durable.iter().skip(gateway.settled).take(most).cloned().collect();
        let mut batch = fresh.clone();
        for _ in 0..self.below(3) {
            batch.extend(self.pick(&batch).cloned());
        }
        for last in (1..batch.len()).rev() {
            batch.swap(last, self.below(last + 1));
        }
        let report = self.processes[process].gateway.cloud.settle(&batch).await.expect("a settlement");
        let new = fresh.iter().filter(|record| !self.expected.settled.contains(&record.request)).count();
        let counts = (usize_of(report.settled), usize_of(report.duplicate), report.quarantined);
        assert_eq!(counts, (new, batch.len() - new, 0), "each record is charged once: {batch:#?}");
        self.expected.settled.extend(fresh.iter().map(|record| record.request.clone()));
        // Now and then the answer is lost, and the same records are offered again.
        if !self.chance(8) {
            self.processes[process].gateway.settled += fresh.len();
        }
        self.did("usage is settled");
    }

    /// A record that was settled long ago comes again, to either process.
    pub(super) async fn offer_again(&mut self) {
        let Some(record) = self.some_settled() else { return };
        let process = self.below(2);
        let report = self.processes[process].cloud.settle(&[record.clone(), record]).await.expect("a settlement");
        assert_eq!((report.settled, report.duplicate, report.quarantined), (0, 2, 0), "a repeat changes nothing");
        self.did("usage is offered again");
    }

    /// The same request with other figures, as its gateway wrote it: put on record, counted, never charged.
    pub(super) async fn offer_forged(&mut self) {
        let Some(record) = self.some_settled() else { return };
        let output = record.tokens.output.saturating_add(TokenCount::new(self.number(1, 1_000_000_000)));
        let slice = record.slice.clone();
        let forged = UsageRecord { tokens: TokenUsage { output, ..record.tokens }, ..record };
        let process = self.below(2);
        let report = self.processes[process].cloud.settle(&[forged]).await.expect("a settlement");
        assert_eq!((report.settled, report.duplicate, report.quarantined), (0, 0, 1), "a conflict is quarantined");
        let purses = self.processes.iter_mut().flat_map(|process| &mut process.gateway.purses);
        purses.filter(|purse| purse.slice == slice).for_each(|purse| purse.records += 1);
        self.did("forged usage is offered");
    }

    fn some_settled(&self) -> Option<UsageRecord> {
        let count = self.expected.settled.len();
        let request = self.expected.settled.iter().nth(if count == 0 { 0 } else { self.below(count) })?;
        self.expected.acknowledged.get(request).cloned()
    }

    pub(super) async fn give_back(&mut self) {
        let (process, all) = (self.below(2), self.chance(3));
        let returned = self.processes[process].gateway.give_back(all).await.expect("slices go back");
        if returned > 0 {
            self.did("slices go back");
        }
    }
}

fn usize_of(count: u64) -> usize {
    usize::try_from(count).expect("a small count")
}
