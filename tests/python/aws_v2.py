"""The AWS IoT device SDK v2 for Python, unmodified, over mutual TLS: MQTT 3.1.1 and 5, classic and named shadows."""

import os
import sys
import uuid

import awsiot
from awscrt import mqtt, mqtt5, mqtt_request_response
from awsiot import iotshadow, mqtt5_client_builder, mqtt_connection_builder
from common import PATIENCE, Inbox, arguments

args = arguments()
builder_arguments = dict(
    endpoint=args.host,
    port=int(args.port),
    cert_filepath=args.cert,
    pri_key_filepath=args.key,
    ca_filepath=args.ca,
    client_id=args.thing,
)


def connect_v3():
    connection = mqtt_connection_builder.mtls_from_path(**builder_arguments)
    connection.connect().result(PATIENCE)
    return connection, lambda: connection.disconnect().result(PATIENCE)


def connect_v5():
    connected, stopped = Inbox(), Inbox()
    client = mqtt5_client_builder.mtls_from_path(
        on_lifecycle_connection_success=connected.put,
        on_lifecycle_connection_failure=lambda failure: connected.put(failure),
        on_lifecycle_stopped=stopped.put,
        **builder_arguments,
    )
    client.start()
    event = connected.take("connection")
    assert isinstance(event, mqtt5.LifecycleConnectSuccessData), event

    def close():
        client.stop()
        stopped.take("stop")

    return client, close


def error_of(future):
    try:
        future.result(PATIENCE)
    except awsiot.V2ServiceException as error:
        return error.modeled_error
    raise AssertionError("an error was expected")


def classic(shadows):
    thing = dict(thing_name=args.thing)
    missing = error_of(shadows.get_shadow(iotshadow.GetShadowRequest(**thing)))
    assert missing.code == 404, missing.code
    assert missing.message == f"No shadow exists with name: '{args.thing}'", missing.message

    deltas, documents = Inbox(), Inbox()
    streams = [
        shadows.create_shadow_delta_updated_stream(
            iotshadow.ShadowDeltaUpdatedSubscriptionRequest(**thing),
            awsiot.ServiceStreamOptions(
                incoming_event_listener=deltas.put, subscription_status_listener=deltas.put
            ),
        ),
        shadows.create_shadow_updated_stream(
            iotshadow.ShadowUpdatedSubscriptionRequest(**thing),
            awsiot.ServiceStreamOptions(
                incoming_event_listener=documents.put, subscription_status_listener=documents.put
            ),
        ),
    ]
    for stream, inbox in zip(streams, (deltas, documents)):
        stream.open()
        status = inbox.take("subscription")
        established = mqtt_request_response.SubscriptionStatusEventType.SUBSCRIPTION_ESTABLISHED
        assert status.type == established, status

    state = iotshadow.ShadowState(desired={"colour": "red"}, reported={"colour": "blue"})
    updated = shadows.update_shadow(iotshadow.UpdateShadowRequest(state=state, **thing)).result(
        PATIENCE
    )
    assert updated.version == 1, updated.version
    assert updated.state.desired == {"colour": "red"}

    delta = deltas.take("delta")
    assert (delta.version, delta.state) == (1, {"colour": "red"}), (delta.version, delta.state)
    document = documents.take("documents")
    assert document.previous is None and document.current.version == 1, document
    assert document.current.state.reported == {"colour": "blue"}

    got = shadows.get_shadow(iotshadow.GetShadowRequest(**thing)).result(PATIENCE)
    assert got.version == 1
    assert got.state.delta == {"colour": "red"}, got.state.delta
    assert isinstance(got.metadata.desired["colour"]["timestamp"], int)

    stale = iotshadow.UpdateShadowRequest(state=state, version=7, **thing)
    conflict = error_of(shadows.update_shadow(stale))
    assert (conflict.code, conflict.message) == (409, "Version conflict"), conflict.message

    deleted = shadows.delete_shadow(iotshadow.DeleteShadowRequest(**thing)).result(PATIENCE)
    assert deleted.version == 1
    again = shadows.update_shadow(iotshadow.UpdateShadowRequest(state=state, **thing)).result(
        PATIENCE
    )
    assert again.version == 3, "the version goes on after a delete"
    shadows.delete_shadow(iotshadow.DeleteShadowRequest(**thing)).result(PATIENCE)


def named(shadows):
    name = "settings-" + uuid.uuid4().hex[:8]
    target = dict(thing_name=args.thing, shadow_name=name)
    missing = error_of(shadows.get_named_shadow(iotshadow.GetNamedShadowRequest(**target)))
    assert missing.message == f"No shadow exists with name: '{name}'", missing.message
    state = iotshadow.ShadowState(desired={"interval": 5})
    updated = shadows.update_named_shadow(
        iotshadow.UpdateNamedShadowRequest(state=state, **target)
    ).result(PATIENCE)
    assert updated.version == 1
    got = shadows.get_named_shadow(iotshadow.GetNamedShadowRequest(**target)).result(PATIENCE)
    assert got.state.desired == {"interval": 5}
    deleted = shadows.delete_named_shadow(
        iotshadow.DeleteNamedShadowRequest(**target)
    ).result(PATIENCE)
    assert deleted.version == 1


connection, close = {"3": connect_v3, "5": connect_v5}[args.version]()
shadows = iotshadow.IotShadowClientV2(
    connection,
    mqtt_request_response.ClientOptions(
        max_request_response_subscriptions=4,
        max_streaming_subscriptions=4,
        operation_timeout_in_seconds=PATIENCE,
    ),
)
classic(shadows)
named(shadows)
close()
print("ok")
# The C runtime below the SDK crashes now and then when the interpreter takes its objects down; all that is judged
# here has happened.
sys.stdout.flush()
os._exit(0)
