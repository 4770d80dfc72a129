//! Plain HTTP on the operators' port: health, readiness, metrics. The dashboard will join it.

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
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

/// Ready = the database answers and Vault serves every Key. Who may see which Key is broken asks `keyfleet key list`.
async fn readyz(State(app): State<App>) -> Response {
    let broken = app.view(|tx, _| {
        let keys = tx.keys()?.into_iter();
        Ok(keys.filter(|row| row.vault_status != "ok").count())
    });
    let answer = match broken.await {
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

/// Reads the numbers at the moment they are asked for: nothing is counted twice, nothing is kept in step.
async fn collect(app: &App) -> Result<String, Error> {
    let (deployments, states, rollouts) = app
        .view(|tx, _| {
            let mut states = std::collections::BTreeMap::new();
            for binding in tx.bindings()? {
                *states.entry(binding.progress.state).or_insert(0_i64) += 1;
            }
            Ok((tx.deployments()?.len(), states, tx.active_rollouts()?.len()))
        })
        .await?;
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
        whole(deployments),
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
        whole(rollouts),
    );
    let reads = i64::try_from(app.keyring.vault().reads()).unwrap_or(i64::MAX);
    gauge(
        "vault_reads",
        "Reads of key values from Vault since the start",
        reads,
    );
    let bindings: Family<[(&'static str, &'static str); 1], Gauge> = Family::default();
    for (state, count) in states {
        bindings
            .get_or_create(&[("state", state.as_str())])
            .set(count);
    }
    registry.register("bindings", "Bindings by state", bindings);
    metrics::encode(&registry).map_err(|err| Error::internal(&err))
}
