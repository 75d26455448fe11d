//! Flags of `gateward dns`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueHint;
use gateward_zone::Name;
use ipnet::IpNet;

use super::copies::Copied;

/// What `--help` says below the flags.
pub(crate) const AFTER_HELP: &str = "\
Files in the zones' folder:
  ORIGIN.zone         a zone file (RFC 1035; $INCLUDE within the folder, $GENERATE, RFC 3597)
  ORIGIN.policy.yaml  who may change the zone, and guardrails that hold for every change
  keys.yaml           TSIG keys
  audit.log, the files of copied zones, and everything that begins with a dot: the server's own
SIGHUP reads all files again; so does the server itself when they change. SIGTERM and SIGINT end it.

Try it:
  mkdir zones
  printf '$TTL 300\\n@ SOA ns hostmaster 1 3600 900 1209600 300\\n@ NS ns\\nns A 127.0.0.1\\n' > zones/example.com.zone
  gateward dns --zones-dir zones
  dig @127.0.0.1 -p 5300 example.com SOA
A second server that copies every zone of a first one, which runs with --catalog catalog.example:
  gateward dns --zones-dir copies --secondary-catalog catalog.example=192.0.2.1#transfer.key

Exit codes: 0 ended as asked; 1 could not start; 2 wrong usage.";

/// Flags of `gateward dns`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Folder of zone files
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) zones_dir: PathBuf,
    /// Address for UDP and TCP; may be repeated
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:5300")]
    pub(crate) listen: Vec<SocketAddr>,
    /// Address for DNS over TLS; may be repeated
    #[arg(long, value_name = "ADDR", requires_all = ["tls_cert", "tls_key"])]
    pub(crate) tls_listen: Vec<SocketAddr>,
    /// Certificate chain for DNS over TLS, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key for DNS over TLS, PEM
    #[arg(long, value_name = "FILE")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Address of the control API; none without it. Addresses that are not loopback need --control-token-file
    #[arg(long, value_name = "ADDR")]
    pub(crate) control_listen: Option<SocketAddr>,
    /// File with the bearer token that the control API asks for
    #[arg(long, value_name = "FILE")]
    pub(crate) control_token_file: Option<PathBuf>,
    /// Loopback address for external-dns's webhook protocol; none without it
    #[arg(long, value_name = "ADDR")]
    pub(crate) webhook_listen: Option<SocketAddr>,
    /// Zone to copy from a primary, as example.com=192.0.2.1:53#KEY; several primaries with commas between them. The key is one of keys.yaml.
    /// May be repeated
    #[arg(long, value_name = "ORIGIN=PRIMARY[:PORT][#KEY]")]
    pub(crate) secondary: Vec<Copied>,
    /// Catalog zone (RFC 9432) to copy, and with it every zone that it lists, from the same primaries; may be repeated
    #[arg(long, value_name = "CATALOG=PRIMARY[:PORT][#KEY]")]
    pub(crate) secondary_catalog: Vec<Copied>,
    /// Catalog zone to keep: it lists the zones of this server that are not copies
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) catalog: Option<Name>,
    /// Threads that answer over UDP [default: one per core]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) workers: Option<u16>,
    /// Give each worker a core of its own, and everything else (changes of zones, the control API, streams) the cores that are left, so that
    /// no query waits for a change. Needs fewer workers than cores [default of --workers then: all cores but one]
    #[arg(long)]
    pub(crate) pin_workers: bool,
    /// Answers over UDP of one kind about one name per second to one network (/24, /56), from the whole server; 0 limits nothing.
    /// Every worker of every --listen gives an equal share, so a client that keeps to one port gets that share
    #[arg(long, value_name = "N", default_value_t = 1000)]
    pub(crate) rate_limit: u32,
    /// Every so many limited answers, one passes truncated; 0: none
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) rate_limit_slip: u32,
    /// Networks that are not limited
    #[arg(long, value_name = "CIDR", value_delimiter = ',', default_value = "127.0.0.0/8,::1/128")]
    pub(crate) rate_limit_exempt: Vec<IpNet>,
    /// Longest answer over UDP, octets
    #[arg(long, value_name = "N", default_value_t = 1232, value_parser = clap::value_parser!(u16).range(512..=4096))]
    pub(crate) udp_payload: u16,
    /// Identity told in NSID and id.server; none if empty
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) identity: String,
    /// File with the secret of DNS cookies, 32 hexadecimal digits, and on a second line the one before; servers behind one
    /// address share it [default: a secret of this process]
    #[arg(long, value_name = "FILE")]
    pub(crate) cookie_secret_file: Option<PathBuf>,
    /// Ask clients over UDP that send a cookie for a valid one (BADCOOKIE)
    #[arg(long)]
    pub(crate) require_cookies: bool,
    /// Write queries as lines of JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) query_log: Option<PathBuf>,
    /// Write one query in so many
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub(crate) query_log_every: u32,
    /// Versions of each zone to keep for rollback
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) versions: usize,
    /// Most records of a zone
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    pub(crate) max_records: usize,
    /// Most changes of a zone in a second, by API, updates and leases; 0 limits nothing
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    pub(crate) max_changes_per_second: u32,
}
