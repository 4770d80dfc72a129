//! Hosts that keys may travel to: one canonical form, made by the library that reads URLs everywhere else.

use url::Host;

/// The entry of a list that stands for every host.
pub(crate) const ANY: &str = "*";

/// The host of `host`, `host:port`, `address` or `[address]:port`, as [`url::Url::host_str`] has it, without brackets:
/// lower case, punycode, shortest form of an address. `None` for what is no host.
pub(crate) fn canonical(text: &str) -> Option<String> {
    let text = text.trim();
    // A wildcard is no host, and would look as if it meant something.
    if text.contains('*') {
        return None;
    }
    let parse = |text: &str| Some(bare(&Host::parse(text).ok()?.to_string()).to_owned());
    let with_port = |text: &str| {
        let (host, port) = text.rsplit_once(':')?;
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| parse(host)).flatten()
    };
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return parse(&format!("[{text}]"));
    }
    parse(text).or_else(|| with_port(text))
}

/// A host of a URL without the brackets of an IPv6 address.
pub(crate) fn bare(host: &str) -> &str {
    host.trim_matches(['[', ']'])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_host_has_one_form() {
        for (text, expected) in [
            ("api.openai.com", Some("api.openai.com")),
            (" API.OpenAI.com:443 ", Some("api.openai.com")),
            ("127.0.0.1:9100", Some("127.0.0.1")),
            ("0x7f.1", Some("127.0.0.1")),
            ("::1", Some("::1")),
            ("[::1]", Some("::1")),
            ("[0:0::1]:443", Some("::1")),
            ("bücher.example", Some("xn--bcher-kva.example")),
            // Another name: resolvers do not complete it.
            ("api.openai.com.", Some("api.openai.com.")),
            ("", None),
            ("a b", None),
            ("https://api.openai.com", None),
            ("api.openai.com/v1", None),
            ("user@api.openai.com", None),
            ("api.openai.com:port", None),
            ("api.openai.com:", None),
            ("*.openai.com", None),
            ("[::1", None),
        ] {
            assert_eq!(canonical(text).as_deref(), expected, "{text:?}");
        }
    }
}
