#!/usr/bin/env python3
"""Checks the chapter "The anatomy of a transaction": each JSON block is a section of the transaction that it shows, and its table of proposals
is what `understudy mscs` prints.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHAPTER = (HERE.parents[1] / "spec-notes/src/anatomy.md").read_text()


def printed(*command):
    return subprocess.check_output([os.environ.get("UNDERSTUDY", "understudy"), *command], text=True)


def sections():
    transcript = printed("scenario", "run", "--transcript", str(HERE / "anatomy.yaml"))
    body = json.loads(re.search(r"PUT /_matrix/app/v1/transactions/T7\n(.*?)^  … waits$", transcript, re.M | re.S)[1])
    shown = {}
    for block in re.findall(r"^```json\n(.*?)^```$", CHAPTER, re.M | re.S):
        shown |= json.loads(block)
    if shown != body:
        sys.exit(f"the sections of the chapter are not those of the transaction:\n{shown}\n{body}")


def proposals():
    rows = {row[1]: row[0] for row in re.findall(r"^(\| \[(MSC\d+)\].*)$", CHAPTER, re.M)}
    listed = re.findall(r"^(MSC\d+), (on by default|off by default|in the specification since v[\d.]+): .*\n((?:  .*\n)*)", printed("mscs"), re.M)
    if set(rows) != {number for number, _, _ in listed}:
        sys.exit(f"the table has the proposals {sorted(rows)}, understudy mscs {listed}")
    for number, state, details in listed:
        _, _, status, here, registration, wire = [cell.strip() for cell in rows[number].strip("|").split("|")]
        version = re.search(r"v[\d.]+$", state)
        expected = ("always", f"in {version[0]}") if version else (state.split()[0], status if status.startswith("open") else "open")
        if (here, status) != expected:
            sys.exit(f"{number}: the table says {here!r} and {status!r}, understudy mscs {state!r}")
        keys = ", ".join(re.findall(r"^  registration: (.*)$", details, re.M))
        names = re.sub(r" \(later \w+\)", "", ", ".join(re.findall(r"^  names: (.*)$", details, re.M)))
        for cell, what in [(registration, keys), (wire, names)]:
            if set(re.findall(r"`(.*?)`", cell)) != set(filter(None, what.split(", "))):
                sys.exit(f"{number}: the table says {cell!r}, understudy mscs {what!r}")


sections()
proposals()
