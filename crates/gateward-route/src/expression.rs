//! The expression language of routes: parsed by `atc-router`, run here.
//!
//! The parser and the type checks are Kong's own crate. Running is ours: its interpreter wants every field
//! copied into maps for each request, this one reads the request in place. The meaning is the same (the tests
//! compare the two): a predicate over a field the request does not have is false, also a negative one; a field
//! with several values must satisfy a predicate with all of them, or with one under `any()`; `||` binds tighter
//! than `&&`.
//!
//! Hosts differ from Kong: they are compared in lower case on both sides.

mod field;
pub(crate) mod keys;
mod predicate;

use crate::{Input, PathMatch};
use atc_router::ast::{Expression, LogicalExpression, Type};
use atc_router::schema::Schema;
use atc_router::semantics::Validate;
use predicate::Predicate;

/// Parsing and checking recurse over the operators of an expression; this keeps them within a small stack.
const MAX_OPERATORS: usize = 1_000;
/// Likewise for parentheses.
const MAX_NESTING: usize = 64;

/// An expression ready to be run.
#[derive(Debug)]
pub(crate) struct Program(Node);

#[derive(Debug)]
enum Node {
    All(Vec<Node>),
    Any(Vec<Node>),
    Not(Box<Node>),
    Test(Predicate),
}

impl Program {
    /// Prepare a checked expression.
    pub(crate) fn compile(tree: &Expression) -> Result<Self, String> {
        Node::compile(tree).map(Self)
    }

    /// Whether the request satisfies the expression; if so what the last test of the path to hold matched.
    /// `host` is canonical.
    pub(crate) fn run<'r>(&'r self, input: &Input<'_>, host: &str) -> Option<PathMatch<'r>> {
        let mut path = PathMatch::None;
        self.0.holds(input, host, &mut path).then_some(path)
    }
}

/// Parse an expression and check the fields and types it uses.
pub(crate) fn parse(text: &str) -> Result<Expression, String> {
    parse_with(text, &schema())
}

/// The same for streams, which have only addresses and a server name.
pub(crate) fn parse_stream(text: &str) -> Result<Expression, String> {
    parse_with(text, &stream_schema())
}

fn parse_with(text: &str, schema: &Schema) -> Result<Expression, String> {
    check_size(text)?;
    let tree = atc_router::parser::parse(text).map_err(|error| error.to_string())?;
    tree.validate(schema)?;
    Ok(tree)
}

/// The fields of streams (Kong `kong/router/fields.lua`), and `net.src.vpce_id`.
fn stream_schema() -> Schema {
    let mut schema = Schema::default();
    for field in ["net.protocol", "tls.sni", "net.src.vpce_id"] {
        schema.add_field(field, Type::String);
    }
    for field in ["net.port", "net.src.port", "net.dst.port"] {
        schema.add_field(field, Type::Int);
    }
    for field in ["net.src.ip", "net.dst.ip"] {
        schema.add_field(field, Type::IpAddr);
    }
    schema
}

/// The fields of HTTP requests (Kong `kong/router/fields.lua`), and `net.src.vpce_id`, which Kong has not.
fn schema() -> Schema {
    let mut schema = Schema::default();
    for field in ["net.protocol", "tls.sni", "http.method", "http.host", "http.path", "net.src.vpce_id"] {
        schema.add_field(field, Type::String);
    }
    for family in ["http.path.segments.*", "http.headers.*", "http.queries.*"] {
        schema.add_field(family, Type::String);
    }
    for field in ["net.port", "net.src.port", "net.dst.port", "http.path.segments.len"] {
        schema.add_field(field, Type::Int);
    }
    for field in ["net.src.ip", "net.dst.ip"] {
        schema.add_field(field, Type::IpAddr);
    }
    schema
}

