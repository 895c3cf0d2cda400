#!/usr/bin/env python3
"""Runs the consoles of a chapter that ends with an exercise: consoles.py CHAPTER.md

In each block ```console, a line after `$ ` is run, and must print the lines that follow it; one that ends with `&` goes on beside the rest. `…`
stands for any text; alone in a line, for any lines. A server is running at the address that a reader finds it at, with ALICE and BOB set to its
tokens; `understudy` is the program, and the folders of the repository are there.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:8008"
PORT = "29300"
"""The port of the example registration."""


def consoles(text):
    """The commands of a chapter, each with what it must print."""
    for block in re.findall(r"^```console\n(.*?)^```$", text, re.M | re.S):
        for part in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command = re.match(r"(?:.*\\\n)*.*\n", part)[0]
            yield command.strip(), part[len(command):].strip()


def matches(expected, printed):
    lines = [".*" if line.strip() == "…" else ".*".join(map(re.escape, re.split("…", line.rstrip()))).replace(".*", "[^\n]*")
             for line in expected.splitlines()]
    return re.fullmatch("\n".join(lines), printed.strip(), re.S) is not None


def play(commands, here, environment):
    """Runs the commands in one shell, and yields for each its exit code and what it printed. `sleep` takes longer: this machine may be busy."""
    patient = [re.sub(r"^sleep (\d+)", lambda found: f"sleep {4 * int(found[1])}", command) for command in commands]
    script = "".join(f"{{ {command}\n}} >out{i} 2>&1; echo $? >code{i}\n" for i, command in enumerate(patient))
    shell = subprocess.Popen(["bash", "-c", script], cwd=here, env=environment, start_new_session=True)
    try:
        shell.wait(timeout=300)
    finally:
        with contextlib.suppress(ProcessLookupError):  # nothing goes on
            os.killpg(shell.pid, signal.SIGTERM)
    for i in range(len(commands)):
        yield (here / f"code{i}").read_text().strip(), (here / f"out{i}").read_text()


def main(chapter):
    pairs = list(consoles(Path(chapter).read_text()))
    if not pairs:
        sys.exit(f"{chapter}: an exercise without a console")
    server = Server()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def ours(text):
        return text.replace(ADDRESS, server.url).replace(PORT, port)

    def theirs(text):
        return text.replace(server.url, ADDRESS).replace(port, PORT)

    tokens = {user["user_id"][1:user["user_id"].index(":")].upper(): user["access_token"] for user in server.users}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        (here / "tests").symlink_to(ROOT / "tests")
        shutil.copytree(ROOT / "server/src/mscs", here / "server/src/mscs")  # a command writes there
        (here / "docker").mkdir()
        registration = "docker/registration.example.yaml"
        (here / registration).write_text(ours((ROOT / registration).read_text()))
        (here / "understudy-data").mkdir()
        (here / "understudy-data/appservices").symlink_to(server.appservices)
        (here / "bin").mkdir()
        (here / "bin/understudy").symlink_to(os.environ["UNDERSTUDY"])
        environment = {**os.environ, **tokens, "PATH": f"{here}/bin:{os.environ['PATH']}", "UNDERSTUDY_URL": server.url}
        results = list(play([ours(command) for command, _ in pairs], here, environment))
    server.stop()
    for (command, expected), (code, printed) in zip(pairs, results):
        if code != "0" or not matches(expected, theirs(printed)):
            sys.exit(f"{chapter}: $ {command}\n--- expected\n{expected}\n--- printed, with code {code}\n{theirs(printed)}")


if __name__ == "__main__":
    main(sys.argv[1])
