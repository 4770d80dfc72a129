//! Bindings, who holds which key version, and who proved it.

use keyfleet_core::binding::BindingId;
use keyfleet_core::id::{EnrolmentId, KeyVersion, Revision};
use keyfleet_core::rollout::{Run, default_strategy};
use keyfleet_store::{Binding, Error, Evidence, Holding, Rollout, RolloutBinding, Tx};
use uuid::Uuid;

use crate::common::{at, binding_id, check, key_name, rollout_id, waiting};

/// Runs steps on one binding's holdings and returns which versions are open, and why the others are not.
async fn holdings_after(
    steps: impl FnOnce(&Tx<'_>, &BindingId) -> Result<(), Error> + Send + 'static,
) -> Vec<Holding> {
    let work = move |tx: &Tx<'_>| steps(tx, &binding_id(1, "default", "assistant"));
    check(work, |tx| tx.holdings(&key_name())).await
}

fn holding(version: u64, opened: i64, closed: Option<(i64, &str)>) -> Holding {
    Holding {
        binding: binding_id(1, "default", "assistant"),
        key: key_name(),
        version: KeyVersion(version),
        opened_at: at(opened),
        closed_at: closed.map(|(seconds, _)| at(seconds)),
        closed_by: closed.map(|(_, by)| by.to_owned()),
    }
}

#[tokio::test]
async fn an_open_holding_keeps_its_beginning_and_a_closed_one_is_opened_again() {
    let key = key_name();
    let found = holdings_after(move |tx, id| {
        tx.open_holding(id, &key, KeyVersion(1), at(1))?;
        tx.open_holding(id, &key, KeyVersion(1), at(2))?;
        tx.open_holding(id, &key, KeyVersion(2), at(2))?;
        tx.close_holdings(id, None, "confirmed removal", at(3))?;
        tx.close_holdings(id, None, "again", at(4))?;
        tx.open_holding(id, &key, KeyVersion(2), at(5))
    })
    .await;
    assert_eq!(
        found,
        [
            holding(1, 1, Some((3, "confirmed removal"))),
            holding(2, 5, None)
        ]
    );
}

#[tokio::test]
async fn proof_of_a_version_closes_the_others_of_that_binding_only() {
    let key = key_name();
    let found = holdings_after(move |tx, id| {
        let others = [
            binding_id(1, "soc", "assistant"),
            binding_id(1, "default", "other"),
            binding_id(2, "default", "assistant"),
        ];
        for binding in others.iter().chain([id]) {
            tx.open_holding(binding, &key, KeyVersion(1), at(1))?;
            tx.open_holding(binding, &key, KeyVersion(2), at(1))?;
        }
        let other_key = "azure".parse().unwrap();
        tx.open_holding(id, &other_key, KeyVersion(2), at(1))?;
        tx.close_holdings(id, Some((&key, KeyVersion(2))), "proof", at(2))?;
        assert_eq!(
            tx.holdings(&other_key)?[0].closed_by.as_deref(),
            Some("proof")
        );
        Ok(())
    })
    .await;
    assert_eq!(found.len(), 8);
    let closed: Vec<_> = found
        .into_iter()
        .filter(|row| row.closed_at.is_some())
        .collect();
    assert_eq!(closed, [holding(1, 1, Some((2, "proof")))]);
}

#[tokio::test]
async fn the_newest_evidence_stands_until_it_is_void() {
    let evidence = |space, version, seconds| Evidence {
        binding: binding_id(1, space, "assistant"),
        key: key_name(),
        version: KeyVersion(version),
        revision: Revision(3),
        enrolment: EnrolmentId::new(Uuid::from_u128(8)),
        certificate_serial: "0a".into(),
        at: at(seconds),
    };
    let work = move |tx: &Tx<'_>| {
        for row in [
            evidence("a", 1, 1),
            evidence("a", 1, 2),
            evidence("a", 2, 3),
            evidence("b", 1, 4),
        ] {
            tx.put_evidence(&row)?;
        }
        let found = tx.evidence(&key_name())?;
        assert_eq!(
            found,
            [
                evidence("a", 1, 2),
                evidence("b", 1, 4),
                evidence("a", 2, 3)
            ]
        );
        tx.void_evidence(&evidence("a", 1, 1).binding)
    };
    assert_eq!(
        check(work, |tx| tx.evidence(&key_name())).await,
        [evidence("b", 1, 4)]
    );
}

#[tokio::test]
async fn bindings_are_found_by_every_way_to_them() {
    let ids = [
        binding_id(1, "default", "assistant"),
        binding_id(1, "default", "other"),
        binding_id(1, "soc", "assistant"),
        binding_id(2, "default", "assistant"),
    ];
    let rollout = Rollout {
        id: rollout_id(1),
        strategy: default_strategy("default".parse().unwrap()),
        cause: String::new(),
        actor: String::new(),
        run: Run::new("", at(0)),
        started_at: at(0),
        ended_at: None,
    };
    let stored = ids.clone();
    let work = move |tx: &Tx<'_>| {
        for id in stored.iter().rev() {
            tx.put_binding(&waiting(id.clone()))?;
        }
        let of_rollout = |index: usize| RolloutBinding {
            id: stored[index].clone(),
            from: None,
            to: None,
            failure: None,
        };
        // One of them is gone since, which is no error.
        let gone = RolloutBinding {
            id: binding_id(9, "default", "gone"),
            from: None,
            to: None,
            failure: None,
        };
        tx.insert_rollout(&rollout, &[], &[of_rollout(3), of_rollout(1), gone])?;
        tx.delete_binding(&binding_id(7, "never", "there"))
    };
    let [first, second, third, fourth] = ids.clone();
    let only = |rows: Vec<Binding>| rows.into_iter().map(|row| row.id).collect::<Vec<_>>();
    let look = move |tx: &Tx<'_>| {
        assert_eq!(only(tx.bindings()?), ids);
        assert_eq!(
            only(tx.bindings_of(first.deployment)?),
            [first.clone(), second.clone(), third.clone()]
        );
        assert_eq!(
            only(tx.bindings_with(&first.connector)?),
            [first.clone(), third, fourth.clone()]
        );
        assert_eq!(only(tx.bindings_in(rollout_id(1))?), [second, fourth]);
        assert_eq!(tx.bindings_in(rollout_id(2))?, []);
        assert_eq!(tx.binding(&first)?.map(|row| row.id), Some(first));
        assert_eq!(tx.binding(&binding_id(9, "default", "gone"))?, None);
        Ok(())
    };
    check(work, look).await;
}
