//! What a balancer is told: the attributes of an NLB and its target group, with AWS's defaults.

use std::net::SocketAddr;
use std::time::Duration;

/// Attributes of the balancer and its one target group. Times are AWS's; see [`Settings::times_faster`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// Zones, each with an address of its own.
    pub zones: usize,
    /// `load_balancing.cross_zone.enabled`: a zone's address uses the targets of all zones. Off by default.
    pub cross_zone: bool,
    /// `tcp.idle_timeout.seconds`: a connection quiet for so long is forgotten.
    pub idle_timeout: Duration,
    /// `target_health_state.unhealthy.connection_termination.enabled`: reset the connections of a target that fails.
    pub unhealthy_termination: bool,
    /// How long a target that fails its checks still gets new connections (users measured 30 to 40 s).
    pub unhealthy_lag: Duration,
    /// How long a target taken out of the group still gets new connections (users measured 2 to 3 minutes).
    pub deregistration_lag: Duration,
    /// `deregistration_delay.timeout_seconds`.
    pub deregistration_delay: Duration,
    /// `deregistration_delay.connection_termination.enabled`: reset what is left after the delay.
    pub connection_termination: bool,
    /// `preserve_client_ip.enabled`: targets see the client's address and port, so that two connections of one client
    /// port to two zones look the same to a target.
    pub preserve_client_ip: bool,
    /// `proxy_protocol_v2.enabled`.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Health checks.
    pub check: Check,
    /// By what all times above are divided, so that a test takes seconds.
    pub times_faster: u32,
}

/// PROXY version 2 towards targets.
#[derive(Debug, Clone, Default)]
pub struct ProxyProtocol {
    /// VPC endpoint to name in entry 0xEA, as PrivateLink connections have one.
    pub vpce_id: Option<String>,
    /// Send the header at once, and not with the client's first bytes
    /// (`proxy_protocol_v2.client_to_server.header_placement`).
    pub at_once: bool,
}

/// Health checks of targets. With the PROXY protocol on, they carry a header of kind LOCAL.
#[derive(Debug, Clone)]
pub struct Check {
    /// Path to ask for with HTTP, where 200 to 399 is success; `None`: connecting is enough.
    pub path: Option<String>,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// Successes in a row that make a target healthy.
    pub healthy_threshold: u32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_threshold: u32,
}

/// A member of the target group.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Where connections go.
    pub addr: SocketAddr,
    /// Where checks go (`health_check.port`).
    pub check_addr: SocketAddr,
    /// The zone it is in.
    pub zone: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            zones: 1,
            cross_zone: false,
            idle_timeout: Duration::from_secs(350),
            unhealthy_termination: true,
            unhealthy_lag: Duration::from_secs(30),
            deregistration_lag: Duration::from_secs(120),
            deregistration_delay: Duration::from_secs(300),
            connection_termination: false,
            preserve_client_ip: false,
            proxy_protocol: None,
            check: Check::default(),
            times_faster: 100,
        }
    }
}

impl Default for Check {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(10),
            healthy_threshold: 2,
            unhealthy_threshold: 2,
        }
    }
}

impl Settings {
    /// A time of these settings as it is in the test.
    pub fn scaled(&self, time: Duration) -> Duration {
        time / self.times_faster.max(1)
    }
}

impl Target {
    /// A target in the first zone that is checked where it serves.
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, check_addr: addr, zone: 0 }
    }

    /// The same, checked elsewhere.
    #[must_use]
    pub fn checked_at(mut self, addr: SocketAddr) -> Self {
        self.check_addr = addr;
        self
    }

    /// The same in another zone.
    #[must_use]
    pub fn in_zone(mut self, zone: usize) -> Self {
        self.zone = zone;
        self
    }
}
