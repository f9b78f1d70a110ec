"""protocol.md 1.10 for a caller whose policy grants all: connections, retained messages and every header of Publish,
with boto3, and what MQTT clients notice."""

import json

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from common import arguments
from rows import Client, Rows

args = arguments()
rows = Rows()
aws = boto3.client(
    "iot-data",
    region_name="eu-central-1",
    endpoint_url=f"https://localhost:{args.aws.rsplit(':', 1)[1]}",
    verify=args.ca,
    config=Config(client_cert=(args.cert, args.key), signature_version=UNSIGNED, retries={"total_max_attempts": 1}),
)
watcher = Client(args.mqtt, "watcher")
watcher.subscribe("$aws/events/presence/#", "last/words")


def refused(name, exception, call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        rows.same(name, error.response["Error"]["Code"], exception)
        return
    rows.row(name, False, "was accepted")


def connections():
    device = Client(args.mqtt, "device", will=("last/words", "gone", 1))
    device.subscribe("a/+", "b", qos=1)
    seen = aws.get_connection(clientId="device", includeSocketInformation=True)
    rows.same("connected", (seen["connected"], seen["clientId"], seen["sourceIp"]), (True, "device", "127.0.0.1"))
    rows.same("its terms", (seen["keepAliveDuration"], seen["cleanSession"], seen["sessionExpiry"]), (600, True, 0))
    rows.row("since", "connectedSince" in seen and "disconnectedSince" not in seen, seen)
    listed = aws.list_subscriptions(clientId="device", maxResults=1)
    rows.row("a page of subscriptions", len(listed["subscriptions"]) == 1 and listed.get("nextToken"), listed)
    more = aws.list_subscriptions(clientId="device", maxResults=1, nextToken=listed["nextToken"])
    topics = {s["topicFilter"]: s["qos"] for page in (listed, more) for s in page["subscriptions"]}
    rows.same("subscriptions", topics, {"a/+": 1, "b": 1})

    aws.send_direct_message(clientId="device", topic="for/you/alone", payload=b"psst", contentType="text/plain")
    message = device.take("for/you/alone")
    rows.same("direct", (message.payload, message.properties.ContentType), (b"psst", "text/plain"))

    aws.delete_connection(clientId="device", preventWillMessage=True)
    device.closed()
    event = json.loads(watcher.take("$aws/events/presence/disconnected/device").payload)
    rows.same("who ended it", event["disconnectReason"], "API_INITIATED_DISCONNECT")
    rows.same("no will", [m.topic for m in watcher.heard() if m.topic == "last/words"], [])
    again = Client(args.mqtt, "device", will=("last/words", "gone", 1))
    aws.delete_connection(clientId="device")
    again.closed()
    rows.same("a will", watcher.take("last/words").payload, b"gone")
    for call in (aws.get_connection, aws.delete_connection, aws.list_subscriptions):
        refused(f"{call.__name__} of nobody", "ResourceNotFoundException", call, clientId="nobody")


def retained_messages():
    for n in range(3):
        aws.publish(topic=f"kept/{n}", qos=1, retain=True, payload=b"x" * n + b"y")
    one = aws.get_retained_message(topic="kept/2")
    rows.same("retained", (one["topic"], one["payload"], one["qos"]), ("kept/2", b"xxy", 1))
    rows.row("milliseconds", one["lastModifiedTime"] > 1_500_000_000_000, one)
    found, token = [], {}
    while token is not None:
        page = aws.list_retained_messages(maxResults=2, **token)
        found += [(entry["topic"], entry["payloadSize"], entry["qos"]) for entry in page["retainedTopics"]]
        token = {"nextToken": page["nextToken"]} if page.get("nextToken") else None
    rows.same("list", sorted(found), [("kept/0", 1, 1), ("kept/1", 2, 1), ("kept/2", 3, 1)])
    aws.publish(topic="kept/2", qos=1, retain=True, payload=b"")
    refused("deleted", "ResourceNotFoundException", aws.get_retained_message, topic="kept/2")


def publishing():
    watcher.subscribe("up/#")
    aws.publish(
        topic="up/all",
        qos=1,
        payload=b"{}",
        userProperties=json.dumps([{"a": "1"}, {"a": "2"}]),
        payloadFormatIndicator="UTF8_DATA",
        contentType="application/json",
        responseTopic="answers",
        correlationData="NDI=",
        messageExpiry=60,
    )
    said = watcher.take("up/all").properties
    rows.same("user properties", said.UserProperty, [("a", "1"), ("a", "2")])
    seen = (said.PayloadFormatIndicator, said.ContentType, said.ResponseTopic, said.CorrelationData)
    rows.same("properties", seen, (1, "application/json", "answers", b"42"))
    rows.row("expiry", 0 < said.MessageExpiryInterval <= 60, said.MessageExpiryInterval)
    lie = dict(payloadFormatIndicator="UTF8_DATA", payload=b"\xff")
    refused("not UTF-8", "InvalidRequestException", aws.publish, topic="up/x", **lie)
    refused("a filter", "InvalidRequestException", aws.publish, topic="up/#", payload=b"")
    refused("too large", "RequestEntityTooLargeException", aws.publish, topic="up/x", payload=b"x" * 140_000)
    refused("reserved", "ForbiddenException", aws.publish, topic="$aws/events/presence/connected/x", payload=b"")
    aws.publish(topic="$aws/things/web/shadow/update", qos=1, payload=b'{"state":{"desired":{"a":1}}}')


connections()
retained_messages()
publishing()
watcher.close()
rows.finish()
