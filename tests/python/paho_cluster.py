"""A device on one node, an app on another, each with Paho: what the app wishes reaches the device, and what the device
reports reaches the app."""

import argparse
import json
import queue

import paho.mqtt.client as mqtt

parser = argparse.ArgumentParser()
parser.add_argument("--host", default="127.0.0.1")
parser.add_argument("--device-port", type=int, required=True)
parser.add_argument("--app-port", type=int, required=True)
parser.add_argument("--thing", required=True)
arguments = parser.parse_args()
shadow = f"$aws/things/{arguments.thing}/shadow"
PATIENCE = 30


def connect(client_id, port, filters, version):
    """A client that is connected and subscribed, and the queue of what it receives."""
    received, subscribed = queue.Queue(), queue.Queue()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id, protocol=version)
    client.on_message = lambda _c, _u, message: received.put((message.topic, json.loads(message.payload)))
    client.on_subscribe = lambda *_rest: subscribed.put(True)
    client.on_connect = lambda c, *_rest: c.subscribe([(f, 1) for f in filters])
    client.connect(arguments.host, port)
    client.loop_start()
    subscribed.get(timeout=PATIENCE)
    return client, received


for version in (mqtt.MQTTv311, mqtt.MQTTv5):
    device, to_device = connect(arguments.thing, arguments.device_port, [f"{shadow}/update/delta"], version)
    app, to_app = connect(f"app-of-{arguments.thing}", arguments.app_port, [f"{shadow}/update/documents"], version)
    for n in range(10):
        wish = json.dumps({"state": {"desired": {"level": n, "by": int(version)}}})
        app.publish(f"{shadow}/update", wish, qos=1).wait_for_publish(PATIENCE)
        topic, delta = to_device.get(timeout=PATIENCE)
        assert topic.endswith("/delta") and delta["state"]["level"] == n, (topic, delta)
        device.publish(f"{shadow}/update", json.dumps({"state": {"reported": delta["state"]}}), qos=1)
        while True:
            _topic, documents = to_app.get(timeout=PATIENCE)
            if documents["current"]["state"].get("reported", {}).get("level") == n:
                break
    for client in (device, app):
        client.disconnect()
        client.loop_stop()
print("ok")
