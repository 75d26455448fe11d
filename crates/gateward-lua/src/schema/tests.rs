//! Schemas from files through the loader: what users see.

use crate::{LuaHost, LuaOptions};
use gateward_config::{Format, Loaded, Options, load};
use gateward_model::RouterFlavor;
use gateward_model::schema::PluginSchemas;
use gateward_plugin::{NativePlugins, PluginHost};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

const HANDLER: &str = "return { PRIORITY = 5, VERSION = '1.0' }";

/// A folder with plugins, gone with the test.
struct Plugins {
    folder: PathBuf,
    plugins: NativePlugins,
}

impl Drop for Plugins {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Plugins {
    /// One plugin `p` with this schema.lua.
    fn new(name: &str, schema: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("gateward-lua-schema-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("p")).unwrap();
        fs::write(folder.join("p/handler.lua"), HANDLER).unwrap();
        fs::write(folder.join("p/schema.lua"), schema).unwrap();
        let host = LuaHost::new(LuaOptions { folders: vec![folder.clone()], ..LuaOptions::default() });
        Self { folder, plugins: NativePlugins::and(Arc::new(host)) }
    }

    /// With these `config` fields; `more` stands before them and may use the names `typedefs` and `null`.
    fn config(name: &str, fields: &str) -> Self {
        Self::new(
            name,
            &format!(
                "local typedefs = require 'kong.db.schema.typedefs'\nlocal null = ngx.null\nreturn {{ name = 'p', fields = {{\n\
                 {{ protocols = typedefs.protocols_http }},\n{{ config = {{ type = 'record', {fields} }} }} }} }}"
            ),
        )
    }

    fn load(&self, entity: &Value) -> Result<Loaded, Vec<String>> {
        let file = json!({
            "_format_version": "3.0",
            "services": [{"name": "s", "url": "http://a.example", "routes": [{"name": "r", "paths": ["/"]}]}],
            "consumers": [{"username": "alice"}],
            "plugins": [entity],
        });
        let options =
            Options { plugins: &self.plugins, flavor: RouterFlavor::default(), vault: &|_| None, now: 1_700_000_000 };
        let loaded = load(serde_json::to_string_pretty(&file).unwrap().as_bytes(), Format::Json, &options);
        loaded.map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    /// The configuration as the plugin gets it.
    fn good(&self, config: &Value) -> Value {
        let loaded = self.load(&json!({"name": "p", "config": config}));
        loaded.unwrap_or_else(|problems| panic!("{config}: {problems:?}")).config.plugins[0].config.clone()
    }

    /// Refused with one problem that says `expected`.
    fn bad(&self, config: &Value, expected: &str) {
        let mut problems = self.load(&json!({"name": "p", "config": config})).err().unwrap_or_default();
        problems.retain(|problem| !problem.contains(": warning: "));
        assert!(problems.len() == 1 && problems[0].contains(expected), "{config}: {problems:?}\nexpected {expected}");
    }

    /// What building it says.
    fn schema_error(&self) -> String {
        assert!(self.plugins.config_schema("p").is_none() && self.plugins.is_open("p"));
        let loaded = self.load(&json!({"name": "p"})).unwrap();
        let host = LuaHost::new(LuaOptions { folders: vec![self.folder.clone()], ..LuaOptions::default() });
        host.instance(&loaded.config.plugins[0]).err().unwrap_or_default()
    }
}

#[test]
fn kinds_defaults_and_places() {
    let plugins = Plugins::config(
        "kinds",
        "fields = {
          { word = { type = 'string', required = true } },
          { list = { type = 'array', elements = { type = 'string' }, default = {} } },
          { names = { type = 'set', elements = { type = 'string', one_of = { 'a', 'b' } } } },
          { limit = { type = 'integer', default = 5, between = { 0, math.huge } } },
          { ratio = { type = 'number', gt = 0 } },
          { flag = { type = 'boolean', required = true, default = false } },
          { map = { type = 'map', keys = { type = 'string' }, values = { type = 'integer' } } },
          { nested = { type = 'record', required = true, fields = {
            { port = typedefs.port { default = 80 } }, { host = typedefs.host } } } },
          { absent = { type = 'record', fields = { { x = { type = 'string', default = 'y' } } } } },
          { preset = { type = 'record', required = true, default = { a = 1 }, fields = {
            { a = { type = 'number' } }, { b = { type = 'string', default = 'B' } } } } },
          { any = { type = 'json' } },
        }",
    );
    assert_eq!(
        plugins.good(&json!({"word": "w"})),
        json!({"word": "w", "list": [], "limit": 5, "flag": false, "nested": {"port": 80}, "preset": {"a": 1, "b": "B"}})
    );
    assert_eq!(
        plugins.good(&json!({"word": "w", "names": ["a"], "map": {"k": 1}, "absent": {}, "any": [1, {"x": null}]})),
        json!({"word": "w", "list": [], "limit": 5, "flag": false, "nested": {"port": 80}, "preset": {"a": 1, "b": "B"},
               "names": ["a"], "map": {"k": 1}, "absent": {"x": "y"}, "any": [1, {"x": null}]})
    );
    plugins.bad(&json!({}), "required field is missing");
    plugins.bad(&json!({"word": ""}), "must not be empty");
    plugins.bad(&json!({"word": "w", "wrod": 1}), "unknown field - did you mean 'word'?");
    plugins.bad(&json!({"word": "w", "names": ["c"]}), "plugins[0].config.names[0]");
    plugins.bad(&json!({"word": "w", "ratio": 0}), "not greater than 0");
    plugins.bad(&json!({"word": "w", "flag": "x"}), "expected a boolean");
    plugins.bad(&json!({"word": "w", "map": {"k": "v"}}), "plugins[0].config.map.k");
    plugins.bad(&json!({"word": "w", "nested": {"port": 70000}}), "is not between 0 and 65535");
    plugins.bad(&json!({"word": "w", "nested": {"host": "a b"}}), "invalid value: a b");
    let problems = plugins.load(&json!({"name": "p", "config": {"word": 5}})).unwrap_err();
    assert!(problems[0].starts_with("11:17: "), "with line and column: {problems:?}");
}

#[test]
fn rules_in_lua() {
    let plugins = Plugins::config(
        "rules",
        "fields = {
          { match = { type = 'string', match = '^%u+$' } },
          { not_match = { type = 'string', not_match = '%s' } },
          { all = { type = 'string', match_all = { { pattern = 'a', err = 'needs an a' }, { pattern = 'b', err = 'needs a b' } } } },
          { none = { type = 'string', match_none = { { pattern = '//', err = 'must not have empty segments' } } } },
          { any = { type = 'string', match_any = { patterns = { '^x', 'y$' }, err = 'neither x nor y' } } },
          { custom = { type = 'string', custom_validator = function(value)
            if value == 'raise' then error('it broke') end
            if value == 'loop' then while true do end end
            if value == 'silent' then return nil end
            return value ~= 'bad', 'is bad: ' .. value
          end } },
          { record = { type = 'record', fields = { { a = { type = 'string' } }, { b = { type = 'string' } } },
            custom_validator = function(record)
              assert(record.b == null or record.b == 'b')
              if record.a == null then return nil, { a = 'a is needed' } end
              return true
            end } },
          { secret = { type = 'string', encrypted = true, match = '^s' } },
          { own = { type = 'string', match = '^o', err = 'says what the author says' } },
          { len = { type = 'string', len_min = 0, len_max = 2 } },
          { exact = { type = 'array', elements = { type = 'number' }, len_eq = 2, contains = 1 } },
          { uuid = typedefs.uuid }, { regex = { type = 'string', is_regex = true } },
          { subsets = { type = 'set', elements = { type = 'string' }, mutually_exclusive_subsets = { { 'a' }, { 'b' } } } },
        }",
    );
    let fine = json!({"match": "AB", "not_match": "ab", "all": "ab", "none": "/a", "any": "xz", "custom": "good",
        "record": {"a": "x"}, "secret": "s", "own": "o", "len": "", "exact": [1, 2], "regex": "^a$", "subsets": ["a"],
        "uuid": "0dc6f45b-8f8d-40d2-a504-473544ee190b"});
    assert_eq!(plugins.good(&fine), fine);
    for (field, value, expected) in [
        ("match", json!("ab"), "invalid value: ab"),
        ("not_match", json!("a b"), "invalid value: a b"),
        ("all", json!("a"), "needs a b"),
        ("none", json!("a//b"), "must not have empty segments"),
        ("any", json!("z"), "neither x nor y"),
        ("custom", json!("bad"), "is bad: bad"),
        ("custom", json!("silent"), "failed validating: silent"),
        ("custom", json!("raise"), "it broke"),
        ("custom", json!("loop"), "stopped"),
        ("record", json!({}), "a is needed"),
        ("own", json!("x"), "says what the author says"),
        ("len", json!("abc"), "at most 2 characters"),
        ("exact", json!([1]), "length must be 2"),
        ("exact", json!([2, 3]), "expected to contain: 1"),
        ("uuid", json!("x"), "is not a UUID"),
        ("regex", json!("("), "not a regular expression"),
        ("subsets", json!(["a", "b"]), "these sets are mutually exclusive: ('a'), ('b')"),
    ] {
        plugins.bad(&json!({ field: value }), expected);
    }
    let problems = plugins.load(&json!({"name": "p", "config": {"secret": "hunter2"}})).unwrap_err();
    assert!(problems[0].contains("breaks the rule 'match'") && !problems[0].contains("hunter2"), "{problems:?}");
}

#[test]
fn checks_across_fields() {
    let plugins = Plugins::new(
        "checks",
        "return { name = 'p', fields = { { config = { type = 'record', fields = {
           { policy = { type = 'string', one_of = { 'local', 'redis' }, default = 'local' } },
           { redis = { type = 'record', required = true, fields = { { host = { type = 'string' } } } } },
           { a = { type = 'string' } }, { b = { type = 'string' } },
           { low = { type = 'number' } }, { high = { type = 'number' } },
         }, entity_checks = { { mutually_required = { 'a', 'b' } } } } } },
         entity_checks = {
           { conditional = { if_field = 'config.policy', if_match = { eq = 'redis' }, then_field = 'config.redis.host', then_match = { required = true } } },
           { custom_entity_check = { field_sources = { 'config' }, fn = function(entity)
             local config = entity.config
             assert(config.a ~= nil and entity.route == nil)
             if config.low ~= ngx.null and config.high ~= ngx.null and config.low > config.high then return nil, 'low is above high' end
             return true
           end } },
           { custom_entity_check = { field_sources = { 'config.low', 'consumer' }, fn = function(entity)
             if entity.consumer ~= ngx.null and entity.config.low == 13 then return nil, 'not 13 for a consumer' end
             return true
           end } },
         } }",
    );
    plugins.good(&json!({}));
    plugins.good(&json!({"policy": "redis", "redis": {"host": "h"}, "a": "x", "b": "y", "low": 1, "high": 2}));
    plugins.bad(&json!({"policy": "redis"}), "plugins[0].config.redis.host");
    plugins.bad(&json!({"a": "x"}), "these must be set together or not at all: a, b");
    plugins.bad(&json!({"low": 2, "high": 1}), "low is above high");
    plugins.good(&json!({"low": 13}));
    let problems = plugins.load(&json!({"name": "p", "consumer": "alice", "config": {"low": 13}})).unwrap_err();
    assert!(problems[0].contains("not 13 for a consumer"), "{problems:?}");
}

