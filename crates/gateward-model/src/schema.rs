//! Field schemas: what a record may contain, its defaults and its rules, as data.
//!
//! One mechanism describes entities and plugin configurations alike (the shape of Kong's
//! `kong/db/schema/init.lua`). `gateward-config` walks a schema over a parsed file to report every problem at
//! its place and to fill defaults; the Admin API shows it; plugins declare one.

use serde_json::Value;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A text that is usually a literal.
pub type Text = Cow<'static, str>;

/// A record: named fields and rules across them.
#[derive(Debug, Clone, Default)]
pub struct Schema {
    /// The fields in the order they are documented.
    pub fields: Vec<(Text, Field)>,
    /// Fields that stand for others.
    pub shorthands: Vec<Shorthand>,
    /// Rules across fields.
    pub checks: Vec<Check>,
    /// Changes made to a record that is right, in order.
    pub transforms: Vec<Transform>,
}

/// One field.
#[derive(Debug, Clone)]
pub struct Field {
    /// What it holds.
    pub kind: Kind,
    /// Must be present (after defaults) and not null.
    pub required: bool,
    /// Value when absent.
    pub default: Option<Value>,
    /// Rules on the value; for arrays, sets and maps put rules of the elements on the element field.
    pub rules: Vec<Rule>,
    /// `{vault://...}` is allowed and resolved.
    pub referenceable: bool,
    /// Never shown in diagnostics.
    pub secret: bool,
    /// What it is for.
    pub description: Option<Text>,
    /// Why it should not be used any more: using it is a warning.
    pub deprecated: Option<Text>,
    /// Said in the place of what a broken rule says.
    pub error: Option<Text>,
}

/// What a field holds.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Text.
    String,
    /// Any number.
    Number,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
    /// A list.
    Array(Box<Field>),
    /// A list without repeats.
    Set(Box<Field>),
    /// Free keys.
    Map(Box<Field>, Box<Field>),
    /// Nested fields.
    Record(Schema),
    /// Any JSON value.
    Any,
    /// The name or id of an entity of this kind (`services`, `routes`, ...); its id once loaded.
    Foreign(&'static str),
}

/// A rule on one value. Texts and patterns may come from plugin schema files.
#[derive(Debug, Clone)]
pub enum Rule {
    /// Equal to one of these.
    OneOf(Vec<Value>),
    /// Not equal to any of these.
    NotOneOf(Vec<Value>),
    /// Equal to this; null: must not be set.
    Eq(Value),
    /// Not equal to this; null: must be set.
    Ne(Value),
    /// Number within these bounds, inclusive.
    Between(f64, f64),
    /// Number greater than this.
    Gt(f64),
    /// Exactly this many characters, elements or keys.
    LenEq(usize),
    /// At least this many characters, elements or keys.
    LenMin(usize),
    /// At most this many characters, elements or keys.
    LenMax(usize),
    /// Text that this regular expression finds a match in.
    Match(Text),
    /// Text that must start with this.
    StartsWith(Text),
    /// Text must compile as a regular expression of the `regex` crate.
    IsRegex,
    /// A UUID.
    IsUuid,
    /// A point in time: a number greater than 0.
    IsTimestamp,
    /// A list that has this element.
    Contains(Value),
    /// A list whose elements are of at most one of these.
    MutuallyExclusiveSubsets(Vec<Vec<Value>>),
    /// A rule in code: an error text when broken, without the value when it is secret.
    Custom(fn(&Value) -> Result<(), String>),
    /// A rule in the code of a plugin that is no part of this program.
    Hosted(HostedRule),
}

/// A rule that a plugin host runs.
#[derive(Clone)]
pub struct HostedRule {
    /// Kong's name of the rule (`match`, `custom_validator`, ...).
    pub name: Text,
    /// What the schema says there, for those who read it; null: code.
    pub argument: Value,
    /// The rule: an error text when broken.
    pub test: Arc<Test>,
}

/// A rule on one value.
pub type Test = dyn Fn(&Value) -> Result<(), String> + Send + Sync;

impl fmt::Debug for HostedRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.argument)
    }
}

