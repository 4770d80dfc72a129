//! Whether a version of a Key may be revoked: the rows that the guard of the core is asked about.

use std::collections::{BTreeMap, BTreeSet};

use keyfleet_core::Timestamp;
use keyfleet_core::binding::{Assignment, BindingId, BindingState};
use keyfleet_core::campaign::guard::{Case, Proof, User};
use keyfleet_core::id::{ConnectorName, DeploymentId, EnrolmentId, KeyName, KeyVersion, Revision};
use keyfleet_core::key::KeyState;
use keyfleet_store::{Binding, Tx};

use crate::error::Error;

/// True where something may stand between a version and its revocation: it is no longer wanted, and it may be alive.
pub(crate) const fn is_leftover(state: KeyState) -> bool {
    match state {
        KeyState::Pending | KeyState::Current | KeyState::Revoked => false,
        KeyState::Previous
        | KeyState::Retiring
        | KeyState::Abandoned
        | KeyState::Orphan
        | KeyState::Compromised => true,
    }
}

/// What there is to know of the fleet and a Key, read once for all of its versions.
pub(crate) struct Uses {
    now: Timestamp,
    users: Vec<User>,
    /// Bindings that use the Key or are to use it, told or not.
    wanted: usize,
    holders: BTreeMap<KeyVersion, Vec<BindingId>>,
}

impl Uses {
    pub(crate) fn load(
        tx: &Tx<'_>,
        key: &KeyName,
        online: &BTreeSet<DeploymentId>,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let connectors = tx.connectors()?.into_iter().filter_map(|row| {
            let revision = row.revision;
            (revision.spec.key == *key).then_some((revision.connector, revision.revision))
        });
        let connectors: BTreeSet<(ConnectorName, Revision)> = connectors.collect();
        let enrolments = tx.deployments()?.into_iter();
        let enrolments: BTreeMap<DeploymentId, EnrolmentId> =
            enrolments.map(|row| (row.id, row.enrolment)).collect();
        let mut proofs = proofs(tx, key)?;
        let was_restored = tx.restored_epoch()? > 0;
        let (mut users, mut wanted) = (Vec::new(), 0);
        for binding in tx.bindings()? {
            let of_key =
                |it: &Assignment| connectors.contains(&(binding.id.connector.clone(), it.revision));
            let told = told(&binding).filter(of_key);
            let running = binding.running.filter(of_key);
            let is_forgotten = binding.desired.is_none() && !binding.is_untold();
            let is_unheard = is_forgotten || (was_restored && is_offered(&binding));
            let mut revisions = connectors.iter();
            let may_use = revisions.any(|(name, _)| *name == binding.id.connector);
            let is_user = told.is_some() || running.is_some() || (is_forgotten && may_use);
            wanted += usize::from(is_user || binding.goal.is_some_and(|goal| of_key(&goal)));
            let enrolment = enrolments.get(&binding.id.deployment);
            let Some(enrolment) = enrolment.filter(|_| is_user) else {
                continue;
            };
            let evidence = running.and_then(|it| proofs.remove(&(binding.id.clone(), it)));
            users.push(User {
                is_online: online.contains(&binding.id.deployment),
                is_unheard,
                told: told.map(|it| it.key_version),
                running,
                enrolment: *enrolment,
                evidence,
                confirmed_fence: !is_under_way(&binding),
                id: binding.id,
            });
        }
        let mut holders: BTreeMap<KeyVersion, Vec<BindingId>> = BTreeMap::new();
        for holding in tx.holdings(key)? {
            if holding.closed_at.is_none() {
                let of_version = holders.entry(holding.version).or_default();
                of_version.push(holding.binding);
            }
        }
        Ok(Self {
            now,
            users,
            wanted,
            holders,
        })
    }

    /// Every binding that uses the Key, or is to use it.
    pub(crate) fn users(&self) -> &[User] {
        &self.users
    }

    /// How many bindings use the Key or are to use it, whether they were told or not.
    pub(crate) fn wanted(&self) -> usize {
        self.wanted
    }

    /// How many of them run this version and have proven it.
    pub(crate) fn proven(&self, version: Option<KeyVersion>) -> usize {
        let is_so = |user: &&User| {
            let proven = user
                .evidence
                .as_ref()
                .map(|proof| proof.assignment.key_version);
            proven.is_some() && proven == version
        };
        self.users.iter().filter(is_so).count()
    }

    /// What the guard is asked as long as nothing is to be revoked yet: neither the age of evidence nor a fence counts.
    pub(crate) fn case(&self, version: KeyVersion) -> Case {
        Case {
            now: self.now,
            version,
            holders: self.holders.get(&version).cloned().unwrap_or_default(),
            users: self.users.clone(),
            evidence_secs: None,
            seen: None,
            rollback_until: None,
            approvals: 0,
            approvals_needed: 0,
            is_fenced: false,
        }
    }
}

/// Told, and its agent may be writing. Whoever is not has answered the newest generation: nothing that is sent from
/// the fence on names a retiring version.
fn is_under_way(binding: &Binding) -> bool {
    matches!(
        binding.progress.state,
        BindingState::Offered | BindingState::Received | BindingState::Applied
    )
}

/// Told, and not answered yet.
fn is_offered(binding: &Binding) -> bool {
    binding.progress.state == BindingState::Offered
}

fn told(binding: &Binding) -> Option<Assignment> {
    binding.desired.and_then(|told| told.assignment)
}

/// Every proof with a Key, by who made it and with what.
fn proofs(tx: &Tx<'_>, key: &KeyName) -> Result<BTreeMap<(BindingId, Assignment), Proof>, Error> {
    let proofs = tx.evidence(key)?.into_iter().map(|row| {
        let assignment = Assignment {
            revision: row.revision,
            key_version: row.version,
        };
        let proof = Proof {
            assignment,
            enrolment: row.enrolment,
            at: row.at,
        };
        ((row.binding, assignment), proof)
    });
    Ok(proofs.collect())
}
