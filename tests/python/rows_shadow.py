"""protocol.md 1.1 to 1.9 over MQTT: topics, fields, versions, merge, delta, limits, errors of the shadow service."""

import itertools
import json

from common import arguments
from rows import Client, Rows

args = arguments()
rows = Rows()
client = Client(args.mqtt, "asker")
client.subscribe("$aws/things/#")
OPERATIONS = ("get", "update", "delete")
fresh = (f"s{n}" for n in itertools.count())


def classic(thing):
    return f"$aws/things/{thing}/shadow"


def named(name, thing="thing"):
    return f"{classic(thing)}/name/{name}"


def ask(shadow, operation, request=b""):
    """What is answered, in order: the ends of the topics and the bodies."""
    client.publish(f"{shadow}/{operation}", request)
    answers = []
    for message in client.heard():
        end = message.topic.removeprefix(shadow + "/")
        if end not in OPERATIONS:
            answers.append((end, json.loads(message.payload)))
    return answers


def update(shadow, request, end="accepted"):
    answers = dict(ask(shadow, "update", request))
    assert f"update/{end}" in answers, (request, answers)
    return answers[f"update/{end}"]


def get(shadow):
    [(end, document)] = ask(shadow, "get")
    assert end == "get/accepted", document
    return document


def desired(state, **more):
    return {"state": {"desired": state}, **more}


def reported(state, **more):
    return {"state": {"reported": state}, **more}


def life_of_a_shadow(kind, shadow, name):
    """1.1 to 1.5 for one shadow, from nothing to its second life."""

    def same(what, seen, wanted):
        rows.same(f"{kind}: {what}", seen, wanted)

    token = {"clientToken": "t-1"}
    missing = {"code": 404, "message": f"No shadow exists with name: '{name}'"}
    for operation in ("get", "delete"):
        for request, echo in ((b"", {}), (json.dumps(token), token), (b"{no json", {})):
            [(end, body)] = ask(shadow, operation, request)
            body.pop("timestamp", None)
            same(f"{operation} of nothing {request}", (end, body), (f"{operation}/rejected", missing | echo))

    request = {"state": {"desired": {"a": 1, "b": [1, 2]}, "reported": {"a": 2}}} | token
    answers = ask(shadow, "update", request)
    same("order", [end for end, _ in answers], ["update/delta", "update/documents", "update/accepted"])
    delta, documents, accepted = (body for _, body in answers)
    now = accepted["timestamp"]
    rows.row(f"{kind}: seconds", isinstance(now, int) and 1_500_000_000 < now < 10_000_000_000, now)
    at = {"timestamp": now}
    metadata = {"desired": {"a": at, "b": [at, at]}, "reported": {"a": at}}
    same("accepted", accepted, request | {"metadata": metadata, "version": 1, "timestamp": now})
    same(
        "delta",
        delta,
        {"state": {"a": 1, "b": [1, 2]}, "metadata": metadata["desired"], "version": 1, "timestamp": now} | token,
    )
    current = {"state": request["state"], "metadata": metadata, "version": 1}
    rows.row(f"{kind}: previous of the first", documents.pop("previous", None) is None)
    same("documents", documents, {"current": current, "timestamp": now} | token)
    for echo in ({}, token):
        [(end, document)] = ask(shadow, "get", json.dumps(echo) if echo else b"")
        document.pop("timestamp")
        document["metadata"].pop("delta", None)
        wanted = current | {"state": request["state"] | {"delta": {"a": 1, "b": [1, 2]}}} | echo
        same("get", (end, document), ("get/accepted", wanted))

    answers = ask(shadow, "update", reported({"a": 1, "b": [1, 2]}))
    same("no difference, no delta", [end for end, _ in answers], ["update/documents", "update/accepted"])
    documents, accepted = (body for _, body in answers)
    same("previous", documents["previous"], current)
    same("no token, no token", "clientToken" in accepted, False)
    same("only sections sent", list(accepted["state"]), ["reported"])
    same("no delta in get", list(get(shadow)["state"]), ["desired", "reported"])

    same("a no-op counts", update(shadow, reported({"a": 1}))["version"], 3)
    same("version as expected", update(shadow, reported({"a": 1}, version=3))["version"], 4)
    stale = update(shadow, reported({"a": 9}, version=3) | token, "rejected")
    stale.pop("timestamp", None)
    same("conflict", stale, {"code": 409, "message": "Version conflict"} | token)
    same("conflict changes nothing", (get(shadow)["version"], get(shadow)["state"]["reported"]["a"]), (4, 1))
    answers = dict(ask(shadow, "update", {"state": None}))
    same("null clears", answers["update/accepted"]["version"], 5)
    rows.row(f"{kind}: null has its time", "timestamp" in answers["update/accepted"]["metadata"], answers)
    same("cleared", "desired" in get(shadow).get("state", {}), False)

    [(end, deleted)] = ask(shadow, "delete", json.dumps(token))
    time = deleted.pop("timestamp")
    rows.row(f"{kind}: delete in seconds", isinstance(time, int), time)
    same("delete", (end, deleted), ("delete/accepted", {"version": 5} | token))
    same("gone", ask(shadow, "get")[0][1]["code"], 404)
    same("deleted twice", ask(shadow, "delete")[0][0], "delete/rejected")
    same("a tombstone has a version", update(shadow, desired({}, version=5), "rejected")["code"], 409)
    same("the count goes on", update(shadow, desired({"a": 1}))["version"], 7)


