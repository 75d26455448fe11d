//! Plugins to try: folders of files, and what comes of their phases.

use crate::plugin::LuaPlugin;
use crate::{LuaHost, LuaOptions};
use gateward_model::{EntityId, PluginConfig};
use gateward_plugin::{Outcome, Soon, Step};
use serde_json::Value;
use std::fs;
use std::future::Future;
use std::path::PathBuf;

/// A folder that is gone with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new(name: &str, files: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("gateward-lua-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let folder = Self(folder);
        files.iter().for_each(|(path, text)| folder.write(path, text));
        folder
    }

    pub(crate) fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    pub(crate) fn host(&self) -> LuaHost {
        // What a handler failed with stands beside the assertion that noticed.
        let _ = tracing_subscriber::fmt().with_test_writer().try_init();
        LuaHost::new(LuaOptions { folders: vec![self.0.clone()], ..LuaOptions::default() })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn entity(name: &str, config: Value) -> PluginConfig {
    PluginConfig::new(EntityId::derived("test", name), name, config)
}

pub(crate) fn made(host: &LuaHost, name: &str, config: Value) -> Result<LuaPlugin, String> {
    host.instance(&entity(name, config)).map(LuaPlugin::new)
}

pub(crate) fn block_on<R>(future: impl Future<Output = R>) -> R {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// What a phase comes to.
pub(crate) async fn come_to(step: Step<'_>) -> Outcome {
    match step {
        Step::Next => Outcome::Next,
        Step::Respond(response) => Outcome::Respond(response),
        Step::Wait(waiting) => waiting.await,
        Step::Body(after) => Outcome::Body(after),
    }
}

/// Likewise outside of any runtime.
pub(crate) fn run(step: Step<'_>) -> Outcome {
    block_on(come_to(step))
}

/// What is said at once or later.
pub(crate) fn wait_for<T>(soon: Soon<'_, T>) -> T {
    match soon {
        Soon::Now(said) => said,
        Soon::Later(waiting) => block_on(waiting),
    }
}

/// Of the answer, if there is one.
pub(crate) fn status(outcome: &Outcome) -> Option<u16> {
    match outcome {
        Outcome::Next => None,
        Outcome::Respond(response) => Some(response.status),
        Outcome::Body(_) => panic!("it asks for the body"),
    }
}
