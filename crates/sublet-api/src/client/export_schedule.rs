//! Files for finance that are delivered by themselves, with operator keys.

use sublet_core::error::Result;
use sublet_core::id::ExportScheduleId;

use super::{Client, IdempotencyKey};
use crate::export_schedule::{CreateExportSchedule, ExportSchedule};
use crate::list::List;
use crate::object::Deleted;
use crate::route::Operation;

impl Client {
    pub fn export_schedules(&self) -> Result<List<ExportSchedule>> {
        self.call(Operation::ListExportSchedules, &[]).json()
    }
    pub fn create_export_schedule(&self, body: &CreateExportSchedule, key: &IdempotencyKey) -> Result<ExportSchedule> {
        self.call(Operation::CreateExportSchedule, &[]).body(body).idempotency_key(key).json()
    }
    pub fn export_schedule(&self, id: &ExportScheduleId) -> Result<ExportSchedule> {
        self.call(Operation::GetExportSchedule, &[id.as_str()]).json()
    }
    pub fn run_export_schedule(&self, id: &ExportScheduleId) -> Result<ExportSchedule> {
        self.call(Operation::RunExportSchedule, &[id.as_str()]).json()
    }
    pub fn delete_export_schedule(&self, id: &ExportScheduleId) -> Result<Deleted> {
        self.call(Operation::DeleteExportSchedule, &[id.as_str()]).json()
    }
}
