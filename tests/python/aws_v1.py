"""The AWS IoT device SDK v1 for Python, unmodified, over mutual TLS: classic shadow."""

import json

from AWSIoTPythonSDK.MQTTLib import AWSIoTMQTTShadowClient
from common import PATIENCE, Inbox, arguments

args = arguments()
client = AWSIoTMQTTShadowClient(args.thing)
client.configureEndpoint(args.host, int(args.port))
client.configureCredentials(args.ca, args.key, args.cert)
client.configureConnectDisconnectTimeout(PATIENCE)
client.configureMQTTOperationTimeout(PATIENCE)
assert client.connect()

shadow = client.createShadowHandlerWithName(args.thing, True)
answers, deltas = Inbox(), Inbox()


def answered(payload, status, token):
    answers.put((status, payload))


shadow.shadowRegisterDeltaCallback(lambda payload, status, token: deltas.put(json.loads(payload)))
shadow.shadowGet(answered, PATIENCE)
status, payload = answers.take("get")
assert status == "rejected" and json.loads(payload)["code"] == 404, payload

shadow.shadowUpdate(json.dumps({"state": {"desired": {"power": "on"}}}), answered, PATIENCE)
status, payload = answers.take("update")
assert status == "accepted" and json.loads(payload)["version"] == 1, payload
delta = deltas.take("delta")
assert delta["state"] == {"power": "on"} and delta["version"] == 1, delta

shadow.shadowGet(answered, PATIENCE)
status, payload = answers.take("get")
assert status == "accepted" and json.loads(payload)["state"]["delta"] == {"power": "on"}, payload

shadow.shadowDelete(answered, PATIENCE)
status, payload = answers.take("delete")
assert status == "accepted", payload
client.disconnect()
print("ok")
