"""The report as one HTML page that needs no other file."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from benchrouter.evaluation.report.figures.style import DPI
from benchrouter.evaluation.report.outline import Picture, Section, sections
from benchrouter.evaluation.report.sheets.sheet import Sheet, capitalised, counted, letter
from benchrouter.evaluation.report.summary import banner, notes_of, summary

if TYPE_CHECKING:
    from jinja2 import Template

    from benchrouter.evaluation.results import Evaluation

CSS_PIXELS_PER_INCH = 128  # of a figure on the page: its 8 pt letters are as large as the text's


def to_html(
    evaluation: Evaluation,
    drawn: Mapping[str, bytes],
    provenance: Mapping[str, str] | None = None,
) -> str:
    """Write one page that needs no other file, by the template ``page.html``.

    Parameters
    ----------
    evaluation : Evaluation
    drawn : dict of str to bytes
        Figures, as `report.draw` gives them; others are left out.
    provenance : dict of str to str, optional

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    """
    first = evaluation.pools[0].table
    counts = ("record", "dataset", "model")
    return template().render(
        facts=", ".join(counted(first[f"n_{noun}s"], noun) for noun in counts),
        banner=banner(evaluation),
        summary=[_paragraph(text) for text in summary(evaluation)],
        parts=list(_numbered(sections(evaluation), drawn)),
        notes=notes_of(evaluation),
        provenance=_provenance(evaluation, provenance or {}),
    )


def template() -> Template:
    """Load the page's template.

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("a report needs jinja2: pip install 'benchrouter[evaluate]'") from error
    pages = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    return pages.get_template("page.html")


def _paragraph(text: str) -> tuple[str, str]:
    """What a paragraph is about, and the rest."""
    about, colon, rest = text.partition(":")
    return (about, capitalised(rest.strip())) if colon else ("", text)


def _numbered(parts: list[Section], drawn: Mapping[str, bytes]) -> Iterator[dict[str, Any]]:
    """Sections with their tables and figures numbered, and each definition given once."""
    tables = figures = 0
    for part in parts:
        content: list[dict[str, Any]] = []
        defined: set[tuple[str, str]] = set()
        for item in part.content:
            if isinstance(item, Sheet):
                tables += 1
                content.append(_table(item, tables, defined))
                defined.update(item.definitions)
            elif item.name in drawn:
                figures += 1
                content.append(_figure(item, figures, drawn[item.name]))
        yield {"key": part.key, "title": part.title, "words": part.words, "content": content}


def _table(sheet: Sheet, number: int, defined: set[tuple[str, str]]) -> dict[str, Any]:
    return {
        "sheet": sheet,
        "number": number,
        "title": capitalised(sheet.title),
        "numeric": [
            bool(sheet.rows) and all(row[c].is_number for row in sheet.rows)
            for c in range(len(sheet.columns))
        ],
        "footnotes": [(letter(i), why) for i, why in enumerate(sheet.footnotes())],
        "meanings": [pair for pair in sheet.definitions if pair not in defined],
    }


def _figure(picture: Picture, number: int, png: bytes) -> dict[str, Any]:
    pixels = int.from_bytes(png[16:20], "big")  # the width in a PNG's header
    return {
        "sheet": None,
        "number": number,
        "name": picture.name,
        "caption": picture.caption,
        "width": round(pixels / DPI * CSS_PIXELS_PER_INCH),
        "png": base64.b64encode(png).decode("ascii"),
    }


def _provenance(evaluation: Evaluation, provenance: Mapping[str, str]) -> dict[str, str]:
    total = sum(evaluation.seconds.values())
    stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in evaluation.seconds.items())
    settings = (f"{name} = {_setting(value)}" for name, value in evaluation.settings.items())
    return {
        **provenance,
        "settings": ", ".join(settings),
        "seconds": f"{stages}; {total:.1f} in all",
        "benchrouter": evaluation.version,
    }


def _setting(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " ".join(f"{v:g}" for v in value)
    return f"{value:g}" if isinstance(value, float) else str(value)
