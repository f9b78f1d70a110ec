"""protocol.md 4: lifecycle events with their fields, take-over, `$` topics, retained messages, shared subscriptions."""

import json
import socket

from common import PATIENCE, arguments
from rows import Client, Refused, Rows

args = arguments()
rows = Rows()
watcher = Client(args.mqtt, "watcher")
EVENTS = "$aws/events"
watcher.subscribe(f"{EVENTS}/presence/#", f"{EVENTS}/subscriptions/#")
COMMON = {"clientId", "timestamp", "eventType", "sessionIdentifier", "principalIdentifier"}


def event(kind, name, *fields, client="device"):
    body = json.loads(watcher.take(f"{EVENTS}/{kind}/{name}/{client}").payload)
    body.pop("thingName", None)
    rows.same(f"fields of {name}", set(body), COMMON | set(fields))
    rows.same(f"names in {name}", (body["clientId"], body["eventType"]), (client, name))
    rows.row(f"milliseconds in {name}", body["timestamp"] > 1_500_000_000_000, body)
    return body


def connected(client="device"):
    body = event("presence", "connected", "ipAddress", "versionNumber", client=client)
    rows.same("address", body["ipAddress"], "127.0.0.1")
    return body


def disconnected(reason, by_client, client="device"):
    body = event(
        "presence",
        "disconnected",
        "clientInitiatedDisconnect",
        "disconnectReason",
        "versionNumber",
        client=client,
    )
    seen = (body["disconnectReason"], body["clientInitiatedDisconnect"])
    rows.same(f"end by {reason}", seen, (reason, by_client))
    return body


def one_connection(begin, end):
    for field in ("versionNumber", "sessionIdentifier", "principalIdentifier"):
        rows.same(f"{field} of one connection", begin[field], end[field])
    return begin["versionNumber"]


def lifecycle():
    versions = []
    for v5 in (False, True):
        device = Client(args.mqtt, "device", v5=v5)
        begin = connected()
        device.close()
        versions.append(one_connection(begin, disconnected("CLIENT_INITIATED_DISCONNECT", True)))

    device = Client(args.mqtt, "device", will=("last/words", "gone", 1))
    watcher.subscribe("last/words")
    begin = connected()
    device.drop()
    versions.append(one_connection(begin, disconnected("CONNECTION_LOST", False)))
    rows.same("the will of a lost connection", watcher.take("last/words").payload, b"gone")

    older = Client(args.mqtt, "device", will=("last/words", "taken over", 1))
    first = connected()
    newer = Client(args.mqtt, "device")
    second = connected()
    rows.same("the older one is told", older.closed(), 0x8E)
    versions.append(one_connection(first, disconnected("DUPLICATE_CLIENTID", False)))
    versions.append(second["versionNumber"])
    rows.same("the will of a connection taken over", watcher.take("last/words").payload, b"taken over")
    rows.row("another session, another name", first["sessionIdentifier"] != second["sessionIdentifier"])
    rows.same("the first version", versions[0], 0)
    rows.row("versions rise", versions == sorted(set(versions)), versions)

    newer.subscribe("a", "b/+")
    body = event("subscriptions", "subscribed", "topics")
    rows.same("subscribed to", body["topics"], ["a", "b/+"])
    newer.unsubscribe("a")
    rows.same("unsubscribed from", event("subscriptions", "unsubscribed", "topics")["topics"], ["a"])
    newer.close()
    one_connection(second, disconnected("CLIENT_INITIATED_DISCONNECT", True))

    forbidden = Client(args.mqtt, "device", v5=False)
    connected()
    forbidden.send("$aws/things/x/shadow/update/accepted", b"{}")
    forbidden.closed()
    body = event(
        "presence", "disconnected", "clientInitiatedDisconnect", "disconnectReason", "versionNumber"
    )
    rows.row("a forbidden publish", body["disconnectReason"] in ("AUTH_ERROR", "FORBIDDEN_ACCESS"), body)

    silent = Client(args.mqtt, "device", v5=False)
    connected()
    silent.paho.socket().sendall(b"\x00\x00")
    silent.closed()
    disconnected("CLIENT_ERROR", False)
    with raw_connection("device", keep_alive=1):
        connected()
        disconnected("MQTT_KEEP_ALIVE_TIMEOUT", False)

    watcher.heard()
    Client(args.mqtt, "plus+hash#").close()
    rows.same("ids with wildcards have no events", [m.topic for m in watcher.heard()], [])


def dollar_topics():
    listener = Client(args.mqtt, "listener")
    listener.subscribe("#", "+/events/#", "+/things/#")
    watcher.publish("$aws/things/x/shadow/get")
    watcher.publish("plain", "x")
    rows.same("`#` and `+` do not match `$`", [m.topic for m in listener.heard() if not m.retain], ["plain"])
    listener.close()


