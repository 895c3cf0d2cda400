"""A Matrix homeserver as a pytest fixture: one understudy for the whole run, put back to its first state before each test.

The binary is found through the variable UNDERSTUDY, or in PATH.
"""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, body: Dict[str, Any]) -> None:
        super().__init__(f"{status} {body.get('errcode')}: {body.get('error')}")
        self.status, self.body = status, body


class Understudy:
    """A running server, whose database is in memory. It ends with this process, however that ends."""

    def __init__(self, *args: str, binary: Optional[str] = None) -> None:
        binary = binary or os.environ.get("UNDERSTUDY") or shutil.which("understudy")
        if not binary:
            raise RuntimeError("understudy is not in PATH; set UNDERSTUDY to the path of the binary")
        command = [binary, "dev", "--port", "0", "--print-json", "--exit-with-parent", "--database", ":memory:"]
        # The server ends when the pipe to its standard input is closed: at the latest with this process.
        self._process = subprocess.Popen([*command, *args], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"understudy did not start: exit code {self._process.wait()}; its error is above")
        ready = json.loads(line)
        self.base_url: str = ready["base_url"]
        self.server_name: str = ready["server_name"]
        self.users: List[Dict[str, str]] = ready["users"]
        """Two users, each with `user_id`, `password`, `access_token` and `device_id`."""
        self.appservices = Path(ready["appservices"])
        """The folder of registration files."""

    def call(self, method: str, path: str, body: Any = None, token: Optional[str] = None) -> Any:
        """Make a request. `path` begins with `/_`, or is below `/_matrix/client/v3`."""
        path = path if path.startswith("/_") else "/_matrix/client/v3" + path
        headers = {"content-type": "application/json"}
        if token:
            headers["authorization"] = f"Bearer {token}"
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(self.base_url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise Refused(error.code, json.loads(error.read() or b"{}")) from None

    def _tell(self, path: str, body: Any = None) -> Any:
        return self.call("POST", "/_understudy/" + path, body)

    def register(self, registration: Dict[str, Any]) -> None:
        """Register an application service. It is in force when this returns."""
        name = urllib.parse.quote(registration["id"], safe="")
        # JSON is valid YAML.
        (self.appservices / f"{name}.yaml").write_text(json.dumps(registration))
        problems = self._tell("appservices/reload")["problems"]
        if problems:
            raise ValueError(f"the registration is refused: {problems[0]['why']}")

    def reset(self) -> None:
        """Return to the first state, with the same users and tokens, and without registrations."""
        for file in self.appservices.glob("*.yaml"):
            file.unlink()
        self._tell("reset")

    def snapshot(self) -> str:
        """Keep a copy of the present state. Returns its id for `restore`."""
        return self._tell("snapshot")["id"]

    def restore(self, snapshot: str) -> None:
        """Return to the state of a snapshot. The registration files stay as they are."""
        self._tell("restore", {"id": snapshot})

    def advance(self, ms: int) -> None:
        """Advance the server's clock: what was due in between is due now."""
        self._tell("clock/advance", {"ms": ms})

    def fault(self, fault: Any, **rule: Any) -> int:
        """Break requests to an application service: `fault({"status": 500}, endpoint="transactions", times=2)`."""
        return self._tell("faults", {"fault": fault, **rule})["id"]

    def transactions(self, service: str) -> List[Dict[str, Any]]:
        """Every attempt to send a transaction to this application service, with its body and outcome."""
        return self.call("GET", "/_understudy/transactions?service=" + urllib.parse.quote(service, safe=""))

    def stop(self) -> None:
        """End the server."""
        self._process.stdin.close()
        self._process.wait(timeout=30)
        self._process.stdout.close()


@pytest.fixture(scope="session")
def understudy_server() -> Iterator[Understudy]:
    """The server of the whole run."""
    server = Understudy()
    yield server
    server.stop()


@pytest.fixture
def understudy(understudy_server: Understudy) -> Understudy:
    """The server in its first state."""
    understudy_server.reset()
    return understudy_server
