//! Properties over generated files, and the replay of the fuzzing corpus.

use gateward_config::fuzzing;
use proptest::prelude::*;

/// Every file of the committed corpus, as the fuzz target runs it.
#[test]
fn corpus_replays() {
    gateward_testkit::corpus("config", 20).for_each(|input| fuzzing::config(&input));
}

/// Pieces of configuration, good and bad, to be put together at random.
const PIECES: &[&str] = &[
    "_format_version: \"3.0\"\n",
    "_transform: false\n",
    "services:\n",
    "- name: a\n",
    "  host: h\n",
    "  url: http://h:1/p\n",
    "  routes:\n",
    "  - paths: [/x]\n",
    "    service: a\n",
    "routes:\n",
    "consumers:\n",
    "- username: u\n",
    "  acls: [{group: g}]\n",
    "  keyauth_credentials: [{key: k}]\n",
    "plugins:\n",
    "- name: cors\n",
    "  config: {flag: yes, free: [1, {a: ~}]}\n",
    "upstreams:\n",
    "- name: up\n",
    "  targets: [{target: t}]\n",
    "  hash_on: ip\n",
    "  tags: [&t x]\n",
    "  tags: [*t]\n",
    "vaults: [{name: env, prefix: ve}]\n",
    "  <<: {retries: 1}\n",
    "  id: 0dc6f45b-8f8d-40d2-a504-473544ee190b\n",
    "~",
    "[",
    "{",
    ": ",
    "\t",
];

/// What YAML is made of, to reach every corner of the reader.
const TOKENS: &[&str] = &[
    "a",
    "1",
    "~",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    ": ",
    "- ",
    "? ",
    ", ",
    "[",
    "]",
    "{",
    "}",
    "&a ",
    "*a",
    "<<: ",
    "!",
    "!!str ",
    "!<x> ",
    "|",
    ">",
    "|2-",
    "'",
    "\"",
    "\\",
    "#",
    " # c",
    "%YAML 1.2\n",
    "%TAG ! x\n",
    "---",
    "...",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "é",
    "😀",
    "\\x41",
    "@",
    "`",
    "-",
    ":",
    "?",
];

/// A value of a plugin's free-form field.
fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<f64>().prop_filter_map("finite", |value| serde_json::Number::from_f64(value).map(Into::into)),
        any::<String>().prop_map(Into::into),
        "[a-z0-9~:#\\- .\n]{0,8}".prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
            prop::collection::btree_map(any::<String>(), inner, 0..4)
                .prop_map(|fields| serde_json::Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzzing::config(&data);
    }

    #[test]
    fn any_text(choice in 0u8..4, text in any::<String>()) {
        fuzzing::config(&[&[choice], text.as_bytes()].concat());
    }

    #[test]
    fn shuffled_pieces(choice in 0u8..4, pieces in prop::collection::vec(prop::sample::select(PIECES), 0..20)) {
        let text = format!("_format_version: \"3.0\"\n{}", pieces.concat());
        fuzzing::config(&[&[choice & 2], text.as_bytes()].concat());
    }

    #[test]
    fn shuffled_tokens(choice in 0u8..2, tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..40)) {
        fuzzing::config(&[&[choice], tokens.concat().as_bytes()].concat());
    }

    /// Loading must succeed here, so that the dump is really compared.
    #[test]
    fn any_values_survive_a_dump(free in any_json(), username in "[^\u{0}-\u{1f}]{1,12}", tag in "[a-z:#'\" ]{1,8}") {
        let file = serde_json::json!({
            "_format_version": "3.0",
            "consumers": [{"username": username, "tags": [tag]}],
            "plugins": [{"name": "cors", "config": {"free": free}}],
        });
        fuzzing::config_must_load(&[&[1], file.to_string().as_bytes()].concat());
    }
}
