# The sections that the chapter takes apart are those that are sent, and its table of proposals is that of the program.
python3 tests/exercises/anatomy.py
