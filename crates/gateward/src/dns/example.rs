//! The names of the example company, served as long as a quickstart runs.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use gateward_dns::answer::Settings;
use gateward_dns::cookies::CookieKeys;
use gateward_dns::server::{Options, Server, Shared, slow};
use gateward_dns::store::Zone;
use gateward_domain::{Declaration, Desired};

/// Where the example's name servers are asked, as its declarations say.
pub(crate) const ADDRESS: &str = "127.0.0.1:5300";
/// The declarations, by their files.
const DECLARATIONS: [(&str, &str); 2] = [
    ("examples/domains/messaging.yaml", include_str!("../../../../examples/domains/messaging.yaml")),
    ("examples/domains/voice.yaml", include_str!("../../../../examples/domains/voice.yaml")),
];

/// Serves every zone of the example company. Called within a runtime; ends when it is dropped.
///
/// # Errors
/// The address is taken.
pub(crate) fn start() -> Result<Server> {
    let shared = Arc::new(Shared::new(Settings::default(), CookieKeys::new(uuid::Uuid::new_v4().into_bytes(), None)));
    for (file, text) in DECLARATIONS {
        shared.zones.put_all(zones(text).with_context(|| file)?);
    }
    let address: SocketAddr = ADDRESS.parse().context("the example has no valid address")?;
    // Listeners share their port with others of the same user; a plain socket tells whether there are any.
    std::net::UdpSocket::bind(address)?;
    let options = Options { listen: vec![address], ..Options::default() };
    Ok(Server::start(shared, &options, &(Arc::new(slow::Nothing) as Arc<dyn slow::Slow>))?)
}

fn zones(text: &str) -> Result<Vec<Arc<Zone>>> {
    let declaration = Declaration::read(text.as_bytes()).map_err(|problems| anyhow!("{problems:?}"))?;
    let desired = Desired::of(&declaration);
    let zone = |zone: &gateward_domain::DesiredZone| {
        let records = zone.records.iter().cloned().chain([zone.soa_record(1)]);
        Ok(Arc::new(Zone::build(&zone.origin, records.collect())?))
    };
    desired.zones.iter().map(zone).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gateward_zone::ZoneView;

    #[test]
    fn every_level_of_the_example_is_a_zone() {
        let all: Vec<Arc<Zone>> = DECLARATIONS.iter().flat_map(|(file, text)| zones(text).expect(file)).collect();
        for origin in
            ["messaging.example.", "prod.messaging.example.", "us-east-1.prod.messaging.example.", "voice.example."]
        {
            assert!(all.iter().any(|zone| zone.origin().to_string() == origin), "{origin} is missing");
        }
    }
}
