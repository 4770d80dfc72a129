//! `backup` and `restore`, as people see them.

use std::io::Write;
use std::path::Path;

use keyfleet_control::backup;
use keyfleet_store::{Contents, Present, Restore};

use super::Failure;

/// Makes a backup and says what is in it.
pub(super) fn back_up(
    out: &mut impl Write,
    data_dir: &Path,
    file: &Path,
    replace: bool,
) -> Result<(), Failure> {
    let made = backup::backup(data_dir, file, replace)?;
    writeln!(out, "backup:     {} (mode 0600, checked)", file.display())?;
    show(out, &made)?;
    writeln!(
        out,
        "not in it:  ca.pem, ca.key and fingerprint.key of {}: keep them too, and apart from it",
        data_dir.display()
    )?;
    Ok(())
}

/// Shows what would be lost and, with `yes` or where nothing is there to lose, brings the backup back.
pub(super) fn restore(
    out: &mut impl Write,
    data_dir: &Path,
    file: &Path,
    yes: bool,
    reason: String,
) -> Result<(), Failure> {
    let prepared = backup::prepare_restore(data_dir, file)?;
    writeln!(out, "backup:     {}", file.display())?;
    show(out, &prepared.backup)?;
    show_present(out, &prepared)?;
    if prepared.present != Present::Missing && !yes {
        return Err("nothing is changed: say --yes to replace the present database".into());
    }
    let trusts_the_present = matches!(
        prepared.present,
        Present::Readable {
            continues: true,
            ..
        }
    );
    let restored = backup::restore(prepared, reason)?;
    writeln!(
        out,
        "restored:   the next start goes on from epoch {}",
        restored.epoch
    )?;
    if let Some(kept) = restored.kept {
        writeln!(out, "kept:       {}", kept.display())?;
    }
    for name in ["ca.pem", "ca.key", "fingerprint.key"] {
        if !data_dir.join(name).exists() {
            writeln!(
                out,
                "missing:    {name}: put it back before the service is started"
            )?;
        }
    }
    if !trusts_the_present {
        writeln!(
            out,
            "trust:      as of the backup: operator tokens and agents that were revoked since then are good again; revoke them once more before `keyfleet andon off`"
        )?;
    }
    writeln!(
        out,
        "next:       start the service; the andon is on: nothing is sent until `keyfleet andon off`"
    )?;
    Ok(())
}

fn show(out: &mut impl Write, contents: &Contents) -> std::io::Result<()> {
    let time = |at: Option<keyfleet_core::Timestamp>| match at {
        Some(at) => at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        None => "not known".to_owned(),
    };
    if contents.backed_up_at.is_some() {
        writeln!(out, "  made:     {}", time(contents.backed_up_at))?;
    }
    let (number, hash) = contents.audit_head;
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    writeln!(out, "  schema:   {}", contents.schema)?;
    writeln!(out, "  epoch:    {}", contents.epoch)?;
    writeln!(out, "  audit:    up to entry {number}, {hash}")?;
    writeln!(out, "  history:  up to {}", time(contents.last_event_at))?;
    writeln!(
        out,
        "  holds:    {} deployments, {} connectors, {} keys, {} rollouts",
        contents.deployments, contents.connectors, contents.keys, contents.rollouts
    )
}

fn show_present(out: &mut impl Write, prepared: &Restore) -> std::io::Result<()> {
    match &prepared.present {
        Present::Missing => writeln!(out, "present:    none: nothing is lost"),
        Present::Unreadable(problem) => {
            writeln!(out, "present:    cannot be read: {problem}")?;
            writeln!(
                out,
                "lost:       what is in it, beside join tokens, which are void after this"
            )
        }
        Present::Readable {
            contents,
            continues,
        } => {
            writeln!(out, "present:")?;
            show(out, contents)?;
            let (now, then) = (contents.audit_head.0, prepared.backup.audit_head.0);
            match continues {
                true => writeln!(
                    out,
                    "lost:       {} entries of the audit log, and what changed since the backup; identities of agents, tokens and holdings are taken over",
                    now.saturating_sub(then)
                ),
                false => writeln!(
                    out,
                    "lost:       all of it: it is not what became of the database in the backup"
                ),
            }
        }
    }
}
