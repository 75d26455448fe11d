//! acl: who may pass is a question of groups, those of the consumer or those an authentication plugin asserts.
//!
//! Tells the upstream the groups the decision was made on, and never lets the client's own claim through.

use crate::BuildError;
use crate::contract::{Definition, LocalResponse, Needs, Phases, Plugin, Step};
use crate::env::BuildContext;
use crate::exchange::{Authentication, Exchange};
use crate::native::settings;
use gateward_http::{Headers, Name};
use gateward_model::schema::{Check, Field, Rule, Schema};
use gateward_model::{AclGroup, Directory};
use rustc_hash::FxHashSet;
use serde::Deserialize;
use std::sync::Arc;

const CONSUMER_GROUPS: Name<'static> = Name::new("X-Consumer-Groups");
const AUTHENTICATED_GROUPS: Name<'static> = Name::new("X-Authenticated-Groups");

/// The plugin as the registry lists it.
pub fn definition() -> Definition {
    Definition { name: "acl", priority: 950, schema, check_scope: settings::http_without_consumer, build }
}

fn schema() -> Schema {
    Schema::new([
        ("allow", Field::array(Field::string())),
        ("deny", Field::array(Field::string())),
        ("hide_groups_header", Field::boolean().default(false).required()),
        ("always_use_authenticated_groups", Field::boolean().default(false).required()),
        // Written by exports from Kong's commercial edition; there are no consumer groups here.
        ("include_consumer_groups", Field::boolean().default(false).rule(Rule::OneOf(vec![false.into()]))),
    ])
    .check(Check::OnlyOneOf(vec!["allow".into(), "deny".into()]))
}

#[derive(Deserialize)]
struct Settings {
    allow: Option<Vec<String>>,
    deny: Option<Vec<String>>,
    hide_groups_header: bool,
    always_use_authenticated_groups: bool,
}

struct Acl {
    groups: FxHashSet<String>,
    /// `groups` are refused; otherwise they are the ones let through.
    denies: bool,
    hide_groups_header: bool,
    always_use_authenticated_groups: bool,
    directory: Arc<Directory>,
}

fn build(context: &BuildContext<'_>) -> Result<Box<dyn Plugin>, BuildError> {
    let settings: Settings = settings::read(context)?;
    let denied = settings.deny.filter(|groups| !groups.is_empty());
    Ok(Box::new(Acl {
        denies: denied.is_some(),
        groups: denied.or(settings.allow).unwrap_or_default().into_iter().collect(),
        hide_groups_header: settings.hide_groups_header,
        always_use_authenticated_groups: settings.always_use_authenticated_groups,
        directory: context.directory.clone(),
    }))
}

/// The groups a decision is made on: one of the two lists.
struct Groups<'a> {
    of_consumer: &'a [Arc<AclGroup>],
    asserted: &'a [String],
    /// The field that tells the upstream.
    field: Name<'static>,
}

impl<'a> Groups<'a> {
    fn of_consumer(groups: &'a [Arc<AclGroup>]) -> Self {
        Self { of_consumer: groups, asserted: &[], field: CONSUMER_GROUPS }
    }

    fn asserted(groups: &'a [String]) -> Self {
        Self { of_consumer: &[], asserted: groups, field: AUTHENTICATED_GROUPS }
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        let names = self.of_consumer.iter().map(|group| group.group.as_str());
        names.chain(self.asserted.iter().map(String::as_str))
    }

    /// Tells the upstream, in place of what the client may have claimed.
    fn write_to(&self, headers: &mut Headers) {
        let mut names = self.names();
        match (names.next(), names.next()) {
            (None, _) => {}
            (Some(only), None) => {
                headers.set(self.field.as_str(), only);
            }
            (Some(_), Some(_)) => {
                headers.set(self.field.as_str(), self.names().collect::<Vec<_>>().join(", "));
            }
        }
    }
}

impl Plugin for Acl {
    fn needs(&self) -> Needs {
        Needs { phases: Phases { access: true, ..Phases::default() }, ..Needs::default() }
    }

    fn access<'a>(&'a self, exchange: &'a mut Exchange) -> Step<'a> {
        let forbidden = || Step::Respond(LocalResponse::message(403, "You cannot consume this service"));
        let Some(groups) = self.groups_of(&exchange.auth) else {
            return match exchange.auth.credential {
                Some(_) => forbidden(),
                None => Step::Respond(LocalResponse::message(401, "Unauthorized")),
            };
        };
        if groups.names().any(|group| self.groups.contains(group)) == self.denies {
            return forbidden();
        }
        let headers = &mut exchange.request.headers;
        headers.remove(CONSUMER_GROUPS);
        headers.remove(AUTHENTICATED_GROUPS);
        if !self.hide_groups_header {
            groups.write_to(headers);
        }
        Step::Next
    }
}

