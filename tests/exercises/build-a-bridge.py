#!/usr/bin/env python3
"""Plays the exercise of the chapter "Build a bridge" with the encrypted bridge: build-a-bridge.py PYTHON, one that has mautrix.

Alice talks to the bridge; then to a room that it has joined, while it is stopped; it must read that when it is started again. Then Bob is
invited and Alice gets a tablet: both must be able to read what the bridge says afterwards.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from server import Server, recorder

HERE = Path(__file__).resolve().parent
PYTHON = sys.argv[1]
PLAYER = [os.environ.get("UNDERSTUDY", "understudy"), "scenario", "run", "--server-name", "localhost", "--server"]


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    return json.load(urllib.request.urlopen(request))


class Bridge:
    """The encrypted bridge, and what it prints."""

    def __init__(self, server, port, folder):
        self.out = Path(folder, "out")
        command = [PYTHON, str(HERE / "encrypted_bridge.py"), server.url, str(port), str(Path(folder, "bridge.db"))]
        self._process = subprocess.Popen(command, stdout=self.out.open("a"), stderr=Path(folder, "err").open("a"))
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        sys.exit("the bridge does not start:\n" + Path(folder, "err").read_text())

    def stop(self):
        self._process.terminate()
        self._process.wait(timeout=30)

    def says(self, text, server):
        post(f"{server.url}/_understudy/appservices/example/retry", {})
        for _ in range(300):
            if self.out.read_text().endswith(f": {text}\n"):
                return
            time.sleep(0.1)
        sys.exit(f"the bridge has not printed {text!r}, but {self.out.read_text()!r}")


def main():
    server, port = Server(), free_port()
    registration = (HERE.parents[1] / "docker/registration.example.yaml").read_text().replace("29300", str(port))
    Path(server.appservices, "example.yaml").write_text(registration)
    post(f"{server.url}/_understudy/appservices/reload", {})
    with tempfile.TemporaryDirectory() as folder:
        bridge = Bridge(server, port, folder)
        done = subprocess.run([*PLAYER, server.url, str(HERE / "alice.yaml")], text=True, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.stdout + Path(folder, "err").read_text())
        bridge.says("hello", server)
        # The same file again; but before Alice writes, the bridge stops. Without this path, the player cannot advance the clock, and waits.
        later = Path(folder, "later.yaml")
        steps = (HERE / "alice.yaml").read_text()
        later.write_text(steps.replace("  - alice: encrypts", "  - wait: 5 seconds\n  - alice: encrypts").replace("hello", "later"))
        slow = recorder(server, [], without="/_understudy/clock/advance")
        alice = subprocess.Popen([*PLAYER, slow, str(later)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        joined = False
        while not joined:
            time.sleep(0.1)
            sent = json.load(urllib.request.urlopen(f"{server.url}/_understudy/transactions?service=example"))
            joined = sum(event["content"].get("membership") == "join" for each in sent for event in each["body"]["events"]) == 2
        bridge.stop()
        if "later" in bridge.out.read_text():
            sys.exit("the bridge was not stopped in time")
        if alice.wait(timeout=60) == 0:
            sys.exit("the bridge answered while it was stopped")
        bridge = Bridge(server, port, folder)
        bridge.says("later", server)
        done = subprocess.run([*PLAYER, server.url, str(HERE / "members.yaml")], text=True, stdout=subprocess.PIPE)
        if done.returncode:
            sys.exit(done.stdout + Path(folder, "err").read_text())
        bridge.stop()
    server.stop()


main()
