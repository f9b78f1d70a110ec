"""boto3's iot-data client, unmodified, over mutual TLS."""

import json
import uuid

import boto3
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from common import arguments

args = arguments()
client = boto3.client(
    "iot-data",
    region_name="eu-central-1",
    endpoint_url=f"https://{args.host}:{args.port}",
    verify=args.ca,
    config=Config(client_cert=(args.cert, args.key), signature_version=UNSIGNED),
)


def body(answer):
    return json.loads(answer["payload"].read())


def refused(exception, call, **parameters):
    try:
        call(**parameters)
    except ClientError as error:
        assert isinstance(error, getattr(client.exceptions, exception)), error
        return error.response
    raise AssertionError(f"{exception} was expected")


missing = refused("ResourceNotFoundException", client.get_thing_shadow, thingName=args.thing)
assert missing["ResponseMetadata"]["HTTPStatusCode"] == 404

update = json.dumps({"state": {"desired": {"mode": "eco"}}, "clientToken": "t-1"})
answer = body(client.update_thing_shadow(thingName=args.thing, payload=update))
assert answer["version"] == 1 and answer["clientToken"] == "t-1", answer
document = body(client.get_thing_shadow(thingName=args.thing))
assert document["state"] == {"desired": {"mode": "eco"}, "delta": {"mode": "eco"}}, document

stale = json.dumps({"state": {"desired": {"mode": "off"}}, "version": 9})
refused("ConflictException", client.update_thing_shadow, thingName=args.thing, payload=stale)
refused("InvalidRequestException", client.update_thing_shadow, thingName=args.thing, payload="{")
large = json.dumps({"state": {"desired": {"x": "y" * 9000}}})
refused(
    "RequestEntityTooLargeException", client.update_thing_shadow, thingName=args.thing, payload=large
)

names = sorted("name-" + uuid.uuid4().hex[:6] for _ in range(3))
for name in names:
    client.update_thing_shadow(
        thingName=args.thing, shadowName=name, payload=json.dumps({"state": {"reported": {"n": 1}}})
    )
listed, token = [], None
while True:
    more = {"nextToken": token} if token else {}
    page = client.list_named_shadows_for_thing(thingName=args.thing, pageSize=2, **more)
    assert len(page["results"]) <= 2
    listed += page["results"]
    token = page.get("nextToken")
    if not token:
        break
assert sorted(listed) == names, listed

deleted = body(client.delete_thing_shadow(thingName=args.thing))
assert deleted["version"] == 1, deleted
refused("ForbiddenException", client.get_thing_shadow, thingName="somebody-else")
print("ok")
