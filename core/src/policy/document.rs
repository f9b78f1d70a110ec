//! The text of a policy.

use serde::{Deserialize, de::IgnoredAny};
use thiserror::Error;

use super::{
    action::Action,
    pattern::{NoValues, Pattern, TokenError, tokens},
};

/// Longest policy document. AWS allows 2,048 characters without blanks.
pub const POLICY_BYTES_MAX: usize = 16 * 1024;

/// Most patterns of a document, counted once for each action they are granted for: bounds the cost of a question.
pub const PATTERNS_MAX: usize = 2_000;

/// The one version of the language that has variables.
const VERSION: &str = "2012-10-17";

/// Why a text is not a policy. Nothing was changed; who wrote the policy should act.
#[derive(Debug, Error)]
pub enum PolicyError {
    /// Longer than [`POLICY_BYTES_MAX`].
    #[error("policy is longer than {POLICY_BYTES_MAX} bytes")]
    TooLong,
    /// More than [`PATTERNS_MAX`] patterns.
    #[error("policy has more than {PATTERNS_MAX} pairs of action and resource")]
    TooManyPatterns,
    /// Not JSON, or not the shape of a policy.
    #[error("policy is not a policy document")]
    Shape(#[source] serde_json::Error),
    /// A version of the language other than `2012-10-17`.
    #[error("policy version must be {VERSION}")]
    Version,
    /// An element of the language that this server does not support.
    #[error("statement {statement} uses {element}, which is not supported")]
    Unsupported {
        /// Which statement, from 1.
        statement: usize,
        /// The element's name.
        element: &'static str,
    },
    /// A `Deny` for an action this server does not know, perhaps misspelt: it would deny nothing.
    #[error("statement {statement} denies an action that is not known: {action}")]
    UnknownAction {
        /// Which statement, from 1.
        statement: usize,
        /// The action as written.
        action: String,
    },
    /// A resource that is neither an ARN nor `kind/name`, nor `*`.
    #[error("statement {statement} has a resource that cannot be read: {resource}")]
    Resource {
        /// Which statement, from 1.
        statement: usize,
        /// The resource as written.
        resource: String,
    },
    /// A `${…}` that this server has no value for.
    #[error("statement {statement} uses a variable that is not known: {variable}")]
    UnknownVariable {
        /// Which statement, from 1.
        statement: usize,
        /// The variable's name.
        variable: String,
    },
}

/// One statement, understood.
#[derive(Clone, Debug)]
pub(super) struct Statement {
    pub(super) allow: bool,
    pub(super) actions: Vec<Action>,
    /// Patterns over `kind/name`, as text that is sure to have tokens.
    pub(super) resources: Vec<Box<str>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPolicy {
    #[serde(rename = "Version")]
    version: String,
    #[serde(rename = "Id")]
    _id: Option<IgnoredAny>,
    #[serde(rename = "Statement")]
    statements: OneOrMore<RawStatement>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct RawStatement {
    #[serde(rename = "Sid")]
    _sid: Option<IgnoredAny>,
    effect: RawEffect,
    action: Option<OneOrMore<String>>,
    resource: Option<OneOrMore<String>>,
    condition: Option<IgnoredAny>,
    not_action: Option<IgnoredAny>,
    not_resource: Option<IgnoredAny>,
    principal: Option<IgnoredAny>,
    not_principal: Option<IgnoredAny>,
}

#[derive(Deserialize)]
enum RawEffect {
    Allow,
    Deny,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    One(T),
    More(Vec<T>),
}

impl<T> OneOrMore<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::One(one) => vec![one],
            Self::More(more) => more,
        }
    }
}

