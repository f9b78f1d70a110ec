//! A policy, and a policy bound to a client.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
};

use crate::{
    ids::{ClientId, DeviceId},
    topic::Filter,
};

use super::{
    action::{Action, Resource},
    document::{PolicyError, Statement, parse},
    pattern::{Pattern, Patterns, Values, behind_prefix, tokens},
    reserved::client_may_publish,
};

/// Characters that would turn a value into a pattern or a filter.
const WILDCARDS: [char; 4] = ['*', '?', '+', '#'];

static DEVICE_DEFAULT: LazyLock<Policy> = LazyLock::new(|| built_in(include_str!("device.json")));
static APP_DEFAULT: LazyLock<Policy> = LazyLock::new(|| built_in(include_str!("app.json")));
static OPEN: LazyLock<Policy> = LazyLock::new(|| built_in(include_str!("open.json")));

/// A parsed policy. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Policy {
    statements: Arc<[Statement]>,
    rules: Arc<RuleSet>,
    /// The one binding there is when no rule depends on the client.
    constant: Option<Arc<Compiled>>,
}

/// What is known of a client when it connects.
#[derive(Clone, Debug)]
pub struct Context {
    /// `${iot:ClientId}`.
    pub client: ClientId,
    /// `${iot:Connection.Thing.ThingName}`: the device the client has proved to be.
    pub thing: Option<DeviceId>,
    /// Values of other variables by name, such as `iot:Certificate.Subject.CommonName`.
    pub variables: BTreeMap<String, String>,
}

/// A policy bound to one client: answers in a walk over the patterns of one action.
///
/// The patterns are shared by all clients of the policy; what a client holds for itself is a value for each
/// variable, mostly one, and nothing when the policy has no variables.
#[derive(Debug)]
pub struct Compiled {
    rules: Arc<RuleSet>,
    values: Box<[Value]>,
}

/// Patterns by action, and the variables in them by rank.
#[derive(Debug)]
struct RuleSet {
    actions: Box<[Rules]>,
    variables: Vec<Arc<str>>,
}

#[derive(Debug, Default)]
struct Rules {
    deny: Patterns,
    allow: Patterns,
}

/// A variable's value, sharing the text of the id it comes from.
#[derive(Debug)]
enum Value {
    /// None, or one with wildcard characters.
    Unusable,
    Client(ClientId),
    Device(DeviceId),
    Text(Arc<str>),
}

/// The values as seen by patterns of one kind of resource.
struct Bound<'a> {
    values: &'a [Value],
    resource: Resource,
}

impl Context {
    /// Of a client of which nothing else is known.
    pub const fn new(client: ClientId) -> Self {
        Self {
            client,
            thing: None,
            variables: BTreeMap::new(),
        }
    }

    fn value(&self, variable: &str) -> Value {
        match variable {
            "iot:ClientId" => Value::of_client(&self.client),
            "iot:Connection.Thing.ThingName" => {
                // the characters of a device id leave nothing to check
                self.thing.clone().map_or(Value::Unusable, Value::Device)
            },
            _ => self
                .variables
                .get(variable)
                .map_or(Value::Unusable, |value| Value::of_text(value)),
        }
    }
}

impl Policy {
    /// Reads a policy document.
    pub fn parse(json: &str) -> Result<Self, PolicyError> {
        Ok(Self::from_statements(parse(json)?.into()))
    }

    /// All statements of several policies as one: a principal may have more than one.
    pub fn merge(policies: impl IntoIterator<Item = Self>) -> Self {
        let statements: Vec<_> = policies
            .into_iter()
            .flat_map(|policy| policy.statements.to_vec())
            .collect();
        Self::from_statements(statements.into())
    }

    /// Grants nothing.
    pub fn deny_all() -> Self {
        Self::merge([])
    }

    /// What a device may do when nobody said otherwise: speak for itself. See `device.json` beside this file.
    pub fn device_default() -> Self {
        DEVICE_DEFAULT.clone()
    }

    /// What an application may do when nobody said otherwise: everything a client may do at all.
    pub fn app_default() -> Self {
        APP_DEFAULT.clone()
    }

    /// Everything a client may do at all, for listeners without authentication.
    pub fn open() -> Self {
        OPEN.clone()
    }

