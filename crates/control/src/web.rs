//! Plain HTTP on the operators' port: health, readiness, metrics. The dashboard will join it.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use keyfleet_core::binding::BindingState;
use keyfleet_store::Tx;
use keyfleet_telemetry::metrics;
use keyfleet_telemetry::metrics::family::Family;
use keyfleet_telemetry::metrics::gauge::Gauge;

use crate::app::App;
use crate::error::Error;

/// The routes.
pub(crate) fn router(app: App) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(serve_metrics))
        .with_state(app)
}

/// Ready = the database answers and takes what is written, and Vault serves every Key. Who may see which Key is broken
/// asks `keyfleet key list`.
async fn readyz(State(app): State<App>) -> Response {
    let broken = app.store.read(|tx| {
        let keys = tx.keys()?.into_iter();
        Ok::<_, Error>(keys.filter(|row| row.vault_status != "ok").count())
    });
    let answer = match broken.await {
        Ok(_) if !app.database_problems().is_empty() => app.database_problems().join("; "),
        Ok(0) => return (StatusCode::OK, "ready\n").into_response(),
        Ok(broken) => format!("Vault does not serve {broken} of the keys"),
        Err(err) => err.to_string(),
    };
    (StatusCode::SERVICE_UNAVAILABLE, format!("{answer}\n")).into_response()
}

async fn serve_metrics(State(app): State<App>) -> Response {
    match collect(&app).await {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(err) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{err}\n")).into_response(),
    }
}

/// What the database says of the whole fleet: numbers, and nobody's names.
struct Numbers {
    deployments: usize,
    bindings: BTreeMap<BindingState, i64>,
    rollouts: usize,
    audit: u64,
    andon: bool,
}

impl Numbers {
    fn read(tx: &Tx<'_>) -> Result<Self, Error> {
        let mut bindings = BTreeMap::new();
        for binding in tx.bindings()? {
            *bindings.entry(binding.progress.state).or_default() += 1;
        }
        Ok(Self {
            deployments: tx.deployments()?.len(),
            bindings,
            rollouts: tx.active_rollouts()?.len(),
            audit: tx.audit_head()?.0,
            andon: tx.andon()?.is_some(),
        })
    }
}

/// Reads the numbers at the moment they are asked for: nothing is counted twice, nothing is kept in step.
async fn collect(app: &App) -> Result<String, Error> {
    let now = app.store.read(Numbers::read).await?;
    let whole = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut registry = metrics::registry();
    let mut gauge = |name: &str, help: &str, value: i64| {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    };
    gauge(
        "deployments",
        "Deployments that are enrolled",
        whole(now.deployments),
    );
    let online = whole(app.sessions.online().len());
    gauge(
        "deployments_connected",
        "Deployments whose agent is connected",
        online,
    );
    gauge(
        "rollouts_active",
        "Rollouts that have not ended",
        whole(now.rollouts),
    );
    let reads = i64::try_from(app.keyring.vault().reads()).unwrap_or(i64::MAX);
    gauge(
        "vault_reads",
        "Reads of key values from Vault since the start",
        reads,
    );
    gauge(
        "audit_entries",
        "Entries of the audit log",
        i64::try_from(now.audit).unwrap_or(i64::MAX),
    );
    gauge(
        "andon",
        "1 while the fleet is stopped",
        i64::from(now.andon),
    );
    let bindings: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
    for (state, count) in now.bindings {
        bindings
            .get_or_create(&[("state", state.as_str())])
            .set(count);
    }
    registry.register("bindings", "Bindings by state", bindings);
    metrics::encode(&registry).map_err(|err| Error::internal(&err))
}
