# The chapter lists the files of the reading order in README.md, in the same order.
listed() { grep -oE '^[0-9]+\. `[^`]+`' "$1"; }
diff <(listed README.md) <(listed spec-notes/src/reading.md)