/// What a value is compared with before another field is looked at (Kong's `if_match`).
#[derive(Debug, Clone, Default)]
pub struct Condition {
    /// All of these must hold; null breaks none of them but [`Rule::Eq`] and [`Rule::Ne`], as in Kong.
    pub rules: Vec<Rule>,
    /// The value must not be null.
    pub required: bool,
}

/// A rule across the fields of one record. Field names may be paths joined by `.`.
#[derive(Debug, Clone)]
pub enum Check {
    /// One or more of these must be set (not null, not empty).
    AtLeastOneOf(Vec<Text>),
    /// Exactly one of these must be set.
    OnlyOneOf(Vec<Text>),
    /// At most one of these may be set.
    MutuallyExclusive(Vec<Text>),
    /// All or none of these must be set.
    MutuallyRequired(Vec<Text>),
    /// When `when` equals `equals`, `then` must be set.
    RequiredWhen {
        /// The field looked at.
        when: Text,
        /// The value looked for.
        equals: Value,
        /// The field that must then be set.
        then: Text,
    },
    /// A rule in code over the whole record (defaults filled): the field at fault (path, may be empty) and the text.
    Custom(fn(&Value) -> Result<(), (String, String)>),
    /// Those of these that are set must differ from each other.
    Distinct(Vec<Text>),
    /// Fields of at most one of the two lists may be set.
    MutuallyExclusiveSets(Vec<Text>, Vec<Text>),
    /// When `when` is `matches`, `then` must be `must`.
    Conditional {
        /// The field looked at.
        when: Text,
        /// What it is compared with.
        matches: Condition,
        /// The field that is then looked at.
        then: Text,
        /// What it must be.
        must: Condition,
        /// Said when it is not.
        error: Option<Text>,
    },
    /// When `when` is `matches`, one of `then` must be set.
    ConditionalAtLeastOneOf {
        /// The field looked at.
        when: Text,
        /// What it is compared with, what is then needed, and what is said without it, the first that fits.
        cases: Vec<(Condition, Vec<Text>, Option<Text>)>,
    },
    /// A rule in the code of a plugin that is no part of this program.
    Hosted(HostedCheck),
}

/// A rule across fields that a plugin host runs.
#[derive(Clone)]
pub struct HostedCheck {
    /// The fields it looks at; it is not asked when one of them is wrong already.
    pub fields: Vec<Text>,
    /// The rule over the whole record (defaults filled): the field at fault (path, may be empty) and the text.
    pub test: Arc<CheckTest>,
}

/// A rule across fields.
pub type CheckTest = dyn Fn(&Value) -> Result<(), (String, String)> + Send + Sync;

impl fmt::Debug for HostedCheck {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "check of {:?}", self.fields)
    }
}

/// A change that a plugin makes to its configuration once it is right (Kong's `transformations`).
#[derive(Clone)]
pub struct Transform {
    /// The record as it shall be, or an error text for the user.
    pub apply: Arc<Change>,
}

/// A change of a record.
pub type Change = dyn Fn(&Value) -> Result<Value, String> + Send + Sync;

impl fmt::Debug for Transform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a transform")
    }
}

/// The (path, value) pairs that a shorthand's value stands for, or an error text for the user.
pub type Expand = Arc<dyn Fn(&Value) -> Result<Vec<(String, Value)>, String> + Send + Sync>;

/// A field that stands for others: the value of `name` becomes the values `expand` gives.
#[derive(Clone)]
pub struct Shorthand {
    /// The field in the file.
    pub name: Text,
    /// What it holds.
    pub field: Field,
    /// The (path, value) pairs it stands for.
    pub expand: Expand,
    /// Deprecated: using it is a warning and the explicit field wins; otherwise the shorthand wins.
    pub deprecated: Option<Text>,
}

impl fmt::Debug for Shorthand {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "shorthand {}: {:?}", self.name, self.field)
    }
}

