"""An evaluation on disk: one self-contained HTML page, JSON, and the figures as PNG."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchrouter.evaluation.report.outline import Picture, sections
from benchrouter.evaluation.report.page import template, to_html
from benchrouter.evaluation.report.summary import banner, notes_of, summary
from benchrouter.evaluation.report.verdicts import verdicts
from benchrouter.files.atomic import new_beside, replacing
from benchrouter.files.os_errors import naming
from benchrouter.files.plain import finite

if TYPE_CHECKING:
    from benchrouter.evaluation.results import Evaluation

HTML, JSON, FIGURES = "report.html", "report.json", "figures"


def check_target(directory: str | Path) -> Path:
    """Check, before any long work, that a report may be written to a directory.

    Parameters
    ----------
    directory : path
        Its parents are made where they are missing.

    Returns
    -------
    Path
        The directory, absolute.

    Raises
    ------
    ImportError
        If jinja2 is not installed.
    ValueError
        If it is a file, or a directory that holds something else than a report.
    OSError
        If its parent cannot be made or written.
    """
    template()
    target = Path(directory).resolve()
    if target.exists() and not target.is_dir():
        raise ValueError(f"{directory} exists and is a file, expected a directory")
    if target.is_dir():
        foreign = sorted({path.name for path in target.iterdir()} - {HTML, JSON, FIGURES})
        if foreign:
            raise ValueError(
                f"{directory} holds {foreign[0]!r}, which is no part of a report, and would be "
                "replaced whole: move it away, or name another directory"
            )
    with naming(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        new_beside(target).rmdir()
    return target


def write_report(
    evaluation: Evaluation,
    directory: str | Path,
    *,
    provenance: Mapping[str, str] | None = None,
    figures: bool = True,
) -> Path:
    """Write ``report.html``, ``report.json`` and ``figures/*.png``: all of them or nothing.

    Parameters
    ----------
    evaluation : Evaluation
    directory : path
        Made, or replaced whole if it holds an earlier report.
    provenance : dict of str to str, optional
        What was run and on what: shown at the end, in this order.
    figures : bool
        Draw them; needs matplotlib.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    ImportError
        If jinja2 is not installed, or figures are wanted and matplotlib is not.
    OSError
        If the directory cannot be written; an earlier report is then untouched.
    """
    target = check_target(directory)
    drawn = draw(evaluation) if figures else {}
    with naming(directory), replacing(target) as beside:
        (beside / HTML).write_text(to_html(evaluation, drawn, provenance), encoding="utf-8")
        (beside / JSON).write_text(to_json(evaluation, provenance), encoding="utf-8")
        (beside / FIGURES).mkdir()
        for name, png in drawn.items():
            (beside / FIGURES / f"{name}.png").write_bytes(png)
    return target / HTML


def draw(evaluation: Evaluation) -> dict[str, bytes]:
    """Draw all figures of an evaluation.

    Returns
    -------
    dict of str to bytes
        Name to PNG, 200 dots per inch.

    Raises
    ------
    ImportError
        If matplotlib is not installed.
    """
    from benchrouter.evaluation.report.figures.style import DPI, paper

    drawn = {}
    for section in sections(evaluation):
        for item in section.content:
            if isinstance(item, Picture):
                file = io.BytesIO()
                with paper():
                    # no version of matplotlib in the file: the same figure, the same bytes
                    item.draw().savefig(file, dpi=DPI, format="png", metadata={"Software": None})
                drawn[item.name] = file.getvalue()
    return drawn


def to_json(evaluation: Evaluation, provenance: Mapping[str, str] | None = None) -> str:
    """Everything that was measured, as JSON; null for what is not known."""
    document = to_document(evaluation, provenance)
    return json.dumps(document, ensure_ascii=False, allow_nan=False) + "\n"


def to_document(
    evaluation: Evaluation, provenance: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Everything that was measured, as plain values: every table and figure can be made from it.

    Returns
    -------
    dict
        None for what is not known. ``banner`` (whether routing pays, in lines), ``verdicts`` (the
        same in numbers, one for each question), ``summary``, ``settings``, ``notes`` and
        ``missing`` (the notes as the page shows them), ``seconds``, ``provenance``; and

        - ``pools``: of each its ``table``, ``table_one`` by nesting, ``table_one_with_labels``,
          ``smoother`` (`results.smoother`), ``expectations`` (`results.expectations`, means over
          draws) and ``leave_one_dataset_out``: arrays by dataset, label share and model (u
          without models), means over draws; ``picks`` without labels, in the first draw;
        - ``prompts``: of each protocol ``rows``, ``gains``, ``sparsity``, ``calibration`` and
          ``costs``, by rule, and ``cascades``; costs in US$ a prompt;
        - ``robustness``: an entry an edit.
    """
    return dict(
        finite(
            {
                "banner": banner(evaluation),
                "verdicts": [verdict.to_dict() for verdict in verdicts(evaluation)],
                "summary": summary(evaluation),
                **evaluation.to_dict(),
                "missing": notes_of(evaluation),
                "provenance": dict(provenance or {}),
            }
        )
    )
