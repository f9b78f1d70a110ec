"""Paho for Python over WebSocket: a message there and back, larger than one frame of a cautious server."""

import paho.mqtt.client as mqtt
from common import Inbox, arguments

args = arguments()
connected, subscribed, messages = Inbox(), Inbox(), Inbox()
client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2,
    client_id="browser",
    protocol=mqtt.MQTTv5 if args.version == "5" else mqtt.MQTTv311,
    transport="websockets",
)
client.ws_set_options(path="/mqtt")
client.on_connect = lambda c, u, flags, reason, p: connected.put(reason)
client.on_subscribe = lambda c, u, mid, reasons, p: subscribed.put(reasons)
client.on_message = lambda c, u, message: messages.put(message)
client.connect(args.host, int(args.port), keepalive=30)
client.loop_start()
assert connected.take("CONNACK") == 0
client.subscribe("rooms/+", qos=1)
subscribed.take("SUBACK")
for payload in (b"small", bytes(100_000)):
    client.publish("rooms/1", payload, qos=1)
    assert messages.take("the message").payload == payload
client.disconnect()
client.loop_stop()
print("ok")
