"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

from benchrouter.evaluation.report.banner import banner
from benchrouter.evaluation.report.outline import Picture, Section, sections
from benchrouter.evaluation.report.sheets.sheet import MISSING, Cell, Sheet, counted
from benchrouter.evaluation.report.summary import notes_of, summary

if TYPE_CHECKING:
    from benchrouter.evaluation.results import Evaluation

CSS_PIXELS_PER_INCH = 128  # of a figure on the page: its 8 pt letters are as large as the text's


def to_html(
    evaluation: Evaluation,
    drawn: Mapping[str, bytes],
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Write one page that needs no other file.

    Parameters
    ----------
    evaluation : Evaluation
    drawn : dict of str to bytes
        Figures, as `report.draw` gives them; those that are not there are left out.
    provenance : dict of str to str, optional
    """
    parts = sections(evaluation)
    first = evaluation.pools[0].table
    facts = (
        f"{counted(first['n_records'], 'record')}, {counted(first['n_datasets'], 'dataset')}, "
        f"{counted(first['n_models'], 'model')}"
    )
    notes = notes_of(evaluation)
    numbering = _Numbering()
    body = [
        "<header><h1>Routing with benchmark results: an evaluation</h1>",
        f'<p class="facts">{escape(facts)}</p></header>',
        *_banner(banner(evaluation)),
        '<section class="summary"><h2>In short</h2>',
        *(_paragraph(text) for text in summary(evaluation)),
        "</section>",
        _contents(parts, bool(notes)),
        *(_section(part, drawn, numbering) for part in parts),
    ]
    if notes:
        body.append('<section id="notes"><h2>Notes: what is missing, and why</h2><ul>')
        body += [f"<li>{escape(note)}</li>" for note in notes]
        body.append("</ul></section>")
    body.append(_provenance(evaluation, provenance or {}))
    return _PAGE.format(style=_STYLE, body="\n".join(body), title=escape(facts))


def _banner(lines: list[str]) -> list[str]:
    """Write the lines that say whether routing pays, the first as their title."""
    if not lines:
        return []
    title, *rest = lines
    found = "".join(f"<p>{escape(line)}</p>" for line in rest)
    return [f'<section class="summary banner"><h2>{escape(title)}</h2>{found}</section>']


def _paragraph(text: str) -> str:
    """Write a paragraph, what it is about in bold."""
    about, colon, rest = text.partition(":")
    if not colon:
        return f"<p>{escape(text)}</p>"
    return f"<p><b>{escape(about)}.</b> {escape(_upper(rest.strip()))}</p>"


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


class _Numbering:
    """Numbers of tables and figures, in the order of the page."""

    def __init__(self) -> None:
        self.tables = self.figures = 0


def _contents(parts: list[Section], notes: bool) -> str:
    links = [(part.key, part.title) for part in parts]
    if notes:
        links.append(("notes", "Notes: what is missing, and why"))
    links.append(("provenance", "How this was made"))
    items = "".join(f'<li><a href="#{escape(key)}">{escape(name)}</a></li>' for key, name in links)
    return f"<nav><ol>{items}</ol></nav>"


def _section(part: Section, drawn: Mapping[str, bytes], numbering: _Numbering) -> str:
    found = [
        f'<section id="{escape(part.key)}"><h2>{escape(part.title)}</h2>',
        f"<p>{escape(part.words)}</p>",
    ]
    defined: set[tuple[str, str]] = set()
    for item in part.content:
        if isinstance(item, Sheet):
            numbering.tables += 1
            found.append(_table(item, numbering.tables, defined))
        elif item.name in drawn:
            numbering.figures += 1
            found.append(_figure(item, drawn[item.name], numbering.figures))
    return "\n".join([*found, "</section>"])


def _table(sheet: Sheet, number: int, defined: set[tuple[str, str]]) -> str:
    """Write a table with caption, footnotes, and the meanings not given before in its section."""
    numeric = [
        bool(sheet.rows) and all(row[c].is_number for row in sheet.rows)
        for c in range(len(sheet.columns))
    ]
    head = "".join(
        f'<th scope="col"{_class("n" if n else "")}>{escape(c)}</th>'
        for c, n in zip(sheet.columns, numeric, strict=True)
    )
    rows = []
    for r, row in enumerate(sheet.rows):
        first = f'<th scope="row">{_cell(sheet, row[0])}</th>'
        rest = "".join(
            f"<td{_class('n' if cell.is_number else '')}>{_cell(sheet, cell)}</td>"
            for cell in row[1:]
        )
        rows.append(f"<tr{_class('best' if r in sheet.marked else '')}>{first}{rest}</tr>")
    notes = " ".join(
        f"<span><sup>{sheet.mark(Cell(MISSING, why))}</sup> {escape(why)}.</span>"
        for why in sheet.footnotes()
    )
    new = [pair for pair in sheet.definitions if pair not in defined]
    defined.update(new)
    meanings = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(text)}</dd></div>" for name, text in new
    )
    inner = (
        f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        + (f'<p class="foot">{notes}</p>' if notes else "")
        + (f'<dl class="meanings">{meanings}</dl>' if meanings else "")
    )
    title = f"<b>Table {number}.</b> {escape(_upper(sheet.title))}."
    caption = f'<p class="caption">{title} {escape(sheet.caption)}</p>'
    if sheet.detail:
        return (
            f'<details id="{escape(sheet.name)}"><summary>{title}</summary>'
            f'<p class="caption">{escape(sheet.caption)}</p>{inner}</details>'
        )
    return f'<div class="sheet" id="{escape(sheet.name)}">{caption}{inner}</div>'


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""


def _cell(sheet: Sheet, cell: Cell) -> str:
    mark = sheet.mark(cell)
    return escape(cell.text) + (f'<sup title="{escape(cell.why)}">{mark}</sup>' if mark else "")


def _figure(picture: Picture, png: bytes, number: int) -> str:
    from benchrouter.evaluation.report.figures.style import DPI

    pixels = int.from_bytes(png[16:20], "big")  # the width in a PNG's header
    width = round(pixels / DPI * CSS_PIXELS_PER_INCH)
    source = base64.b64encode(png).decode("ascii")
    caption = escape(picture.caption)
    return (
        f'<figure id="{escape(picture.name)}"><div class="scroll" tabindex="0">'
        f'<img width="{width}" alt="{caption}" '
        f'src="data:image/png;base64,{source}"></div>'
        f"<figcaption><b>Figure {number}.</b> {caption}</figcaption></figure>"
    )


def _provenance(evaluation: Evaluation, provenance: Mapping[str, str]) -> str:
    total = sum(evaluation.seconds.values())
    settings = ", ".join(f"{name} = {_setting(v)}" for name, v in evaluation.settings.items())
    facts: dict[str, Any] = {
        **provenance,
        "settings": settings,
        "seconds": ", ".join(f"{n} {s:.1f}" for n, s in evaluation.seconds.items())
        + f"; {total:.1f} in all",
        "benchrouter": evaluation.version,
    }
    rows = "".join(
        f"<dt>{escape(name)}</dt><dd>{_fact(name, str(value))}</dd>"
        for name, value in facts.items()
    )
    return (
        '<section id="provenance"><h2>How this was made</h2>'
        f'<dl class="provenance">{rows}</dl>'
        "<p>Definitions and equation numbers: Shnitzer et al., “Large Language Model Routing with "
        "Benchmark Datasets”, arXiv 2309.15789.</p></section>"
    )


def _fact(name: str, value: str) -> str:
    return f"<code>{escape(value)}</code>" if name == "command" else escape(value)


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


_STYLE = """
:root { --ink: #1c1c1c; --soft: #5c5c5c; --rule: #d8d8d8; --accent: #0072b2; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.5rem 5rem; max-width: 66rem; color: var(--ink);
  background: #fff; font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans",
  "DejaVu Sans", sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; font-weight: 600; margin: 0; }
h2 { font-size: 1.25rem; font-weight: 600; margin: 3.2rem 0 .6rem; padding-top: .9rem;
  border-top: 1px solid var(--rule); }
p { max-width: 50rem; margin: .5rem 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
.facts { color: var(--soft); margin-top: .3rem; }
.summary { margin: 1.6rem 0 1.4rem; padding: .9rem 1.3rem; border-left: 3px solid var(--accent);
  background: #f6f8fa; }
.summary h2 { border: 0; padding: 0; margin: 0 0 .3rem; font-size: 1rem; }
.banner { border-left-width: 8px; } .banner h2 { font-size: 1.15rem; }
nav ol { margin: 0; padding-left: 1.3rem; color: var(--soft); columns: 2 20rem; }
.sheet, details, figure { margin: 1.9rem 0; }
.scroll { overflow-x: auto; scrollbar-width: thin; scrollbar-color: #8a8a8a #ececec;
  background: linear-gradient(to right, #fff 40%, #fff0) 0 0 / 3rem 100% no-repeat local,
    linear-gradient(to left, #fff 40%, #fff0) 100% 0 / 3rem 100% no-repeat local,
    linear-gradient(to right, #0003, #0000) 0 0 / .8rem 100% no-repeat scroll,
    linear-gradient(to left, #0003, #0000) 100% 0 / .8rem 100% no-repeat scroll, #fff; }
table { border-collapse: collapse; font-size: .84rem; line-height: 1.35;
  font-variant-numeric: tabular-nums lining-nums; }
thead th { border-bottom: 1px solid var(--ink); font-weight: 600; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 1px solid var(--ink); }
th, td { padding: .26rem .5rem; text-align: left; white-space: nowrap; }
thead th { white-space: normal; } td.n, th.n { text-align: right; }
th { font-weight: 400; } th:first-child { padding-left: 0; }
tbody tr:hover > * { background: #f6f8fa; }
.best > * { font-weight: 600; }
sup { font-size: .7em; line-height: 0; color: var(--accent); margin-left: .1em; }
.caption, figcaption { font-size: .9rem; color: var(--ink); max-width: 52rem; margin: 0 0 .6rem; }
figcaption { margin: .4rem 0 0; }
figure { margin-left: 0; margin-right: 0; } img { max-width: 100%; height: auto; display: block; }
.foot, .meanings { margin: .5rem 0 0; font-size: .82rem; line-height: 1.45; color: var(--soft); }
.foot { max-width: 60rem; } .foot span { margin-right: .7rem; }
.meanings { columns: 2 24rem; column-gap: 2.5rem; }
.meanings div { break-inside: avoid; padding-left: 1.2rem; text-indent: -1.2rem; }
.meanings dt, .meanings dd { display: inline; } .meanings dt::after { content: ": "; }
dt { font-weight: 600; color: #3f3f3f; } dd { margin: 0; overflow-wrap: anywhere; }
.provenance { display: grid; grid-template-columns: max-content 1fr; gap: .1rem 1rem;
  font-size: .9rem; color: var(--soft); margin: .7rem 0 1rem; }
code { font: .95em ui-monospace, "DejaVu Sans Mono", monospace; white-space: pre-wrap; }
summary { cursor: pointer; font-size: .9rem; }
details[open] > summary { margin-bottom: .4rem; }
@media (max-width: 40rem) { body { padding: 1.2rem 1rem 3rem; }
  .provenance { grid-template-columns: 1fr; } dd { margin-bottom: .3rem; }
  img { max-width: none; width: 42rem; } }
@media print { body { max-width: none; padding: 0; font-size: 10pt; } nav { display: none; }
  figure, tr, .caption, .foot span { break-inside: avoid; } thead { display: table-header-group; }
  h2, h2 + p, .caption, summary { break-after: avoid; }
  .scroll { overflow: visible; background: none; } figure .scroll { break-after: avoid; }
  p, .foot { orphans: 3; widows: 3; }
  table { font-size: 7.5pt; } th, td { padding: .1rem .16rem; }
  tbody th, td:not(.n) { white-space: normal; }
  img { max-width: 100%; width: auto; } details::details-content { content-visibility: visible; } }
"""

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>benchrouter evaluation: {title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
