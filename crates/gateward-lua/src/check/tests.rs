//! Folders of plugins, good and bad.

use super::*;
use std::fs;

/// The plugins of a folder with these files.
fn checked(name: &str, files: &[(&str, &str)]) -> Vec<CheckedPlugin> {
    let folder = std::env::temp_dir().join(format!("gateward-lua-check-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    for (path, text) in files {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let checked = check(std::slice::from_ref(&folder)).unwrap();
    fs::remove_dir_all(&folder).unwrap();
    checked
}

const SCHEMA: &str =
    "return { name = 'p', fields = { { config = { type = 'record', fields = { { word = { type = 'string' } } } } } } }";

#[test]
fn a_good_plugin_has_no_findings() {
    let handler = "local util = require 'kong.plugins.p.util'\nlocal log, set = kong.log, kong.response.set_header\n\
        local P = { PRIORITY = 7, VERSION = '1.2.3' }\n\
        function P:access(conf) kong.ctx.shared.x = 1 ngx.ctx.y = kong.request.get_method() set('a', 'b') end\n\
        function P:log() log.err(ngx.ERR, ngx.now(), os.time()) end\nreturn P";
    let plugins = checked(
        "good",
        &[
            ("p/handler.lua", handler),
            ("p/schema.lua", SCHEMA),
            ("p/util.lua", "return { t = require 'kong.db.schema.typedefs' }"),
        ],
    );
    let [plugin] = plugins.as_slice() else { panic!("{plugins:?}") };
    assert_eq!(plugin.findings, [], "{plugin:?}");
    assert_eq!((plugin.version.as_deref(), plugin.priority), (Some("1.2.3"), Some(7)));
    assert_eq!(
        (plugin.phases.as_slice(), plugin.settings.as_slice()),
        (&["access", "log"][..], &["word".to_owned()][..])
    );
    let modules: Vec<_> = plugin.modules.iter().map(|module| (module.name.as_str(), module.from)).collect();
    assert_eq!(modules, [("kong.db.schema.typedefs", Origin::Gateway), ("kong.plugins.p.util", Origin::Folder)]);
}

#[test]
fn what_is_made_beside_the_worker_and_variables_are_known() {
    let handler = "local pkey, kdf = require 'resty.openssl.pkey', require 'resty.openssl.kdf'\n\
        local P = { PRIORITY = 7, VERSION = '1' }\nlocal var = ngx.var\n\
        function P:access() pkey.new { type = 'RSA' } kdf.derive {} ngx.log(ngx.ERR, var.connection, ngx.var.mine) end\n\
        function P:header_filter() ngx.exit(404) kong.response.exit(403) end\n\
        function P:log() kong.log(ngx.var.body_bytes_sent, ngx.var.http_x, ngx.var.connection_requests)\n\
          kong.log(ngx.var.tcpinfo_rtt, var.upstream_trailer_x) end\nreturn P";
    let plugins = checked("variables", &[("p/handler.lua", handler), ("p/schema.lua", SCHEMA)]);
    let findings: Vec<_> =
        plugins[0].findings.iter().map(|finding| (finding.severity, finding.message.as_str())).collect();
    let nil = "is always nil: nginx has it, the gateway has not";
    assert_eq!(
        findings,
        [
            (Severity::Warning, format!("ngx.var.tcpinfo_rtt {nil}").as_str()),
            (Severity::Warning, format!("ngx.var.upstream_trailer_x {nil}").as_str()),
        ]
    );
    assert!(plugins[0].ok());
}

#[test]
fn bad_plugins_are_told_why() {
    for (name, handler, expected) in [
        ("syntax", "return {", &["p/handler.lua:1:"][..]),
        ("raises", "\nerror('no')", &["p/handler.lua:2: no"]),
        ("module", "local x = require 'not.there' return { PRIORITY = 1, VERSION = '1' }", &["module 'not.there'"]),
        (
            "pdk",
            "local P = { PRIORITY = 1, VERSION = '1' }\nlocal log = kong.log\n\
             function P:access()\n kong.no.such()\n log.nothing()\n ngx.none() io.open('/x') os.execute('y') end return P",
            &[
                "handler.lua:4: kong.no is not there",
                "handler.lua:5: kong.log.nothing is not there",
                "handler.lua:6: ngx.none is not there",
                "handler.lua:6: io.open is not there",
                "handler.lua:6: os.execute is not there",
            ],
        ),
        (
            "lazy",
            "local P = { PRIORITY = 1, VERSION = '1' }\nfunction P:access() require 'ffi' require 'ssl.https' end return P",
            &["module 'ffi' is not there: plugins cannot reach it", "use resty.http"],
        ),
        (
            "tried",
            "pcall(require, 'not.there') return { PRIORITY = 1, VERSION = '1', log = function() end }",
            &["module 'not.there'"],
        ),
        ("bare", "return { PRIORITY = 1 }", &["no VERSION", "does nothing"]),
    ] {
        let plugins = checked(name, &[("p/handler.lua", handler), ("p/schema.lua", SCHEMA)]);
        let all: Vec<String> = plugins[0]
            .findings
            .iter()
            .map(|finding| format!("{}: {}", finding.place.as_deref().unwrap_or_default(), finding.message))
            .collect();
        for expected in expected {
            assert!(all.iter().any(|finding| finding.contains(expected)), "{name}: {all:#?}\nexpected {expected}");
        }
        assert_eq!(plugins[0].ok(), ["tried", "bare"].contains(&name), "{name}: {all:?}");
    }
    let plugins =
        checked("schemaless", &[("p/handler.lua", "return { PRIORITY = 1, VERSION = '1', log = function() end }")]);
    assert!(!plugins[0].ok() && plugins[0].findings[0].message.contains("no schema.lua"), "{plugins:?}");
    let plugins =
        checked("schema", &[("p/handler.lua", "return { PRIORITY = 1 }"), ("p/schema.lua", "return {\n name = 5 }")]);
    assert!(
        plugins[0].findings.iter().any(|finding| finding.message.contains("p/schema.lua:1: `name` is missing")),
        "{plugins:?}"
    );
}
