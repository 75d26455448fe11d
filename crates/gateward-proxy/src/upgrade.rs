//! Requests to change the protocol of a connection: what may be asked for, and what may be agreed to.
//!
//! The gateway stays between the two ends: an `Upgrade` is forwarded only for a protocol that is allowed (WebSocket
//! always, others by setting, HTTP/2 never), and bytes belong to another protocol only once the upstream has agreed with
//! 101; until then they are the client's next request (RFC 9110 section 7.8). What follows then is `tunnel`.

use crate::settings::Settings;
use gateward_http::headers::Name;
use gateward_http::{Headers, RequestHead, hop};

const UPGRADE: Name<'static> = Name::new("upgrade");
/// The protocol that is always allowed.
pub(crate) const WEBSOCKET: &str = "websocket";

/// The protocols that a request asks for and may get; to be called before its fields are stripped.
pub(crate) fn asked(request: &RequestHead, settings: &Settings) -> Option<Box<str>> {
    if !request.upgrade {
        return None;
    }
    let offered = str::from_utf8(hop::forwardable_upgrade(&request.headers)?).ok()?;
    let allowed = |protocol: &&str| {
        let name = protocol.split('/').next().unwrap_or(protocol);
        let mut names = std::iter::once(WEBSOCKET).chain(settings.upgrades.iter().map(String::as_str));
        names.any(|allowed| allowed.eq_ignore_ascii_case(name))
    };
    let kept: Vec<&str> = offered.split(',').map(str::trim).filter(allowed).collect();
    (!kept.is_empty()).then(|| kept.join(", ").into())
}

/// What a response with 101 switches to, if that was asked for.
pub(crate) fn agreed(asked: Option<&str>, response: &Headers) -> Option<Box<str>> {
    let mut fields = response.get_all(UPGRADE);
    let (answer, None) = (str::from_utf8(fields.next()?).ok()?, fields.next()) else { return None };
    let was_asked =
        |protocol: &str| asked.is_some_and(|asked| asked.split(", ").any(|one| one.eq_ignore_ascii_case(protocol)));
    answer.split(',').all(|protocol| was_asked(protocol.trim())).then(|| answer.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(version: &str, fields: &[(&str, &str)]) -> RequestHead {
        let fields: String = fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let text = format!("GET / HTTP/{version}\r\nHost: a\r\n{fields}\r\n");
        let mut head = RequestHead::default();
        let limits = gateward_http::HeadLimits::default();
        gateward_http::parse_request_head(text.as_bytes(), &limits, &mut head).expect("a right head");
        head
    }

    #[test]
    fn what_may_be_asked_for() {
        let settings = Settings { upgrades: vec!["frobnicate".to_owned()], ..Settings::default() };
        let asks = |version: &str, upgrade: &str| {
            asked(&head(version, &[("Connection", "keep-alive, Upgrade"), ("Upgrade", upgrade)]), &settings)
        };
        for (upgrade, expected) in [
            ("websocket", Some("websocket")),
            ("WebSocket", Some("WebSocket")),
            ("other, websocket/13 ,frobnicate", Some("websocket/13, frobnicate")),
            ("other", None),
            ("h2c", None),
            ("websocket, h2c", None),
        ] {
            assert_eq!(asks("1.1", upgrade).as_deref(), expected, "{upgrade}");
            assert_eq!(asks("1.0", upgrade), None, "HTTP/1.0 has none");
        }
        let unasked = head("1.1", &[("Upgrade", "websocket")]);
        assert_eq!(asked(&unasked, &settings), None, "Connection does not name it");
    }

    #[test]
    fn what_may_be_agreed_to() {
        let check = |asked: Option<&str>, fields: &[&str], expected: Option<&str>| {
            let mut headers = Headers::default();
            fields.iter().for_each(|value| assert!(headers.add("Upgrade", value)));
            assert_eq!(agreed(asked, &headers).as_deref(), expected, "{asked:?} {fields:?}");
        };
        check(Some("websocket"), &["websocket"], Some("websocket"));
        check(Some("websocket"), &["WebSocket"], Some("WebSocket"));
        check(Some("a, b/2"), &["b/2"], Some("b/2"));
        check(Some("websocket"), &["h2c"], None);
        check(Some("websocket"), &["websocket, h2c"], None);
        check(Some("websocket"), &["websocket", "websocket"], None);
        check(Some("websocket"), &[""], None);
        check(Some("websocket"), &[], None);
        check(None, &["websocket"], None);
    }
}