def errors():
    """1.2 and 1.9."""
    shadow = named("errors")
    deep = {"x": 1}
    for _ in range(12):
        deep = {"x": deep}
    table = [
        (b"{", 400, "Invalid JSON"),
        (b"", 400, "Invalid JSON"),
        (b"[1]", 400, ""),
        ({}, 400, "Missing required node: state"),
        ({"state": 1}, 400, "State node must be an object"),
        ({"state": []}, 400, "State node must be an object"),
        (desired(1), 400, "Desired node must be an object"),
        (desired([1]), 400, "Desired node must be an object"),
        (reported("x"), 400, "Reported node must be an object"),
        ({"state": {"delta": {}}}, 400, "State contains an invalid node: 'delta'"),
        ({"state": {"wish": {}, "desired": {}}}, 400, "State contains an invalid node: 'wish'"),
        (desired({}, version="1"), 400, "Invalid version"),
        (desired({}, version=-1), 400, "Invalid version"),
        (desired({}, version=True), 400, "Invalid version"),
        (desired({}, clientToken=1), 400, "Invalid clientToken"),
        (desired({}, clientToken="t" * 65), 400, "Invalid clientToken"),
        (desired(deep), 400, "JSON contains too many levels of nesting; maximum is 8"),
        (desired({"a": [1, None]}), 400, ""),
        (desired({"a": [{"b": [None]}]}), 400, ""),
        (desired({"a": "x" * 8200}), 413, "The payload exceeds the maximum size allowed"),
        (b'{"state":{"desired":{"a":"\xff\xfe"}}}', 415, ""),
        (desired({"a": 1}, version=7), 409, "Version conflict"),
    ]
    for request, code, words in table:
        answers = ask(shadow, "update", request)
        name = f"error of {str(request)[:70]}"
        rows.same(f"{name}: only one answer", [end for end, _ in answers], ["update/rejected"])
        body = answers[0][1]
        rows.same(f"{name}: code", body.get("code"), code)
        exact = words not in ("Invalid JSON", "")
        said = body.get("message", "")
        rows.row(f"{name}: words", said == words if exact else said.startswith(words) and said, said)
        rows.row(f"{name}: fields", set(body) <= {"code", "message", "timestamp", "clientToken"}, body)
    answer = update(shadow, {"state": 1, "clientToken": "t"}, "rejected")
    rows.same("a refusal carries the token", answer.get("clientToken"), "t")
    rows.same("refusals made nothing", ask(shadow, "get")[0][1].get("code"), 404)
    good = desired({"a": 1}, version=0, clientToken="t" * 64, extra={"x": 1})
    rows.same("version 0 of nothing, longest token, unknown keys", update(shadow, good)["version"], 1)
    rows.row("unknown keys are not kept", "extra" not in json.dumps(get(shadow)))


