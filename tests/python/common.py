"""Arguments of every client script, and patience."""

import argparse
import threading

PATIENCE = 30


def arguments():
    parser = argparse.ArgumentParser()
    for name in ("host", "port", "mqtt", "mqtts", "ws", "aws", "ca", "cert", "key", "thing", "version"):
        parser.add_argument(f"--{name}")
    return parser.parse_args()


class Inbox:
    """Collects what callbacks deliver; `take` waits for the next, in order."""

    def __init__(self):
        self._items = []
        self._there = threading.Condition()

    def put(self, item):
        with self._there:
            self._items.append(item)
            self._there.notify_all()

    def take(self, why, wanted=lambda item: True):
        with self._there:
            found = self._there.wait_for(lambda: any(map(wanted, self._items)), PATIENCE)
            assert found, f"did not come: {why}; there: {self._items}"
            item = next(filter(wanted, self._items))
            self._items.remove(item)
            return item

    def empty(self):
        with self._there:
            return not self._items
