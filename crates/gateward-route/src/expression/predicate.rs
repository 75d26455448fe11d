//! One comparison of an expression: a field, an operator, a constant.

use super::field::{self, Field};
use crate::operand::{Network, ip_of};
use crate::{Input, PathMatch};
use atc_router::ast::{self, BinaryOperator, Value};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::net::IpAddr;

/// A comparison ready to be run.
#[derive(Debug)]
pub(crate) struct Predicate {
    field: Field,
    /// Compare the lower-cased value.
    lower: bool,
    /// One of several values suffices.
    any: bool,
    test: Comparison,
}

#[derive(Debug)]
enum Comparison {
    Text(TextTest),
    Number(NumberTest, i64),
    Address(AddressTest),
}

#[derive(Debug)]
enum TextTest {
    Equal(String),
    NotEqual(String),
    Prefix(String),
    Suffix(String),
    Contains(String),
    Regex(Regex),
}

#[derive(Debug)]
enum NumberTest {
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
}

#[derive(Debug)]
enum AddressTest {
    Equal(IpAddr),
    NotEqual(IpAddr),
    In(Network),
    NotIn(Network),
}

impl Predicate {
    /// Prepare a checked comparison.
    pub(crate) fn compile(tree: &ast::Predicate) -> Result<Self, String> {
        let (lower, any) = tree.lhs.get_transformations();
        let field = Field::parse(&tree.lhs.var_name)?;
        let test = match &tree.rhs {
            Value::String(text) => {
                let text = if matches!(field, Field::Host) { text.to_ascii_lowercase() } else { text.clone() };
                text_test(&tree.op, text).map(Comparison::Text)
            }
            Value::Regex(regex) if matches!(field, Field::Host) => {
                let regex = RegexBuilder::new(regex.as_str()).case_insensitive(true).build();
                Some(Comparison::Text(TextTest::Regex(regex.map_err(|error| error.to_string())?)))
            }
            Value::Regex(regex) => Some(Comparison::Text(TextTest::Regex(regex.clone()))),
            Value::Int(number) => number_test(&tree.op).map(|test| Comparison::Number(test, *number)),
            Value::IpAddr(ip) => match tree.op {
                BinaryOperator::Equals => Some(Comparison::Address(AddressTest::Equal(*ip))),
                BinaryOperator::NotEquals => Some(Comparison::Address(AddressTest::NotEqual(*ip))),
                _ => None,
            },
            Value::IpCidr(network) => network_test(&tree.op, &network.to_string()),
        };
        let test = test.ok_or_else(|| format!("the operator for `{}` does not fit its value", tree.lhs.var_name))?;
        Ok(Self { field, lower, any, test })
    }

