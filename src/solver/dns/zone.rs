//! Where the value of a challenge has to go: the record, along the aliases that lead away from it; its zone; the zone's servers.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use hickory_proto::op::Message;
use hickory_proto::rr::{Name, RData, RecordType};

use super::question::{Asked, ask};
use crate::solver::SolverError;
use crate::system::error_chain::in_full;
use crate::system::text::printable;

/// The port of DNS servers.
const DNS_PORT: u16 = 53;

/// More aliases than that lead nowhere: CAs give up, too.
const LONGEST_CHAIN: usize = 8;

/// Where the system says which resolvers it uses (resolv.conf(5)).
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A place for a TXT record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Place {
    /// The record's name: `_acme-challenge.www.example.com`, or where an alias leads.
    pub record: Name,
    /// The zone that it is in: `example.com`.
    pub zone: Name,
}

/// A name server of a zone, and one of its addresses.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Server {
    /// Its name.
    pub name: Name,
    /// Where it is asked.
    pub address: SocketAddr,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", shown(&self.name), self.address.ip())
    }
}

/// The resolvers that are asked where things are.
#[derive(Clone, Debug)]
pub struct Resolver {
    servers: Vec<SocketAddr>,
    authority_port: u16,
}

impl Resolver {
    /// Those of the system.
    pub fn of_the_system() -> Result<Self, SolverError> {
        let hint = "name one: resolver = \"192.0.2.53\"";
        let text = std::fs::read_to_string(RESOLV_CONF).map_err(|error| SolverError {
            what: format!("cannot read {RESOLV_CONF}"),
            hint: hint.to_owned(),
            source: Some(Box::new(error)),
        })?;
        let address = |line: &str| line.strip_prefix("nameserver")?.trim().parse::<IpAddr>().ok();
        let servers: Vec<_> = text.lines().filter_map(address).map(|address| SocketAddr::new(address, DNS_PORT)).collect();
        if servers.is_empty() {
            return Err(SolverError { what: format!("{RESOLV_CONF} names no resolver"), hint: hint.to_owned(), source: None });
        }
        Ok(Self { servers, authority_port: DNS_PORT })
    }

    /// This one. A DNS with ports of its own has them everywhere: the zones' servers are asked at the same one.
    pub fn at(server: SocketAddr) -> Self {
        Self { servers: vec![server], authority_port: server.port() }
    }

