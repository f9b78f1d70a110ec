use proptest::prelude::*;

use super::*;
use crate::{
    policy::{POLICY_BYTES_MAX, document::Statement, pattern::Token},
    topic::Limits,
};

fn client(id: &str) -> ClientId {
    ClientId::parse(id).expect("a client id")
}

fn policy(statements: &str) -> Policy {
    Policy::parse(&format!(
        r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#
    ))
    .expect("a policy")
}

fn statement(effect: &str, action: &str, resource: &str) -> String {
    format!(r#"{{"Effect":"{effect}","Action":"{action}","Resource":"{resource}"}}"#)
}

fn compile(statements: &str, id: &str) -> Arc<Compiled> {
    policy(statements).compile(&Context::new(client(id)))
}

fn filter(text: &str) -> Filter {
    Filter::parse(text, &Limits::default()).expect("a filter")
}

fn device(id: &str) -> Arc<Compiled> {
    let thing = DeviceId::parse(id).expect("a device id");
    let context = Context {
        thing: Some(thing),
        ..Context::new(client(id))
    };
    Policy::device_default().compile(&context)
}

#[test]
fn an_empty_policy_denies() {
    let nothing = Policy::deny_all().compile(&Context::new(client("c")));
    for action in Action::ALL {
        assert!(
            !nothing.allows(action, "") && !nothing.allows(action, "a"),
            "{action:?}"
        );
    }
    let no_resource = compile(r#"{"Effect":"Allow","Action":"iot:Publish"}"#, "c");
    assert!(!no_resource.allows(Action::Publish, "a"));
}

#[test]
fn an_explicit_deny_wins_wherever_it_stands() {
    let allow = statement("Allow", "iot:*", "*");
    let deny = statement(
        "Deny",
        "iot:Publish",
        "arn:aws:iot:eu-west-1:123456789012:topic/a/*",
    );
    for statements in [format!("{allow},{deny}"), format!("{deny},{allow}")] {
        let compiled = compile(&statements, "c");
        assert!(!compiled.allows(Action::Publish, "a/b"));
        assert!(compiled.allows(Action::Publish, "a"));
        assert!(compiled.allows(Action::Receive, "a/b"));
    }
}

#[test]
fn resources_are_arns_or_short_and_of_the_kind_the_action_asks_for() {
    for (resource, action, name, granted) in [
        ("topic/a", Action::Publish, "a", true),
        ("arn:aws:iot:*:*:topic/a:b", Action::Publish, "a:b", true),
        ("arn:aws-cn:iot:::topic/a", Action::Publish, "a", true),
        ("arn:aws:iot:*", Action::Publish, "a", true),
        ("arn:*", Action::Connect, "a", true),
        ("*", Action::ListRetainedMessages, "", true),
        ("topic/*", Action::ListRetainedMessages, "", false),
        ("*/a", Action::Publish, "a", true),
        ("*/a", Action::Publish, "b/a", true),
        ("top*", Action::Subscribe, "a/#", true),
        ("topic/a", Action::Subscribe, "a", false),
        ("topicfilter/a/*", Action::Subscribe, "a/#", true),
        ("topicfilter/a/*", Action::Publish, "a/b", false),
        ("client/c", Action::Connect, "c", true),
        ("client/c", Action::Connect, "cc", false),
        ("thing/t", Action::GetThingShadow, "t", true),
        (
            "arn:aws:greengrass:x:1:topic/a",
            Action::Publish,
            "a",
            false,
        ),
    ] {
        let compiled = compile(&statement("Allow", "iot:*", resource), "c");
        assert_eq!(
            compiled.allows(action, name),
            granted,
            "{resource} {action:?} {name}"
        );
    }
}

#[test]
fn actions_may_be_many_wild_and_of_any_case() {
    let compiled = compile(
        r#"{"Effect":"Allow","Action":["IOT:publish","iot:Get*","greengrass:Discover"],"Resource":["*"]}"#,
        "c",
    );
    assert!(compiled.allows(Action::Publish, "a"));
    assert!(compiled.allows(Action::GetThingShadow, "a"));
    assert!(compiled.allows(Action::GetPendingJobExecutions, "a"));
    assert!(!compiled.allows(Action::RetainPublish, "a"));
    assert!(!compiled.allows(Action::Connect, "a"));
}

#[test]
fn variables_take_the_values_of_the_client() {
    let text = [
        statement("Allow", "iot:Publish", "topic/${iot:ClientId}/x"),
        statement(
            "Allow",
            "iot:Publish",
            "topic/thing/${iot:Connection.Thing.ThingName}",
        ),
        statement(
            "Allow",
            "iot:Publish",
            "topic/cn/${iot:Certificate.Subject.CommonName}",
        ),
    ]
    .join(",");
    let mut context = Context::new(client("me"));
    let before = policy(&text).compile(&context);
    assert!(before.allows(Action::Publish, "me/x"));
    for closed in ["you/x", "m/x", "/x", "thing/", "thing/me", "cn/", "cn/c1"] {
        assert!(!before.allows(Action::Publish, closed), "{closed}");
    }

    context.thing = Some(DeviceId::parse("t1").expect("a device id"));
    context.variables.insert(
        "iot:Certificate.Subject.CommonName".to_owned(),
        "c1".to_owned(),
    );
    let after = policy(&text).compile(&context);
    assert!(after.allows(Action::Publish, "thing/t1"));
    assert!(after.allows(Action::Publish, "cn/c1"));
}

#[test]
fn a_value_with_wildcards_matches_nothing_not_even_itself() {
    for id in ["*", "a*", "?", "+", "#", "a#b"] {
        let compiled = compile(&statement("Allow", "*", "*/${iot:ClientId}"), id);
        for name in [id, "a", "victim"] {
            assert!(!compiled.allows(Action::Connect, name), "{id} {name}");
            assert!(!compiled.allows(Action::Subscribe, name), "{id} {name}");
        }
    }
}

#[test]
fn a_client_id_with_a_slash_does_not_reach_into_another_clients_topics() {
    let text = statement("Allow", "iot:*", "*/${iot:ClientId}/*");
    let compiled = compile(&text, "victim/private");
    assert!(!compiled.allows(Action::Receive, "victim/private/x"));
    let connect = compile(
        &statement("Allow", "iot:Connect", "client/${iot:ClientId}"),
        "a/b",
    );
    assert!(connect.may_connect(&client("a/b")));
}

/// A statement, and what its error has to say.
const NOT_UNDERSTOOD: &[(&str, &str)] = &[
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}"#,
        "uses Condition",
    ),
    (
        r#"{"Effect":"Allow","NotAction":"*","Resource":"*"}"#,
        "uses NotAction",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","NotResource":"*"}"#,
        "uses NotResource",
    ),
    (
        r#"[{"Effect":"Deny","Action":"iot:Write","Resource":"*"}]"#,
        "iot:Write",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"topic"}"#,
        "cannot be read: topic",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:topic/a"}"#,
        "cannot be read",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"arn:aws:iot:*:topic/a:b"}"#,
        "cannot be",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"topic/${a"}"#,
        "cannot be read",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"topic/${aws:x}"}"#,
        "not known: aws:x",
    ),
    (
        r#"{"Effect":"allow","Action":"*","Resource":"*"}"#,
        "not a policy document",
    ),
    (
        r#"{"Effect":"Allow","Effect":"Deny","Action":"*","Resource":"*"}"#,
        "not a policy",
    ),
    (
        r#"{"Effect":"Allow","Action":"*","Resource":"*","Extra":1}"#,
        "not a policy document",
    ),
];

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let parse = |text: &str| {
        Policy::parse(&format!(r#"{{"Version":"2012-10-17","Statement":{text}}}"#))
            .map_err(|error| error.to_string())
            .expect_err(text)
    };
    for (text, part) in NOT_UNDERSTOOD {
        let error = parse(text);
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn what_is_no_policy_or_too_much_of_one_is_refused() {
    for text in ["", "[]", "null", r#"{"Version":"2012-10-17"}"#] {
        assert!(
            matches!(Policy::parse(text), Err(PolicyError::Shape(_))),
            "{text}"
        );
    }
    let old = r#"{"Version":"2008-10-17","Statement":[]}"#;
    assert!(matches!(Policy::parse(old), Err(PolicyError::Version)));
    let long = " ".repeat(POLICY_BYTES_MAX + 1);
    assert!(matches!(Policy::parse(&long), Err(PolicyError::TooLong)));
    let many = vec![r#""topic/a""#; 700].join(",");
    let many = format!(
        r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"*","Resource":[{many}]}}}}"#
    );
    assert!(matches!(
        Policy::parse(&many),
        Err(PolicyError::TooManyPatterns)
    ));
}

