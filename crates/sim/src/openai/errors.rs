//! OpenAI's error bodies: all have the four keys `message`, `type`, `param` and `code`.

use crate::reply::Call;

/// A shorter key comes back whole in the 401, as it does from the real one.
const MASKED_CHARS_MIN: usize = 13;

/// Why a request is refused.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) kind: &'static str,
    pub(super) code: Option<&'static str>,
    pub(super) param: Option<&'static str>,
    pub(super) message: String,
    pub(super) retry_after_secs: Option<u64>,
    /// Azure's gateway puts nothing around it.
    pub(super) is_flat: bool,
}

impl Refusal {
    pub(super) fn new(
        status: u16,
        kind: &'static str,
        code: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            code,
            param: None,
            message: message.into(),
            retry_after_secs: None,
            is_flat: false,
        }
    }

    /// A request that cannot be carried out as it is.
    pub(super) fn invalid(
        code: Option<&'static str>,
        param: Option<&'static str>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            param,
            ..Self::new(400, "invalid_request_error", code, message)
        }
    }

    pub(super) fn no_key() -> Self {
        Self::new(
            401,
            "invalid_request_error",
            None,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer \
             auth (i.e. Authorization: Bearer YOUR_KEY).",
        )
    }

    /// The 401 echoes the key: its start, asterisks, its last four characters.
    pub(super) fn bad_key(key: &str) -> Self {
        let message = format!(
            "Incorrect API key provided: {}. You can find your API key at https://platform.openai.com/account/api-keys.",
            masked(key)
        );
        Self::new(
            401,
            "invalid_request_error",
            Some("invalid_api_key"),
            message,
        )
    }

    pub(super) fn model_not_found(model: &str) -> Self {
        let message =
            format!("The model `{model}` does not exist or you do not have access to it.");
        Self::new(
            404,
            "invalid_request_error",
            Some("model_not_found"),
            message,
        )
    }

    pub(super) fn invalid_url(call: &Call) -> Self {
        let message = format!("Invalid URL ({} {})", call.method, call.path);
        Self::new(404, "invalid_request_error", None, message)
    }
}

fn masked(key: &str) -> String {
    let chars: Vec<char> = key.chars().collect();
    if chars.len() < MASKED_CHARS_MIN {
        return key.to_owned();
    }
    let last = chars.len() - 4;
    let hide = |(index, c): (usize, &char)| if (8..last).contains(&index) { '*' } else { *c };
    chars.iter().enumerate().map(hide).collect()
}
