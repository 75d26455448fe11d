//! Random route tables checked against slow oracles; for the fuzz target and the property tests.
//!
//! Bytes become a small table and a few requests ([`table`]). Two oracles know the right answer: a linear scan
//! written from the specification ([`linear`]), and Kong's own engine fed with the expressions Kong would
//! generate ([`atc`]). Neither shares code with the router.

pub mod atc;
pub mod linear;
pub mod table;

use crate::{Input, PathMatch, Router};
use gateward_model::{Config, RouterFlavor};
use table::Table;

/// An answer in a form that can be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Position in [`Router::routes`].
    pub index: usize,
    /// What of the path was matched.
    pub path: AnswerPath,
}

/// [`PathMatch`] with texts for expressions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnswerPath {
    /// The rule does not look at the path.
    None,
    /// So many bytes.
    Prefix(usize),
    /// The pattern.
    Regex(String),
}

/// Derive a table and requests from `data`, and compare the router with the oracles.
///
/// # Panics
/// When they disagree.
pub fn route(data: &[u8]) {
    if let Some(text) = data.strip_prefix(b"!").and_then(|text| str::from_utf8(text).ok()) {
        return any_expression(text);
    }
    // One flavour per input, each with its faster oracle: a fuzzer is worth its rate.
    let (table, config);
    if data.first().is_some_and(|byte| byte % 2 == 0) {
        table = Table::derive(&data[1..]);
        config = table.config(RouterFlavor::Expressions);
        check_atc(&table, &config, RouterFlavor::Expressions);
    } else {
        table = Table::derive(data.get(1..).unwrap_or_default());
        config = table.config(RouterFlavor::TraditionalCompatible);
        check_linear(&table, &config);
    }
}

/// Compare the router with the linear scan for every request of `table`.
///
/// # Panics
/// When they disagree.
pub fn check_linear(table: &Table, config: &Config) {
    let router = compiled(config, RouterFlavor::TraditionalCompatible);
    for request in &table.requests {
        let input = request.input();
        let (found, expected) = (answer(&router, &input), linear::find(config, &input));
        assert_eq!(found, expected, "linear scan\n{input:?}\n{}", describe(config));
    }
}

/// Compare the router with Kong's engine for every request of `table`.
///
/// # Panics
/// When they disagree.
pub fn check_atc(table: &Table, config: &Config, flavor: RouterFlavor) {
    let router = compiled(config, flavor);
    let oracle = atc::Oracle::new(config, flavor);
    for request in &table.requests {
        let input = request.input();
        let (found, expected) = (answer(&router, &input).map(|it| it.index), oracle.find(&input));
        assert_eq!(found, expected, "atc-router\n{input:?}\n{}", describe(config));
    }
}

fn compiled(config: &Config, flavor: RouterFlavor) -> Router {
    Router::compile(config, flavor).unwrap_or_else(|errors| panic!("{errors:?}\n{}", describe(config)))
}

/// The router's answer.
pub fn answer(router: &Router, input: &Input<'_>) -> Option<Answer> {
    let found = router.find(input)?;
    let path = match found.path {
        PathMatch::None => AnswerPath::None,
        PathMatch::Prefix(len) => AnswerPath::Prefix(len),
        PathMatch::Regex(regex) => AnswerPath::Regex(regex.as_str().to_owned()),
    };
    Some(Answer { index: found.index, path })
}

/// Any text may be refused as an expression, none may do harm.
fn any_expression(text: &str) {
    let mut route = table::blank_route(0);
    route.expression = Some(text.to_owned());
    let config = Config { routes: vec![route.into()], ..Config::default() };
    if let Ok(router) = Router::compile(&config, RouterFlavor::Expressions) {
        let table = Table::derive(text.as_bytes());
        for request in &table.requests {
            let _ = router.find(&request.input());
        }
    }
}

fn describe(config: &Config) -> String {
    let line = |route: &std::sync::Arc<gateward_model::Route>| {
        format!(
            "protocols {:?} methods {:?} hosts {:?} paths {:?} headers {:?} snis {:?} sources {:?} destinations {:?} \
             regex_priority {} service {:?} expression {:?} priority {:?}\n",
            route.protocols,
            route.methods,
            route.hosts,
            route.paths,
            route.headers,
            route.snis,
            route.sources,
            route.destinations,
            route.regex_priority,
            route.service,
            route.expression,
            route.priority
        )
    };
    config.routes.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_corpus_passes() {
        gateward_testkit::corpus("route", 1).for_each(|input| route(&input));
    }

    /// Tables that answer nothing would prove nothing.
    #[test]
    fn tables_exercise_every_kind_of_answer() {
        let mut counts = [0; 5];
        let mut state = 1_u32;
        for _ in 0..300 {
            let mut byte = || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            };
            let table = Table::derive(&std::array::from_fn::<u8, 300, _>(|_| byte()));
            for flavor in [RouterFlavor::TraditionalCompatible, RouterFlavor::Expressions] {
                let router = Router::compile(&table.config(flavor), flavor).unwrap();
                for request in &table.requests {
                    let found = answer(&router, &request.input());
                    let expression = |found: &Answer| router.routes()[found.index].route.expression.is_some();
                    counts[match found {
                        None => 0,
                        Some(found) if expression(&found) => 1,
                        Some(Answer { path: AnswerPath::None, .. }) => 2,
                        Some(Answer { path: AnswerPath::Prefix(_), .. }) => 3,
                        Some(Answer { path: AnswerPath::Regex(_), .. }) => 4,
                    }] += 1;
                }
            }
        }
        assert!(counts.iter().all(|count| *count > 150), "none, expression, no path, prefix, regex: {counts:?}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_200))]

        #[test]
        fn fields_agree_with_both_oracles(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let table = Table::derive(&data);
            let config = table.config(RouterFlavor::TraditionalCompatible);
            check_linear(&table, &config);
            check_atc(&table, &config, RouterFlavor::TraditionalCompatible);
        }

        #[test]
        fn expressions_agree_with_atc_router(data in prop::collection::vec(any::<u8>(), 0..300)) {
            let table = Table::derive(&data);
            check_atc(&table, &table.config(RouterFlavor::Expressions), RouterFlavor::Expressions);
        }

        #[test]
        fn any_text_is_a_tolerable_expression(text in "\\PC{0,60}") {
            any_expression(&text);
        }
    }
}
