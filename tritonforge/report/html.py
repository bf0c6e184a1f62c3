"""The report as one self-contained HTML file: no script, no request, equal bytes for equal reports.

Everything in a report but its own words is taken as hostile: the template runs sandboxed and escapes all that it is
given, and the page forbids itself to load anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from tritonforge import __version__
from tritonforge.report import figures, plots
from tritonforge.report.document import Report
from tritonforge.report.graph import draw
from tritonforge.report.svg import Drawn
from tritonforge.repository.template import house_templates

TEMPLATE: Final = "report.html.j2"
STYLE: Final = "report.css"
MOST_ROWS: Final = 200
"""Rows of a table; the JSON has all of them."""

STATES: Final[Mapping[str, str]] = {
    "proven": "Proven",
    "partly": "Proven in part",
    "failed": "Failed",
    "unproven": "Not proven",
}
GOOD: Final[Mapping[str, str]] = {
    "proven": "good",
    "pass": "good",
    "answers": "good",
    "failed": "bad",
    "fail": "bad",
}
"""How a verdict is coloured; what is not here is neither good nor bad, and every colour goes with the word."""


def to_html(report: Report) -> str:
    """The whole page as text."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    folder = house_templates() / "report"
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader(folder),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=figures.number,
        share=figures.share,
        bytes=figures.size,
        seconds=figures.seconds,
        moment=figures.moment,
        short=figures.short,
    )
    return environment.get_template(TEMPLATE).render(
        report=report,
        style=Drawn((folder / STYLE).read_text(encoding="utf-8")),
        states=STATES,
        tone=lambda verdict: GOOD.get(verdict, "open"),
        interval=figures.interval,
        most=MOST_ROWS,
        version=__version__,
        **_pictures(report),
    )


def _pictures(report: Report) -> dict[str, Any]:
    """Every picture of the page; names that could be anything never become ids."""
    models = list(dict.fromkeys(row.model for row in report.parity))
    return {
        "graphs": [(graph, draw(f"graph-{index}", graph)) for index, graph in enumerate(report.ensembles)],
        "parity": [
            (model, rows := [row for row in report.parity if row.model == model], plots.parity(f"parity-{index}", rows))
            for index, model in enumerate(models)
        ],
        "gates": [
            (gate, _gate_plots(f"gate-{index}", gate.evidence.levels, gate.evidence.slo) if gate.evidence else [])
            for index, gate in enumerate(report.gates)
        ],
    }


def _gate_plots(ident: str, levels: Any, slo: Mapping[str, Any]) -> list[Drawn]:
    return [
        plots.latency(f"{ident}-latency", levels, slo),
        plots.throughput(f"{ident}-throughput", levels, slo),
        plots.windows(f"{ident}-windows", levels, slo),
    ]
