"""protocol.md 1.10: the AWS data plane over HTTPS, with its errors, and what MQTT hears of it."""

import json

from common import arguments
from rows import Client, Rest, Rows

args = arguments()
rows = Rows()
tls = (args.ca, args.cert, args.key)
rest = Rest(args.aws, tls)
thing = args.thing
shadow = f"/things/{thing}/shadow"
listing = f"/api/things/shadow/ListNamedShadowsForThing/{thing}"
client = Client(args.mqtt, "watcher")
client.subscribe(f"$aws/things/{thing}/shadow/#", "umbel/devices/#")


def answer(name, seen, status, error, *fields):
    rows.same(name, seen[:2], (status, error))
    rows.row(f"{name}: fields", set(fields) <= set(seen[2]), seen[2])
    return seen[2]


def refused(name, seen, status, error):
    return answer(name, seen, status, f"{error}Exception", "message", "traceId").get("message", "")


def shadows():
    for query, name in (("", thing), ("?name=part", "part")):
        path = shadow + query
        words = refused("get of nothing", rest("GET", path), 404, "ResourceNotFound")
        rows.same("its words", words, f"No shadow exists with name: '{name}'")
        refused("delete of nothing", rest("DELETE", path), 404, "ResourceNotFound")
        request = {"state": {"desired": {"a": 1}}, "clientToken": "t"}
        made = answer("update", rest("POST", path, request), 200, None, "state", "metadata", "timestamp")
        rows.same("update echoes", (made["version"], made["clientToken"], made["state"]), (1, "t", request["state"]))
        ends = [message.topic.rsplit("/", 2)[-2:] for message in client.heard()]
        rows.same("MQTT hears", ends, [["update", end] for end in ("delta", "documents", "accepted")])
        got = answer("get", rest("GET", path), 200, None, "metadata", "timestamp")
        rows.same("document", got["state"], {"desired": {"a": 1}, "delta": {"a": 1}})
        for bad, status, error in (
            ({"state": {"desired": {}}, "version": 9}, 409, "Conflict"),
            (b"{", 400, "InvalidRequest"),
            ({}, 400, "InvalidRequest"),
            ({"state": {"desired": {"a": "x" * 8200}}}, 413, "RequestEntityTooLarge"),
            (b'{"state":{"desired":{"a":"\xff"}}}', 415, "UnsupportedDocumentEncoding"),
        ):
            refused(f"update {str(bad)[:40]}", rest("POST", path, bad), status, error)
        rows.same("MQTT hears of no failure", [m.topic for m in client.heard()], [])
        gone = answer("delete", rest("DELETE", path), 200, None, "timestamp")
        rows.same("deleted version", gone["version"], 1)
        client.heard()
    refused("a bad name", rest("GET", f"{shadow}?name=a%20b"), 400, "InvalidRequest")
    refused("a bad thing", rest("GET", "/things/a.b/shadow"), 400, "InvalidRequest")
    refused("another method", rest("PUT", shadow), 405, "MethodNotAllowed")
    for method in ("GET", "POST", "DELETE"):
        other = rest(method, "/things/other/shadow", {"state": {}})
        refused(f"{method} of somebody else's", other, 403, "Forbidden")


def names():
    empty = answer("nothing to list", rest("GET", listing), 200, None, "timestamp")
    rows.same("an empty list", (empty["results"], "nextToken" in empty), ([], False))
    rest("POST", shadow, {"state": {}})
    for n in range(5):
        rest("POST", f"{shadow}?name=n{n}", {"state": {}})
    seen, token, pages = [], "", 0
    while token is not None:
        more = f"&nextToken={token}" if token else ""
        page = answer("a page", rest("GET", f"{listing}?pageSize=2{more}"), 200, None, "results")
        seen, token, pages = seen + page["results"], page.get("nextToken"), pages + 1
        rows.row("a page's size", len(page["results"]) <= 2)
    rows.same("names without the classic", (sorted(seen), pages), ([f"n{n}" for n in range(5)], 3))
    for size in ("0", "101", "x"):
        refused(f"page size {size}", rest("GET", f"{listing}?pageSize={size}"), 400, "InvalidRequest")
    refused("a foreign token", rest("GET", f"{listing}?nextToken=%21%21"), 400, "InvalidRequest")


def messages():
    mine = f"umbel/devices/{thing}"
    for query in ("?qos=0", "?qos=1", "?qos=1&messageExpiry=60&contentType=text"):
        answer(f"publish {query}", rest("POST", f"/topics/{mine}/up{query}", b"hi"), 200, None, "message")
        rows.same("heard", client.take(f"{mine}/up").payload, b"hi")
    refused("qos 2", rest("POST", f"/topics/{mine}/up?qos=2", b"hi"), 400, "InvalidRequest")
    refused("publish as somebody else", rest("POST", "/topics/umbel/devices/other/x", b""), 403, "Forbidden")
    refused("publish an answer", rest("POST", f"/topics/%24aws{shadow}/update/accepted", b""), 403, "Forbidden")
    answer("retain", rest("POST", f"/topics/{mine}/kept?qos=1&retain=true", b"kept"), 200, None)
    late = Client(args.mqtt, "late")
    late.subscribe(f"{mine}/kept")
    message = late.take(f"{mine}/kept")
    rows.same("retained is kept", (message.payload, message.retain), (b"kept", True))
    late.close()


def closed_doors():
    """What a device's own policy does not grant is refused in AWS's words."""
    for path in ("/retainedMessage", f"/retainedMessage/umbel/devices/{thing}/kept", "/connections/watcher"):
        seen = rest("GET", path)
        rows.row(f"{path}", seen[:2] == (403, "ForbiddenException") or seen[0] == 200, seen)
    refused("nothing there", rest("GET", "/nothing/here"), 404, "ResourceNotFound")


shadows()
names()
messages()
closed_doors()
client.close()
rows.finish()
