//! Settings of name resolution.

use crate::settings::resolve::Reader;
use crate::settings::values;
use gateward_net::dns::{DnsSettings, RecordKind};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// Most servers that are asked.
const SERVERS: usize = 16;
/// The port of DNS.
const PORT: u16 = 53;

/// Read them all.
pub(super) fn read(reader: &mut Reader<'_>) -> DnsSettings {
    let valid = reader.read("dns-valid-ttl", |text| values::duration(text).map(Some));
    DnsSettings {
        servers: reader.read("dns-resolver", servers),
        hosts_file: reader.read("dns-hostsfile", |text| Ok(PathBuf::from(text))),
        order: reader.read("dns-order", order),
        valid_ttl: valid,
        stale_ttl: reader.read("dns-stale-ttl", values::duration),
        not_found_ttl: reader.read("dns-not-found-ttl", values::duration),
        error_ttl: reader.read("dns-error-ttl", values::duration),
        cache_size: reader.read("dns-cache-size", values::number) as usize,
        ..DnsSettings::default()
    }
}

fn servers(text: &str) -> Result<Vec<SocketAddr>, String> {
    let entries = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
    let servers: Vec<SocketAddr> = entries.map(server).collect::<Result<_, _>>()?;
    if servers.len() > SERVERS { Err(format!("more than {SERVERS} servers")) } else { Ok(servers) }
}

fn server(entry: &str) -> Result<SocketAddr, String> {
    let bare = entry.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(entry);
    let alone = bare.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, PORT));
    let server = alone.or_else(|_| entry.parse::<SocketAddr>()).ok().filter(|server| server.port() != 0);
    server.ok_or_else(|| format!("'{entry}' is not a DNS server; write IP or IP:PORT, such as 10.0.0.2 or [::1]:5353"))
}

fn order(text: &str) -> Result<Vec<RecordKind>, String> {
    let mut order = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let kind = RecordKind::parse(entry)
            .ok_or_else(|| format!("'{entry}' is no kind of record; write some of LAST, SRV, A, AAAA, CNAME"))?;
        if !order.contains(&kind) {
            order.push(kind);
        }
    }
    if order.is_empty() {
        Err("no kind of record; write some of LAST, SRV, A, AAAA, CNAME".to_owned())
    } else {
        Ok(order)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Given, resolve};
    use std::time::Duration;

    fn dns(environment: &[(&str, &str)]) -> Result<DnsSettings, Vec<String>> {
        resolve(&Given::of(&[], environment)).map(|options| options.data_plane.dns)
    }

    #[test]
    fn defaults_are_kongs() {
        assert_eq!(dns(&[]).unwrap(), DnsSettings::default());
    }

    #[test]
    fn kongs_variables() {
        let settings = dns(&[
            ("KONG_DNS_RESOLVER", "10.0.0.2, [::1]:5353,fd00::2"),
            ("KONG_DNS_HOSTSFILE", "/tmp/hosts"),
            ("KONG_DNS_ORDER", "AAAA,last, cname, A"),
            ("KONG_DNS_VALID_TTL", "10"),
            ("KONG_DNS_STALE_TTL", "4"),
            ("KONG_DNS_NOT_FOUND_TTL", "0.5"),
            ("KONG_DNS_ERROR_TTL", "2"),
            ("KONG_DNS_CACHE_SIZE", "7"),
        ])
        .unwrap();
        use RecordKind::{A, Aaaa, Cname, Last};
        let expected = DnsSettings {
            servers: ["10.0.0.2:53", "[::1]:5353", "[fd00::2]:53"].map(|text| text.parse().unwrap()).into(),
            hosts_file: "/tmp/hosts".into(),
            order: vec![Aaaa, Last, Cname, A],
            valid_ttl: Some(Duration::from_secs(10)),
            stale_ttl: Duration::from_secs(4),
            not_found_ttl: Duration::from_millis(500),
            error_ttl: Duration::from_secs(2),
            cache_size: 7,
            ..DnsSettings::default()
        };
        assert_eq!(settings, expected);
        // Names of the client that came with Kong 3.8.
        let newer = dns(&[("KONG_RESOLVER_ADDRESS", "10.0.0.3"), ("KONG_RESOLVER_STALE_TTL", "9")]).unwrap();
        assert_eq!((newer.servers.len(), newer.stale_ttl), (1, Duration::from_secs(9)));
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for (name, text) in [
            ("KONG_DNS_RESOLVER", "dns.example"),
            ("KONG_DNS_RESOLVER", "10.0.0.2:0"),
            ("KONG_DNS_ORDER", "A,MX"),
            ("KONG_DNS_ORDER", ","),
            ("KONG_DNS_STALE_TTL", "soon"),
        ] {
            let errors = dns(&[(name, text)]).unwrap_err();
            assert!(errors.len() == 1 && errors[0].starts_with(name), "{errors:?}");
        }
    }
}
