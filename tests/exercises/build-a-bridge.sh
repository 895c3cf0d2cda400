# The encrypted bridge with its library, in an environment of its own under target/.
set -euo pipefail
venv=$PWD/target/exercises/venv
# python-olm is compiled where there is no wheel, from sources that an older CMake was written for.
export CMAKE_POLICY_VERSION_MINIMUM=3.5
[ -x "$venv/bin/python" ] || python3 -m venv "$venv"
"$venv/bin/python" -c 'import olm, mautrix, asyncpg, aiosqlite' 2>/dev/null ||
  "$venv/bin/pip" install --quiet 'mautrix[encryption]==0.21.1' asyncpg aiosqlite
python3 tests/exercises/build-a-bridge.py "$venv/bin/python"
