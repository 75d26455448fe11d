//! What is wrong with a zone although every record of it can be read: rules of the RFCs between records, and what experience warns of.
//!
//! Each rule has a name (`Problem::rule`). Errors are what makes resolvers disagree about the zone; the rest are warnings. Looking
//! goes through [`ZoneView`], so that the same rules hold for files, for updates and for plans.

mod aliases;
mod apex;
mod cuts;
mod data;
mod targets;

use std::collections::BTreeSet;
use std::sync::Arc;

use domain::base::iana::Rtype;

use crate::name::Name;
use crate::problem::{Problem, Severity};
use crate::record::RecordSet;
use crate::view::ZoneView;
use crate::zonefile::ZoneText;

/// Checks all of a zone. What [`ZoneText::warnings`] says is not repeated.
#[must_use]
pub fn lint(zone: &ZoneText) -> Vec<Problem> {
    let place = |name: &Name, rtype| zone.place(name, rtype);
    let mut lint = Lint::new(zone, &place);
    lint.apex();
    for at_name in zone.records().chunk_by(|a, b| a.owner == b.owner) {
        lint.name(&at_name[0].owner, &RecordSet::group(at_name));
    }
    lint.problems
}

/// Checks the apex and what stands at `names`, after an update that touched them.
///
/// Records elsewhere that point at these names, or that a new delegation hides, are not looked at: that needs [`lint`].
#[must_use]
pub fn lint_names(zone: &dyn ZoneView, names: &BTreeSet<Name>) -> Vec<Problem> {
    let mut lint = Lint::new(zone, &|_, _| ("".into(), 0));
    lint.apex();
    for name in names {
        lint.name(name, &zone.sets_at(name));
    }
    lint.problems
}

/// What hides names below it.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Occluder {
    /// A delegation, with the targets of its NS records.
    Cut(Name, Vec<Name>),
    Dname(Name),
}

/// File and line of the set of a type at a name.
type Places<'a> = dyn Fn(&Name, Rtype) -> (Arc<str>, u32) + 'a;

struct Lint<'a> {
    view: &'a dyn ZoneView,
    place: &'a Places<'a>,
    problems: Vec<Problem>,
    /// What was found out about the parents of owners, and about targets.
    above: Chain,
    towards: Chain,
}

/// What hides the names below each of a name and the names above it, from the apex down. Neighbours share most of it.
#[derive(Default)]
struct Chain(Vec<(Name, Option<Occluder>)>);

impl Chain {
    /// What hides the names below `name`: the topmost delegation or DNAME at it or above it within the zone.
    fn occluder(&mut self, view: &dyn ZoneView, name: &Name) -> Option<Occluder> {
        let known = self.0.iter().take_while(|(above, _)| name.is_in(above)).count();
        self.0.truncate(known);
        let last = self.0.last().map(|(name, _)| name.clone());
        let mut missing = Vec::new();
        let mut at = Some(name.clone()).filter(|name| Some(name) != last.as_ref());
        while let Some(name) = at.take_if(|name| name.is_in(view.origin())) {
            at = name.parent().filter(|parent| Some(parent) != last.as_ref());
            missing.push(name);
        }
        for name in missing.into_iter().rev() {
            let above = self.0.last().and_then(|(_, occluder)| occluder.clone());
            let occluder = above.or_else(|| occluder_at(view, &name));
            self.0.push((name, occluder));
        }
        self.0.last().and_then(|(_, occluder)| occluder.clone())
    }
}

fn occluder_at(view: &dyn ZoneView, name: &Name) -> Option<Occluder> {
    let sets = view.sets_at(name);
    let cut = sets.iter().find(|set| set.rtype == Rtype::NS).filter(|_| name != view.origin());
    let cut = cut.map(|ns| Occluder::Cut(name.clone(), targets::of(ns)));
    cut.or_else(|| sets.iter().any(|set| set.rtype == Rtype::DNAME).then(|| Occluder::Dname(name.clone())))
}

impl<'a> Lint<'a> {
    fn new(view: &'a dyn ZoneView, place: &'a Places<'a>) -> Self {
        Lint { view, place, problems: Vec::new(), above: Chain::default(), towards: Chain::default() }
    }

    fn name(&mut self, name: &Name, sets: &[RecordSet]) {
        if sets.is_empty() {
            return;
        }
        self.aliases(name, sets);
        self.hidden(name, sets);
        for set in sets {
            self.data(name, set);
            self.targets(name, set);
        }
    }

    fn origin(&self) -> &'a Name {
        self.view.origin()
    }

    fn error(&mut self, rule: &'static str, name: &Name, rtype: Rtype, message: impl Into<String>, remedy: &str) {
        self.add(Severity::Error, rule, name, rtype, message.into(), remedy);
    }

    fn warning(&mut self, rule: &'static str, name: &Name, rtype: Rtype, message: impl Into<String>, remedy: &str) {
        self.add(Severity::Warning, rule, name, rtype, message.into(), remedy);
    }

    fn add(
        &mut self,
        severity: Severity,
        rule: &'static str,
        name: &Name,
        rtype: Rtype,
        message: String,
        remedy: &str,
    ) {
        let (file, line) = (self.place)(name, rtype);
        self.problems.push(Problem { file, line, rule, severity, message, remedy: Some(remedy.to_owned()) });
    }

    /// What hides `name`: the topmost delegation or DNAME above it within the zone.
    fn occluder(&mut self, name: &Name) -> Option<Occluder> {
        let parent = name.parent().filter(|_| name != self.origin())?;
        self.above.occluder(self.view, &parent)
    }

    /// Whether anything answers for `name` itself or by a wildcard.
    fn sets_for(&self, name: &Name) -> Vec<RecordSet> {
        let sets = self.view.sets_at(name);
        if !sets.is_empty() {
            return sets;
        }
        let mut at = name.parent();
        while let Some(parent) = at.filter(|parent| parent.is_in(self.origin())) {
            let wildcard = parent.child(b"*").map(|wildcard| self.view.sets_at(&wildcard)).unwrap_or_default();
            if !wildcard.is_empty() {
                return wildcard;
            }
            at = parent.parent();
        }
        Vec::new()
    }
}

#[cfg(test)]
mod tests;
