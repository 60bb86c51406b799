#!/usr/bin/env python3
"""draw.py [--check]: draws the pictures of FORMAT.md, or says which of them are not what it would draw.

The headers are drawn from the page's own tables, which tests compare with the code; the files from golden files, as the
reader in docs/reader sees them."""
import io, json, pathlib, re, sys

HERE = pathlib.Path(__file__).parent
DOCS = HERE.parent
sys.path.insert(0, str(DOCS / "reader"))
sys.dont_write_bytecode = True
import caskfile_reader

STYLE = """
text { font: 13px ui-monospace, "DejaVu Sans Mono", monospace; fill: #1f2328 }
.small { font-size: 11px; fill: #59636e }
rect, line, path { stroke: #59636e; stroke-width: 1 }
.header { fill: #ddf4ff } .put { fill: #dafbe1 } .delete { fill: #ffebe9 } .log { fill: #fff8c5 } .free { fill: #ffffff }
.lost { fill: #ffcecb } .torn { fill: #eaeef2; stroke-dasharray: 3 2 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .small { fill: #9198a1 } rect, line, path { stroke: #9198a1 }
  .header { fill: #0c2d6b } .put { fill: #033a16 } .delete { fill: #490202 } .log { fill: #3b2300 } .free { fill: #0d1117 }
  .lost { fill: #8e1519 } .torn { fill: #262c36 }
}
"""


class Picture:
    def __init__(self, width, height, title):
        self.parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
                      f'height="{height}" role="img">', f"<title>{title}</title>", f"<style>{STYLE}</style>"]

    def box(self, x, y, width, height, kind, text="", small=""):
        self.parts.append(f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}"/>')
        if text:
            self.text(x + width / 2, y + height / 2 + (0 if small else 4), text)
        if small:
            self.text(x + width / 2, y + height / 2 + 14, small, "small")

    def text(self, x, y, text, kind="", anchor="middle"):
        text = text.replace("&", "&amp;").replace("<", "&lt;")
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{text}</text>')

    def mark(self, x, top, bottom, text):
        self.parts.append(f'<line x1="{x:g}" y1="{top}" x2="{x:g}" y2="{bottom}"/>')
        self.text(x - 4, bottom, text, "small", "end")

    def done(self):
        return "\n".join([*self.parts, "</svg>", ""])


def table(heading):
    """(at, size, field) of the first table below a heading of the page."""
    section = (DOCS / "FORMAT.md").read_text().split(f"\n## {heading}\n")[1]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| `(\w+)` \|", section.split("\n## ")[0], re.M)
    return [(int(at), int(size), field) for at, size, field in rows]


