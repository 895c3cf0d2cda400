# Each body that the chapter shows is one that is sent.
python3 tests/exercises/one-message.py
