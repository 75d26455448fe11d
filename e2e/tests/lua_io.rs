//! What Lua plugins wait for and share, in a running gateway: timers, light threads, dictionaries, connections.

use gateward_testkit::{Backend, Gateway, GatewayBuilder, RawResponse, TempDir, eventually, http, pause};
use std::path::PathBuf;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(20);

/// A folder of plugins for one test.
struct Folder(TempDir);

impl Folder {
    /// One plugin `p` with this handler.
    fn new(handler: &str) -> Self {
        let folder = Self(TempDir::new().expect("a folder can be made"));
        let path = folder.path().join("p");
        std::fs::create_dir_all(&path).expect("folders can be made");
        std::fs::write(path.join("handler.lua"), handler).expect("plugins can be written");
        folder
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("plugins")
    }

    /// A gateway that uses it with this configuration.
    fn gateway(&self, backend: &Backend, config: &str) -> GatewayBuilder {
        let config = format!(
            "_format_version: '3.0'\nservices:\n- {{name: s, url: {}, routes: [{{name: r, paths: [/]}}]}}\n\
             plugins:\n- {{name: p, config: {config}}}\n",
            backend.url()
        );
        Gateway::builder(&config).arg(format!("--plugins-dir={}", self.path().display()))
    }
}

fn get(gateway: &Gateway, target: &str, headers: &[(&str, &str)]) -> RawResponse {
    http(gateway.proxy(), &format!("GET {target}"), headers, b"")
}

#[test]
fn every_worker_begins_without_traffic_and_timers_run() {
    let folder = Folder::new(
        r#"
        local P = { PRIORITY = 5 }
        function P:init_worker()
          ngx.shared.counts:incr("begun", 1, 0)
          ngx.timer.every(0.02, function() ngx.shared.counts:incr("ticks", 1, 0) end)
        end
        function P:configure(configs) ngx.shared.counts:incr("configured", #configs, 0) end
        function P:access()
          local counts = ngx.shared.counts
          kong.response.exit(200, { begun = counts:get("begun"), ticks = counts:get("ticks"), configured = counts:get("configured") })
        end
        return P"#,
    );
    let backend = Backend::echo();
    let gateway = folder.gateway(&backend, "{}").workers(2).start();
    eventually(PATIENCE, || {
        let text = get(&gateway, "/", &[]).text();
        let ticks = text.split("\"ticks\":").nth(1).and_then(|rest| rest.split([',', '}']).next()?.parse::<u32>().ok());
        text.contains("\"begun\":2") && text.contains("\"configured\":2") && ticks > Some(10)
    });
}

#[test]
fn a_plugin_that_waits_delays_nobody() {
    let folder = Folder::new(
        r#"
        local P = { PRIORITY = 5 }
        function P:access()
          if not kong.request.get_header("X-Slow") then return end
          local threads = {}
          for i = 1, 5 do threads[i] = ngx.thread.spawn(function() ngx.sleep(1) end) end
          for i = 1, 5 do ngx.thread.wait(threads[i]) end
        end
        return P"#,
    );
    let backend = Backend::echo();
    let gateway = folder.gateway(&backend, "{}").workers(1).start();
    get(&gateway, "/", &[]);
    std::thread::scope(|scope| {
        let began = std::time::Instant::now();
        let slow: Vec<_> = (0..4).map(|_| scope.spawn(|| get(&gateway, "/", &[("X-Slow", "1")]).status)).collect();
        pause(Duration::from_millis(100));
        let before = std::time::Instant::now();
        assert_eq!(get(&gateway, "/", &[]).status, 200);
        assert!(before.elapsed() < Duration::from_millis(600), "{:?}", before.elapsed());
        assert!(slow.into_iter().all(|slow| slow.join().expect("the request ended") == 200));
        assert!(began.elapsed() >= Duration::from_secs(1) && began.elapsed() < Duration::from_secs(4));
    });
}
