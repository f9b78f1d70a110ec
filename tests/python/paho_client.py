"""Paho for Python, MQTT 3.1.1 and 5, over mutual TLS or plain: what a general client expects of a broker."""

import json
import uuid

import paho.mqtt.client as mqtt
from common import PATIENCE, Inbox, arguments
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

args = arguments()
V5 = args.version == "5"
run = uuid.uuid4().hex[:8]


class Client:
    """A connected client whose callbacks go to inboxes."""

    def __init__(self, name, clean=True, expiry=0, will=None):
        self.messages, self.connected, self.done = Inbox(), Inbox(), Inbox()
        protocol = mqtt.MQTTv5 if V5 else mqtt.MQTTv311
        session = {} if V5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=protocol, **session
        )
        self.client.on_connect = lambda c, u, flags, reason, p: self.connected.put((flags, reason, p))
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.on_subscribe = lambda c, u, mid, reasons, p: self.done.put(("sub", reasons))
        self.client.on_disconnect = lambda c, u, f, reason, p: self.done.put(("gone", reason))
        if will:
            self.client.will_set(will, "gone", qos=1)
        start = {}
        if V5:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            start = {"clean_start": clean, "properties": properties}
        self.client.connect(args.host, int(args.port), keepalive=30, **start)
        self.client.loop_start()
        self.flags, reason, self.properties = self.connected.take("CONNACK")
        assert reason == 0, reason

    def subscribe(self, topic, qos=1, **more):
        if V5:
            self.client.subscribe(topic, options=SubscribeOptions(qos=qos, **more))
        else:
            self.client.subscribe(topic, qos=qos)
        _, reasons = self.done.take("SUBACK", lambda item: item[0] == "sub")
        assert reasons[0].value == qos, reasons

    def publish(self, topic, payload, **more):
        self.client.publish(topic, payload, **more).wait_for_publish(PATIENCE)

    def take(self, topic):
        return self.messages.take(topic, lambda message: message.topic == topic)

    def close(self):
        self.client.disconnect()
        self.done.take("end", lambda item: item[0] == "gone")
        self.client.loop_stop()

    def drop(self):
        """Ends without DISCONNECT."""
        self.client.loop_stop()
        self.client.socket().close()


def every_quality_of_service():
    a, b = Client(f"a-{run}"), Client(f"b-{run}")
    for qos in (0, 1, 2):
        topic = f"test/{run}/qos{qos}"
        b.subscribe(topic, qos)
        a.publish(topic, f"m{qos}", qos=qos)
        message = b.take(topic)
        assert (message.payload, message.qos) == (f"m{qos}".encode(), qos)
    a.close(), b.close()


def retained_messages():
    a = Client(f"a-{run}")
    topic = f"test/{run}/retained"
    a.publish(topic, "kept", qos=1, retain=True)
    a.subscribe(f"test/{run}/+")
    message = a.take(topic)
    assert message.retain and message.payload == b"kept"
    a.publish(topic, "", qos=1, retain=True)
    b = Client(f"b-{run}")
    b.subscribe(topic)
    b.publish(f"{topic}/end", "x")
    a.close(), b.close()
    assert b.messages.empty(), "a deleted retained message came"


def wills():
    watcher = Client(f"w-{run}")
    topic = f"test/{run}/will"
    watcher.subscribe(topic)
    Client(f"good-{run}", will=topic).close()
    Client(f"lost-{run}", will=topic).drop()
    assert watcher.take(topic).payload == b"gone"
    watcher.close()
    assert watcher.messages.empty(), "the will of a clean DISCONNECT was sent"


def persistent_sessions():
    topic, name = f"test/{run}/offline", f"p-{run}"
    session = Client(name, clean=False, expiry=600)
    assert not session.flags.session_present
    session.subscribe(topic)
    session.close()
    a = Client(f"a-{run}")
    for n in range(10):
        a.publish(topic, str(n), qos=1)
    a.close()
    again = Client(name, clean=False, expiry=600)
    assert again.flags.session_present
    received = [again.take(topic).payload for _ in range(10)]
    assert received == [str(n).encode() for n in range(10)], received
    again.close()
    fresh = Client(name, clean=True)
    assert not fresh.flags.session_present
    fresh.close()


def shared_subscriptions():
    topic = f"test/{run}/work"
    members = [Client(f"m{n}-{run}") for n in range(3)]
    for member in members:
        member.subscribe(f"$share/group/{topic}")
    a = Client(f"a-{run}")
    got = Inbox()
    for member in members:
        member.client.on_message = lambda c, u, message: got.put(message.payload)
    for n in range(30):
        a.publish(topic, str(n), qos=1)
    received = sorted(int(got.take("work")) for _ in range(30))
    assert received == list(range(30)), received
    for client in (a, *members):
        client.close()


def version_5_properties():
    a, b = Client(f"a-{run}"), Client(f"b-{run}")
    topic = f"test/{run}/request"
    b.subscribe(topic)
    properties = Properties(PacketTypes.PUBLISH)
    properties.ResponseTopic = f"test/{run}/answer"
    properties.CorrelationData = b"42"
    properties.UserProperty = [("k", "v"), ("k", "w")]
    properties.ContentType = "text/plain"
    properties.MessageExpiryInterval = 60
    properties.PayloadFormatIndicator = 1
    a.publish(topic, "hello", qos=1, properties=properties)
    got = b.take(topic).properties
    assert got.ResponseTopic == f"test/{run}/answer" and got.CorrelationData == b"42"
    assert got.UserProperty == [("k", "v"), ("k", "w")], got.UserProperty
    assert got.ContentType == "text/plain" and got.PayloadFormatIndicator == 1
    assert 0 < got.MessageExpiryInterval <= 60
    a.close(), b.close()


def no_local_and_retain_as_published():
    a = Client(f"a-{run}")
    topic = f"test/{run}/local"
    a.subscribe(topic, noLocal=True)
    a.publish(topic, "mine", qos=1)
    b = Client(f"b-{run}")
    b.publish(topic, "theirs", qos=1)
    assert a.take(topic).payload == b"theirs"
    a.close(), b.close()


def take_over():
    first = Client(f"t-{run}")
    second = Client(f"t-{run}")
    _, reason = first.done.take("loss", lambda item: item[0] == "gone")
    if V5:
        assert reason.value == 0x8E, reason
    first.client.loop_stop()
    second.close()


def shadow():
    thing = f"paho-{run}"
    client = Client(thing)
    base = f"$aws/things/{thing}/shadow"
    client.subscribe(f"{base}/update/+")
    client.publish(f"{base}/update", json.dumps({"state": {"desired": {"a": 1}}}), qos=1)
    topics = [client.messages.take("shadow").topic.rsplit("/", 1)[1] for _ in range(3)]
    assert topics == ["delta", "documents", "accepted"], topics
    client.close()


every_quality_of_service()
retained_messages()
wills()
persistent_sessions()
shared_subscriptions()
take_over()
shadow()
if V5:
    version_5_properties()
    no_local_and_retain_as_published()
print("ok")
