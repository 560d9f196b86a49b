//! Whose data a call may touch. Every store function on tenant data takes one.

use crate::id::{OrganizationId, ProjectId};

/// The tenant boundary of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Scope {
    /// The operator of this cloud: every tenant.
    Operator,
    /// One organization with all its projects.
    Organization(OrganizationId),
    /// One project.
    Project { organization: OrganizationId, project: ProjectId },
}

impl Scope {
    /// The organization this scope is confined to, if any.
    pub fn organization(&self) -> Option<&OrganizationId> {
        match self {
            Self::Operator => None,
            Self::Organization(organization) | Self::Project { organization, .. } => Some(organization),
        }
    }
    /// The project this scope is confined to, if any.
    pub fn project(&self) -> Option<&ProjectId> {
        match self {
            Self::Operator | Self::Organization(_) => None,
            Self::Project { project, .. } => Some(project),
        }
    }
}
