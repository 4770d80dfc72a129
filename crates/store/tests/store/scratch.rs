//! What is tried on a copy in memory is tried on the same rows, and touches nothing else.

use keyfleet_core::id::DeploymentId;
use keyfleet_store::{Error, Scratch, Tx};
use uuid::Uuid;

use crate::common::{Database, deployment};

fn count(tx: &Tx<'_>) -> Result<usize, Error> {
    Ok(tx.deployments()?.len())
}

fn add(id: u128) -> impl FnOnce(&Tx<'_>) -> Result<(), Error> {
    move |tx| tx.insert_deployment(&deployment(id))
}

#[test]
fn an_empty_one_has_every_table_and_nothing_in_it() {
    let scratch = Scratch::empty().unwrap();
    assert_eq!(scratch.run(count).unwrap(), 0);
    assert_eq!(scratch.run(|tx| tx.active_rollouts()).unwrap(), []);
    scratch.run(add(1)).unwrap();
    assert_eq!(scratch.run(count).unwrap(), 1);
}

#[test]
fn what_fails_is_undone_and_the_next_one_works() {
    let scratch = Scratch::empty().unwrap();
    let failed = scratch.run(|tx| {
        add(1)(tx)?;
        Err::<(), _>(Error::Closed)
    });
    assert!(matches!(failed, Err(Error::Closed)));
    assert_eq!(scratch.run(count).unwrap(), 0);
    // What the database refuses is undone as well.
    let twice = scratch.run(|tx| {
        add(1)(tx)?;
        add(1)(tx)
    });
    assert!(twice.is_err());
    assert_eq!(scratch.run(count).unwrap(), 0);
    scratch.run(add(1)).unwrap();
    assert_eq!(scratch.run(count).unwrap(), 1);
}

#[test]
fn a_fork_goes_its_own_way() {
    let first = Scratch::empty().unwrap();
    first.run(add(1)).unwrap();
    let second = first.fork().unwrap();
    second.run(add(2)).unwrap();
    first.run(add(3)).unwrap();
    first.run(add(4)).unwrap();
    assert_eq!(second.run(count).unwrap(), 2);
    assert_eq!(first.run(count).unwrap(), 3);
}

#[tokio::test]
async fn a_copy_has_what_the_transaction_sees_and_leaves_the_file_alone() {
    let database = Database::new();
    let store = database.open();
    store.write(add(1)).await.unwrap();
    let scratch = store.read(Scratch::copy_of).await.unwrap();
    store.write(add(2)).await.unwrap();
    assert_eq!(scratch.run(count).unwrap(), 1);
    let id = DeploymentId::new(Uuid::from_u128(1));
    let copied = scratch.run(|tx| tx.deployment(id)).unwrap();
    assert_eq!(copied, Some(deployment(1)));
    scratch.run(add(7)).unwrap();
    assert_eq!(store.read(count).await.unwrap(), 2);
}
