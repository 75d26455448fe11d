//! A plan for people: as text for a terminal, as Markdown for a pull request.

use std::fmt::Write;

use super::{Action, Document, Op, Radius, ZonePlan};

/// Lines like those of a zone file, with + and -.
#[must_use]
pub fn to_text(document: &Document) -> String {
    let plan = &document.plan;
    let mut text = String::new();
    if plan.is_empty() {
        let _ = writeln!(text, "nothing to do: what is served is what is declared");
        notes(&plan.notes, "", &mut text);
        return text;
    }
    for key in &plan.keys {
        let _ = writeln!(text, "key {} at {}: make known", key.name, key.control);
    }
    for zone in &plan.zones {
        let _ = writeln!(text, "{}", heading(zone));
        let _ = writeln!(text, "  {}", radius(&zone.blast_radius, zone));
        if zone.policy.is_some() {
            let _ = writeln!(text, "  policy:");
            policy_lines(zone, "    ", &mut text);
        }
        needs(zone, "  ", &mut text);
        for change in &zone.changes {
            let sign = if change.op == Op::Add { '+' } else { '-' };
            let last = if change.last { "; after what replaces it" } else { "" };
            let _ = writeln!(text, "  {sign} {}  ; {}{last}", change.record, change.owner);
        }
    }
    let _ = writeln!(text, "\n{}", total(&plan.blast_radius));
    let refused = plan.zones.iter().filter(|zone| !zone.needs.is_empty()).count();
    if refused > 0 {
        let _ = writeln!(text, "{refused} zones need leave; nothing of the plan is applied without it");
    }
    notes(&plan.notes, "", &mut text);
    let _ = writeln!(text, "plan {}", document.checksum);
    text
}

/// Tables and folded differences.
#[must_use]
pub fn to_markdown(document: &Document) -> String {
    let plan = &document.plan;
    let mut text = format!("## Plan for `{}`\n\n", plan.root);
    if plan.is_empty() {
        text.push_str("Nothing to do: what is served is what is declared.\n");
        notes(&plan.notes, "- ", &mut text);
        return text;
    }
    let _ = writeln!(text, "{}\n", total(&plan.blast_radius));
    text.push_str("| zone | action | serial | + | - | names | owners |\n|---|---|---|---|---|---|---|\n");
    for zone in &plan.zones {
        let Radius { added, removed, names, owners, .. } = &zone.blast_radius;
        let serial = zone.base_serial.map_or("new".to_owned(), |serial| serial.to_string());
        let (origin, action, owners) = (&zone.origin, word(zone.action), cell(&owners.join(", ")));
        let _ = writeln!(text, "| `{origin}` | {action} | {serial} | {added} | {removed} | {names} | {owners} |");
    }
    for key in &plan.keys {
        let _ = writeln!(text, "\nThe key `{}` becomes known at {}.", key.name, key.control);
    }
    for zone in plan.zones.iter() {
        let _ = writeln!(text, "\n<details><summary>{}</summary>\n\n```diff", heading(zone));
        policy_lines(zone, "", &mut text);
        for change in &zone.changes {
            let sign = if change.op == Op::Add { '+' } else { '-' };
            let _ = writeln!(text, "{sign} {}  ; {}", change.record, change.owner);
        }
        needs(zone, "! ", &mut text);
        text.push_str("```\n</details>\n");
    }
    text.push('\n');
    notes(&plan.notes, "- ", &mut text);
    let _ = writeln!(text, "Checksum: `{}`", document.checksum);
    text
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Create => "create",
        Action::Change => "change",
        Action::Delete => "delete",
    }
}

fn heading(zone: &ZonePlan) -> String {
    let level = zone.level.map_or("", super::Level::as_str);
    let serial = zone.base_serial.map_or(String::new(), |serial| format!(", serial {serial}"));
    let level = if level.is_empty() { String::new() } else { format!("{level}, ") };
    format!("{} zone {} ({level}{}{serial})", word(zone.action), zone.origin, zone.owner)
}

/// One zone's part, with the share of its records.
fn radius(radius: &Radius, zone: &ZonePlan) -> String {
    let Radius { added, removed, names, .. } = radius;
    let share = (removed * 100).checked_div(zone.records_now).filter(|_| *removed > 0);
    let share = share.map_or(String::new(), |share| format!(" ({share} % of {})", zone.records_now));
    format!("{added} records to add, {removed} to remove{share}, {names} names")
}

fn total(radius: &Radius) -> String {
    let listed = |what: &str, items: &[String]| match items {
        [] => String::new(),
        items => format!("; {what}: {}", items.join(", ")),
    };
    let Radius { zones, names, added, removed, environments, regions, owners } = radius;
    format!(
        "{zones} zones, {names} names, {added} records to add, {removed} to remove{}{}{}",
        listed("environments", environments),
        listed("regions", regions),
        listed("owners", owners)
    )
}

/// The lines of a policy that come and go.
fn policy_lines(zone: &ZonePlan, indent: &str, text: &mut String) {
    let Some(policy) = &zone.policy else { return };
    let from: Vec<&str> = policy.from.as_deref().unwrap_or("").lines().collect();
    let to: Vec<&str> = policy.to.lines().collect();
    for (sign, line) in difference(&from, &to) {
        let _ = writeln!(text, "{indent}{sign} {line}");
    }
}

/// The lines that differ between the first and the last that do: policies are short, and change in one place.
fn difference<'t>(from: &[&'t str], to: &[&'t str]) -> Vec<(char, &'t str)> {
    let same_start = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let (from, to) = (&from[same_start..], &to[same_start..]);
    let same_end = from.iter().rev().zip(to.iter().rev()).take_while(|(a, b)| a == b).count();
    let gone = from[..from.len() - same_end].iter().map(|line| ('-', *line));
    gone.chain(to[..to.len() - same_end].iter().map(|line| ('+', *line))).collect()
}

/// What the servers refuse, with both ways around it.
fn needs(zone: &ZonePlan, indent: &str, text: &mut String) {
    for need in &zone.needs {
        for rule in &need.rules {
            let _ = writeln!(text, "{indent}REFUSED ({}, {}): {}; {}", need.step, rule.rule, rule.message, rule.remedy);
        }
        let _ = writeln!(text, "{indent}{}", need.way(&zone.origin));
    }
}

fn notes(notes: &[String], bullet: &str, text: &mut String) {
    for note in notes {
        let _ = writeln!(text, "{bullet}note: {note}");
    }
}

/// Text that does not end a table's cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