def header(heading, title, then=()):
    """A header in rows of 8 bytes, and what follows it."""
    byte, row, left, top = 76, 44, 46, 30
    fields = table(heading)
    end = max(at + size for at, size, _ in fields)
    picture = Picture(left + 8 * byte + 10, top + row * (end // 8 + len(then)) + 12, title)
    for n in range(8):
        picture.text(left + byte * (n + 0.5), top - 10, str(n), "small")
    for at in range(0, end, 8):
        picture.text(left - 8, top + row * (at / 8 + 0.5) + 4, str(at), "small", "end")
    for at, size, field in fields:
        for begin in range(at, at + size, 8 - at % 8 if at % 8 and size > 8 - at % 8 else 8):
            width = min(8 - begin % 8, at + size - begin)
            name = field if begin == at else "…"
            size_text = ("1 byte" if size == 1 else f"{size} bytes") if begin == at else ""
            kind = "header" if field != "reserved" else "free"
            picture.box(left + byte * (begin % 8), top + row * (begin // 8), byte * width, row, kind, name, size_text)
    for n, (kind, text, small) in enumerate(then):
        picture.box(left, top + row * (end // 8 + n), byte * 8, row, kind, text, small)
    return picture.done()


def look(name):
    out = io.StringIO()
    caskfile_reader.print_store(str(DOCS.parent / "tests/golden" / f"{name}.cask"), True, out)
    return json.loads(out.getvalue()), (DOCS.parent / "tests/golden" / f"{name}.cask").stat().st_size


def strip(name, title):
    """A file to scale: its header, its records, and what becomes of the rest."""
    answer, length = look(name)
    scale, left, top, tall = 900 / length, 20, 56, 56
    picture = Picture(left * 2 + 900, 160, title)
    x = lambda offset: left + offset * scale
    picture.text(left, 18, f"{title}: {answer['verdict']}", "", "start")
    picture.box(x(0), top, 64 * scale, tall, "header", "header")
    if answer["header"]["features"] & 1:
        picture.box(x(64), top, 152 * scale, tall, "log", "ROOTS")
    e, data_end = answer["end"], answer["end"] + answer.get("torn_bytes", 0)
    for record in answer["records"]:
        end = (record["offset"] + 24 + record["key_len"] + record["value_len"] + 7) // 8 * 8
        colour = record["kind"] if record["kind"] in ("put", "delete") else "log"
        if not record["counts"] and answer["verdict"] == "torn":
            colour = "torn"
        picture.box(x(record["offset"]), top, (end - record["offset"]) * scale, tall, colour, record["kind"], record["key"] or "")
        if record["flags"]:
            picture.text(x(record["offset"]) + 2, top - 5, "+".join(record["flags"]), "small", "start")
    for lost_from, lost_to in answer["damage"]:
        picture.box(x(lost_from), top, (lost_to - lost_from) * scale, tall, "lost", "damaged")
    covered = max([e] + [record["offset"] + 24 + record["key_len"] + record["value_len"] for record in answer["records"]])
    if answer["verdict"] == "torn" and data_end > covered:
        covered = (covered + 7) // 8 * 8
        picture.box(x(covered), top, max(1, (data_end - covered) * scale), tall, "torn", "torn")
    at = answer.get("at", e)
    places = [("e: end mark" if answer["verdict"] == "whole" else "e = at" if at == e else "e", e)]
    if answer["verdict"] == "whole":
        picture.box(x(e), top, 8 * scale, tall, "free", "0")
    if answer["verdict"] == "Corrupt":
        places.append(("P", max(r["offset"] for r in answer["records"] if "SYNCED" in r["flags"])))
    if answer["verdict"] == "torn":
        places.append(("data end", data_end))
    if at != e:
        places.append(("at", at))
    for n, (text, offset) in enumerate(places):
        # One below the other, where they are close.
        lower = 14 if n and abs(offset - places[n - 1][1]) * scale < 60 else 0
        picture.mark(x(offset), top + tall, top + tall + 16 + lower, text)
    return picture.done()


PICTURES = {
    "file-header": lambda: header("The file header", "The file header, in rows of 8 bytes"),
    "record": lambda: header("Records", "A record, in rows of 8 bytes", [
        ("put", "full key: length of the bucket's name, the name, the key", "key_len bytes"),
        ("put", "value", "value_len bytes"), ("free", "padding", "up to the next multiple of 8")]),
    "session": lambda: header("Sessions", "The value of a session, in rows of 8 bytes"),
    "slot": lambda: header("Roots", "A slot of ROOTS, in rows of 8 bytes"),
    "example": lambda: strip("worked-example", "The worked example, to scale"),
    "torn": lambda: strip("batch-unfinished", "A batch without its last record"),
    "damaged": lambda: strip("damaged-value", "A damaged record, and after it the proof that it was on stable storage"),
}

if __name__ == "__main__":
    stale = []
    for name, draw in PICTURES.items():
        path, drawn = HERE / f"{name}.svg", draw()
        if sys.argv[1:] == ["--check"]:
            stale += [name] if not path.exists() or path.read_text() != drawn else []
        else:
            path.write_text(drawn)
    if stale:
        sys.exit(f"not what docs/diagrams/draw.py draws: {', '.join(stale)}; run it, and look at them")
