#!/usr/bin/env python3
"""Runs the consoles of a chapter that ends with an exercise: consoles.py CHAPTER.md

In each block ```console, a line after `$ ` is run, and must print the lines that follow it. `…` stands for
any text; alone in a line, for any lines. A server is running at the address that a reader finds it at, with ALICE and BOB set to its tokens;
`understudy` is the program, and the folders of the repository are there.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from server import Server

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "http://127.0.0.1:8008"


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


def main(chapter):
    all_of_them = list(consoles(Path(chapter).read_text()))
    if not all_of_them:
        sys.exit(f"{chapter}: an exercise without a console")
    server = Server()
    tokens = {user["user_id"][1:user["user_id"].index(":")].upper(): user["access_token"] for user in server.users}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        for name in ["tests", "docker", "server"]:
            (here / name).symlink_to(ROOT / name)
        (here / "understudy-data").mkdir()
        (here / "understudy-data/appservices").symlink_to(server.appservices)
        (here / "bin").mkdir()
        (here / "bin/understudy").symlink_to(os.environ["UNDERSTUDY"])
        environment = {**os.environ, **tokens, "PATH": f"{here}/bin:{os.environ['PATH']}", "UNDERSTUDY_URL": server.url}
        for command, expected in all_of_them:
            done = subprocess.run(["bash", "-c", command.replace(ADDRESS, server.url)], cwd=here, env=environment, text=True,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
            printed = done.stdout.replace(server.url, ADDRESS)
            if done.returncode or not matches(expected, printed):
                server.stop()
                sys.exit(f"{chapter}: $ {command}\n--- expected\n{expected}\n--- printed, with code {done.returncode}\n{printed}")
    server.stop()


if __name__ == "__main__":
    main(sys.argv[1])
