//! What the control side shares: the Admin API, the status port and the run loop look at the node through this.

use crate::logging::LogControl;
use crate::reload::{Reloader, unix_seconds};
use crate::settings::Options;
use gateward_proxy::Node;
use std::sync::{Arc, OnceLock};
use uuid::Uuid;

/// Version of the gateway.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The control side's view of the process.
pub(crate) struct Control {
    /// Takes configurations; leads to the node.
    pub(crate) reloader: Arc<Reloader>,
    /// Level of the log.
    pub(crate) log: LogControl,
    /// Who this node is.
    pub(crate) identity: Identity,
    /// Settings, for `GET /`.
    pub(crate) options: Options,
    /// Where the node listens, once it does.
    pub(crate) addresses: OnceLock<Addresses>,
}

impl Control {
    /// The node.
    pub(crate) fn node(&self) -> &Node {
        self.reloader.node()
    }
}

/// Who a node is.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// UUID.
    pub(crate) node_id: String,
    /// Host name.
    pub(crate) hostname: String,
    /// Unix seconds.
    pub(crate) started_at: u64,
}

impl Identity {
    /// This process, with `node_id` if one is set.
    pub(crate) fn new(node_id: Option<String>) -> Self {
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        Self {
            node_id: node_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            hostname: hostname.trim().to_owned(),
            started_at: unix_seconds(),
        }
    }
}

/// Where a node listens, ports chosen by the system included.
#[derive(Debug, Clone, Default)]
pub(crate) struct Addresses {
    /// For clients.
    pub(crate) proxy: Vec<String>,
    /// For streams.
    pub(crate) stream: Vec<String>,
    /// For datagrams.
    pub(crate) datagrams: Vec<String>,
    /// The Admin API.
    pub(crate) admin: Vec<String>,
    /// The status port.
    pub(crate) status: Vec<String>,
}

#[cfg(test)]
pub(crate) mod testing {
    //! A control side without sockets or workers.

    use super::*;
    use crate::counter_store::NoStores;
    use crate::egress::Egress;
    use crate::reload::Compiler;
    use crate::settings::{Given, resolve};
    use gateward_config::Format;
    use gateward_net::dns::{DnsSettings, Names};
    use gateward_plugin::{NativePlugins, PluginEnv};
    use gateward_telemetry::{Limits, Telemetry};

    /// With this configuration, or none when it is empty. Call within a runtime.
    pub(crate) fn control(config: &str) -> Arc<Control> {
        let options = resolve(&Given::default()).expect("defaults are right");
        let runtime = tokio::runtime::Handle::current();
        let settings = options.data_plane.clone();
        let tls = Arc::new(gateward_net::tls::Context::new(settings.tls.clone()).expect("defaults are right"));
        let env = PluginEnv {
            background: runtime.clone(),
            counters: Arc::default(),
            http: Arc::new(Egress::new(runtime, tls.clone())),
            redis: Arc::new(NoStores),
            stats: Arc::default(),
            templates: None,
        };
        let telemetry = Telemetry::new(1, Limits::default());
        let compiler = Arc::new(Compiler {
            settings: settings.clone(),
            env,
            plugins: NativePlugins::new(),
            host: Arc::new(gateward_plugin::NoHost),
            filters: None,
            lua: None,
            telemetry: telemetry.clone(),
            tls,
        });
        let plan = match config {
            "" => compiler.empty(0).expect("nothing can be wrong"),
            text => match compiler.compile(text.as_bytes(), Format::Yaml, 1) {
                Ok(compiled) => compiled.plan,
                Err(problems) => panic!("{problems:?}"),
            },
        };
        // Nobody is there to be asked.
        let dns = DnsSettings { servers: vec![([127, 0, 0, 1], 1).into()], ..settings.dns.clone() };
        let names = Names::new(dns, tokio::runtime::Handle::current()).expect("defaults are right");
        let node = Node::new(settings, telemetry, None, names, plan);
        Arc::new(Control {
            reloader: Arc::new(Reloader::new(node, compiler)),
            log: LogControl::detached(),
            identity: Identity::new(Some("node".to_owned())),
            options,
            addresses: OnceLock::new(),
        })
    }
}