#[test]
fn shorthands_and_transformations() {
    let plugins = Plugins::config(
        "shorthands",
        "fields = {
          { redis = { type = 'record', required = true, fields = { { host = { type = 'string' } }, { port = { type = 'integer', default = 6379 } } } } },
          { word = { type = 'string' } }, { hidden = { type = 'string' } },
        }, shorthand_fields = {
          { redis_host = { type = 'string', deprecation = { message = 'p: config.redis_host is deprecated, please use config.redis.host instead', removal_in_version = '4.0' },
            translate_backwards = { 'redis', 'host' }, func = function(value) return { redis = { host = value } } end } },
          { both = { type = 'string', func = function(value) return { word = value .. '!' } end } },
        }, transformations = { { input = { 'hidden' }, on_write = function(hidden) return { hidden = hidden:upper() } end } }",
    );
    assert_eq!(plugins.good(&json!({"redis_host": "h"})), json!({"redis": {"host": "h", "port": 6379}}));
    assert_eq!(
        plugins.good(&json!({"redis_host": "h", "redis": {"port": 1}})),
        json!({"redis": {"host": "h", "port": 1}})
    );
    assert_eq!(plugins.good(&json!({"both": "x"})), json!({"word": "x!", "redis": {"port": 6379}}));
    assert_eq!(plugins.good(&json!({"hidden": "x"})), json!({"hidden": "X", "redis": {"port": 6379}}));
    plugins.bad(&json!({"redis_host": 5}), "expected a string");
    let loaded = plugins.load(&json!({"name": "p", "config": {"redis_host": "h"}})).unwrap();
    let warning = loaded.warnings[0].to_string();
    assert!(warning.contains("please use config.redis.host instead (to be removed in 4.0)"), "{warning}");
}

