#!/usr/bin/env python3
"""Draws the figures of the book: mdBook runs this before it renders, and each block ```drawing of a chapter becomes an SVG.

A drawing is text, so that a chapter can be read without it too. Its first line is `title: …`. Two kinds follow.

A sequence, with one column for each lane:

    lanes: alice | homeserver | bridge
    alice -> homeserver: PUT /sendToDevice     a request (`-->` draws a dashed line, for an answer; `-x` a message that is lost)
    homeserver: stores a row                   what a lane does by itself
    === later                                  a line across all lanes

A row of boxes, joined by arrows that may have a text; `|` begins a new line in a box:

    [alice | a person] -- /sync --> [homeserver] -> [bridge | an application service]

The colour is that of the text around the figure, so it is readable in every theme.
"""

import html
import json
import re
import sys

SIZE, LINE, CHAR = 13, 17, 6.7  # of the letters, in pixels
WIDTH = 740


def wrap(text, width):
    """The text in lines that fit into so many pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(longer) * CHAR > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def letters(x, y, lines, bold=False):
    """Lines of text, centred, the first at y."""
    weight = ' font-weight="600"' if bold else ""
    return [f'<text x="{x:.0f}" y="{y + i * LINE:.0f}" text-anchor="middle"{weight}>{html.escape(line)}</text>'
            for i, line in enumerate(lines)]


def wide(text):
    """The width of a line in pixels; capitals are wider."""
    return sum(CHAR * (1.35 if c.isupper() or c == "_" else 1) for c in text)


def box(x, y, width, height, kind=""):
    return f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="4" {kind or SOLID}/>'


SOLID = 'fill="currentColor" fill-opacity="0.04" stroke="currentColor"'
BLANK = 'style="fill: var(--bg)"'


def arrow(x1, x2, y, dashed=False, lost=False):
    back = 7 if x2 > x1 else -7
    end = (x1 + x2) / 2 if lost else x2
    dash = ' stroke-dasharray="5 4"' if dashed else ""
    line = f'<path d="M{x1:.0f} {y:.0f}H{end:.0f}" fill="none" stroke="currentColor"{dash}/>'
    if lost:
        tip = f'<path d="M{end - 5:.0f} {y - 5:.0f}l10 10m0 -10l-10 10" stroke="currentColor" stroke-width="2"/>'
    else:
        tip = f'<path d="M{x2:.0f} {y:.0f}l{-back} -4v8z" fill="currentColor"/>'
    return [line, tip]


def sequence(lanes, steps):
    space = WIDTH / len(lanes)
    middle = {lane: space * (i + 0.5) for i, lane in enumerate(lanes)}
    heads = [wrap(lane, space - 30) for lane in lanes]
    top = max(map(len, heads)) * LINE + 12
    made, y = [], top + 12
    for step in steps:
        message = re.fullmatch(r"(.+?) (->|-->|-x) ([^:]+): (.+)", step)
        alone = re.fullmatch(r"([^:]+): (.+)", step)
        if step.startswith("==="):
            lines = wrap(step[3:].strip(), WIDTH - 40)
            made += [f'<path d="M0 {y + 8}H{WIDTH}" stroke="currentColor" stroke-opacity="0.4" stroke-dasharray="2 4"/>']
            width = max(map(len, lines)) * CHAR + 24
            made += [box((WIDTH - width) / 2, y + 12, width, LINE * len(lines) + 4, BLANK)]
            made += letters(WIDTH / 2, y + 26, lines, bold=True)
            y += 24 + LINE * len(lines)
        elif message and message[1] in middle and message[3] in middle:
            x1, x2 = middle[message[1]], middle[message[3]]
            lines = wrap(message[4], abs(x2 - x1) - 16)
            made += letters((x1 + x2) / 2, y + SIZE, lines)
            y += LINE * len(lines) + 4
            made += arrow(x1, x2, y, message[2] == "-->", message[2] == "-x")
            y += 12
        elif alone and alone[1] in middle:
            lines = wrap(alone[2], space - 24)
            width = max(len(line) for line in lines) * CHAR + 18
            height = LINE * len(lines) + 8
            x = min(max(middle[alone[1]] - width / 2, 1), WIDTH - width - 1)
            # What stands in front of the line of its lane hides it.
            made += [box(x, y, width, height, BLANK), box(x, y, width, height)]
            made += letters(x + width / 2, y + 17, lines)
            y += height + 10
        else:
            raise ValueError(f"no lane, or no step of a sequence: {step}")
    under = []
    for lane, head in zip(lanes, heads):
        x = middle[lane]
        under += [f'<path d="M{x:.0f} {top}V{y}" stroke="currentColor" stroke-opacity="0.35"/>', box(x - space / 2 + 8, 1, space - 16, top - 1)]
        under += letters(x, 19, head, bold=True)
    return under + made, y + 4


def row(line, y):
    parts = re.split(r"\s*(-- .+? -->|->)\s*", line.strip())
    boxes = [[text.strip() for text in part.strip("[]").split("|")] for part in parts[::2]]
    arrows = [re.sub(r"^-- | -->$|^->$", "", part) for part in parts[1::2]]
    widths = [max(map(wide, lines)) + 22 for lines in boxes]
    gaps = [max(40, max(map(len, text.split("|"))) * CHAR + 26) for text in arrows]
    # The words above an arrow take two lines if they must.
    if sum(widths) + sum(gaps) > WIDTH:
        gaps = [max(40, max(len(part) for part in wrap(text, gap / 2 + 12)) * CHAR + 22) for text, gap in zip(arrows, gaps)]
    total = sum(widths) + sum(gaps)
    if total > WIDTH:
        raise ValueError(f"too wide by {total - WIDTH:.0f} pixels: {line}")
    height = max(map(len, boxes)) * LINE + 14
    made, x = [], (WIDTH - total) / 2
    for i, lines in enumerate(boxes):
        made.append(box(x, y + 1, widths[i], height))
        made += letters(x + widths[i] / 2, y + (height - len(lines) * LINE) / 2 + 14, lines[:1], bold=True)
        made += letters(x + widths[i] / 2, y + (height - len(lines) * LINE) / 2 + 14 + LINE, lines[1:])
        x += widths[i]
        if i < len(gaps):
            text = wrap(arrows[i], gaps[i] - 12)
            made += letters(x + gaps[i] / 2, y + height / 2 - 6 - LINE * (len(text) - 1), text)
            made += arrow(x + 3, x + gaps[i] - 3, y + height / 2 + 1)
            x += gaps[i]
    return made, y + height + 16


def svg(text):
    """A drawing, as an SVG without an empty line: in Markdown that would end it."""
    first, *steps = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not first.startswith("title: "):
        raise ValueError(f"the first line of a drawing is its title: {first}")
    title = html.escape(first.removeprefix("title: "))
    if steps[0].startswith("lanes: "):
        made, height = sequence([lane.strip() for lane in steps[0].removeprefix("lanes: ").split("|")], steps[1:])
    else:
        made, height = [], 4
        for line in steps:
            more, height = row(line, height)
            made += more
    return "\n".join([
        f'<figure><svg viewBox="0 0 {WIDTH} {height:.0f}" width="{WIDTH}" role="img" aria-label="{title}" '
        f'style="max-width:100%;height:auto" font-size="{SIZE}" font-family="sans-serif" fill="currentColor">',
        *made, "</svg>", f"<figcaption><em>{title}</em></figcaption></figure>", ""])


def drawn(chapter):
    """The chapter with its drawings."""
    return re.sub(r"^```drawing\n(.*?)^```$", lambda found: svg(found[1]), chapter, flags=re.M | re.S)


def visit(items):
    for item in items:
        if isinstance(item, dict) and "Chapter" in item:
            chapter = item["Chapter"]
            try:
                chapter["content"] = drawn(chapter["content"])
            except ValueError as error:
                sys.exit(f"{chapter['path']}: {error}")
            visit(chapter["sub_items"])


if __name__ == "__main__":
    if sys.argv[1:2] == ["supports"]:
        sys.exit(0 if sys.argv[2] == "html" else 1)
    _, book = json.load(sys.stdin)
    visit(book.get("items") or book.get("sections"))
    json.dump(book, sys.stdout)
