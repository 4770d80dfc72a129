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
//! | `GET /_sim/requests/count` | how many; with `method` and `class` alone it is exact for ever, else it counts what the log still holds and `exact` says whether that is all |
//! | `DELETE /_sim/requests` | empties the log and its counters |
//! | `GET /_sim/connectors` (Kibana) | every stored connector with its space and the last four characters of its key |
//! | `GET`, `POST /_sim/keys` (OpenAI) | the keys with their use counts; `{"add": "sk-…"}`, `{"revoke": "sk-…"}` |
//!
//! Classes of Kibana: `connector`, `connectors`, `execute`, `connector_types`, `status`, `spaces`, `alerting_health`,
//! `internal`, `other`. Classes of OpenAI: `models`, `chat`, `other`.

//!
//! [`proxy::start`] is a small HTTP proxy that lists what it was asked for under the same `/_sim/requests`.

pub mod cli;
mod client;
mod fault;
pub mod kibana;
mod log;
pub mod openai;
pub mod proxy;
mod reply;
pub mod server;
