//! The calls about money that comes in and goes out.

use sublet_core::error::Result;
use sublet_core::id::{IncomingPaymentId, RefundId, TopUpId};

use super::{Client, IdempotencyKey};
use crate::list::List;
use crate::payment::{
    AnswerIncomingPayment, ApproveRefund, BankStatement, CreateRefund, CreateTopUp, ImportBankStatement, IncomingPayment,
    IncomingPaymentListQuery, OperatorCreateRefund, PayRefund, Refund, RefundListQuery, RejectRefund, TopUp, TopUpListQuery,
};
use crate::route::Operation;

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
