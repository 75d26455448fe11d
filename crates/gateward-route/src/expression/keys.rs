//! What an expression demands of host and path, for the index.
//!
//! A request that satisfies `http.host == "a" && ...` has host `a`: such an expression is filed under `a` and
//! not tried for other hosts. Keys only say where to look: whatever is found there runs in full, so missing a
//! key costs time, never an answer. Nothing is concluded from negations.

use crate::literal::literal_start;
use atc_router::ast::{BinaryOperator, Expression, LogicalExpression, Predicate, Value};

/// More alternatives than this are not worth a key each.
const MAX_ALTERNATIVES: usize = 256;

/// The demands of an expression; `None`: no demand.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The host is one of these, lower-case.
    pub(crate) hosts: Option<Vec<String>>,
    /// The path starts with one of these.
    pub(crate) paths: Option<Vec<Vec<u8>>>,
}

/// What `tree` demands.
pub(crate) fn of(tree: &Expression) -> Keys {
    match tree {
        Expression::Predicate(predicate) => of_predicate(predicate),
        Expression::Logical(logical) => match &**logical {
            LogicalExpression::And(left, right) => {
                let (left, right) = (of(left), of(right));
                Keys { hosts: stricter(left.hosts, right.hosts), paths: stricter(left.paths, right.paths) }
            }
            LogicalExpression::Or(left, right) => {
                let (left, right) = (of(left), of(right));
                Keys { hosts: either(left.hosts, right.hosts), paths: either(left.paths, right.paths) }
            }
            LogicalExpression::Not(_) => Keys::default(),
        },
    }
}

fn of_predicate(predicate: &Predicate) -> Keys {
    let lower = predicate.lhs.get_transformations().0;
    match (predicate.lhs.var_name.as_str(), &predicate.op, &predicate.rhs) {
        ("http.host", BinaryOperator::Equals, Value::String(host)) => {
            Keys { hosts: Some(vec![host.to_ascii_lowercase()]), paths: None }
        }
        ("http.path", BinaryOperator::Equals | BinaryOperator::Prefix, Value::String(path)) if !lower => {
            Keys { hosts: None, paths: Some(vec![path.clone().into_bytes()]) }
        }
        ("http.path", BinaryOperator::Regex, Value::Regex(regex)) if !lower => {
            let start = literal_start(regex.as_str());
            Keys { hosts: None, paths: (!start.is_empty()).then(|| vec![start]) }
        }
        _ => Keys::default(),
    }
}

/// Both demands hold: either will do as a key, so take the one that files in fewer places, or else the one that
/// says more.
fn stricter<T: Length>(left: Option<Vec<T>>, right: Option<Vec<T>>) -> Option<Vec<T>> {
    let (Some(left), Some(right)) = (left.as_ref(), right.as_ref()) else { return left.or(right) };
    let shortest = |keys: &[T]| keys.iter().map(Length::length).min().unwrap_or(0);
    let by_right = right.len() < left.len() || (right.len() == left.len() && shortest(right) > shortest(left));
    Some(if by_right { right } else { left }.clone())
}

/// One of the demands holds.
fn either<T: Ord>(left: Option<Vec<T>>, right: Option<Vec<T>>) -> Option<Vec<T>> {
    let (mut keys, more) = (left?, right?);
    keys.extend(more);
    keys.sort_unstable();
    keys.dedup();
    (keys.len() <= MAX_ALTERNATIVES).then_some(keys)
}

trait Length: Clone {
    fn length(&self) -> usize;
}

impl Length for String {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Length for Vec<u8> {
    fn length(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(expression: &str, hosts: Option<&[&str]>, paths: Option<&[&str]>) {
        let keys = of(&crate::expression::parse(expression).unwrap());
        let expected = Keys {
            hosts: hosts.map(|hosts| hosts.iter().map(|host| host.to_string()).collect()),
            paths: paths.map(|paths| paths.iter().map(|path| path.as_bytes().to_vec()).collect()),
        };
        assert_eq!(keys, expected, "{expression}");
    }

    #[test]
    fn demands_follow_from_the_operators() {
        check(r#"http.host == "A.com""#, Some(&["a.com"]), None);
        check(r#"http.host == "a" && http.path ^= "/p""#, Some(&["a"]), Some(&["/p"]));
        check(r#"http.path == "/p""#, None, Some(&["/p"]));
        check(r#"http.path ^= "/p" && http.path ^= "/pq""#, None, Some(&["/pq"]));
        check(r#"http.path ~ "^/api/\\d+""#, None, Some(&["/api/"]));
        check(r#"http.path ~ "/api/\\d+""#, None, None);
        check(r#"lower(http.path) ^= "/p""#, None, None);
        check(r#"http.host == "a" || http.host == "b""#, Some(&["a", "b"]), None);
        check(r#"http.host == "a" || http.path ^= "/p""#, None, None);
        check(r#"!(http.host == "a")"#, None, None);
        check(r#"http.host != "a" && http.path =^ "/p""#, None, None);
        check(r#"(http.host == "a" || http.host == "b") && http.host == "c""#, Some(&["c"]), None);
    }
}