/// Reads a document into statements.
pub(super) fn parse(json: &str) -> Result<Vec<Statement>, PolicyError> {
    if json.len() > POLICY_BYTES_MAX {
        return Err(PolicyError::TooLong);
    }
    let raw: RawPolicy = serde_json::from_str(json).map_err(PolicyError::Shape)?;
    if raw.version != VERSION {
        return Err(PolicyError::Version);
    }
    let statements = raw.statements.into_vec();
    let statements = statements
        .into_iter()
        .enumerate()
        .map(|(index, raw)| raw.resolve(index + 1))
        .collect::<Result<Vec<_>, _>>()?;
    let patterns: usize = statements
        .iter()
        .map(|statement| statement.actions.len() * statement.resources.len())
        .sum();
    if patterns > PATTERNS_MAX {
        return Err(PolicyError::TooManyPatterns);
    }
    Ok(statements)
}

impl RawStatement {
    fn resolve(self, statement: usize) -> Result<Statement, PolicyError> {
        let refused = [
            ("Condition", self.condition),
            ("NotAction", self.not_action),
            ("NotResource", self.not_resource),
            ("Principal", self.principal),
            ("NotPrincipal", self.not_principal),
        ];
        if let Some((element, _)) = refused.into_iter().find(|(_, found)| found.is_some()) {
            return Err(PolicyError::Unsupported { statement, element });
        }
        let allow = matches!(self.effect, RawEffect::Allow);
        let mut actions = Vec::new();
        for action in self.action.map(OneOrMore::into_vec).unwrap_or_default() {
            let found = actions_of(&action);
            if found.is_empty() && !allow {
                return Err(PolicyError::UnknownAction { statement, action });
            }
            actions.extend(found);
        }
        actions.sort_unstable();
        actions.dedup();
        let mut resources = Vec::new();
        for resource in self.resource.map(OneOrMore::into_vec).unwrap_or_default() {
            resources.extend(resource_of(&resource, statement)?);
        }
        Ok(Statement {
            allow,
            actions,
            resources,
        })
    }
}

/// The actions a name with wildcards means; names compare without case. Allowing an unknown action is no mistake:
/// it is one that other services of AWS have.
fn actions_of(name: &str) -> Vec<Action> {
    let Ok(tokens) = tokens(&name.to_ascii_lowercase()) else {
        return Vec::new();
    };
    let pattern = Pattern::new(&tokens, |_| u16::MAX);
    Action::ALL
        .into_iter()
        .filter(|action| pattern.matches(&action.name().to_ascii_lowercase(), &NoValues))
        .collect()
}

/// The pattern over `kind/name` in a resource; none for a resource of another service.
fn resource_of(text: &str, statement: usize) -> Result<Option<Box<str>>, PolicyError> {
    let unreadable = || PolicyError::Resource {
        statement,
        resource: text.to_owned(),
    };
    let local = match text.strip_prefix("arn:") {
        Some(arn) => match arn_resource(arn).ok_or_else(unreadable)? {
            Arn::Ours(local) => local,
            Arn::Foreign => return Ok(None),
        },
        None if text.contains('/') || text.contains('*') => text,
        None => return Err(unreadable()),
    };
    match tokens(local) {
        Ok(_) => Ok(Some(Box::from(local))),
        Err(TokenError::Unclosed) => Err(unreadable()),
        Err(TokenError::UnknownVariable(variable)) => Err(PolicyError::UnknownVariable {
            statement,
            variable,
        }),
    }
}

enum Arn<'a> {
    Ours(&'a str),
    Foreign,
}

/// What an ARN (without `arn:`) names, region and account aside: a cluster has neither. An ARN that ends early in
/// a star means everything, as the star reaches over the rest.
fn arn_resource(arn: &str) -> Option<Arn<'_>> {
    let mut fields = arn.splitn(5, ':');
    let head: [Option<&str>; 4] = std::array::from_fn(|_| fields.next());
    if head
        .iter()
        .flatten()
        .any(|field| field.contains(['/', '$']))
    {
        return None;
    }
    if let Some(service) = head[1]
        && service != "iot"
        && !service.contains('*')
    {
        return Some(Arn::Foreign);
    }
    match fields.next() {
        Some(local) => Some(Arn::Ours(local)),
        None => arn.ends_with('*').then_some(Arn::Ours("*")),
    }
}