def retained():
    keeper = Client(args.mqtt, "keeper")
    keeper.publish("kept/a", "1", retain=True)
    keeper.subscribe("kept/a", "kept/b")
    message = keeper.take("kept/a")
    rows.same("retained", (message.payload, message.retain), (b"1", True))
    keeper.publish("kept/a", "", retain=True)
    heard = [(m.payload, m.retain) for m in keeper.heard()]
    rows.same("the deletion is delivered", heard, [(b"", False)])
    keeper.publish("kept/b", "2", retain=True)
    keeper.heard()
    other = Client(args.mqtt, "other")
    other.subscribe("kept/a", "$share/g/kept/b")
    rows.same("deleted, or shared, is not sent", [m.topic for m in other.heard()], [])
    other.close()
    keeper.close()


def shared():
    members = [Client(args.mqtt, f"member-{v5}", v5=v5) for v5 in (False, True)]
    for member in members:
        rows.same("shared for both versions", member.subscribe("$share/group/work/+"), [1])
    outsider = Client(args.mqtt, "outsider")
    outsider.subscribe("$share/others/work/+", "work/x")
    for n in range(40):
        watcher.publish("work/x", str(n))
    seen = [[m.payload for m in member.heard()] for member in members]
    every = sorted(str(n).encode() for n in range(40))
    rows.same("each to one member", sorted(seen[0] + seen[1]), every)
    rows.row("both have work", all(seen), [len(part) for part in seen])
    rows.same("another group and a plain filter", len(outsider.heard()), 80)
    for bad in (b"$share/g", b"$share//a", b"$share/g+/a", b"$share/g#/a", b"$share/g/"):
        rows.row(f"bad {bad}", not granted(bad))
    for client in (*members, outsider):
        client.close()


def a_group_with_a_member_that_is_away():
    member = Client(args.mqtt, "persistent", expiry=600)
    member.subscribe("$share/away/jobs")
    member.close()
    watcher.publish("jobs", "kept")
    member = Client(args.mqtt, "persistent", expiry=600)
    rows.same("queued for the group", member.take("jobs").payload, b"kept")
    member.close()
    Client(args.mqtt, "persistent", expiry=0).close()


def limits():
    """4.3, as far as we keep AWS's."""
    for v5 in (False, True):
        for name in ("$reserved", "x" * 129):
            try:
                Client(args.mqtt, name, v5=v5).close()
                rows.row(f"client id {name[:9]}, v5 {v5}", False, "accepted")
            except Refused as refused:
                rows.same(f"client id {name[:9]}, v5 {v5}", refused.args[0], 0x85)
        Client(args.mqtt, "x" * 128, v5=v5).close()
    client = Client(args.mqtt, "many")
    codes = [client.subscribe(f"many/{n}")[0] for n in range(51)]
    rows.same("50 subscriptions", codes, [1] * 50 + [0x97])
    client.close()
    client = Client(args.mqtt, "many")
    rows.same("a group's name", client.subscribe(f"$share/{'g' * 128}/a", f"$share/{'g' * 129}/a"), [1, 0x8F])
    client.close()
    with raw_connection("slow") as wire:
        wire.sendall(b"\x82\x08\x00\x01" + text(b"use") + b"\x01")
        answers = wire.makefile("rb")
        assert answers.read(9) == b"\x20\x02\x00\x00\x90\x03\x00\x01\x01"
        for n in range(110):
            watcher.publish("use", f"{n:03}")
        wire.sendall(b"\xc0\x00")
        received = b""
        while not received.endswith(b"\xd0\x00"):
            received += answers.read(1)
        rows.same("100 in flight", received.count(b"\x00\x03use"), 100)


def web_sockets():
    for v5 in (False, True):
        client = Client(args.ws, "browser", v5=v5, transport="websockets")
        rows.same("subscribe", client.subscribe("web/#"), [1])
        client.publish("web/x", "y" * 70_000)
        rows.same("a large frame", client.take("web/x").payload, b"y" * 70_000)
        client.close()


def text(value):
    return len(value).to_bytes(2, "big") + value


def raw_connection(name, keep_alive=60):
    """MQTT 3.1.1 as bytes, for what Paho would not send."""
    host, port = args.mqtt.rsplit(":", 1)
    wire = socket.create_connection((host, int(port)), PATIENCE)
    body = text(b"MQTT") + b"\x04\x02" + keep_alive.to_bytes(2, "big") + text(name.encode())
    wire.sendall(b"\x10" + bytes([len(body)]) + body)
    return wire


def granted(filter_text):
    with raw_connection("bad") as wire:
        body = b"\x00\x01" + text(filter_text) + b"\x01"
        wire.sendall(b"\x82" + bytes([len(body)]) + body + b"\xe0\x00")
        answer = b"".join(iter(lambda: wire.recv(64), b""))
    return answer.startswith(b"\x20\x02\x00\x00") and answer.endswith(b"\x90\x03\x00\x01\x01")


lifecycle()
dollar_topics()
retained()
shared()
a_group_with_a_member_that_is_away()
limits()
web_sockets()
watcher.close()
rows.finish()
