//! The CA that signs agents' certificates.

use keyfleet_proto::v1;

use super::Page;
use crate::output::{Tone, View, rfc3339, when};

/// The page of `keyfleet ca show`.
pub(crate) fn page(response: &v1::GetCaResponse, view: &View) -> String {
    let mut page = Page::default();
    if let Some(ca) = &response.current {
        facts(&mut page, ca, view);
    }
    match &response.next {
        Some(next) => {
            page.heading("The next CA: a rotation is under way");
            facts(&mut page, next, view);
            if response.ends_after.is_some() {
                let until = rfc3339(response.ends_after);
                page.fact("Overlap", format_args!("at least until {until}"));
            }
        }
        None => page.fact("Rotation", "none under way"),
    }
    page.sentences("Waiting", Tone::Between, &response.waiting);
    page.finish()
}

fn facts(page: &mut Page, ca: &v1::Ca, view: &View) {
    page.fact("Pin", &ca.pin);
    page.fact("Ends", when(ca.not_after, view));
    page.fact("Deployments", ca.deployments);
}
