//! Campaigns survive being stored and read again.

use std::collections::BTreeSet;

use keyfleet_core::campaign::{Campaign, Course, State};
use keyfleet_core::id::{CampaignId, KeyVersion};
use keyfleet_core::key::Rotation;
use keyfleet_store::{CampaignRow, CampaignStep};

use crate::common::{at, check, key_name};

#[tokio::test]
async fn a_campaign_is_read_as_it_was_written() {
    let id = CampaignId::new(uuid::Uuid::from_u128(7));
    let row = move |state: State| CampaignRow {
        id,
        key: key_name(),
        cause: "a leak".to_owned(),
        actor: "ana".to_owned(),
        rotation: Rotation {
            overlap_secs: 60,
            approvals: 2,
        },
        campaign: Campaign {
            state,
            stopped: (state == State::Halted).then_some(State::Rolling),
            course: Course::Back,
            old: Some(KeyVersion(3)),
            new: Some(KeyVersion(5)),
            overtaken: BTreeSet::from([KeyVersion(1), KeyVersion(4)]),
            reason: "look".to_owned(),
        },
        state_since: at(2),
        converged_at: Some(at(3)),
        started_at: at(1),
        ended_at: state.is_terminal().then(|| at(4)),
    };
    for state in State::ALL {
        let write = move |tx: &keyfleet_store::Tx<'_>| {
            tx.put_campaign(&row(State::Planned))?;
            tx.put_campaign(&row(state))?;
            for text in ["first", "second"] {
                let text = text.to_owned();
                let actor = "ana".to_owned();
                let at = at(1);
                tx.add_campaign_step(
                    id,
                    &CampaignStep {
                        at,
                        actor,
                        state,
                        text,
                    },
                )?;
            }
            assert!(tx.approve_campaign(id, "ben", at(2))?);
            assert!(!tx.approve_campaign(id, "ben", at(3))?, "once");
            assert!(tx.approve_campaign(id, "ana", at(4))?);
            Ok(())
        };
        let (all, active, steps, approved) = check(write, move |tx| {
            let active = tx.active_campaigns()?;
            let found = tx.campaigns_with_prefix("00000000")?;
            assert_eq!(found, tx.campaigns(5)?);
            Ok((
                found,
                active,
                tx.campaign_steps(id)?,
                tx.campaign_approvals(id)?,
            ))
        })
        .await;
        assert_eq!(all, [row(state)]);
        assert_eq!(active.is_empty(), state.is_terminal());
        let texts: Vec<_> = steps.iter().map(|step| step.text.as_str()).collect();
        assert_eq!(texts, ["first", "second"]);
        assert_eq!(approved, ["ben", "ana"]);
    }
}
