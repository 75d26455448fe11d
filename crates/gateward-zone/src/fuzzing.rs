//! What the fuzz targets `zone_file` and `policy`, and their replay in the tests, do with their input.

use std::collections::BTreeSet;

use crate::diff::{apply, creation, diff, digest, to_json, to_text_diff};
use crate::force::verify_force;
use crate::name::Name;
use crate::policy::{Actor, ActorKind, Policy, Step, check};
use crate::presentation::{parse_record, render_zone, to_text};
use crate::view::ZoneView;
use crate::zonefile::{ZoneLimits, ZoneText, parse_zone_within};
use crate::{audit, lint, lint_names};

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

/// Octets as a zone file; what follows the line `%%` is the file that `$INCLUDE x` finds. Panics when a property is broken: reading,
/// linting and writing never panic, and what was written reads back as the same zone.
pub fn zone_file(data: &[u8]) {
    let split = data.windows(4).position(|window| window == b"\n%%\n");
    let (text, included) = split.map_or((data, &b""[..]), |at| (&data[..=at], &data[at + 4..]));
    let include = |name: &str| if name == "x" { Ok(included.to_vec()) } else { Err("no such file".to_owned()) };
    let limits = ZoneLimits { text_bytes: 1 << 20, include_depth: 3, generated_records: 200, problems: 50 };
    match parse_zone_within(text, &origin(), "fuzz", &include, limits) {
        Ok(zone) => check_zone(&zone),
        Err(problems) => {
            assert!(problems.iter().any(crate::Problem::is_error), "refused without an error: {problems:?}");
        }
    }
}

fn check_zone(zone: &ZoneText) {
    let rendered = render_zone(zone);
    let again =
        parse_zone_within(rendered.as_bytes(), &Name::root(), "again", &|_| Err(String::new()), ZoneLimits::default());
    match again {
        Ok(again) => assert_eq!(again.records(), zone.records(), "a zone read back differs:\n{rendered}"),
        Err(problems) => panic!("a zone is refused: {problems:?}\n{rendered}"),
    }
    for record in zone.records() {
        let line = to_text(record, &origin());
        assert_eq!(parse_record(&line, &origin(), None).as_ref(), Ok(record), "{line}");
    }
    let names: BTreeSet<Name> = zone.records().iter().map(|record| record.owner.clone()).collect();
    assert_eq!(lint(zone).len(), lint_names(zone, &names).len(), "the ways to lint differ:\n{rendered}");
    let empty = ZoneText::from_records(origin(), Vec::new());
    let changes = diff(&empty, zone);
    assert_eq!(changes, creation(zone));
    // The order within sets is not that of the file.
    assert_eq!(
        diff(&apply(&empty, &changes), zone),
        [],
        "changes lead elsewhere:\n{}",
        to_text_diff(&origin(), &changes)
    );
    assert_eq!(digest(&origin(), &changes).len(), 64);
    for (json, change) in to_json(&origin(), &changes).iter().zip(&changes) {
        assert_eq!(json.parse(&origin(), None).as_ref(), Ok(change));
    }
}

/// Octets as a policy, as a force token and as an audit log. Panics when a property is broken: nothing panics, and a policy that was
/// written reads back as the same.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    _ = audit::verify(audit::GENESIS, text.lines());
    let Ok(policy) = Policy::from_yaml(data, &origin(), "fuzz") else {
        _ = verify_force(&text, &Policy::default().force, &origin(), "", 0);
        return;
    };
    let written = policy.to_json().to_string();
    match Policy::from_yaml(written.as_bytes(), &origin(), "again") {
        Ok(again) => assert_eq!(again, policy, "a policy read back differs:\n{written}"),
        Err(problems) => panic!("a policy is refused: {problems:?}\n{written}"),
    }
    let lines = ["www 60 A 192.0.2.1", "a.b 1 CNAME x.example.net.", "@ 60 NS ns", "@ 60 SOA a b 1 2 3 4 5"];
    let records = lines.iter().map(|line| parse_record(line, &origin(), None).expect("a good record"));
    let zone = ZoneText::from_records(origin(), records.collect());
    let changes = creation(&zone);
    use ActorKind::{Api, Expiry, File, Lease, Plan, Update};
    for kind in [File, Api, Update, Plan, Lease, Expiry] {
        let actor = Actor { name: "alice".to_owned(), key: Some(origin()), kind };
        for (before, step) in [(None, Step::Write(&changes)), (Some(&zone as &dyn ZoneView), Step::Delete)] {
            _ = check(&policy, &origin(), before, step, &actor, 1_800_000_000, None);
        }
    }
}

#[cfg(test)]
mod tests {
    fn replay(target: &str, property: fn(&[u8])) {
        gateward_testkit::corpus(target, 20).for_each(|input| property(&input));
    }

    #[test]
    fn zone_file() {
        replay("zone_file", super::zone_file);
    }

    #[test]
    fn policy() {
        replay("policy", super::policy);
    }
}
