//! A policy document, and on the last line the name it is asked about.

use umbel_core::{
    ids::ClientId,
    policy::{Action, Context, Policy},
};

/// Laws: any text is read or refused; a policy merged with itself is the same policy; nothing is granted on topics of
/// the server.
pub fn run(data: &[u8]) -> bool {
    let Ok(text) = str::from_utf8(data) else {
        return false;
    };
    let (document, name) = text.rsplit_once('\n').unwrap_or((text, ""));
    let Ok(policy) = Policy::parse(document) else {
        return false;
    };
    let context = Context::new(ClientId::parse("me").expect("a client id"));
    let one = policy.compile(&context);
    let twice = Policy::merge([policy.clone(), policy]).compile(&context);
    let mut granted = false;
    for action in [
        Action::Connect,
        Action::Publish,
        Action::Subscribe,
        Action::GetThingShadow,
    ] {
        let allowed = one.allows(action, name);
        assert_eq!(twice.allows(action, name), allowed);
        granted |= allowed;
    }
    assert!(!one.may_publish(&format!("$SYS/{name}"), false));
    granted
}
