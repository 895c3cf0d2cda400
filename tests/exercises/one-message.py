#!/usr/bin/env python3
"""Plays one-message.yaml against a development server and compares it with the chapter "One encrypted message": each JSON block there must
be a body of the conversation. A text that ends with `…` stands for one random value throughout, and a member `…` for others that are left
out. With --print, the bodies are printed instead.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from server import Server, recorder

HERE = Path(__file__).resolve().parent
CHAPTER = HERE.parents[1] / "spec-notes/src/one-message.md"
SCENARIO = str(HERE / "one-message.yaml")


def play():
    """The conversation: a list of a heading and a body."""
    understudy, server, seen = os.environ.get("UNDERSTUDY", "understudy"), Server(), []
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    registration = subprocess.check_output([understudy, "scenario", "registrations", SCENARIO], text=True)
    registration = re.sub(r"^url: .*$", f"url: http://127.0.0.1:{port}", registration, flags=re.M)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "irc.yaml")
        file.write_text(registration)
        Path(server.appservices, "irc.yaml").write_text(registration)
        reload = urllib.request.Request(f"{server.url}/_understudy/appservices/reload", b"{}", {"content-type": "application/json"})
        urllib.request.urlopen(reload).read()
        subprocess.run([understudy, "scenario", "run", "--server", recorder(server, seen), "--registration", str(file), SCENARIO],
                       check=True, stdout=subprocess.DEVNULL)
    transactions = json.load(urllib.request.urlopen(f"{server.url}/_understudy/transactions?service=irc"))
    server.stop()
    said = []
    for method, path, sent, got in seen:
        said += [(f"{method} {path}", sent), (f"{method} {path}: the answer", got)]
    said += [(f"PUT /_matrix/app/v1/transactions/{each['transaction']}", json.dumps(each["body"]).encode()) for each in transactions]
    # The names of users have the time of the run in them.
    return [(head, json.loads(re.sub(rb"(@[a-z_]+)-\d+:", rb"\1:", body) or b"{}")) for head, body in said]


def like(shown, real, names):
    """Whether a body of the chapter is this real one. `names` are the values for which the texts with `…` stand: the same in every body."""
    if isinstance(shown, dict) and isinstance(real, dict):
        keys = {name: next((key for key in real if like(name, key, names)), None) for name in shown if name != "…"}
        return (None not in keys.values() and ("…" in shown or len(keys) == len(real))
                and all(like(shown[name], real[key], names) for name, key in keys.items()))
    if isinstance(shown, list) and isinstance(real, list):
        return len(shown) == len(real) and all(like(one, other, names) for one, other in zip(shown, real))
    if isinstance(shown, str) and isinstance(real, str) and "…" in shown:
        return names.setdefault(shown, real) == real and list(names.values()).count(real) == 1
    if type(shown) is int and type(real) is int and min(shown, real) > 10**12:
        return True  # a time
    return shown == real or shown == "s42" and str(real).startswith("s")


def main():
    said = play()
    if sys.argv[1:] == ["--print"]:
        for head, body in said:
            print(f"{head}\n{json.dumps(body, indent=1)}\n")
        return
    blocks = re.findall(r"^```json\n(.*?)^```$", CHAPTER.read_text(), re.M | re.S)
    if len(blocks) < 10:
        sys.exit("the chapter shows no conversation")
    names = {}
    for block in blocks:
        for _, body in said:
            tried = dict(names)
            if like(json.loads(block), body, tried):
                names = tried
                break
        else:
            sys.exit(f"this body of the chapter is not what is sent:\n{block}")


if __name__ == "__main__":
    main()
