//! Who acts, and what the plane of their key lets them do: planes × actions as one table.

use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::key::KeyPlane;
use sublet_core::{Error, ErrorCode, Result, Scope};

/// The authenticated author of a call.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Actor {
    pub plane: KeyPlane,
    pub scope: Scope,
    /// The key used; `None` for the cloud's own work.
    pub key: Option<KeyId>,
    /// Where the call came from; empty for the cloud's own work.
    pub address: String,
}

impl Actor {
    /// The cloud itself: reconcilers and the first start.
    pub fn system() -> Self {
        Self { plane: KeyPlane::Operator, scope: Scope::Operator, key: None, address: String::new() }
    }
    /// What audit entries name.
    pub fn name(&self) -> &str {
        self.key.as_ref().map_or("system", KeyId::as_str)
    }
    /// The organization this actor is confined to; an error on the operator's plane.
    pub fn organization(&self) -> Result<&OrganizationId> {
        self.scope.organization().ok_or_else(|| self.wrong_plane(KeyPlane::Admin))
    }
    /// The project this actor is confined to; an error on other planes.
    pub fn project(&self) -> Result<(&OrganizationId, &ProjectId)> {
        match &self.scope {
            Scope::Project { organization, project } => Ok((organization, project)),
            Scope::Operator | Scope::Organization(_) => Err(self.wrong_plane(KeyPlane::Project)),
        }
    }
    /// Fails unless this actor's plane allows the action.
    pub fn require(&self, action: Action) -> Result<()> {
        let planes = action.planes();
        if planes.contains(&self.plane) {
            return Ok(());
        }
        Err(self.wrong_plane(planes.first().copied().unwrap_or(KeyPlane::Operator)))
    }
    fn wrong_plane(&self, wanted: KeyPlane) -> Error {
        Error::new(
            ErrorCode::WrongKeyPlane,
            format!("this needs a key of the {wanted} plane, the one given is of the {} plane", self.plane),
        )
        .alternative(format!("use a key that starts with {}", wanted.prefix()))
    }
}

/// What can be done. Each has the planes whose keys may do it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Action {
    ReadCatalogue,
    UseModels,
    UseCompute,
    ReadUsage,
    ReadBilling,
    ManageProjects,
    ManageKeys,
    /// Keys of the actor's own plane.
    ManagePeerKeys,
    ManageUsers,
    ManageLimits,
    ReadAudit,
    ManageOrganizations,
    GrantCredit,
    ManagePrices,
    ManageFleet,
    ReadLedger,
    SetClock,
    OfferContracts,
    AgreeToContracts,
    PayIn,
    RequestRefunds,
    ManagePayments,
    ManageExports,
    /// Files of projects that have no keys any more.
    ManageArchivedFiles,
}

impl Action {
    pub const ALL: [Self; 24] = [
        Self::ReadCatalogue,
        Self::UseModels,
        Self::UseCompute,
        Self::ReadUsage,
        Self::ReadBilling,
        Self::ManageProjects,
        Self::ManageKeys,
        Self::ManagePeerKeys,
        Self::ManageUsers,
        Self::ManageLimits,
        Self::ReadAudit,
        Self::ManageOrganizations,
        Self::GrantCredit,
        Self::ManagePrices,
        Self::ManageFleet,
        Self::ReadLedger,
        Self::SetClock,
        Self::OfferContracts,
        Self::AgreeToContracts,
        Self::PayIn,
        Self::RequestRefunds,
        Self::ManagePayments,
        Self::ManageExports,
        Self::ManageArchivedFiles,
    ];

    /// The planes that may do it; the scope confines what they reach.
    pub const fn planes(self) -> &'static [KeyPlane] {
        const EVERYONE: &[KeyPlane] = &[KeyPlane::Project, KeyPlane::Admin, KeyPlane::Operator];
        const PROJECT: &[KeyPlane] = &[KeyPlane::Project];
        const ADMIN: &[KeyPlane] = &[KeyPlane::Admin];
        const OVERSEERS: &[KeyPlane] = &[KeyPlane::Admin, KeyPlane::Operator];
        const OPERATOR: &[KeyPlane] = &[KeyPlane::Operator];
        match self {
            Self::ReadCatalogue | Self::ReadUsage => EVERYONE,
            Self::UseModels | Self::UseCompute => PROJECT,
            Self::ManageProjects
            | Self::ManageKeys
            | Self::ManageUsers
            | Self::ManageLimits
            | Self::AgreeToContracts
            | Self::PayIn => ADMIN,
            Self::ReadBilling | Self::ReadAudit | Self::RequestRefunds | Self::ManagePeerKeys | Self::ManageArchivedFiles => {
                OVERSEERS
            }
            Self::ManageOrganizations
            | Self::GrantCredit
            | Self::ManagePrices
            | Self::ManageFleet
            | Self::ReadLedger
            | Self::SetClock
            | Self::OfferContracts
            | Self::ManagePayments
            | Self::ManageExports => OPERATOR,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_plane_can_do_exactly_what_the_table_says() {
        for plane in KeyPlane::ALL {
            let actor = Actor { plane, ..Actor::system() };
            for action in Action::ALL {
                assert_eq!(actor.require(action).is_ok(), action.planes().contains(&plane), "{plane} {action:?}");
            }
        }
    }

    #[test]
    fn only_project_keys_spend_money() {
        for action in [Action::UseModels, Action::UseCompute] {
            assert_eq!(action.planes(), &[KeyPlane::Project]);
        }
    }

    #[test]
    fn the_refusal_names_the_key_that_would_work() {
        let actor = Actor { plane: KeyPlane::Project, ..Actor::system() };
        let error = actor.require(Action::ReadLedger).unwrap_err();
        assert_eq!(error.code(), ErrorCode::WrongKeyPlane);
        assert!(error.alternatives()[0].contains("sk-opr-"));
    }
}
