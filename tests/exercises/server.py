"""A development server for an exercise: it ends with this process, and leaves nothing behind."""

import json
import os
import subprocess


class Server:
    def __init__(self, *args):
        binary = os.environ.get("UNDERSTUDY", "understudy")
        command = [binary, "dev", "--port", "0", "--print-json", "--exit-with-parent", "--database", ":memory:", *args]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        ready = json.loads(self._process.stdout.readline())
        self.url, self.appservices, self.users = ready["base_url"], ready["appservices"], ready["users"]

    def stop(self):
        self._process.stdin.close()
        self._process.wait(timeout=30)
