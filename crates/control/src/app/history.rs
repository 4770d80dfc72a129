//! Whether agents know a newer history than this database: then it is an old copy that nobody restored.
//!
//! Every generation is stored before an agent hears of it. So an agent that has one which the database does not know
//! was told it by a database that went on after this one was copied. To go on from here would hand out numbers twice
//! and bring old settings back. `keyfleet-control restore` starts a new epoch and remembers it, so that what agents know of the
//! history before it is expected.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use keyfleet_core::id::{DeploymentId, Generation};
use keyfleet_store::{Deployment, Tx};

use super::App;
use crate::error::Error;

/// The deployments whose agents know more than the database.
#[derive(Debug, Default)]
pub(crate) struct Ahead(Mutex<BTreeSet<DeploymentId>>);

impl App {
    /// Refuses the session of an agent that knows a newer history, and says so loudly.
    pub(crate) async fn check_history(
        &self,
        deployment: &Deployment,
        said: Option<Generation>,
    ) -> Result<(), Error> {
        let restored = |tx: &Tx<'_>| Ok::<_, Error>(tx.restored_epoch()?);
        let is_ahead = match said {
            Some(said) if said > deployment.generation => {
                said.epoch >= self.store.read(restored).await?
            }
            Some(_) | None => false,
        };
        let mut ahead = self.ahead.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_ahead {
            ahead.remove(&deployment.id);
            return Ok(());
        }
        ahead.insert(deployment.id);
        tracing::error!(
            deployment.name = %deployment.name,
            agent.generation = %said.unwrap_or_default(),
            database.generation = %deployment.generation,
            "an agent knows a newer history than this database, which is an old copy: stop the service and use `keyfleet-control restore`"
        );
        Err(Error::Precondition(
            "this agent knows a newer history than the control service's database: an operator must use `keyfleet-control restore` there"
                .to_owned(),
        ))
    }

    /// What is wrong with the database, a sentence each.
    pub(crate) fn database_problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.store.trouble().into_iter().collect();
        let ahead = self.ahead.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !ahead.is_empty() {
            problems.push(format!(
                "{} of the agents know a newer history than this database, which is an old copy: nothing is sent to them; stop the service and use `keyfleet-control restore`",
                ahead.len()
            ));
        }
        problems
    }
}
