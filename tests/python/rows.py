"""What the scripts that go through protocol.md row by row share: a client that asks and hears everything, and REST."""

import http.client
import json
import socket
import ssl

import paho.mqtt.client as mqtt
from common import PATIENCE, Inbox
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Refused(Exception):
    """CONNACK with this code."""


class Client:
    """Paho with inboxes instead of callbacks, and no reconnecting behind our back."""

    def __init__(self, address, name, v5=True, tls=None, will=None, transport="tcp", expiry=None):
        self.messages, self.answers, self.v5, self.name = Inbox(), Inbox(), v5, name
        session = {} if v5 else {"clean_session": True}
        protocol = mqtt.MQTTv5 if v5 else mqtt.MQTTv311
        api = mqtt.CallbackAPIVersion.VERSION2
        self.paho = mqtt.Client(
            api,
            client_id=name,
            protocol=protocol,
            transport=transport,
            reconnect_on_failure=False,
            **session,
        )
        self.paho.on_connect = lambda c, u, flags, code, p: self.answers.put(("connack", code))
        self.paho.on_message = lambda c, u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda c, u, mid, codes, p: self.answers.put((("sub", mid), codes))
        self.paho.on_publish = lambda c, u, mid, code, p: self.answers.put((("pub", mid), code))
        self.paho.on_unsubscribe = lambda c, u, mid, codes, p: self.answers.put((("un", mid), codes))
        self.paho.on_disconnect = lambda c, u, flags, code, p: self.answers.put(("gone", code))
        if tls:
            self.paho.tls_set(ca_certs=tls[0], certfile=tls[1], keyfile=tls[2])
        if will:
            self.paho.will_set(*will)
        host, port = address.rsplit(":", 1)
        start = {}
        if expiry is not None:
            properties = Properties(PacketTypes.CONNECT)
            properties.SessionExpiryInterval = expiry
            start = {"clean_start": False, "properties": properties}
        self.paho.connect("localhost" if tls else host, int(port), keepalive=600, **start)
        # what is measured here is not Nagle's algorithm waiting for a delayed acknowledgement
        if transport == "tcp":
            self.paho.socket().setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.paho.loop_start()
        code = self._answer("connack")
        if code != 0:
            self.paho.loop_stop()
            raise Refused(code.value)

    def _answer(self, what):
        return self.answers.take(f"{what} for {self.name}", lambda answer: answer[0] == what)[1]

    def subscribe(self, *filters, qos=1):
        """The codes of the SUBACK."""
        _, mid = self.paho.subscribe([(text, qos) for text in filters])
        return [code.value for code in self._answer(("sub", mid))]

    def unsubscribe(self, *filters):
        self._answer(("un", self.paho.unsubscribe(list(filters))[1]))

    def publish(self, topic, payload=b"", retain=False, **properties):
        """The code of the PUBACK."""
        if self.v5:
            said = Properties(PacketTypes.PUBLISH)
            for name, value in properties.items():
                setattr(said, name, value)
            properties = {"properties": said}
        if not isinstance(payload, (str, bytes)):
            payload = json.dumps(payload)
        info = self.paho.publish(topic, payload, qos=1, retain=retain, **properties)
        return self._answer(("pub", info.mid)).value

    def send(self, topic, payload=b"", retain=False):
        """Publishes without waiting for an answer."""
        self.paho.publish(topic, payload, qos=1, retain=retain)

    def take(self, topic):
        return self.messages.take(topic, lambda message: message.topic == topic)

    def heard(self):
        """Everything that has come up to now, in order. A message to ourselves comes behind what was sent before."""
        marker = f"marker/{self.name}"
        if not getattr(self, "marked", False):
            assert self.subscribe(marker) == [1]
            self.marked = True
        self.publish(marker)
        messages = []
        while not messages or messages[-1].topic != marker:
            messages.append(self.messages.take("marker"))
        return messages[:-1]

    def closed(self):
        """Waits until the server has ended the connection; the code of its DISCONNECT, if one came."""
        code = self._answer("gone")
        self.paho.loop_stop()
        return code.value

    def close(self):
        self.paho.disconnect()
        self._answer("gone")
        self.paho.loop_stop()

    def drop(self):
        """Ends without DISCONNECT."""
        self.paho.loop_stop()
        self.paho.socket().close()


class Rest:
    """The AWS data plane over HTTPS with a client certificate."""

    def __init__(self, address, tls):
        self.port = int(address.rsplit(":", 1)[1])
        self.tls = ssl.create_default_context(cafile=tls[0])
        self.tls.load_cert_chain(tls[1], tls[2])

    def __call__(self, method, path, body=None):
        """Status, error type, JSON."""
        connection = http.client.HTTPSConnection(
            "localhost", self.port, context=self.tls, timeout=PATIENCE
        )
        if not isinstance(body, (str, bytes, type(None))):
            body = json.dumps(body)
        connection.request(method, path, body=body)
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        return answer.status, answer.getheader("x-amzn-ErrorType"), json.loads(text or "{}")


class Rows:
    """Judges every row, so that one run tells all that do not hold."""

    def __init__(self):
        self.failed = []

    def row(self, name, holds, seen=None):
        if not holds:
            self.failed.append(f"{name}: {seen}")

    def same(self, name, seen, wanted):
        self.row(name, seen == wanted, f"{seen!r} instead of {wanted!r}")

    def finish(self):
        assert not self.failed, "rows that do not hold:\n" + "\n".join(self.failed)
        print("ok")