    async fn ask(&self, name: &Name, kind: RecordType) -> Result<Message, SolverError> {
        let mut failures = Vec::new();
        for server in &self.servers {
            match ask(*server, name, kind, Asked::Resolver).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push(in_full(&error)),
            }
        }
        Err(SolverError {
            what: format!("no resolver tells the {kind} records of {}: {}", shown(name), failures.join("; ")),
            hint: "see /etc/resolv.conf, or name another one: resolver = \"192.0.2.53\"; the servers of the zone must answer, too"
                .to_owned(),
            source: None,
        })
    }

    /// The place for the values of `record`: aliases are followed as a CA follows them, and the zone is the one that DNS names. Its name
    /// says nothing: `example.co.uk` is a zone and `www.example.com` may be one.
    pub async fn place(&self, record: &Name) -> Result<Place, SolverError> {
        let mut chain = vec![record.clone()];
        while let Some(target) = self.alias(&chain[chain.len() - 1]).await? {
            let looped = chain.contains(&target);
            chain.push(target);
            if looped || chain.len() > LONGEST_CHAIN {
                return Err(endless(&chain, looped));
            }
        }
        let record = chain.swap_remove(chain.len() - 1);
        // An alias may lead to any name, and a name may hold any byte; it goes into URLs, and into scripts.
        if !shown(&record).chars().all(|character| character.is_ascii_alphanumeric() || "-_.".contains(character)) {
            return Err(SolverError {
                what: format!("an alias leads to {:?}, which is no name for a TXT record", shown(&record)),
                hint: "have the CNAME record point at a name of letters, digits, hyphens and dots".to_owned(),
                source: None,
            });
        }
        let zone = self.zone(&record).await?;
        Ok(Place { record, zone })
    }

    async fn alias(&self, name: &Name) -> Result<Option<Name>, SolverError> {
        let answer = self.ask(name, RecordType::CNAME).await?;
        Ok(answer.answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *name => Some(target.0.clone()),
            _ => None,
        }))
    }

    /// The owner of the SOA record that is found first on the way up.
    async fn zone(&self, record: &Name) -> Result<Name, SolverError> {
        let mut name = record.clone();
        while !name.is_root() {
            let answer = self.ask(&name, RecordType::SOA).await?;
            if let Some(zone) = zone_in(&answer, record) {
                return Ok(zone);
            }
            name = name.base_name();
        }
        Err(SolverError {
            what: format!("no DNS zone holds {}", shown(record)),
            hint: "check the name; in a private DNS set resolver to a server that knows it".to_owned(),
            source: None,
        })
    }

    /// Every address of every name server of `zone`.
    pub async fn servers(&self, zone: &Name) -> Result<Vec<Server>, SolverError> {
        let answer = self.ask(zone, RecordType::NS).await?;
        let mut servers = Vec::new();
        for record in answer.answers.iter().filter(|record| record.name == *zone) {
            let RData::NS(name) = &record.data else { continue };
            for kind in [RecordType::A, RecordType::AAAA] {
                let addresses = self.ask(&name.0, kind).await?;
                let addresses = addresses.answers.iter().filter_map(|record| match &record.data {
                    RData::A(address) => Some(IpAddr::V4(address.0)),
                    RData::AAAA(address) => Some(IpAddr::V6(address.0)),
                    _ => None,
                });
                let server = |address| Server { name: name.0.clone(), address: SocketAddr::new(address, self.authority_port) };
                servers.extend(addresses.map(server));
            }
        }
        if servers.is_empty() {
            return Err(SolverError {
                what: format!("the name servers of the zone {} have no addresses", shown(zone)),
                hint: "correct the zone's NS records, or set resolver to a server that knows them".to_owned(),
                source: None,
            });
        }
        Ok(servers)
    }
}

/// The zone that an answer shows for `record`. It may speak of other zones as well, such as the one that an alias leads into: only one above
/// the record can be the record's.
fn zone_in(answer: &Message, record: &Name) -> Option<Name> {
    let owners = answer.answers.iter().chain(&answer.authorities).filter(|found| found.record_type() == RecordType::SOA);
    let zones = owners.map(|found| &found.name).filter(|owner| owner.zone_of(record) && !owner.is_root());
    zones.max_by_key(|owner| owner.num_labels()).cloned()
}

fn endless(chain: &[Name], looped: bool) -> SolverError {
    let names = chain.iter().map(shown).collect::<Vec<_>>().join(" → ");
    let what = if looped { format!("the aliases lead in a circle: {names}") } else { format!("the aliases lead on and on: {names}") };
    SolverError {
        what,
        hint: "have the CNAME record of the first name point at a name that holds the TXT record itself".to_owned(),
        source: None,
    }
}

/// A name as people write it.
pub fn shown(name: &Name) -> String {
    let text = name.to_ascii();
    printable(text.strip_suffix('.').filter(|text| !text.is_empty()).unwrap_or(&text))
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::SOA;

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn soa(owner: &str) -> Record {
        let soa = SOA::new(name("ns.example.test."), name("ops.example.test."), 1, 60, 60, 60, 60);
        Record::from_rdata(name(owner), 60, RData::SOA(soa))
    }

    #[test]
    fn only_a_zone_above_the_record_is_the_records() {
        let record = name("_acme-challenge.www.example.test.");
        let mut answer = Message::query();
        answer.answers.extend(["elsewhere.test.", "le.test.", "com.", "x._acme-challenge.www.example.test.", "."].map(soa));
        assert_eq!(zone_in(&answer, &record), None);
        answer.authorities.extend(["test.", "EXAMPLE.test."].map(soa));
        assert_eq!(zone_in(&answer, &record), Some(name("example.test.")));
    }
}