def merging():
    """1.5 and 1.6: before, change, after."""
    a5 = {"a": {"b": {"c": {"d": {"e": 1}}}}}
    for before, change, after in [
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 3, "d": 4}}, {"a": {"b": 3, "c": 2, "d": 4}}),
        ({"a": 1, "b": 2}, {"a": None}, {"b": 2}),
        ({"a": 1}, {"x": None}, {"a": 1}),
        ({"a": {"b": 1}}, {"a": 5}, {"a": 5}),
        ({"a": 5}, {"a": {"b": 1}}, {"a": {"b": 1}}),
        ({"a": [1, 2, 3]}, {"a": [4]}, {"a": [4]}),
        ({"a": {"b": 1}}, {"a": [1]}, {"a": [1]}),
        ({"a": 1}, {"e": {}}, {"a": 1, "e": {}}),
        ({"a": 1}, {"n": {"m": None}}, {"a": 1}),
        ({"a": {"b": 1}, "c": 1}, {"a": {"b": None}}, {"a": {}, "c": 1}),
        ({"a": 1}, {"a": None}, None),
        ({"a": 1}, None, None),
        ({"a": 1}, a5, a5),
        ({"timestamp": 1}, {"timestamp": {"timestamp": 2}}, {"timestamp": {"timestamp": 2}}),
        ({"a": 1}, {"ü": "ß", "": 0, "b.c": 1.5}, {"a": 1, "ü": "ß", "": 0, "b.c": 1.5}),
    ]:
        shadow = named(next(fresh))
        update(shadow, {"state": {"desired": before, "reported": {"keep": 1}}})
        update(shadow, desired(change))
        document = get(shadow)
        rows.same(f"{change} on {before}", document["state"].get("desired"), after)
        rows.row(
            f"metadata after {change} on {before}",
            mirrors(after, document["metadata"].get("desired")),
            document["metadata"],
        )
    for empty in ({"state": {}}, desired({}), {"state": None}):
        shadow = named(next(fresh))
        rows.same(f"{empty} on nothing", update(shadow, empty)["version"], 1)
        rows.same(f"{empty} makes a shadow", get(shadow)["version"], 1)


def mirrors(state, metadata):
    """Whether the metadata has the shape of the state, with a time at every leaf."""
    if isinstance(state, dict):
        keys = isinstance(metadata, dict) and set(metadata) == set(state)
        return keys and all(mirrors(state[key], metadata[key]) for key in state)
    if isinstance(state, list):
        length = isinstance(metadata, list) and len(metadata) == len(state)
        return length and all(map(mirrors, state, metadata))
    return metadata is None if state is None else isinstance(metadata["timestamp"], int)


def deltas():
    """1.7."""
    for want, have, difference in [
        ({"a": 1, "b": 2}, {"a": 1, "c": 3}, {"b": 2}),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, {"a": {"c": 2}}),
        ({"a": [1, 2]}, {"a": [1, 3]}, {"a": [1, 2]}),
        ({"a": [1, 2]}, {"a": [1, 2]}, None),
        ({"a": {"b": 1}}, {"a": 1}, {"a": {"b": 1}}),
        ({"a": 1}, {"a": "1"}, {"a": 1}),
        ({"a": {}}, {"b": 1}, {"a": {}}),
        ({"a": 1}, {"a": 1.0}, None),
        ({"a": 1, "b": {"c": 2}}, None, {"a": 1, "b": {"c": 2}}),
        (None, {"a": 1}, None),
    ]:
        shadow, name = named(next(fresh)), f"delta of {want} and {have}"
        answers = dict(ask(shadow, "update", {"state": {"desired": want, "reported": have}}))
        rows.same(name, answers.get("update/delta", {}).get("state"), difference)
        rows.same(f"{name} in get", get(shadow)["state"].get("delta"), difference)
    shadow = named(next(fresh))
    update(shadow, desired({"a": 1, "b": 1}))
    answers = dict(ask(shadow, "update", reported({"a": 1})))
    rows.same("what was wished earlier stays in the delta", answers["update/delta"]["state"], {"b": 1})


