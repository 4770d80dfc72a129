//! Simulated Kibana and OpenAI: real HTTP servers on loopback that hold state, obey the rules of the version they
//! play, and can be told to fail.
//!
//! Both are usable by hand (`keyfleet-sim --help`) and in process ([`kibana::start`], [`openai::start`]). Beside the
//! real interface each answers under `/_sim/`, a path that no real server has and that no fault touches:
//!
//! | request | what it does |
//! |---|---|
//! | `GET`, `PUT`, `DELETE /_sim/faults` | shows, replaces, clears the fault switches; an unknown key is a 400 |
//! | `GET /_sim/requests` | the latest requests, oldest first; a query filters: `method`, `class`, `path_contains`, `space`, `connector_id`, `status`, `after` (a sequence number) |
//! | `GET /_sim/requests/count` | how many; with `method`, `class` and `space` alone it is exact for ever, else it counts what the log still holds and `exact` says whether that is all |
//! | `GET /_sim/requests/counts` | every counter by method, class and space, and the most requests that were under way at once: `in_flight_max`, `writes_in_flight_max`, `runs_in_flight_max`, `writes_per_connector_max` |
//! | `DELETE /_sim/requests` | empties the log and its counters |
//! | `GET /_sim/connectors` (Kibana) | every stored connector with its space and the last four characters of its key |
//! | `POST /_sim/connectors` (Kibana) | makes a connector of somebody else without any check: `name`, and where wanted `id`, `space`, `connector_type_id`, `config`, `secrets`, `kind` (`stored`, `preconfigured`, `dynamic`: in every second list alone, `system`) |
//! | `DELETE /_sim/connectors/ID` (Kibana) | takes a connector away behind everybody's back |
//! | `GET`, `PUT /_sim/references` (Kibana) | how many rules refer to a connector: `{"ID": 3}`; what is not named stays, 0 takes it away |
//! | `GET`, `POST /_sim/spaces` (Kibana) | the spaces; `{"add": […], "remove": […], "hide": […], "show": […], "disable_actions": […], "enable_actions": […]}`, lists of ids, any of them. A hidden space is one where the API key has no right |
//! | `GET /_sim/endpoints`, `DELETE /_sim/endpoints/ID` (Elasticsearch) | the inference endpoints with the last four characters of their keys |
//! | `GET`, `POST /_sim/keys` (OpenAI) | the keys with their use counts; `{"add": "sk-…"}`, `{"revoke": "sk-…"}` |
//!
//! Classes of Kibana: `connector`, `connectors`, `execute`, `connector_types`, `status`, `spaces`, `alerting_health`,
//! `internal`, `other`. Classes of Elasticsearch: `inference`, `inference_update`, `inference_call`, `other`. Classes of
//! OpenAI: `models`, `chat`, `other`.
//!
//! The fault switches of a Kibana, all in one document that `PUT /_sim/faults` takes (`keyfleet-sim fault --help` shows
//! examples):
//!
//! | switch | what it does |
//! |---|---|
//! | `api` | breaks the HTTP interface: `mode` (`down`, `hang`, `slow`, `status`, `html`, `half_closed`, `write_then_fail`), `status`, `delay_ms`, `retry_after_secs`, `retry_after_date` (an HTTP date instead of a number), `methods`, `path_contains`, `remaining`. A 429 never hits `/api/status` |
//! | `provider` | runs fail as if the provider had: `mode` (`status`, `network`, `timeout`), `status`, `message`, `model`, `delay_ms`, `remaining` |
//! | `type_disabled` | `true` (`.gen-ai`) or a list of types that `xpack.actions.enabledActionTypes` leaves out |
//! | `licence`, `licence_expired` | another licence; `true` (every type that needs one) or a list of types for which it has run out |
//! | `privilege`, `privilege_in` | `none`, `read` or `all`; the same by the id of a space |
//! | `encryption_key_missing` | no actions route works |
//! | `undecryptable`, `secrets_missing` | `true` (every connector there is now) or a list of ids of connectors; a PUT repairs one |
//! | `status_level` | `available`, `degraded`, `unavailable`, `critical` |
//! | `clock_skew_secs` | how far the header `Date` goes before the right time; negative: behind |
//! | `upgrade_to` | another version, at once and for good |
//!
//! Elasticsearch has `api`, `provider` and `privilege` (`none`, `monitor`, `manage`) on its own port; licence, version and
//! clock are those of its Kibana.
//!
//! What is simulated and not confirmed: that connector routes answer 403 in a space whose feature "actions" is switched
//! off; see also the notes in `kibana::version`.
//!
//! [`proxy::start`] is a small HTTP proxy that lists what it was asked for under the same `/_sim/requests`.
//! [`gate::start`] is what the gates of rollouts ask: a page that passes or fails, and Prometheus' instant queries.

pub mod cli;
mod client;
mod fault;
pub mod gate;
pub mod kibana;
mod log;
pub mod openai;
pub mod proxy;
mod reply;
pub mod server;