#[test]
fn a_device_speaks_for_itself_and_for_nobody_else() {
    let compiled = device("cam-1");
    assert!(compiled.may_connect(&client("cam-1")));
    assert!(!compiled.may_connect(&client("cam-2")));
    for topic in [
        "umbel/devices/cam-1/telemetry",
        "$aws/things/cam-1/shadow/update",
        "$aws/things/cam-1/shadow/name/config/get",
        "$aws/things/cam-1/jobs/start-next",
        "$aws/things/cam-1/jobs/job-1/update",
        "$aws/commands/things/cam-1/executions/e1/response/json",
    ] {
        assert!(compiled.may_publish(topic, false), "{topic}");
        assert_eq!(
            compiled.may_publish(topic, true),
            topic.starts_with("umbel/"),
            "{topic}"
        );
    }
    for topic in [
        "umbel/devices/cam-1",
        "umbel/devices/cam-10/telemetry",
        "$aws/things/cam-2/shadow/update",
        "$aws/things/cam-1/shadow/update/accepted",
        "$aws/things/cam-1/shadow/name/config/update/delta",
        "$aws/things/cam-1/jobs/notify",
        "$aws/events/presence/connected/cam-1",
        "$SYS/x",
        "other",
    ] {
        assert!(!compiled.may_publish(topic, false), "{topic}");
    }
}

