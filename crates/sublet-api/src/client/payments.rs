//! The calls about money that comes in and goes out.

use sublet_core::error::Result;
use sublet_core::id::{IncomingPaymentId, RefundId, TopUpId};

use super::{Client, IdempotencyKey};
use crate::list::{List, ListQuery};
use crate::payment::{
    AnswerIncomingPayment, ApproveRefund, BankStatement, CreateRefund, CreateTopUp, ImportBankStatement, IncomingPayment,
    IncomingPaymentListQuery, OperatorCreateRefund, PayRefund, Refund, RefundListQuery, RejectRefund, TopUp, TopUpListQuery,
};
use crate::payout::{Payout, ProcessorFunds};
use crate::route::Operation;
use crate::saved_card::SavedCard;
use crate::top_up_rule::{TopUpRule, TopUpTerms};

/// Of the organization, with admin keys.
impl Client {
    pub fn top_ups(&self, query: &TopUpListQuery) -> Result<List<TopUp>> {
        self.call(Operation::ListTopUps, &[]).query(query).json()
    }
    pub fn create_top_up(&self, body: &CreateTopUp, key: &IdempotencyKey) -> Result<TopUp> {
        self.call(Operation::CreateTopUp, &[]).body(body).idempotency_key(key).json()
    }
    pub fn top_up(&self, id: &TopUpId) -> Result<TopUp> {
        self.call(Operation::GetTopUp, &[id.as_str()]).json()
    }
    pub fn cancel_top_up(&self, id: &TopUpId) -> Result<TopUp> {
        self.call(Operation::CancelTopUp, &[id.as_str()]).json()
    }
    pub fn saved_card(&self) -> Result<SavedCard> {
        self.call(Operation::GetSavedCard, &[]).json()
    }
    pub fn save_card(&self, key: &IdempotencyKey) -> Result<SavedCard> {
        self.call(Operation::SaveCard, &[]).idempotency_key(key).json()
    }
    pub fn remove_saved_card(&self) -> Result<SavedCard> {
        self.call(Operation::RemoveSavedCard, &[]).json()
    }
    pub fn top_up_rule(&self) -> Result<TopUpRule> {
        self.call(Operation::GetTopUpRule, &[]).json()
    }
    pub fn set_top_up_rule(&self, terms: &TopUpTerms) -> Result<TopUpRule> {
        self.call(Operation::SetTopUpRule, &[]).body(terms).json()
    }
    pub fn remove_top_up_rule(&self) -> Result<TopUpRule> {
        self.call(Operation::RemoveTopUpRule, &[]).json()
    }
    pub fn refunds(&self, query: &RefundListQuery) -> Result<List<Refund>> {
        self.call(Operation::ListRefunds, &[]).query(query).json()
    }
    pub fn create_refund(&self, body: &CreateRefund, key: &IdempotencyKey) -> Result<Refund> {
        self.call(Operation::CreateRefund, &[]).body(body).idempotency_key(key).json()
    }
    pub fn refund(&self, id: &RefundId) -> Result<Refund> {
        self.call(Operation::GetRefund, &[id.as_str()]).json()
    }
    pub fn cancel_refund(&self, id: &RefundId) -> Result<Refund> {
        self.call(Operation::CancelRefund, &[id.as_str()]).json()
    }
}

/// Of the cloud, with operator keys.
impl Client {
    pub fn all_top_ups(&self, query: &TopUpListQuery) -> Result<List<TopUp>> {
        self.call(Operation::OperatorListTopUps, &[]).query(query).json()
    }
    pub fn import_bank_statement(&self, body: &ImportBankStatement, key: &IdempotencyKey) -> Result<BankStatement> {
        self.call(Operation::ImportBankStatement, &[]).body(body).idempotency_key(key).json()
    }
    pub fn incoming_payments(&self, query: &IncomingPaymentListQuery) -> Result<List<IncomingPayment>> {
        self.call(Operation::ListIncomingPayments, &[]).query(query).json()
    }
    pub fn answer_incoming_payment(&self, id: &IncomingPaymentId, body: &AnswerIncomingPayment) -> Result<IncomingPayment> {
        self.call(Operation::AnswerIncomingPayment, &[id.as_str()]).body(body).json()
    }
    pub fn payouts(&self, query: &ListQuery) -> Result<List<Payout>> {
        self.call(Operation::ListPayouts, &[]).query(query).json()
    }
    pub fn processor_funds(&self) -> Result<ProcessorFunds> {
        self.call(Operation::GetProcessorFunds, &[]).json()
    }
    pub fn all_refunds(&self, query: &RefundListQuery) -> Result<List<Refund>> {
        self.call(Operation::OperatorListRefunds, &[]).query(query).json()
    }
    pub fn create_refund_of(&self, body: &OperatorCreateRefund, key: &IdempotencyKey) -> Result<Refund> {
        self.call(Operation::OperatorCreateRefund, &[]).body(body).idempotency_key(key).json()
    }
    pub fn approve_refund(&self, id: &RefundId, body: &ApproveRefund) -> Result<Refund> {
        self.call(Operation::ApproveRefund, &[id.as_str()]).body(body).json()
    }
    pub fn reject_refund(&self, id: &RefundId, body: &RejectRefund) -> Result<Refund> {
        self.call(Operation::RejectRefund, &[id.as_str()]).body(body).json()
    }
    pub fn pay_refund(&self, id: &RefundId, body: &PayRefund) -> Result<Refund> {
        self.call(Operation::PayRefund, &[id.as_str()]).body(body).json()
    }
}