#[test]
fn scopes_and_protocols() {
    let plugins = Plugins::new(
        "scopes",
        "local typedefs = require 'kong.db.schema.typedefs'
         return { name = 'p', fields = { { consumer = typedefs.no_consumer }, { service = typedefs.no_service },
           { protocols = { type = 'set', elements = { type = 'string', one_of = { 'https', 'grpcs' } }, default = { 'https' } } },
           { config = { type = 'record', fields = {} } } } }",
    );
    let loaded = plugins.load(&json!({"name": "p", "route": "r"})).unwrap();
    assert_eq!(serde_json::to_value(&loaded.config.plugins[0].protocols).unwrap(), json!(["https"]));
    for (entity, expected) in [
        (json!({"name": "p", "consumer": "alice"}), "cannot be configured for a consumer: remove `consumer`"),
        (json!({"name": "p", "service": "s"}), "cannot be configured for a service"),
        (json!({"name": "p", "protocols": ["http"]}), "does not work with protocol 'http': use https, grpcs"),
        (json!({"name": "p", "protocols": ["tcp"]}), "does not work with protocol 'tcp'"),
        (json!({"name": "p", "config": {"x": 1}}), "unknown field"),
    ] {
        let problems = plugins.load(&entity).unwrap_err();
        assert!(problems.len() == 1 && problems[0].contains(expected), "{entity}: {problems:?}");
    }
}