#[test]
fn a_device_hears_what_is_for_itself_and_nothing_else() {
    let compiled = device("cam-1");
    for text in [
        "$aws/things/cam-1/shadow/update/delta",
        "$aws/things/cam-1/shadow/get/+",
        "$aws/things/cam-1/jobs/$next/get/+",
        "$aws/commands/things/cam-1/executions/+/request/#",
        "umbel/devices/cam-1/#",
        "$share/g/umbel/devices/cam-1/#",
    ] {
        assert!(compiled.may_subscribe(&filter(text)), "{text}");
    }
    for text in [
        "#",
        "$aws/things/+/shadow/#",
        "umbel/devices/+/x",
        "$share/g/#",
        "$SYS/#",
    ] {
        assert!(!compiled.may_subscribe(&filter(text)), "{text}");
    }
    assert!(compiled.may_receive("$aws/things/cam-1/shadow/update/delta"));
    assert!(!compiled.may_receive("$aws/things/cam-2/shadow/update/delta"));
    assert!(compiled.allows(Action::GetThingShadow, "cam-1"));
    assert!(!compiled.allows(Action::GetThingShadow, "cam-2"));
}

#[test]
fn a_client_that_proved_to_be_no_device_gets_nothing_from_the_device_policy() {
    let compiled = Policy::device_default().compile(&Context::new(client("cam-1")));
    assert!(!compiled.may_connect(&client("cam-1")));
    assert!(!compiled.may_publish("umbel/devices/cam-1/x", false));
}

#[test]
fn open_and_app_policies_share_one_binding_and_keep_server_topics_closed() {
    for policy in [Policy::open(), Policy::app_default()] {
        let one = policy.compile(&Context::new(client("a")));
        let other = policy.compile(&Context::new(client("b")));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(one.may_connect(&client("x")) && one.may_publish("any", true));
        assert!(one.may_publish("$aws/things/d/shadow/update", false));
        assert!(one.may_subscribe(&filter("$aws/events/#")) && one.may_receive("$SYS/x"));
        assert!(one.allows(Action::ListRetainedMessages, ""));
        for closed in [
            "$SYS/x",
            "$aws/events/x",
            "$aws/things/d/shadow/update/accepted",
        ] {
            assert!(!one.may_publish(closed, false), "{closed}");
        }
    }
}

