"""protocol.md 5: what a device with a certificate may do, and how the refusals look in MQTT 3.1.1 and 5."""

import json

from common import arguments
from rows import Client, Refused, Rows

args = arguments()
rows = Rows()
tls = (args.ca, args.cert, args.key)
thing = args.thing
watcher = Client(args.mqtt, "watcher")
watcher.subscribe("umbel/#", "$aws/things/#", "$aws/commands/#")
events = "$aws/events/presence/connect_failed/+"
watcher.subscribe(events)

MAY_PUBLISH = (
    "$aws/things/T/shadow/get",
    "$aws/things/T/shadow/update",
    "$aws/things/T/shadow/delete",
    "$aws/things/T/shadow/name/part/get",
    "$aws/things/T/shadow/name/part/update",
    "$aws/things/T/shadow/name/part/delete",
    "$aws/things/T/jobs/get",
    "$aws/things/T/jobs/start-next",
    "$aws/things/T/jobs/job-1/get",
    "$aws/things/T/jobs/job-1/update",
    "$aws/things/T/jobs/$next/get",
    "$aws/commands/things/T/executions/e-1/response/json",
    "$aws/commands/clients/T/executions/e-1/response/json",
    "umbel/devices/T/up",
)
MAY_SUBSCRIBE = (
    "$aws/things/T/shadow/get/accepted",
    "$aws/things/T/shadow/get/+",
    "$aws/things/T/shadow/delete/+",
    "$aws/things/T/shadow/update/delta",
    "$aws/things/T/shadow/update/documents",
    "$aws/things/T/shadow/#",
    "$aws/things/T/shadow/name/part/get/+",
    "$aws/things/T/shadow/name/part/update/delta",
    "$aws/things/T/jobs/notify",
    "$aws/things/T/jobs/notify-next",
    "$aws/things/T/jobs/start-next/+",
    "$aws/things/T/jobs/$next/get/+",
    "$aws/commands/things/T/executions/+/request/json",
    "$aws/commands/clients/T/executions/#",
    "umbel/devices/T/#",
    "$share/g/umbel/devices/T/down",
)
MAY_NOT_PUBLISH = (
    "$aws/things/T/shadow/update/accepted",
    "$aws/things/T/shadow/update/rejected",
    "$aws/things/T/shadow/update/delta",
    "$aws/things/T/shadow/update/documents",
    "$aws/things/T/shadow/get/accepted",
    "$aws/things/T/shadow/name/part/update/delta",
    "$aws/things/T/shadow/name/part/update/accepted",
    "$aws/things/T/jobs/notify",
    "$aws/things/T/jobs/notify-next",
    "$aws/things/T/jobs/job-1/update/accepted",
    "$aws/commands/things/T/executions/e-1/request/json",
    "$aws/events/presence/connected/T",
    "$aws/events/job/1/completed",
    "$SYS/x",
    "anything",
    "umbel/devices",
)
MAY_NOT_SUBSCRIBE = (
    "#",
    "+/+",
    "$aws/#",
    "$aws/things/+/shadow/update/delta",
    "$aws/things/+/shadow/#",
    "$aws/events/#",
    "$aws/events/presence/connected/T",
    "umbel/#",
    "umbel/devices/+/down",
    "$share/g/#",
    "$share/g/umbel/devices/+/down",
    "anything",
)


def of(name, topics):
    return [topic.replace("/T", f"/{name}", 1) if "T" in topic else topic for topic in topics]


def others(topics):
    """The same topics of a thing whose name only begins like ours, and of another."""
    return of(f"{thing}2", topics) + of("other", topics)


def in_version_5():
    device = Client(args.mqtts, thing, tls=tls)
    for topic in of(thing, MAY_PUBLISH):
        code = device.publish(topic, json.dumps({"state": {}}))
        rows.row(f"publish {topic}", code < 0x80, hex(code))
        rows.same(f"{topic} arrives", watcher.take(topic).topic, topic)
    for text in of(thing, MAY_SUBSCRIBE):
        rows.same(f"subscribe {text}", device.subscribe(text), [1])
        device.unsubscribe(text)
    watcher.heard()
    for topic in of(thing, MAY_NOT_PUBLISH) + others(MAY_PUBLISH):
        rows.same(f"publish {topic}", device.publish(topic, b"{}"), 0x87)
    rows.same("nothing refused arrives", [message.topic for message in watcher.heard()], [])
    for text in of(thing, MAY_NOT_SUBSCRIBE) + others(MAY_SUBSCRIBE):
        rows.same(f"subscribe {text}", device.subscribe(text), [0x87])
    mixed = device.subscribe(f"umbel/devices/{thing}/down", "anything")
    rows.same("one SUBSCRIBE, two answers", mixed, [1, 0x87])
    device.close()


def in_version_3():
    device = Client(args.mqtts, thing, v5=False, tls=tls)
    allowed, forbidden = of(thing, MAY_SUBSCRIBE), of(thing, MAY_NOT_SUBSCRIBE)
    rows.same("v3 subscribes", device.subscribe(*allowed), [1] * len(allowed))
    rows.same("v3 is told 0x80", device.subscribe(*forbidden), [0x80] * len(forbidden))
    device.close()
    for topic in (f"$aws/things/{thing}/shadow/update/accepted", "$aws/things/other/shadow/update", "anything"):
        device = Client(args.mqtts, thing, v5=False, tls=tls)
        device.send(topic, b"{}")
        device.closed()
    rows.row("nothing arrives", not any(m.topic == "anything" for m in watcher.heard()))


def at_the_door():
    for v5 in (True, False):
        try:
            Client(args.mqtts, "other", v5=v5, tls=tls).close()
            rows.row("a certificate speaks for its own device only", False)
        except Refused as refused:
            # Paho gives the 5 of MQTT 3.1.1 the number it has in MQTT 5
            rows.same(f"CONNACK, v5 {v5}", refused.args[0], 0x87)
        event = json.loads(watcher.take("$aws/events/presence/connect_failed/other").payload)
        rows.same("reason", event["connectFailureReason"], "AUTHORIZATION_FAILED")
        rows.row("who", len(event["principalIdentifier"]) == 64 and event["ipAddress"] == "127.0.0.1", event)
        fields = {"clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier", "ipAddress"}
        rows.row("fields", fields <= set(event), event)


in_version_5()
in_version_3()
at_the_door()
watcher.close()
rows.finish()
