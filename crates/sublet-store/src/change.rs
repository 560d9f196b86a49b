//! What the other processes of a deployment have to notice. Each subject has a number that grows in the
//! transaction of the change, so that one cheap read tells whether what is kept in memory is still right.

use sublet_core::{Error, Result};

use crate::database::Tx;
use crate::params;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Keys and projects: who may do what.
    Access,
    /// Remote models and their replicas.
    Models,
    /// Price-list versions.
    Prices,
}

impl Subject {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Access => "access",
            Self::Models => "models",
            Self::Prices => "prices",
        }
    }
}

/// How often each subject has changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Changes {
    pub access: i64,
    pub models: i64,
    pub prices: i64,
}

/// To be called in the transaction that makes the change.
pub async fn announce(tx: &mut Tx, subject: Subject) -> Result<()> {
    tx.execute("UPDATE changes SET number = number + 1 WHERE subject = $1", params![subject.as_str()]).await?;
    Ok(())
}

pub async fn read(tx: &mut Tx) -> Result<Changes> {
    let rows = tx.fetch_all("SELECT number FROM changes ORDER BY subject", &[]).await?;
    let [access, models, prices] = rows.as_slice() else {
        return Err(Error::internal(format!("there are {} rows of changes, not 3", rows.len())));
    };
    Ok(Changes { access: access.reader().int()?, models: models.reader().int()?, prices: prices.reader().int()? })
}
