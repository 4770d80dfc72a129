//! Tokens, without their values.

use keyfleet_proto::v1;

use super::words;
use crate::output::{Cell, Table, Tone, View, rfc3339, unique_len, when};

/// The table of tokens.
pub(crate) fn table(tokens: &[v1::Token], view: &View) -> String {
    let headers: &[&str] = if view.wide {
        &[
            "ID",
            "KIND",
            "ROLE",
            "USES LEFT",
            "ENDS",
            "CREATED",
            "BY",
            "STATE",
            "FOR…",
            "SCOPE…",
        ]
    } else {
        &[
            "ID", "KIND", "ROLE", "USES", "ENDS", "STATE", "FOR…", "SCOPE…",
        ]
    };
    let id_len = unique_len(tokens.iter().map(|token| token.id.as_str()));
    let mut table = Table::new(headers);
    for token in tokens {
        let join = token.kind() == v1::TokenKind::Join;
        let id: String = if view.wide {
            token.id.clone()
        } else {
            token.id.chars().take(id_len).collect()
        };
        let uses_left = token.uses_left.to_string();
        let mut cells: Vec<Cell> = vec![
            id.into(),
            kind(token.kind()).into(),
            words::role(token.role).into(),
            if join { uses_left.into() } else { "".into() },
            when(token.expires_at, view).into(),
        ];
        if view.wide {
            cells.push(rfc3339(token.created_at).into());
            cells.push((&token.created_by).into());
        }
        cells.push(state(token, view));
        cells.push(whose(token).into());
        cells.push((&token.scope).into());
        table.row(cells);
    }
    table.without_empty_columns().to_string()
}

/// Who or what it is for.
fn whose(token: &v1::Token) -> String {
    match (token.kind(), token.deployment.as_str()) {
        (v1::TokenKind::Operator, _) => token.principal.clone(),
        (_, "") => words::labels(&token.labels),
        (_, deployment) => format!("the new agent of {deployment}"),
    }
}

fn kind(kind: v1::TokenKind) -> &'static str {
    match kind {
        v1::TokenKind::Join => "join",
        v1::TokenKind::Operator => "operator",
        v1::TokenKind::Unspecified => "?",
    }
}

fn state(token: &v1::Token, view: &View) -> Cell {
    let expired = token
        .expires_at
        .is_some_and(|at| at.seconds <= view.now.as_second());
    let used_up = token.kind() == v1::TokenKind::Join && token.uses_left == 0;
    match (token.revoked, expired, used_up) {
        (true, _, _) => Cell::toned("revoked", Tone::Bad),
        (_, true, _) => Cell::toned("expired", Tone::Between),
        (_, _, true) => Cell::toned("used up", Tone::Between),
        (false, false, false) => Cell::toned("valid", Tone::Good),
    }
}
