//! redirect: answer with another location.

use crate::BuildError;
use crate::contract::{Definition, LocalBody, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::Exchange;
use crate::native::settings;
use gateward_http::headers::is_valid_value;
use gateward_model::schema::{Field, Rule, Schema};
use serde::Deserialize;
use serde_json::Value;

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "redirect", priority: 779, schema, check_scope: settings::http, build }
}

fn schema() -> Schema {
    Schema::new([
        ("status_code", Field::integer().default(301).between(200, 599).required()),
        ("location", Field::string().rule(Rule::Custom(check_location)).required()),
        ("keep_incoming_path", Field::boolean().default(false)),
    ])
}

fn check_location(value: &Value) -> Result<(), String> {
    let text = value.as_str().unwrap_or("");
    match Location::parse(text) {
        Some(_) => Ok(()),
        None => Err(format!("{value} is no URL: write it like https://example.com/path")),
    }
}

#[derive(Deserialize)]
struct Settings {
    status_code: u16,
    location: String,
    keep_incoming_path: Option<bool>,
}

struct Redirect {
    status: u16,
    location: String,
    /// What surrounds the request's own path and query when these are kept.
    around: Option<Location>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let Some(location) = Location::parse(&settings.location) else {
        return Err(settings::refuse(context, format!("config.location is no URL: '{}'", settings.location)));
    };
    Ok(Box::new(Redirect {
        status: settings.status_code,
        location: settings.location,
        around: settings.keep_incoming_path.unwrap_or(false).then_some(location),
    }))
}

impl Plugin for Redirect {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let location = match &self.around {
            None => self.location.clone(),
            // The target as it came: escaped, and free of bytes that could not stand in a field.
            Some(around) => {
                let path = exchange.request.target.strip_prefix('*').unwrap_or(&exchange.request.target);
                format!("{}{path}{}", around.origin, around.fragment)
            }
        };
        let body = LocalBody::Bytes("text/plain; charset=utf-8".to_owned(), b"redirecting".to_vec());
        let response = LocalResponse { status: self.status, headers: Vec::new(), body };
        Step::Respond(response.header("Location", location))
    }
}

/// The parts of a URL that stay when its path and query are replaced.
struct Location {
    /// `scheme://authority`
    origin: String,
    /// `#fragment`, may be empty.
    fragment: String,
}

impl Location {
    /// An absolute URL with a host; `None` for anything else.
    fn parse(url: &str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let scheme_is_good = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
            && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
        let text_is_good = is_valid_value(url.as_bytes()) && !url.contains(char::is_whitespace);
        let (before_fragment, fragment) = match rest.find('#') {
            Some(at) => rest.split_at(at),
            None => (rest, ""),
        };
        let authority = before_fragment.split(['/', '?']).next().unwrap_or("");
        let host = authority.rsplit('@').next().unwrap_or("");
        let has_host = !host.is_empty() && !host.starts_with(':');
        (scheme_is_good && text_is_good && has_host)
            .then(|| Self { origin: format!("{scheme}://{authority}"), fragment: fragment.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::native::testing;
    use serde_json::json;

    fn check(config: Value, target: &str, expected: &str) {
        let case = format!("{config} {target}");
        let plugin = testing::build(&definition(), config);
        let response = testing::access(plugin.as_ref(), &mut testing::request("GET", target, &[])).unwrap();
        assert_eq!(response.headers.len(), 1);
        assert_eq!(response.headers[0].0, "Location");
        assert_eq!(format!("{} {}", response.status, response.headers[0].1), expected, "{case}");
        let body = "[text/plain; charset=utf-8] redirecting";
        assert_eq!(testing::summary(Some(&response)), format!("{} {body}", response.status));
    }

    #[test]
    fn locations_are_fixed_or_keep_the_path() {
        check(json!({"location": "https://a.example/x?y#z"}), "/p?q", "301 https://a.example/x?y#z");
        check(json!({"location": "https://a.example", "status_code": 308}), "/p", "308 https://a.example");
        let kept = |location: &str| json!({"location": location, "keep_incoming_path": true});
        check(kept("https://u@a.example:81/x/y?z=1#f"), "/p%20q?r=%2F&s", "301 https://u@a.example:81/p%20q?r=%2F&s#f");
        check(kept("http://a.example"), "/", "301 http://a.example/");
        check(kept("http://a.example?x"), "*", "301 http://a.example");
    }

    #[test]
    fn locations_must_be_absolute() {
        for (location, good) in [
            ("https://a", true),
            ("http://[::1]:80/", true),
            ("/path", false),
            ("//host/path", false),
            ("https:///path", false),
            ("https://:80", false),
            ("://host", false),
            ("https://a/b c", false),
            ("https://a/\r\nX: y", false),
            ("", false),
        ] {
            assert_eq!(testing::problems(&schema(), json!({"location": location})).is_empty(), good, "{location:?}");
        }
        assert!(!testing::problems(&schema(), json!({})).is_empty());
        assert!(!testing::problems(&schema(), json!({"location": "http://a", "status_code": 99})).is_empty());
    }
}
