"""Fails if a difference is not found: each line of the first file has a scenario, and what the place of its difference contains."""

import json
import sys

wanted, compared = sys.argv[1:]
with open(compared) as file:
    comparison = json.load(file)
scenarios = {scenario["name"]: scenario for scenario in comparison["scenarios"]}
missing = False
print(" | ".join(comparison["servers"]))
with open(wanted) as file:
    for line in file:
        name, place = line.strip().split(": ", 1)
        rows = [row for row in scenarios[name]["differences"] if place in row["at"]]
        for row in rows:
            print(f"{name}: {row['at']}\n  {row['sides'][0] or '-'} | {row['sides'][1] or '-'}")
        if not rows:
            print(f"{name}: no difference at {place!r}; {scenarios[name]['ended_early'] or 'played to its end'}")
            missing = True
sys.exit(missing)
