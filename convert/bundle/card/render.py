"""Puts a bundle's README.md together."""

from convert import command_line
from convert.bundle.card import sections, snippets
from convert.bundle.card.languages import LANGUAGES
from convert.bundle.report import Report, output_name, rows

RANDOM = (
    "> **RANDOM WEIGHTS: this file is good for measuring speed and size only. What it answers "
    "means nothing.**"
)
MISSED = "> **This file missed a gate that was set for it: see Measured.**"
CODE = """### {name}

{needs}

```{fence}
{code}```
"""
CARD = """# {title}
{warnings}
{network}

**Weights.** {weights}

**Quantized.** {quantized}

## Input

{source}

## Output

{result}

## Measured

{gates}

| | |
|---|---|
{table}

`report.json` has all figures, every layer's fidelity, settings, versions and hashes.

## Limits

{limits}

## Code

Each takes pixels that were scaled and cropped as above; the lines in Python do that too. An Android
app that does it byte for byte is made by `python -m convert ... --android_app DIR`.

{codes}
## To make it again

    {command}

with {versions}: the same inputs give the same bytes, SHA-256 {sha256}.
"""


def to_markdown(report: Report, *, title: str, has_labels: bool) -> str:
    """The bundle's README; the same report gives the same text."""
    warnings = [
        text
        for text, holds in (
            (RANDOM, report.weights.origin == "random"),
            (MISSED, not report.passed),
        )
        if holds
    ]
    return CARD.format(
        title=title,
        warnings="".join(f"\n{text}\n" for text in warnings),
        network=sections.network(report),
        weights=sections.weights(report),
        quantized=sections.quantization(report),
        source=sections.source(report),
        result=sections.result(report, has_labels=has_labels),
        gates=sections.gates(report),
        table="\n".join(f"| {what} | {_cell(much)} |" for what, much in rows(report)),
        limits="\n".join(f"- {limit}" for limit in sections.limits(report)),
        codes="\n".join(_codes(report)),
        command=command_line.line(report.settings),
        versions=", ".join(f"{name} {version}" for name, version in report.versions.items()),
        sha256=report.sha256,
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _codes(report: Report) -> list[str]:
    audit, name = report.audit, output_name(report)
    return [
        CODE.format(
            name=language.name,
            needs=language.needs,
            fence=language.fence,
            code=snippets.code(
                language, audit.input, audit.output, report.preprocessing, name=name
            ),
        )
        for language in LANGUAGES
    ]
