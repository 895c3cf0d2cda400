"""Each message is sent on to the other network once, although an answer is lost, the bridge fails, and the homeserver is killed: once.py"""

import json
import os
import sqlite3
import subprocess
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Irc:
    """A stand-in for the other network: it keeps what it is sent, and can refuse the next line or take its time."""

    def __init__(self):
        self.lines, self.refuse_next, self.delay = [], False, 0.0

    def send(self, line):
        if self.refuse_next:
            self.refuse_next = False
            raise ConnectionError("IRC is away")
        self.lines.append(line)
        time.sleep(self.delay)


def start_bridge(irc, call):
    """The bridge under test; put yours here. It stores what it has done before it answers 200. Returns its URL."""
    store, lock = sqlite3.connect(":memory:", check_same_thread=False), threading.Lock()
    store.execute("CREATE TABLE done (event TEXT PRIMARY KEY)")

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            allowed = self.headers["authorization"] == "Bearer hs-token"
            events, status = (json.loads(body)["events"], 200) if allowed else ([], 403)
            with lock:
                for event in events:
                    if store.execute("SELECT 1 FROM done WHERE event = ?", [event["event_id"]]).fetchone():
                        continue
                    try:
                        if event["content"].get("membership") == "invite":
                            call(f"/rooms/{event['room_id']}/join", {}, "as-token")
                        if event["type"] == "m.room.message":
                            irc.send(event["content"]["body"])
                    except ConnectionError:
                        status = 500
                        break
                    with store:
                        store.execute("INSERT INTO done VALUES (?)", [event["event_id"]])
            self.send_response(status)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_):
            pass

        def handle(self):
            try:
                super().handle()
            except ConnectionError:  # the homeserver was killed, or cut the connection
                pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{listener.server_port}"


def start_homeserver(data, port=0):
    """With a folder: users, tokens, registrations and what is owed are there again when it starts a second time."""
    binary = os.environ.get("UNDERSTUDY", "understudy")
    command = [binary, "dev", "--port", str(port), "--print-json", "--exit-with-parent", "--data", data]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    return process, json.loads(process.stdout.readline())


def wait_for(what):
    end = time.monotonic() + 60
    while not what():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def test_each_message_is_sent_on_once(data):
    homeserver, ready = start_homeserver(data)
    url, alice = ready["base_url"], ready["users"][0]["access_token"]

    def call(path, body=None, token="", method=None):
        path = path if path.startswith("/_") else "/_matrix/client/v3" + path
        headers = {"content-type": "application/json", **({"authorization": f"Bearer {token}"} if token else {})}
        content = json.dumps(body).encode() if body is not None else None
        with urllib.request.urlopen(urllib.request.Request(url + path, content, headers, method=method)) as answer:
            return json.load(answer)

    def say(text):  # the text is the transaction id too
        call(f"/rooms/{room}/send/m.room.message/{text}", {"msgtype": "m.text", "body": text}, alice, "PUT")

    def attempts():
        return call("/_understudy/transactions?service=irc")

    irc = Irc()
    registration = {"id": "irc", "url": start_bridge(irc, call), "as_token": "as-token", "hs_token": "hs-token",
                    "sender_localpart": "ircbot", "namespaces": {}}
    (Path(ready["appservices"]) / "irc.yaml").write_text(json.dumps(registration))
    assert call("/_understudy/appservices/reload", {})["problems"] == []
    room = call("/createRoom", {"invite": ["@ircbot:localhost"]}, alice)["room_id"]
    wait_for(lambda: "@ircbot:localhost" in call(f"/rooms/{room}/joined_members", token=alice)["joined"])

    # The bridge's answer is lost, so the same transaction comes again.
    call("/_understudy/faults", {"service": "irc", "endpoint": "transactions", "fault": "cut_after", "times": 1})
    say("one")
    wait_for(lambda: "one" in irc.lines and attempts()[-1]["outcome"] == "200")

    # The bridge itself fails, so it answers 500.
    irc.refuse_next = True
    say("two")
    wait_for(lambda: "two" in irc.lines and attempts()[-1]["outcome"] == "200")
    ids = [attempt["transaction"] for attempt in attempts()]
    assert len(ids) - len(set(ids)) >= 2, "both faults led to a repetition"

    # The homeserver is killed while the bridge has a transaction and has not answered.
    irc.delay = 2.0
    say("three")
    wait_for(lambda: "three" in irc.lines)
    homeserver.kill()
    homeserver.wait()
    irc.delay = 0.0
    homeserver, _ = start_homeserver(data, int(ready["address"].rsplit(":")[-1]))

    # Events come in order: when the last one is there, none before it comes any more.
    say("last")
    wait_for(lambda: "last" in irc.lines)
    assert irc.lines == ["one", "two", "three", "last"], irc.lines
    homeserver.kill()
    homeserver.wait()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        test_each_message_is_sent_on_once(folder)