def limits():
    """1.8, and 1.4's separate counts."""
    shadow = named(next(fresh))
    update(shadow, desired({"a": "x" * 4000}))
    rows.same("the merged document counts", update(shadow, reported({"a": "x" * 4300}), "rejected")["code"], 413)
    update(shadow, reported({"a": "x" * 4000}))
    rows.same("what is too big changes nothing", get(shadow)["version"], 2)
    for thing, name in (("t" * 128, "n" * 64), ("a:b_c-D9", "a:b_c-D9")):
        rows.same(f"names {thing[:9]}", update(named(name, thing), desired({"a": 1}))["version"], 1)
        rows.same(f"thing {thing[:9]}", update(classic(thing), desired({"a": 1}))["version"], 1)
    for bad in (named("n" * 65), classic("t" * 129), named("a b"), classic("a.b")):
        rows.same(f"no such name {bad[:50]}", ask(bad, "update", desired({"a": 1})), [])


def too_many_at_once():
    """1.8: ten requests of a thing in flight; the rest is refused, and every one is answered."""
    shadow, requests = named("busy"), 60
    for n in range(requests):
        client.send(f"{shadow}/update", json.dumps(reported({"n": n}, clientToken=f"t{n}")))
    accepted, rejected = set(), set()
    while len(accepted) + len(rejected) < requests:
        message = client.messages.take("an answer", lambda m: m.topic.endswith(("/accepted", "/rejected")))
        body = json.loads(message.payload)
        if message.topic.endswith("/accepted"):
            accepted.add(body["clientToken"])
        else:
            rejected.add(body.get("clientToken"))
            rows.same("too many", body["code"], 429)
    rows.same("one answer for each", accepted | rejected, {f"t{n}" for n in range(requests)})
    rows.row("ten are taken", len(accepted) >= 10, len(accepted))
    for _ in range(requests):
        client.answers.take("PUBACK", lambda answer: answer[0][0] == "pub")
    client.heard()


def reserved_topics():
    """1.1: who may say what."""
    base = classic("reserved")
    shared = named("s", "reserved")
    for shadow in (base, shared):
        for end in ("get/accepted", "update/accepted", "update/rejected", "update/delta", "update/documents"):
            rows.same(f"v5 publishes {end}", client.publish(f"{shadow}/{end}", b"{}"), 0x87)
    rows.same("events are ours", client.publish("$aws/events/presence/connected/x", b"{}"), 0x87)
    code = client.publish(f"{base}/update", desired({"a": 1}), retain=True)
    rows.row("v5 retains a request", code >= 0x80, hex(code))
    heard = [message.topic for message in client.heard()]
    rows.same("nothing refused is heard", heard, [])
    rows.same("a retained request is not done", ask(base, "get")[0][1]["code"], 404)
    for topic, retain in ((f"{base}/update/accepted", False), (f"{base}/update", True)):
        old = Client(args.mqtt, "old", v5=False)
        old.send(topic, json.dumps(desired({"a": 1})), retain=retain)
        old.closed()
    rows.same("v3 did nothing either", ask(base, "get")[0][1]["code"], 404)
    willing = Client(args.mqtt, "willing", will=(f"{base}/update", json.dumps(desired({"a": 1})), 1))
    willing.drop()
    rows.row("the will is heard", json.loads(client.take(f"{base}/update").payload) == desired({"a": 1}))
    rows.same("the will is not done", ask(base, "get")[0][1]["code"], 404)


life_of_a_shadow("classic", classic("thing"), "thing")
life_of_a_shadow("named", named("part"), "part")
errors()
merging()
deltas()
limits()
too_many_at_once()
reserved_topics()
client.close()
rows.finish()