#[test]
fn every_ready_made_field() {
    let names = "auto_timestamp_ms auto_timestamp_s capability certificate cidr cidr_v4 cookie_name destinations header_name \
        headers host host_with_optional_port hosts http_method ip ip_or_cidr jwk key lua_code methods name no_consumer \
        no_destinations no_headers no_hosts no_methods no_paths no_route no_service no_sources path pem port propagation \
        protocol protocols protocols_http queue redis_host redis_server_name router_path router_paths semantic_version sni \
        sources tag tags timeout ttl url utf8_name uuid wildcard_host";
    let fields: String = names
        .split_whitespace()
        .map(|name| format!("{{ {name} = typedefs.{name} {{ required = false }} }},"))
        .collect();
    let plugins = Plugins::config("typedefs", &format!("fields = {{ {fields} }}"));
    let queue = &plugins.good(&json!({"queue": {}}))["queue"];
    assert_eq!((&queue["max_entries"], &queue["max_retry_time"]), (&json!(10000), &json!(60)));
    let certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----";
    for (name, good, bad) in [
        ("host", vec!["a.example", "10.0.0.1", "::1"], vec!["a b", "a:80", ""]),
        ("host_with_optional_port", vec!["a.example:80", "[::1]:80"], vec!["a b:1"]),
        ("wildcard_host", vec!["*.a.example", "a.*", "a.b"], vec!["a.*.b", "*.*", "10.0.0.1"]),
        ("ip", vec!["10.0.0.1", "::1"], vec!["a", "1.2.3"]),
        ("ip_or_cidr", vec!["10.0.0.0/8", "::/0", "10.0.0.1"], vec!["10.0.0.0/33", "a/8", "::/129"]),
        ("cidr_v4", vec!["10.0.0.0/8"], vec!["x", "::/0"]),
        ("path", vec!["/a/%20b", "/"], vec!["a", "/a//b", "/a b", "/%2"]),
        ("router_path", vec!["/a", "~/a/(?<b>.*)$"], vec!["a", "~/("]),
        ("url", vec!["http://a.example/x", "https://u:p@h:1"], vec!["a.example", "//a", "http://"]),
        ("header_name", vec!["X-A_b"], vec!["a b", "a:"]),
        ("cookie_name", vec!["a.b"], vec!["a;b"]),
        ("http_method", vec!["GET"], vec!["get"]),
        ("name", vec!["a-b_c.d~"], vec!["a b", "é"]),
        ("utf8_name", vec!["é"], vec!["a/b"]),
        ("sni", vec!["a.example"], vec!["10.0.0.1", "a:1"]),
        ("tag", vec!["a b"], vec!["a,b", "a/b"]),
        ("uuid", vec!["0dc6f45b-8f8d-40d2-a504-473544ee190b"], vec!["0dc6"]),
        ("certificate", vec![certificate], vec!["x"]),
        ("semantic_version", vec!["1.2.3"], vec!["v1"]),
        ("protocol", vec!["grpc"], vec!["ftp"]),
    ] {
        for value in good {
            plugins.good(&json!({ name: value }));
        }
        for value in bad {
            plugins.bad(&json!({ name: value }), &format!("config.{name}"));
        }
    }
    plugins.bad(&json!({"no_route": "x"}), "config.no_route");
    plugins.bad(&json!({"sources": [{}]}), "at least one of these is needed: ip, port");
    plugins.bad(&json!({"hosts": ["a.*.b"]}), "invalid wildcard: must be placed at leftmost or rightmost label");
    plugins.bad(&json!({"headers": {"Host": ["a"]}}), "cannot contain 'host' header");
    plugins.bad(&json!({"lua_code": {"a": "x ="}}), "error parsing lua code");
}

