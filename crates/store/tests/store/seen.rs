//! What agents see beside their own: replaced as a whole, forgotten with its agent, never brought back by a restore.

use keyfleet_core::id::{DeploymentId, EnrolmentId};
use keyfleet_store::{Error, Inventory, NewCertificate, NewEnrolment, SeenConnector, Tx};
use uuid::Uuid;

use crate::common::{at, check, deployment};

const OURS: &str = "7d8f5bd4-8f4b-5c4c-9b0f-2f6c1f3b7a10";

fn seen(space: &str, id: &str) -> SeenConnector {
    SeenConnector {
        space: space.to_owned(),
        id: id.to_owned(),
        name: "ü \"quoted\"".to_owned(),
        connector_type: ".gen-ai".to_owned(),
        config: r#"{"apiProvider":"OpenAI"}"#.to_owned(),
        is_read_only: true,
        is_missing_secrets: false,
        references: u32::MAX,
    }
}

fn inventory(connectors: &[SeenConnector], is_complete: bool) -> Inventory {
    Inventory {
        connectors: connectors.to_vec(),
        is_complete,
    }
}

fn id(id: u128) -> DeploymentId {
    deployment(id).id
}

#[tokio::test]
async fn an_inventory_is_replaced_and_says_whether_it_is_news() {
    let first = inventory(&[seen("default", "a"), seen("soc", "a")], false);
    let mut changed = seen("soc", "a");
    changed.is_missing_secrets = true;
    let second = inventory(&[seen("default", "b"), changed], true);
    let (one, two) = (first.clone(), second.clone());
    let found = check(
        move |tx| {
            for n in [1, 2] {
                tx.insert_deployment(&deployment(n))?;
                assert_eq!(tx.inventory(id(n))?, Inventory::default());
            }
            assert!(tx.set_inventory(id(1), &one)?);
            assert!(tx.set_inventory(id(2), &one)?);
            assert!(!tx.set_inventory(id(2), &one)?, "said twice");
            assert!(tx.set_inventory(id(2), &two)?);
            Ok(())
        },
        |tx| Ok([tx.inventory(id(1))?, tx.inventory(id(2))?]),
    )
    .await;
    assert_eq!(found, [first, second]);
}

#[tokio::test]
async fn ids_that_look_like_ours_are_found_with_who_sees_them() {
    let found = check(
        |tx| {
            tx.insert_deployment(&deployment(1))?;
            tx.insert_deployment(&deployment(2))?;
            let v4 = "7d8f5bd4-8f4b-4c4c-9b0f-2f6c1f3b7a10";
            let both = [seen("a", OURS), seen("b", v4), seen("c", "x")];
            tx.set_inventory(id(1), &inventory(&both, true))?;
            tx.set_inventory(id(2), &inventory(&both[1..], true))?;
            Ok(())
        },
        |tx| tx.seen_like_ours(),
    )
    .await;
    assert_eq!(found, [(id(1), OURS.to_owned())]);
}

type Forget = fn(&Tx<'_>) -> Result<(), Error>;

fn new_agent() -> NewEnrolment {
    NewEnrolment {
        enrolment: EnrolmentId::new(Uuid::from_u128(200)),
        at: at(1),
        sealing_key: vec![8; 32],
        agent_version: "0.2.0".into(),
        certificate: NewCertificate {
            serial: "0b".into(),
            not_after: at(1000),
            ca: "cd".into(),
        },
    }
}

#[tokio::test]
async fn what_an_agent_saw_goes_with_it() {
    let forget: [Forget; 2] = [
        |tx| tx.enrol_again(id(1), &new_agent()),
        |tx| tx.remove_deployment(id(1), "test", at(1)),
    ];
    for forget in forget {
        let found = check(
            move |tx| {
                tx.insert_deployment(&deployment(1))?;
                tx.set_inventory(id(1), &inventory(&[seen("default", OURS)], true))?;
                forget(tx)
            },
            |tx| Ok((tx.inventory(id(1))?, tx.seen_like_ours()?)),
        )
        .await;
        assert_eq!(found, (Inventory::default(), Vec::new()));
    }
}
