//! What a policy can grant.

/// An action a client asks for; each is judged against one kind of resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Open a connection; resource: the client id.
    Connect,
    /// Publish; resource: the topic.
    Publish,
    /// Ask for a publication to be retained; resource: the topic.
    RetainPublish,
    /// Be delivered a message; resource: the topic.
    Receive,
    /// Subscribe; resource: the text of the filter, without `$share/{group}/`.
    Subscribe,
    /// Read a shadow over HTTP; resource: the thing.
    GetThingShadow,
    /// Write a shadow over HTTP; resource: the thing.
    UpdateThingShadow,
    /// Delete a shadow over HTTP; resource: the thing.
    DeleteThingShadow,
    /// List a thing's named shadows over HTTP; resource: the thing.
    ListNamedShadowsForThing,
    /// Read one job execution over HTTP; resource: the thing.
    DescribeJobExecution,
    /// List pending job executions over HTTP; resource: the thing.
    GetPendingJobExecutions,
    /// Start the next job execution over HTTP; resource: the thing.
    StartNextPendingJobExecution,
    /// Report on a job execution over HTTP; resource: the thing.
    UpdateJobExecution,
    /// Read a retained message over HTTP; resource: the topic.
    GetRetainedMessage,
    /// List retained messages over HTTP; no resource: only `*` grants it, the text to ask with is empty.
    ListRetainedMessages,
    /// See how a client is connected, over HTTP; resource: the client id.
    GetConnection,
    /// End a client's connection over HTTP; resource: the client id.
    DeleteConnection,
    /// See what a client subscribed to, over HTTP; resource: the client id.
    ListSubscriptions,
    /// Send to one client over HTTP, whatever it subscribed to; resource: the client id.
    SendDirectMessage,
}

/// Kinds of resource, as the text before the name: `topic/` in `arn:aws:iot:eu-west-1:1:topic/a/b`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Resource {
    Client,
    Topic,
    TopicFilter,
    Thing,
    None,
}

impl Action {
    pub(super) const ALL: [Self; 19] = [
        Self::Connect,
        Self::Publish,
        Self::RetainPublish,
        Self::Receive,
        Self::Subscribe,
        Self::GetThingShadow,
        Self::UpdateThingShadow,
        Self::DeleteThingShadow,
        Self::ListNamedShadowsForThing,
        Self::DescribeJobExecution,
        Self::GetPendingJobExecutions,
        Self::StartNextPendingJobExecution,
        Self::UpdateJobExecution,
        Self::GetRetainedMessage,
        Self::ListRetainedMessages,
        Self::GetConnection,
        Self::DeleteConnection,
        Self::ListSubscriptions,
        Self::SendDirectMessage,
    ];

    /// The name in a policy.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "iot:Connect",
            Self::Publish => "iot:Publish",
            Self::RetainPublish => "iot:RetainPublish",
            Self::Receive => "iot:Receive",
            Self::Subscribe => "iot:Subscribe",
            Self::GetThingShadow => "iot:GetThingShadow",
            Self::UpdateThingShadow => "iot:UpdateThingShadow",
            Self::DeleteThingShadow => "iot:DeleteThingShadow",
            Self::ListNamedShadowsForThing => "iot:ListNamedShadowsForThing",
            Self::DescribeJobExecution => "iot:DescribeJobExecution",
            Self::GetPendingJobExecutions => "iot:GetPendingJobExecutions",
            Self::StartNextPendingJobExecution => "iot:StartNextPendingJobExecution",
            Self::UpdateJobExecution => "iot:UpdateJobExecution",
            Self::GetRetainedMessage => "iot:GetRetainedMessage",
            Self::ListRetainedMessages => "iot:ListRetainedMessages",
            Self::GetConnection => "iot:GetConnection",
            Self::DeleteConnection => "iot:DeleteConnection",
            Self::ListSubscriptions => "iot:ListSubscriptions",
            Self::SendDirectMessage => "iot:SendDirectMessage",
        }
    }

    pub(super) const fn resource(self) -> Resource {
        match self {
            Self::Connect
            | Self::GetConnection
            | Self::DeleteConnection
            | Self::ListSubscriptions
            | Self::SendDirectMessage => Resource::Client,
            Self::Publish | Self::RetainPublish | Self::Receive | Self::GetRetainedMessage => {
                Resource::Topic
            },
            Self::Subscribe => Resource::TopicFilter,
            Self::GetThingShadow
            | Self::UpdateThingShadow
            | Self::DeleteThingShadow
            | Self::ListNamedShadowsForThing
            | Self::DescribeJobExecution
            | Self::GetPendingJobExecutions
            | Self::StartNextPendingJobExecution
            | Self::UpdateJobExecution => Resource::Thing,
            Self::ListRetainedMessages => Resource::None,
        }
    }

    /// Where the rules of an action are.
    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl Resource {
    pub(super) const fn prefix(self) -> &'static str {
        match self {
            Self::Client => "client/",
            Self::Topic => "topic/",
            Self::TopicFilter => "topicfilter/",
            Self::Thing => "thing/",
            Self::None => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_action_finds_its_own_rules() {
        for (index, action) in Action::ALL.into_iter().enumerate() {
            assert_eq!(action.index(), index, "{action:?}");
        }
    }
}