#[test]
fn what_is_wrong_in_a_schema_is_told_with_its_line() {
    let config = |fields: &str| {
        format!(
            "return {{ name = 'p', fields = {{\n{{ config = {{ type = 'record', fields = {{\n{fields} }} }} }} }} }}"
        )
    };
    for (name, schema, expected) in [
        ("syntax", "return {\n  name = ".to_owned(), "p/schema.lua:2:"),
        ("raises", "\nerror('at load')".to_owned(), "p/schema.lua:2: at load"),
        ("endless", "while true do end".to_owned(), "stopped"),
        ("nothing", "return 5".to_owned(), "not the schema's table"),
        ("unnamed", "return { fields = {} }".to_owned(), "`name` is missing"),
        ("none", "return { name = 'p', fields = {} }".to_owned(), "there is no `config`"),
        ("type", config("{ a = { type = 'strng' } }"), "schema.lua:3: config.a: invalid type: strng"),
        ("untyped", config("\n{ a = {} }"), "schema.lua:4: config.a: `type` is missing"),
        ("attribute", config("{ a = { type = 'string', requird = true } }"), "config.a.requird: `requird` is no attribute"),
        ("elements", config("{ a = { type = 'array' } }"), "config.a: a field of type 'array' needs `elements`"),
        ("pattern", config("{ a = { type = 'string', match = '[' } }"), "config.a.match: malformed pattern"),
        ("between", config("{ a = { type = 'number', between = 5 } }"), "config.a.between: must be a list"),
        ("list", config("a = 1"), "config: `fields` must be a list"),
        ("typedef", "local t = require 'kong.db.schema.typedefs'\nlocal x = t.nothing".to_owned(), "schema.lua:2: schema typedef error"),
        ("foreign", "return { name = 'p', fields = { { run_on = {} } } }".to_owned(), "run_on: a plugin has no such field"),
        ("cycle", "local t = { name = 'p' } t.fields = t return t".to_owned(), "nested deeper"),
        ("check", "return { name = 'p', fields = { { config = { type = 'record', fields = {} } } }, entity_checks = { { onely_one_of = {} } } }".to_owned(), "there is no entity check 'onely_one_of'"),
        ("old", "return { no_consumer = true, fields = {} }".to_owned(), "before 1.0"),
    ] {
        let error = Plugins::new(&format!("wrong-{name}"), &schema).schema_error();
        assert!(error.contains(expected), "{name}: {error}\nexpected {expected}");
    }
}

#[test]
fn a_plugin_without_schema_is_told_of() {
    let plugins = Plugins::config("bare", "fields = {}");
    fs::remove_file(plugins.folder.join("p/schema.lua")).unwrap();
    let host = LuaHost::new(LuaOptions { folders: vec![plugins.folder.clone()], ..LuaOptions::default() });
    assert!(host.schema("p").is_none() && host.remark("p").unwrap().contains("has no schema.lua"));
    assert!(host.remark("q").is_none());
}
