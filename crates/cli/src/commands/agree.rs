//! Agreement: what takes something away is shown first, and done only when a person or `--yes` agrees.

use clap::Args;
use keyfleet_proto::v1;

use crate::error::Error;
use crate::output::Printer;
use crate::views;

/// Why something is done.
#[derive(Debug, Clone, Args)]
pub(crate) struct ReasonArgs {
    /// Why, for the audit log
    #[arg(long, value_parser = reason, value_name = "TEXT")]
    pub(super) reason: String,
}

/// Why something is done, where nobody must say it.
#[derive(Debug, Clone, Args)]
pub(crate) struct OptionalReasonArgs {
    /// Why, for the audit log
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        value_name = "TEXT"
    )]
    pub(super) reason: String,
}

/// A reason that says something.
pub(super) fn reason(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("say why: it goes into the audit log"),
        text => Ok(text.to_owned()),
    }
}

/// Shows a plan that is all that was asked for.
///
/// # Errors
/// Where nothing can be written.
pub(super) fn show_plan(printer: &Printer, plan: &v1::PlanResult) -> Result<(), Error> {
    printer.show(plan, |view| views::plan::page(plan, view))
}

/// True where the plan takes bindings away and somebody agreed to that; false where it takes none.
///
/// # Errors
/// As [`agree`].
pub(super) fn agree_to_plan(printer: &Printer, plan: &v1::PlanResult) -> Result<bool, Error> {
    let Some(what) = views::plan::removed(plan) else {
        return Ok(false);
    };
    let page = views::plan::page(plan, &printer.view());
    agree(printer, &page, &what)?;
    Ok(true)
}

/// Shows what would happen, and asks a person at a terminal.
///
/// `page` is what would happen in full, `what` the same in one clause: `this removes 2 bindings on 1 deployment`.
///
/// # Errors
/// Where nobody can be asked, or the person says no.
pub(super) fn agree(printer: &Printer, page: &str, what: &str) -> Result<(), Error> {
    if !printer.is_machine() {
        printer.before(page);
    }
    if !printer.can_ask() {
        return Err(Error::NotAgreed(what.to_owned()));
    }
    if printer.ask(&format!("{what}. Go on?")) {
        Ok(())
    } else {
        Err(Error::Declined)
    }
}
