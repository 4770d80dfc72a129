//! First install on five versions of Kibana; the same again changes nothing.

use crate::kit::{FIVE, Fleet};

#[test]
fn a_key_in_vault_becomes_a_proven_connector_on_five_versions() {
    let fleet = Fleet::start_applied("install", &FIVE).unwrap();
    assert_eq!(fleet.bindings().unwrap().len(), 7);
    assert!(fleet.is_proven("1").unwrap());
    assert_eq!(fleet.writes().unwrap(), 7, "one creation for each binding");

    let again = fleet.apply().unwrap().must_succeed().unwrap();
    assert!(again.out.contains("No change"), "{again:?}");
    assert_eq!(
        fleet.writes().unwrap(),
        7,
        "the same manifests write nothing"
    );
    assert!(fleet.is_proven("1").unwrap());
}
