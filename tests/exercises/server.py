"""What the exercises share: a development server, and a proxy in front of it."""

import http.client
import json
import os
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """It ends with this process, and leaves nothing behind."""

    def __init__(self, *args):
        binary = os.environ.get("UNDERSTUDY", "understudy")
        command = [binary, "dev", "--port", "0", "--print-json", "--exit-with-parent", "--database", ":memory:", *args]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready = json.loads(self._process.stdout.readline())
        self.url, self.appservices, self.users = ready["base_url"], ready["appservices"], ready["users"]

    def stop(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)


def recorder(server, seen, without=None):
    """A proxy in front of the server: it writes down each request of a client, and the answer. The path `without` is not found."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self):
            sent = self.rfile.read(int(self.headers.get("content-length") or 0))
            connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
            connection.request(self.command, self.path if self.path != without else "/", sent, dict(self.headers))
            answer = connection.getresponse()
            got = answer.read()
            seen.append((self.command, self.path, sent, got))
            self.send_response(answer.status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(got)))
            self.end_headers()
            self.wfile.write(got)

        do_GET = do_PUT = do_POST = do_DELETE = forward

        def log_message(self, *_):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{proxy.server_port}"