impl Schema {
    /// A record of these fields.
    pub fn new(fields: impl IntoIterator<Item = (&'static str, Field)>) -> Self {
        Self { fields: fields.into_iter().map(|(name, field)| (name.into(), field)).collect(), ..Self::default() }
    }

    /// With one more rule across fields.
    #[must_use]
    pub fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// With a field that stands for others.
    #[must_use]
    pub fn shorthand(mut self, shorthand: Shorthand) -> Self {
        self.shorthands.push(shorthand);
        self
    }

    /// The field of this name.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, field)| field)
    }
}

impl Field {
    /// A field of this kind, optional, without default or rules.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            required: false,
            default: None,
            rules: Vec::new(),
            referenceable: false,
            secret: false,
            description: None,
            deprecated: None,
            error: None,
        }
    }

    /// Text.
    pub fn string() -> Self {
        Self::new(Kind::String)
    }

    /// A whole number.
    pub fn integer() -> Self {
        Self::new(Kind::Integer)
    }

    /// Any number.
    pub fn number() -> Self {
        Self::new(Kind::Number)
    }

    /// `true` or `false`.
    pub fn boolean() -> Self {
        Self::new(Kind::Boolean)
    }

    /// A list of `element`.
    pub fn array(element: Field) -> Self {
        Self::new(Kind::Array(Box::new(element)))
    }

    /// A list of `element` without repeats.
    pub fn set(element: Field) -> Self {
        Self::new(Kind::Set(Box::new(element)))
    }

    /// Free keys.
    pub fn map(key: Field, value: Field) -> Self {
        Self::new(Kind::Map(Box::new(key), Box::new(value)))
    }

    /// Nested fields. A record that is absent is filled from its fields' defaults, as in Kong, when `required`.
    pub fn record(schema: Schema) -> Self {
        Self::new(Kind::Record(schema))
    }

    /// Any JSON value.
    pub fn any() -> Self {
        Self::new(Kind::Any)
    }

    /// A reference to an entity of this kind.
    pub fn foreign(kind: &'static str) -> Self {
        Self::new(Kind::Foreign(kind))
    }

    /// Must be present.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Value when absent; also makes the field required, as a Kong field with a default is never null here.
    #[must_use]
    pub fn default(mut self, value: impl Into<Value>) -> Self {
        self.default = Some(value.into());
        self
    }

    /// With one more rule.
    #[must_use]
    pub fn rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// One of these texts.
    #[must_use]
    pub fn one_of(self, values: &[&str]) -> Self {
        self.rule(Rule::OneOf(values.iter().map(|value| Value::from(*value)).collect()))
    }

    /// Within these bounds, inclusive.
    #[must_use]
    pub fn between(self, low: impl Into<f64>, high: impl Into<f64>) -> Self {
        self.rule(Rule::Between(low.into(), high.into()))
    }

    /// `{vault://...}` is allowed.
    #[must_use]
    pub fn referenceable(mut self) -> Self {
        self.referenceable = true;
        self
    }

    /// Never shown in diagnostics.
    #[must_use]
    pub fn secret(mut self) -> Self {
        self.secret = true;
        self
    }
}

/// The schema of a plugin's `config`, looked up by plugin name: how the loader learns which plugins exist
/// without knowing the crates that implement them.
pub trait PluginSchemas {
    /// The schema of the plugin's `config`, `None` when there is no such plugin in this build or it has none.
    fn config_schema(&self, plugin: &str) -> Option<Arc<Schema>>;
    /// Whether the plugin's `config` is its own affair: any value, checked when the plugin is made.
    fn is_open(&self, plugin: &str) -> bool {
        let _ = plugin;
        false
    }
    /// What whoever uses the plugin should know: a warning at each of its entities.
    fn remark(&self, plugin: &str) -> Option<String> {
        let _ = plugin;
        None
    }
    /// Names of all plugins, for "did you mean".
    fn plugin_names(&self) -> Vec<String>;
    /// The protocols of a plugin whose entity names none, where they are not those of HTTP.
    fn default_protocols(&self, plugin: &str) -> Option<Vec<String>> {
        let _ = plugin;
        None
    }
    /// Scopes and protocols a plugin may not be used with, checked on the plugin entity as loaded.
    /// The error is a text for the user.
    fn check_scope(&self, plugin: &crate::PluginConfig) -> Result<(), String> {
        let _ = plugin;
        Ok(())
    }
}