impl Acl {
    /// `None`: there is nobody whose groups could be looked at, or an allow-list meets somebody without any.
    fn groups_of<'a>(&'a self, auth: &'a Authentication) -> Option<Groups<'a>> {
        let asserted_first =
            self.always_use_authenticated_groups || auth.consumer.is_none() || auth.credential.is_none();
        match (&auth.groups, &auth.consumer) {
            (Some(groups), _) if asserted_first => Some(Groups::asserted(groups)),
            (_, Some(consumer)) => {
                let groups = self.directory.groups(consumer.id);
                (self.denies || !groups.is_empty()).then_some(Groups::of_consumer(groups))
            }
            (_, None) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Credential;
    use crate::native::testing;
    use gateward_model::{Config, Consumer, EntityId};
    use serde_json::{Value, json};

    fn entities() -> Config {
        let membership = |consumer: &Consumer, group: &str| {
            Arc::new(AclGroup {
                id: EntityId::derived("acls", group),
                consumer: consumer.id,
                group: group.to_owned(),
                tags: None,
                created_at: 0,
            })
        };
        let ann = Arc::new(testing::consumer("ann", Some("ann"), None));
        let bob = Arc::new(testing::consumer("bob", Some("bob"), None));
        let acls = vec![membership(&ann, "staff"), membership(&ann, "ops"), membership(&bob, "guests")];
        let nobody = Arc::new(testing::consumer("eve", Some("eve"), None));
        Config { consumers: vec![ann, bob, nobody], acls, ..Config::default() }
    }

    /// Who asks: consumer key, whether with a credential, asserted groups.
    type Caller = (Option<&'static str>, bool, Option<&'static [&'static str]>);

    fn check(config: Value, caller: Caller, expected: &str) {
        let case = format!("{config} {caller:?}");
        let (consumer, credential, groups) = caller;
        let mut exchange =
            testing::request("GET", "/", &[("x-consumer-groups", "spoofed"), ("X-Authenticated-Groups", "spoofed")]);
        exchange.auth.consumer = consumer.map(|key| Arc::new(testing::consumer(key, Some(key), None)));
        exchange.auth.credential = credential.then(|| Credential { id: EntityId::default(), identifier: None });
        exchange.auth.groups = groups.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect());
        let plugin = testing::build_with(&definition(), config, &entities(), &testing::environment());
        let response = testing::access(plugin.as_ref(), &mut exchange);
        let mut found = testing::summary(response.as_ref());
        if response.is_none() {
            for line in testing::lines(&exchange.request.headers) {
                found = format!("{found}; {line}");
            }
        }
        assert_eq!(found, expected, "{case}");
    }

    const FORBIDDEN: &str = "403 You cannot consume this service";

    #[test]
    fn groups_decide() {
        let ann = (Some("ann"), true, None);
        let bob = (Some("bob"), true, None);
        let eve = (Some("eve"), true, None);
        check(json!({"allow": ["x", "ops"]}), ann, "next; X-Consumer-Groups: staff, ops");
        check(json!({"allow": ["ops"]}), bob, FORBIDDEN);
        check(json!({"allow": ["ops"]}), eve, FORBIDDEN);
        check(json!({"deny": ["ops"]}), ann, FORBIDDEN);
        check(json!({"deny": ["ops"]}), bob, "next; X-Consumer-Groups: guests");
        check(json!({"deny": ["ops"]}), eve, "next");
        check(json!({"allow": ["ops"], "hide_groups_header": true}), ann, "next");
        check(json!({"allow": ["ops"], "deny": []}), ann, "next; X-Consumer-Groups: staff, ops");
    }

    #[test]
    fn without_identity_the_answer_is_401() {
        check(json!({"allow": ["ops"]}), (None, false, None), "401 Unauthorized");
        check(json!({"deny": ["ops"]}), (None, false, None), "401 Unauthorized");
        check(json!({"allow": ["ops"]}), (None, true, None), FORBIDDEN);
        check(json!({"allow": ["ops"]}), (Some("eve"), false, None), "401 Unauthorized");
    }

    #[test]
    fn asserted_groups_count_without_a_consumer_or_when_told_so() {
        let ops: Option<&[&str]> = Some(&["ops"]);
        let guests: Option<&[&str]> = Some(&["guests"]);
        check(json!({"allow": ["ops"]}), (None, false, ops), "next; X-Authenticated-Groups: ops");
        check(json!({"allow": ["ops"]}), (None, true, guests), FORBIDDEN);
        check(json!({"allow": ["ops"]}), (Some("bob"), false, ops), "next; X-Authenticated-Groups: ops");
        check(json!({"allow": ["ops"]}), (Some("bob"), true, ops), FORBIDDEN);
        let always = json!({"allow": ["ops"], "always_use_authenticated_groups": true});
        check(always.clone(), (Some("bob"), true, ops), "next; X-Authenticated-Groups: ops");
        check(always, (Some("ann"), true, None), "next; X-Consumer-Groups: staff, ops");
    }

    #[test]
    fn either_list_but_not_both() {
        let good = |config| testing::problems(&schema(), config).is_empty();
        assert!(good(json!({"allow": ["a"]})));
        assert!(good(json!({"deny": ["a"]})));
        assert!(!good(json!({})));
        assert!(!good(json!({"allow": ["a"], "deny": ["b"]})));
        assert!(!good(json!({"allow": ["a"], "include_consumer_groups": true})));
    }
}
