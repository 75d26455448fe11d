//! What a plugin or filter is tried on without a gateway, and what should come of it: the parts that the files of cases have
//! in common, whatever runs them (`gateward plugin test`).

use serde::Deserialize;
use std::collections::BTreeMap;

/// Headers and a body. Pseudo fields stand among the headers: `:method` and `:path` of a request, `:status` of a response.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "said above")]
pub struct Message {
    #[serde(default)]
    pub headers: Vec<(String, String)>,
    #[serde(default)]
    pub body: String,
}

/// Expectations; what is not named is not looked at. `null` expects a field not to be there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    #[serde(default)]
    request_headers: BTreeMap<String, Option<String>>,
    request_body: Option<String>,
    #[serde(default)]
    response_headers: BTreeMap<String, Option<String>>,
    response_body: Option<String>,
    /// A response in place of the upstream's.
    reply: Option<ExpectedReply>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ExpectedReply {
    status: u16,
    body: Option<String>,
}

/// What came of a case: the request as it goes upstream, the response as the client gets it.
#[derive(Debug, Default)]
#[expect(missing_docs, reason = "said above")]
pub struct Came {
    pub request_headers: Vec<(String, Vec<u8>)>,
    pub request_body: Vec<u8>,
    pub response_headers: Vec<(String, Vec<u8>)>,
    pub response_body: Vec<u8>,
    /// Status of a response that did not come from the upstream.
    pub reply: Option<u16>,
}

impl Message {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

impl Expected {
    /// What came out differently, one line each.
    pub fn differences(&self, came: &Came) -> Vec<String> {
        let mut differences = Vec::new();
        compare_fields("request", &self.request_headers, &came.request_headers, &mut differences);
        compare_fields("response", &self.response_headers, &came.response_headers, &mut differences);
        let mut body = |what: &str, expected: Option<&String>, found: &[u8]| {
            let found = String::from_utf8_lossy(found);
            if let Some(expected) = expected.filter(|expected| **expected != found) {
                differences.push(format!("{what}: {found:?}, not {expected:?}"));
            }
        };
        body("request body", self.request_body.as_ref(), &came.request_body);
        body("response body", self.response_body.as_ref(), &came.response_body);
        if let (Some(reply), Some(_)) = (&self.reply, came.reply) {
            body("reply body", reply.body.as_ref(), &came.response_body);
        }
        let said = String::from_utf8_lossy(&came.response_body);
        match (self.reply.as_ref().map(|reply| reply.status), came.reply) {
            (None, Some(status)) => differences.push(format!("it answered {status} itself: {said}")),
            (Some(status), None) => differences.push(format!("it did not answer {status} itself")),
            (Some(expected), Some(found)) if expected != found => {
                differences.push(format!("reply: status {found}, not {expected}: {said}"));
            }
            _ => {}
        }
        differences
    }
}

fn compare_fields(
    what: &str,
    expected: &BTreeMap<String, Option<String>>,
    found: &[(String, Vec<u8>)],
    differences: &mut Vec<String>,
) {
    for (name, expected) in expected {
        let values = found.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let values: Vec<_> = values.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect();
        let value = (!values.is_empty()).then(|| values.join(", "));
        if value != *expected {
            let show =
                |value: &Option<String>| value.as_ref().map_or("absent".to_owned(), |value| format!("{value:?}"));
            differences.push(format!("{what} header {name}: {}, not {}", show(&value), show(expected)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected(text: &str) -> Expected {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn differences_are_told() {
        let text =
            r#"{"request_headers": {"a": "1", "b": null, "c": "x"}, "request_body": "no", "reply": {"status": 403}}"#;
        let request_headers = vec![("A".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let came = Came { request_headers, ..Came::default() };
        let wanted = [
            "request header b: \"2\", not absent",
            "request header c: absent, not \"x\"",
            "request body: \"\", not \"no\"",
            "it did not answer 403 itself",
        ];
        assert_eq!(expected(text).differences(&came), wanted);
    }

    #[test]
    fn replies_are_compared_by_status_and_body() {
        let came = Came { reply: Some(401), response_body: b"who?".to_vec(), ..Came::default() };
        assert_eq!(expected("{}").differences(&came), ["it answered 401 itself: who?"]);
        let other = r#"{"reply": {"status": 403, "body": "no"}}"#;
        let wanted = ["reply body: \"who?\", not \"no\"", "reply: status 401, not 403: who?"];
        assert_eq!(expected(other).differences(&came), wanted);
        assert_eq!(expected(r#"{"reply": {"status": 401, "body": "who?"}}"#).differences(&came), [""; 0]);
    }
}