    /// Binds the policy to a client. All clients share one binding when the policy has no variables.
    pub fn compile(&self, context: &Context) -> Arc<Compiled> {
        if let Some(constant) = &self.constant {
            return Arc::clone(constant);
        }
        let values = self
            .rules
            .variables
            .iter()
            .map(|name| context.value(name))
            .collect();
        Arc::new(Compiled {
            rules: Arc::clone(&self.rules),
            values,
        })
    }

    fn from_statements(statements: Arc<[Statement]>) -> Self {
        let rules = Arc::new(RuleSet::new(&statements));
        let constant = rules.variables.is_empty().then(|| {
            Arc::new(Compiled {
                rules: Arc::clone(&rules),
                values: Box::default(),
            })
        });
        Self {
            statements,
            rules,
            constant,
        }
    }
}

impl Compiled {
    /// Whether an action on a resource is granted. The resource is the bare name: a client id, a topic, a filter
    /// without `$share/{group}/`, a thing.
    pub fn allows(&self, action: Action, name: &str) -> bool {
        let Some(rules) = self.rules.actions.get(action.index()) else {
            return false;
        };
        let bound = Bound {
            values: &self.values,
            resource: action.resource(),
        };
        !rules.deny.match_any(name, &bound) && rules.allow.match_any(name, &bound)
    }

    /// Whether a connection with this client id is granted.
    pub fn may_connect(&self, client: &ClientId) -> bool {
        self.allows(Action::Connect, client.as_str())
    }

    /// Whether a publication is granted, and the topic one that clients may publish to.
    pub fn may_publish(&self, topic: &str, retain: bool) -> bool {
        client_may_publish(topic)
            && self.allows(Action::Publish, topic)
            && (!retain || self.allows(Action::RetainPublish, topic))
    }

    /// Whether a subscription is granted; a shared one is judged as the filter behind the group.
    pub fn may_subscribe(&self, filter: &Filter) -> bool {
        self.allows(Action::Subscribe, filter.pattern())
    }

    /// Whether a delivery is granted.
    pub fn may_receive(&self, topic: &str) -> bool {
        self.allows(Action::Receive, topic)
    }
}

impl RuleSet {
    fn new(statements: &[Statement]) -> Self {
        let mut variables = Vec::new();
        let actions = Action::ALL.into_iter().map(|action| {
            let mut rules = Rules::default();
            let concerned = statements
                .iter()
                .filter(|one| one.actions.contains(&action));
            for statement in concerned {
                let patterns = if statement.allow {
                    &mut rules.allow
                } else {
                    &mut rules.deny
                };
                for resource in &statement.resources {
                    // cannot fail: the document was refused otherwise
                    let tokens = tokens(resource).unwrap_or_default();
                    for rest in behind_prefix(&tokens, action.resource().prefix()) {
                        patterns.push(Pattern::new(rest, |name| rank(&mut variables, name)));
                    }
                }
            }
            rules
        });
        let actions = actions.collect();
        Self { actions, variables }
    }
}

impl Value {
    /// A client id mostly needs no text of its own.
    fn of_client(client: &ClientId) -> Self {
        if is_usable(client.as_str()) {
            Self::Client(client.clone())
        } else {
            Self::Unusable
        }
    }

    fn of_text(value: &str) -> Self {
        if is_usable(value) {
            Self::Text(Arc::from(value))
        } else {
            Self::Unusable
        }
    }
}

impl Values for Bound<'_> {
    fn value(&self, variable: u16) -> Option<&str> {
        let text = match self.values.get(usize::from(variable))? {
            Value::Unusable => return None,
            Value::Device(device) => return Some(device.as_str()),
            Value::Client(client) => client.as_str(),
            Value::Text(text) => text,
        };
        // good for comparing client ids, but among topics it would reach into another client's levels
        (self.resource == Resource::Client || !text.contains('/')).then_some(text)
    }
}

fn is_usable(value: &str) -> bool {
    !value.is_empty() && !value.contains(WILDCARDS)
}

/// The rank of a variable, which it gets if it has none. There are fewer patterns than ranks in one document; were
/// they to run out in a merge, the last rank has no value and so matches nothing.
fn rank(variables: &mut Vec<Arc<str>>, name: &Arc<str>) -> u16 {
    let at = variables
        .iter()
        .position(|other| other == name)
        .unwrap_or_else(|| {
            variables.push(Arc::clone(name));
            variables.len() - 1
        });
    u16::try_from(at).unwrap_or(u16::MAX)
}

fn built_in(json: &str) -> Policy {
    Policy::parse(json).expect("the policies that come with the server are tested")
}

#[cfg(test)]
mod tests;
