//! Plans of changes: serials, what counts as a change, and that a plan leads where it says.

use gateward_zone::{parse_record, parse_zone};

use super::*;

fn origin() -> Name {
    "example.com".parse().expect("a name")
}

fn text(serial: u32, rest: &str) -> ZoneText {
    let text = format!("$TTL 60\n@ SOA ns hm {serial} 2 3 4 5\n@ NS ns\nns A 192.0.2.1\n{rest}");
    parse_zone(text.as_bytes(), &origin(), "z", &|_| Err(String::new())).expect("a zone")
}

fn zone(serial: u32, rest: &str) -> Arc<Zone> {
    create(&origin(), text(serial, rest)).expect("a zone").next
}

fn record(text: &str) -> Record {
    parse_record(text, &origin(), Some(60)).expect(text)
}

fn add(text: &str) -> Change {
    Change::Add(record(text))
}

fn remove(text: &str) -> Change {
    Change::Remove(record(text))
}

/// The serial afterwards and how many records went and came, the SOA among them.
fn outcome(planned: Result<Planned, Refused>, head: &Arc<Zone>) -> Result<(u32, usize, usize), String> {
    let planned = planned.map_err(|error| error.to_string())?;
    let added = planned.changes.iter().filter(|change| matches!(change, Change::Add(_))).count();
    if planned.changes.is_empty() {
        assert!(Arc::ptr_eq(&planned.next, head), "no change, no new version");
    } else {
        let replayed = head.with(&planned.changes).expect("they fit");
        assert_eq!(difference_of(&replayed, &planned.next), [], "the changes lead to the next version");
    }
    Ok((planned.next.serial(), planned.changes.len() - added, added))
}

fn difference_of(a: &Zone, b: &Zone) -> Vec<Change> {
    gateward_zone::diff::diff(a, b)
}

#[test]
fn a_change_raises_the_serial_once_and_nothing_changes_nothing() {
    let head = zone(7, "www A 192.0.2.2\n");
    let change = |changes: &[Change]| outcome(change(&head, changes, Numbering::Rising), &head);
    assert_eq!(change(&[add("www A 192.0.2.3"), remove("www A 192.0.2.2")]), Ok((8, 2, 2)));
    assert_eq!(change(&[add("www 60 A 192.0.2.2")]), Ok((7, 0, 0)));
    assert_eq!(change(&[add("www 30 A 192.0.2.2")]), Ok((8, 2, 2)), "another TTL");
    assert_eq!(change(&[add("x A 192.0.2.3"), remove("x A 192.0.2.3")]), Ok((7, 0, 0)));
    assert_eq!(change(&[]), Ok((7, 0, 0)));
    assert!(change(&[remove("x A 192.0.2.3")]).unwrap_err().contains("missing-record"));
    assert!(change(&[add("x.example.net. A 192.0.2.3")]).unwrap_err().contains("out-of-zone"));
}

#[test]
fn a_stated_serial_counts_when_it_is_higher() {
    let head = zone(7, "");
    let change =
        |new: &str, numbering| outcome(change(&head, &[remove("@ SOA ns hm 7 2 3 4 5"), add(new)], numbering), &head);
    assert_eq!(change("@ SOA ns hm 20 2 3 4 5", Numbering::Rising), Ok((20, 1, 1)));
    assert_eq!(change("@ SOA ns hm 3 2 3 4 5", Numbering::Rising), Ok((7, 0, 0)), "nothing else changes");
    assert_eq!(change("@ SOA ns hm 3 2 3 4 9", Numbering::Rising), Ok((8, 1, 1)));
    assert_eq!(change("@ SOA ns hm 3 2 3 4 9", Numbering::AsIs), Ok((3, 1, 1)));
    assert!(super::change(&head, &[remove("@ SOA ns hm 7 2 3 4 5")], Numbering::Rising).is_err());
}

#[test]
fn names_in_data_compare_without_case() {
    let head = zone(7, "a CNAME Www.Example.com.\n");
    let change = |changes: &[Change]| outcome(change(&head, changes, Numbering::Rising), &head);
    assert_eq!(change(&[remove("a CNAME www")]), Ok((8, 2, 1)));
    assert_eq!(change(&[add("a CNAME www")]), Ok((7, 0, 0)));
}

#[test]
fn a_whole_zone_is_compared_with_the_one_that_is_served() {
    let head = zone(7, "www A 192.0.2.2\n");
    let replace = |serial, rest: &str, numbering| outcome(replace(&head, text(serial, rest), numbering), &head);
    assert_eq!(replace(7, "www A 192.0.2.2\n", Numbering::Rising), Ok((7, 0, 0)));
    assert_eq!(replace(5, "www A 192.0.2.2\n", Numbering::Rising), Ok((7, 0, 0)), "an old serial alone is no change");
    assert_eq!(replace(9, "www A 192.0.2.2\n", Numbering::Rising), Ok((9, 1, 1)));
    assert_eq!(replace(7, "", Numbering::Rising), Ok((8, 2, 1)));
    assert_eq!(replace(3, "x A 192.0.2.2\n", Numbering::Rising), Ok((8, 2, 2)));
    assert_eq!(replace(3, "x A 192.0.2.2\n", Numbering::AsIs), Ok((3, 2, 2)));
    let wrapped = zone(u32::MAX, "");
    let next = super::replace(&wrapped, text(u32::MAX, "x A 192.0.2.2\n"), Numbering::Rising).expect("it fits");
    assert_eq!(next.next.serial(), 1, "0 is left out");
}