#[test]
fn merged_policies_grant_the_sum_and_deny_the_sum() {
    let one = policy(&statement(
        "Allow",
        "iot:Publish",
        "topic/${iot:ClientId}/*",
    ));
    let other = policy(&statement("Allow", "iot:Publish", "topic/all"));
    let deny = policy(&statement("Deny", "iot:Publish", "topic/*/secret"));
    let compiled = Policy::merge([one, other, deny]).compile(&Context::new(client("c")));
    assert!(compiled.allows(Action::Publish, "c/x"));
    assert!(compiled.allows(Action::Publish, "all"));
    assert!(!compiled.allows(Action::Publish, "c/secret"));
}

#[test]
fn a_binding_is_small() {
    assert!(size_of::<Compiled>() <= 24 && size_of::<Value>() <= 24);
    assert_eq!(device("cam-1").values.len(), 1);
}

/// What a policy means, by the book: every variable's text in its place, every statement looked at.
fn granted(statements: &[Statement], action: Action, name: &str, id: &str) -> bool {
    let whole = format!("{}{name}", action.resource().prefix());
    let hit = |statement: &&Statement| {
        statement.actions.contains(&action)
            && statement.resources.iter().any(|text| {
                let tokens = tokens(text).expect("refused otherwise");
                let usable =
                    !id.contains(WILDCARDS) && (action == Action::Connect || !id.contains('/'));
                let has_variable = tokens
                    .iter()
                    .any(|token| matches!(token, Token::Variable(_)));
                (usable || !has_variable) && naive(&tokens, &whole, id)
            })
    };
    statements
        .iter()
        .filter(|one| one.allow)
        .any(|one| hit(&one))
        && !statements
            .iter()
            .filter(|one| !one.allow)
            .any(|one| hit(&one))
}

fn naive(tokens: &[Token], text: &str, value: &str) -> bool {
    let Some((token, behind)) = tokens.split_first() else {
        return text.is_empty();
    };
    match token {
        Token::Any => (0..=text.len())
            .any(|at| text.is_char_boundary(at) && naive(behind, &text[at..], value)),
        Token::One => text
            .chars()
            .next()
            .is_some_and(|c| naive(behind, &text[c.len_utf8()..], value)),
        Token::Character(c) => text
            .strip_prefix(*c)
            .is_some_and(|rest| naive(behind, rest, value)),
        Token::Variable(_) => text
            .strip_prefix(value)
            .is_some_and(|rest| naive(behind, rest, value)),
    }
}

fn pieces(from: Vec<&'static str>, most: usize) -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(from), 0..most).prop_map(|pieces| pieces.concat())
}

fn any_statement() -> impl Strategy<Value = String> {
    let action = prop::sample::select(vec!["iot:Publish", "iot:Subscribe", "iot:Connect", "iot:*"]);
    let kind = prop::sample::select(vec![
        "topic/",
        "topicfilter/",
        "client/",
        "*",
        "topic*",
        "?opic/",
    ]);
    let rest = pieces(
        vec!["a", "b", "/", "*", "?", "+", "#", "${iot:ClientId}"],
        6,
    );
    (prop::bool::weighted(0.3), action, kind, rest).prop_map(|(deny, action, kind, rest)| {
        statement(
            if deny { "Deny" } else { "Allow" },
            action,
            &format!("{kind}{rest}"),
        )
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_is_allowed_is_granted_by_a_statement_and_denied_by_none(
        statements in prop::collection::vec(any_statement(), 0..5),
        action in prop::sample::select(vec![Action::Publish, Action::Subscribe, Action::Connect]),
        name in pieces(vec!["a", "b", "/", "+", "#", "ab"], 6),
        id in prop::sample::select(vec!["a", "ab", "a/b", "+", "a*"]),
    ) {
        let policy = policy(&statements.join(","));
        let compiled = policy.compile(&Context::new(client(id)));
        prop_assert_eq!(
            compiled.allows(action, &name),
            granted(&policy.statements, action, &name, id)
        );
    }

    #[test]
    fn no_text_makes_the_parser_fail(text in any::<String>(), resource in any::<String>()) {
        prop_assert!(Policy::parse(&text).is_err());
        let resource = serde_json::to_string(&resource).expect("a string is JSON");
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"*","Resource":{resource}}}}}"#
        );
        if let Ok(policy) = Policy::parse(&text) {
            policy.compile(&Context::new(client("c"))).allows(Action::Publish, &text);
        }
    }
}