    /// Whether the request satisfies the comparison. A comparison of the path that holds says in `path` what
    /// it matched.
    pub(crate) fn holds<'r>(&'r self, input: &Input<'_>, host: &str, path: &mut PathMatch<'r>) -> bool {
        let one = |value: Option<&str>| value.is_some_and(|value| self.text_holds(value));
        match &self.field {
            Field::Path => {
                let holds = self.text_holds(input.path);
                if holds {
                    self.note_match(path);
                }
                holds
            }
            Field::Host => one(Some(host).filter(|host| !host.is_empty())),
            Field::Method => one(Some(input.method)),
            Field::Protocol => one(Some(input.scheme.net_protocol())),
            Field::Sni => one(input.sni),
            Field::Segments(first, last) => one(field::segments(input.path, *first, *last)),
            Field::Header(name) => self.texts_hold(name.values(input).map(|value| str::from_utf8(value).ok())),
            Field::Query(name) => self.query_holds(input, name),
            Field::SegmentCount => self.number_holds(field::segment_count(input.path) as i64),
            Field::SourceEndpoint => one(input.vpce_id),
            Field::SourcePort => self.number_holds(i64::from(input.src.port())),
            Field::DestinationPort => self.number_holds(i64::from(input.destination_port())),
            Field::SourceIp => self.address_holds(ip_of(input.src)),
            Field::DestinationIp => self.address_holds(ip_of(input.dst)),
        }
    }

    fn query_holds(&self, input: &Input<'_>, name: &str) -> bool {
        let arguments = input.query.into_iter().flat_map(gateward_http::uri::query_args);
        let mut values = arguments.filter(|argument| argument.0 == name).map(|argument| argument.1);
        let holds = |value: Option<Cow<'_, str>>| self.text_holds(value.as_deref().unwrap_or(""));
        if self.any {
            return values.any(holds);
        }
        let Some(first) = values.next() else { return false };
        holds(first) && values.all(holds)
    }

    /// A value that is not text satisfies no comparison.
    fn texts_hold<'v>(&self, mut values: impl Iterator<Item = Option<&'v str>>) -> bool {
        let holds = |value: Option<&str>| value.is_some_and(|value| self.text_holds(value));
        if self.any {
            return values.any(holds);
        }
        let Some(first) = values.next() else { return false };
        holds(first) && values.all(holds)
    }

    fn text_holds(&self, value: &str) -> bool {
        let Comparison::Text(test) = &self.test else { return false };
        let value = if self.lower { lowered(value) } else { Cow::Borrowed(value) };
        match test {
            TextTest::Equal(text) => *text == value,
            TextTest::NotEqual(text) => *text != value,
            TextTest::Prefix(text) => value.starts_with(text.as_str()),
            TextTest::Suffix(text) => value.ends_with(text.as_str()),
            TextTest::Contains(text) => value.contains(text.as_str()),
            TextTest::Regex(regex) => regex.is_match(&value),
        }
    }

    fn number_holds(&self, value: i64) -> bool {
        let Comparison::Number(test, number) = &self.test else { return false };
        match test {
            NumberTest::Equal => value == *number,
            NumberTest::NotEqual => value != *number,
            NumberTest::Greater => value > *number,
            NumberTest::GreaterOrEqual => value >= *number,
            NumberTest::Less => value < *number,
            NumberTest::LessOrEqual => value <= *number,
        }
    }

    fn address_holds(&self, value: IpAddr) -> bool {
        let Comparison::Address(test) = &self.test else { return false };
        match test {
            AddressTest::Equal(ip) => value == *ip,
            AddressTest::NotEqual(ip) => value != *ip,
            AddressTest::In(network) => network.contains(value),
            AddressTest::NotIn(network) => !network.contains(value),
        }
    }

    fn note_match<'r>(&'r self, path: &mut PathMatch<'r>) {
        match &self.test {
            Comparison::Text(TextTest::Equal(text) | TextTest::Prefix(text)) => *path = PathMatch::Prefix(text.len()),
            Comparison::Text(TextTest::Regex(regex)) => *path = PathMatch::Regex(regex),
            _ => {}
        }
    }
}

fn text_test(operator: &BinaryOperator, text: String) -> Option<TextTest> {
    Some(match operator {
        BinaryOperator::Equals => TextTest::Equal(text),
        BinaryOperator::NotEquals => TextTest::NotEqual(text),
        BinaryOperator::Prefix => TextTest::Prefix(text),
        BinaryOperator::Postfix => TextTest::Suffix(text),
        BinaryOperator::Contains => TextTest::Contains(text),
        _ => return None,
    })
}

fn number_test(operator: &BinaryOperator) -> Option<NumberTest> {
    Some(match operator {
        BinaryOperator::Equals => NumberTest::Equal,
        BinaryOperator::NotEquals => NumberTest::NotEqual,
        BinaryOperator::Greater => NumberTest::Greater,
        BinaryOperator::GreaterOrEqual => NumberTest::GreaterOrEqual,
        BinaryOperator::Less => NumberTest::Less,
        BinaryOperator::LessOrEqual => NumberTest::LessOrEqual,
        _ => return None,
    })
}

fn network_test(operator: &BinaryOperator, network: &str) -> Option<Comparison> {
    let network = Network::parse(network)?;
    match operator {
        BinaryOperator::In => Some(Comparison::Address(AddressTest::In(network))),
        BinaryOperator::NotIn => Some(Comparison::Address(AddressTest::NotIn(network))),
        _ => None,
    }
}

fn lowered(value: &str) -> Cow<'_, str> {
    if value.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii()) {
        Cow::Owned(value.to_lowercase())
    } else {
        Cow::Borrowed(value)
    }
}
