//! A service answers: what is declared of it, or what its runtime registered.

use std::collections::BTreeSet;

use gateward_zone::{Name, Rcode, Rtype, rdata_to_text};

use super::report::Checks;
use super::walk::shown;
use super::{Verifier, data};
use crate::declaration::{Declaration, Runtime, Service, Zone};

impl Verifier {
    pub(super) fn service(&self, declaration: &Declaration, zone: &Zone, service: &Service, checks: &mut Checks) {
        let declared = zone.records.iter().filter(|record| record.owner.is_in(&service.name));
        let sets: BTreeSet<(&Name, Rtype)> = declared.map(|record| (&record.owner, record.rtype)).collect();
        for (name, rtype) in sets {
            let subject = format!("{name} {rtype}");
            match self.declared_set(declaration, zone, name, rtype) {
                Ok(detail) => checks.right("service", &subject, detail),
                Err(reason) => checks.wrong("service", &subject, reason),
            }
        }
        if service.runtime != Runtime::Static {
            let subject = service.name.to_string();
            match self.registered(declaration, service) {
                Ok(Some(detail)) => checks.right("service", &subject, detail),
                Ok(None) => checks.doubtful("service", &subject, nothing_registered(service)),
                Err(reason) => checks.wrong("service", &subject, reason),
            }
        }
    }

    fn declared_set(
        &self,
        declaration: &Declaration,
        zone: &Zone,
        name: &Name,
        rtype: Rtype,
    ) -> Result<String, String> {
        let walked = self.walk(declaration, name, rtype)?;
        if !walked.reply.aa {
            return Err(format!("no authoritative answer after {}", shown(&walked.path)));
        }
        let (expected, found) = (data(&zone.records, name, rtype), data(&walked.reply.answer, name, rtype));
        if expected.is_subset(&found) {
            return Ok(format!("{} records, by {}", found.len(), shown(&walked.path)));
        }
        let answer = walked.reply.answer.iter().map(|record| rdata_to_text(record.rtype, &record.rdata));
        let answer = answer.collect::<Vec<_>>().join(", ");
        let answer = if answer.is_empty() { walked.reply.rcode.to_string() } else { answer };
        Err(format!("not what is declared: {answer}"))
    }

    /// An address that a runtime registered.
    fn registered(&self, declaration: &Declaration, service: &Service) -> Result<Option<String>, String> {
        for rtype in [Rtype::A, Rtype::AAAA] {
            let walked = self.walk(declaration, &service.name, rtype)?;
            if !matches!(walked.reply.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) || !walked.reply.aa {
                return Err(format!("no authoritative answer after {}", shown(&walked.path)));
            }
            if !walked.reply.answer.is_empty() {
                return Ok(Some(format!("{} records, by {}", walked.reply.answer.len(), shown(&walked.path))));
            }
        }
        Ok(None)
    }
}

fn nothing_registered(service: &Service) -> String {
    let who = match service.runtime {
        Runtime::Kubernetes => "external-dns",
        Runtime::Vm | Runtime::Ecs => "gateward dns register",
        Runtime::Static => "the declaration",
    };
    format!("no address yet; {who} registers it")
}
