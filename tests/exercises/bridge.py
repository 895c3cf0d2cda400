"""A bridge to a network that is your terminal: what is said in a room is printed, and the ghost @example_echo repeats it."""
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

SERVER, PORT, GHOST = sys.argv[1], int(sys.argv[2]), "@example_echo:localhost"

def call(method, path, body, acting=f"?user_id={quote(GHOST)}"):
    headers = {"authorization": "Bearer example-as-token", "content-type": "application/json"}
    urlopen(Request(f"{SERVER}/_matrix/client/v3{path}{acting}", json.dumps(body).encode(), headers, method=method)).read()

def take(transaction):
    for message in transaction.get("de.sorunome.msc2409.to_device", []):
        print(f"{message['sender']} to the device {message['to_device_id']}: {message['content']}", flush=True)
    for event in transaction["events"]:
        room, content = f"/rooms/{quote(event['room_id'])}", event["content"]
        if event.get("state_key") == GHOST and content.get("membership") == "invite":
            call("POST", f"{room}/join", {})
        if event["type"] == "m.room.message" and event["sender"] != GHOST:
            print(f"{event['sender']} to the room: {content['body']}", flush=True)
            # The transaction id is that of the event: if this runs again for the same event, the answer is still sent once.
            answer = {"msgtype": "m.notice", "body": f"you said: {content['body']}"}
            call("PUT", f"{room}/send/m.room.message/{quote(event['event_id'])}", answer)

class Bridge(BaseHTTPRequestHandler):
    def do_GET(self):  # /_matrix/app/v1/users/{id}: should this user exist?
        if known := self.allowed() and unquote(self.path).endswith(f"/users/{GHOST}"):
            ghost = {"type": "m.login.application_service", "username": "example_echo", "inhibit_login": True}
            call("POST", "/register", ghost, acting="")
            call("PUT", "/devices/ECHO", {})
        self.answer(200 if known else 404)
    def do_PUT(self):  # /_matrix/app/v1/transactions/{id}
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.allowed():
            take(json.loads(body))
        self.answer(200)
    def allowed(self):  # only the homeserver knows this token
        return self.headers["authorization"] == "Bearer example-hs-token"
    def answer(self, status):
        self.send_response(status if self.allowed() else 403)
        self.end_headers()
        self.wfile.write(b"{}")

HTTPServer(("127.0.0.1", PORT), Bridge).serve_forever()
