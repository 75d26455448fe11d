//! The hosts file: names that nobody is asked for. It is read again when it changes.

use rustc_hash::FxHashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Bytes of a hosts file that are read; what is longer is cut.
const FILE_BYTES: usize = 16 << 20;

/// Addresses by name in lower case.
type Table = FxHashMap<String, Vec<IpAddr>>;

/// The names of one file.
#[derive(Debug)]
pub(super) struct Hosts {
    path: PathBuf,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// What told that the file is the same.
    version: Option<(SystemTime, u64)>,
    table: Arc<Table>,
}

impl Hosts {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, known: Mutex::default() }
    }

    /// Addresses of `host`: of IPv4, or of IPv6 where it has no others. `localhost` has one whatever the file says.
    pub(super) fn addresses(&self, host: &str) -> Option<Vec<IpAddr>> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let mut found = self.table().get(&host).cloned().unwrap_or_default();
        if found.iter().any(IpAddr::is_ipv4) {
            found.retain(IpAddr::is_ipv4);
        }
        if found.is_empty() && (host == "localhost" || host.ends_with(".localhost")) {
            found.push(Ipv4Addr::LOCALHOST.into());
        }
        (!found.is_empty()).then_some(found)
    }

    fn table(&self) -> Arc<Table> {
        let version = std::fs::metadata(&self.path).ok().and_then(|file| Some((file.modified().ok()?, file.len())));
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.version != version {
            let mut text = std::fs::read(&self.path).unwrap_or_default();
            text.truncate(FILE_BYTES);
            *known = Known { version, table: Arc::new(parse(&String::from_utf8_lossy(&text))) };
        }
        known.table.clone()
    }
}

/// Lines of an address and its names; what is not such a line has no effect.
fn parse(text: &str) -> Table {
    let mut table = Table::default();
    for line in text.lines() {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let Some(address) = words.next().and_then(|word| word.parse::<IpAddr>().ok()) else { continue };
        for name in words {
            let addresses = table.entry(name.trim_end_matches('.').to_ascii_lowercase()).or_default();
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_hosts_file() {
        let file = std::env::temp_dir().join(format!("gateward-hosts-{}", std::process::id()));
        let text =
            "# nobody\n10.0.0.1 one One.Test. # two\n::1 one six\n\n10.0.0.2\tone\nno-address three\n10.0.0.1 one\n";
        std::fs::write(&file, text).unwrap();
        let hosts = Hosts::new(file.clone());
        let check = |name: &str, expected: &[&str]| {
            let expected: Vec<IpAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
            assert_eq!(hosts.addresses(name).unwrap_or_default(), expected, "{name}");
        };
        check("one", &["10.0.0.1", "10.0.0.2"]);
        check("ONE.test", &["10.0.0.1"]);
        check("six", &["::1"]);
        check("three", &[]);
        check("two", &[]);
        check("localhost", &["127.0.0.1"]);
        std::fs::write(&file, "10.0.0.9 three localhost\n").unwrap();
        check("three", &["10.0.0.9"]);
        check("one", &[]);
        check("localhost", &["10.0.0.9"]);
        std::fs::remove_file(&file).unwrap();
        check("three", &[]);
        check("a.localhost", &["127.0.0.1"]);
    }
}
