//! Topics that belong to the server.

/// Whether any client may publish to a topic, whatever its policy grants. Not `$SYS`, not `$aws/events`, not the
/// answers and notices of the `$aws` services: a client that could forge them could speak for the server.
pub fn client_may_publish(topic: &str) -> bool {
    let Some(rest) = topic.strip_prefix('$') else {
        return true;
    };
    let (service, rest) = rest.split_once('/').unwrap_or((rest, ""));
    match service {
        // a topic named like a shared subscription could reach no one but by mistake
        "SYS" | "share" => false,
        "aws" => may_publish_to_aws(rest),
        _ => true,
    }
}

fn may_publish_to_aws(rest: &str) -> bool {
    let (service, rest) = rest.split_once('/').unwrap_or((rest, ""));
    match service {
        "" | "events" => false,
        "commands" => is_command_response(rest),
        _ => !is_answer(last_level(rest)),
    }
}

/// Of `$aws/commands/{things|clients}/{id}/executions/{execution}/` a client writes `response`, with or without
/// the payload's format behind it, and reads the rest.
fn is_command_response(rest: &str) -> bool {
    let mut levels = rest.split('/').skip(4);
    levels.next() == Some("response") && levels.all(|level| !is_answer(level))
}

fn is_answer(level: &str) -> bool {
    matches!(
        level,
        "accepted" | "rejected" | "delta" | "documents" | "notify" | "notify-next"
    )
}

fn last_level(text: &str) -> &str {
    text.rsplit_once('/').map_or(text, |(_, last)| last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_write_requests_and_never_answers() {
        for open in [
            "a/accepted",
            "umbel/devices/d/delta",
            "$other/x",
            "$aws/things/t/shadow/update",
            "$aws/things/t/shadow/get",
            "$aws/things/t/shadow/name/delta/update",
            "$aws/things/accepted/shadow/update",
            "$aws/things/t/jobs/notify/get",
            "$aws/things/t/jobs/start-next",
            "$aws/commands/things/t/executions/e/response",
            "$aws/commands/clients/t/executions/e/response/json",
            "$aws/certificates/create/json",
            "$aws/rules/r/x",
        ] {
            assert!(client_may_publish(open), "{open}");
        }
        for closed in [
            "$SYS",
            "$SYS/broker/clients",
            "$share/g/a",
            "$aws",
            "$aws/",
            "$aws/events",
            "$aws/events/presence/connected/d",
            "$aws/things/t/shadow/update/accepted",
            "$aws/things/t/shadow/update/rejected",
            "$aws/things/t/shadow/update/delta",
            "$aws/things/t/shadow/update/documents",
            "$aws/things/t/shadow/name/s/get/accepted",
            "$aws/things/t/jobs/notify",
            "$aws/things/t/jobs/notify-next",
            "$aws/things/t/jobs/j/update/rejected",
            "$aws/commands/things/t/executions/e/request/json",
            "$aws/commands/things/t/executions/e/response/accepted",
            "$aws/commands/things/t/executions/e/response/rejected/json",
            "$aws/commands/things/t",
            "$aws/certificates/create/json/accepted",
        ] {
            assert!(!client_may_publish(closed), "{closed}");
        }
    }
}