/// Refuse what the recursive parser could overflow its stack on. Text inside strings may be counted too, which
/// only matters for expressions far beyond sense.
fn check_size(text: &str) -> Result<(), String> {
    let operators = text.matches("&&").count() + text.matches("||").count();
    if operators > MAX_OPERATORS {
        return Err(format!("it has {operators} operators, at most {MAX_OPERATORS} are allowed; split the route"));
    }
    let (mut nesting, mut deepest) = (0_usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' => nesting += 1,
            b')' => nesting = nesting.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(nesting);
    }
    if deepest > MAX_NESTING {
        return Err(format!(
            "parentheses are nested {deepest} deep, at most {MAX_NESTING} are allowed; split the route"
        ));
    }
    Ok(())
}

impl Node {
    fn compile(tree: &Expression) -> Result<Self, String> {
        let mut parts = Vec::new();
        match tree {
            Expression::Predicate(predicate) => Predicate::compile(predicate).map(Self::Test),
            Expression::Logical(logical) => match &**logical {
                LogicalExpression::Not(inner) => Ok(Self::Not(Box::new(Self::compile(inner)?))),
                LogicalExpression::And(..) => {
                    chain(tree, true, &mut parts)?;
                    Ok(Self::All(parts))
                }
                LogicalExpression::Or(..) => {
                    chain(tree, false, &mut parts)?;
                    Ok(Self::Any(parts))
                }
            },
        }
    }

    fn holds<'r>(&'r self, input: &Input<'_>, host: &str, path: &mut PathMatch<'r>) -> bool {
        match self {
            Self::All(parts) => parts.iter().all(|part| part.holds(input, host, path)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(input, host, path)),
            Self::Not(inner) => !inner.holds(input, host, path),
            Self::Test(predicate) => predicate.holds(input, host, path),
        }
    }
}

/// The operands of a chain of one operator, in order. Chains lean to the left, so the depth here and in
/// [`Node::holds`] is that of the parentheses.
fn chain(tree: &Expression, and: bool, parts: &mut Vec<Node>) -> Result<(), String> {
    let mut rights = Vec::new();
    let mut left = tree;
    while let Some((inner, right)) = operands(left, and) {
        rights.push(right);
        left = inner;
    }
    parts.push(Node::compile(left)?);
    for right in rights.into_iter().rev() {
        parts.push(Node::compile(right)?);
    }
    Ok(())
}

fn operands(tree: &Expression, and: bool) -> Option<(&Expression, &Expression)> {
    let Expression::Logical(logical) = tree else { return None };
    match &**logical {
        LogicalExpression::And(left, right) if and => Some((left, right)),
        LogicalExpression::Or(left, right) if !and => Some((left, right)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, problem: &str) {
        let result = parse(text).and_then(|tree| Program::compile(&tree));
        let error = result.expect_err(text);
        assert!(error.contains(problem), "{text}: {error}");
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        refused("", "expected");
        refused("http.host ==", "expected");
        refused(r#"http.port == "x""#, "Unknown");
        refused(r#"http.path == 1"#, "Type mismatch");
        refused(r#"http.path ~ "(?=x)""#, "look-around");
        refused(r#"http.path.segments.x == "a""#, "segments");
        refused(r#"http.path.segments.2_1 == "a""#, "segments");
        refused(r#"upper(http.path) == "a""#, "unknown transformation");
    }

    #[test]
    fn huge_expressions_are_refused_and_large_ones_fit_the_stack() {
        let test = r#"http.path == "/a""#;
        refused(&vec![test; MAX_OPERATORS + 2].join(" || "), "operators");
        refused(&format!("{}{test}{}", "(".repeat(100), ")".repeat(100)), "nested");
        let wide = vec![test; MAX_OPERATORS].join(" && ");
        assert!(parse(&wide).and_then(|tree| Program::compile(&tree)).is_ok());
        let deep = format!("{}{test}{}", "!(".repeat(MAX_NESTING), ")".repeat(MAX_NESTING));
        assert!(parse(&deep).and_then(|tree| Program::compile(&tree)).is_ok());
    }
}
