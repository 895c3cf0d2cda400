# The test of a chapter that each message is sent on once, although much fails.
python3 tests/exercises/once.py
