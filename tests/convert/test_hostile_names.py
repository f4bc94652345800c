"""Whole outputs with names that would steer a terminal, hide text or break a table.

Markdown is judged by the parser that rich uses: the same parts and text as with plain names.
"""

import dataclasses
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from android_bench import compare, tables
from android_bench.compare import Comparison
from android_bench.measurement import OperatorTime
from android_bench.plots import bars
from convert.accuracy import confusion
from convert.accuracy import report as accuracy_report
from convert.accuracy.report import AccuracyReport, ModelAccuracy
from convert.bundle.card import render
from convert.network import WeightsOrigin
from keras_models.accuracy import Accuracy, Difference
from keras_models.images.decode import Preprocessing
from shufflelite import cli, display
from shufflelite.progress import Progress
from tests.android_bench.rows import row
from tests.convert.bundle.test_writer import make_report

NASTY = (
    *(
        "\x1b[2J",
        "\x1b]0;title\x07",
        "\x1b[31m",
        "\x9b31m",
        "\r",
        "\n",
        "\x08",
        "\x00",
        "\t",
        "\x7f",
    ),
    *("\u202e", "\u2066", "\u200b", "\u2028", "\x85", "\udcff", "\ufeff", "\U000e0041"),
    *("|", "`", "```", "](http://x)", "![a](b)", "[a](b)", "<!--", "<img src=x>", "<http://x>"),
    *("&#8238;", "&lt;", "\\", "\\|", "*", "**a**", "_a_", "__", "# ", "- ", "> ", "1. ", "[a]: b"),
    *("~~~", "---", "===", "$x$", "$", "{{ x }}", "{% x %}", "%s", "[bold]", "[/red]", ":smile:"),
    *("a", "B", " ", "é", "中", "net_x0_5"),
)
NAMES = st.lists(st.sampled_from(NASTY) | st.characters(), min_size=1, max_size=6).map("".join)
many = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def rows(name: str) -> list[tables.Row]:
    named = row(
        name,
        network=None,
        cpu=name,
        target=name,
        notes=[name],
        delegate=name,
        runtime=name,
        ratio_to=name,
        fingerprint=name,
        profile=[OperatorTime(name, name, 1.0, 1, delegated=True)],
    )
    return [named, row("other", ratio=2.0)]


def accuracies(name: str) -> AccuracyReport:
    plain = ModelAccuracy(
        name=name,
        path=name,
        sha256="ab",
        size_bytes=5,
        runtime=name,
        precision=name,
        input_dtype="int8",
        output_dtype="int8",
        resolution=8,
        preprocessing=Preprocessing(),
        pictures_sha256="cd",
        accuracy=Accuracy(10, 1.0, 50.0, 90.0, (40.0, 60.0)),
        undecided=1,
        difference=None,
        confusion=((0, 1, 3), (1, 1, 7)),
    )
    other = dataclasses.replace(plain, difference=Difference(1.0, (0.0, 2.0), 90.0, 1, 2))
    return AccuracyReport(name, 10, 2, (name, "plain"), (plain, other), {})


def comparison(name: str) -> Comparison:
    compared = compare.compare(rows(name), rows(name), limit=0.05)
    return dataclasses.replace(compared, differences=[name], missing=[name], new=[name])


def card(name: str) -> str:
    report = make_report()
    origin = dataclasses.replace(report.verified_on, origin=name)
    report = dataclasses.replace(
        report,
        calibration=origin,
        verified_on=origin,
        weights=WeightsOrigin(name, name),
        settings=dataclasses.replace(
            report.settings, model=dataclasses.replace(report.settings.model, weights=name)
        ),
    )
    return render.to_markdown(report, title=f"x{name}", has_labels=True)


PAGES: dict[str, Callable[[str], str]] = {
    "sweep": lambda name: tables.sweep_table(rows(name), [name]),
    "profile": lambda name: tables.profile_tables(rows(name), costliest=3),
    "comparison": lambda name: tables.comparison_table(comparison(name)),
    "accuracy": lambda name: accuracy_report.to_markdown(accuracies(name), pictures=["1", "2"]),
    "card": card,
}


def structure(tokens: list[Token]) -> Iterator[str]:
    for token in tokens:
        if token.type not in ("text", "text_special", "softbreak"):
            yield token.type
        yield from structure(token.children or [])


def texts(tokens: list[Token]) -> str:
    return "".join(
        t.content if t.type in ("text", "text_special") else texts(t.children or []) for t in tokens
    )


@pytest.mark.parametrize("page", PAGES)
@given(name=NAMES)
@example(name="".join(NASTY))
@many
def test_a_page_has_the_same_parts_whatever_the_names(page: str, name: str) -> None:
    parse = MarkdownIt("commonmark").enable("table").parse
    text = PAGES[page](name)
    assert all(c.isprintable() or c == "\n" for c in text)
    tokens = parse(text)
    assert [*structure(tokens)] == [*structure(parse(PAGES[page]("plain")))]
    shown = display.printable_line(name)
    assert shown in texts(tokens)
    text.encode()


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


@contextmanager
def terminal() -> Iterator[Terminal]:
    """Standard output and error as `cli.run` makes them."""
    screen, before = Terminal(), (sys.stdout, sys.stderr)
    sys.stdout = sys.stderr = display.SafeStream(
        screen, encoding="utf-8", errors="backslashreplace", write_through=True
    )
    try:
        yield screen
    finally:
        sys.stdout.detach()
        sys.stdout, sys.stderr = before


def print_all(name: str) -> None:
    tables.print_run(rows(name), file=sys.stdout)
    accuracy_report.print_table(accuracies(name), file=sys.stdout)
    cli.print_facts([("weights", name)])
    cli._fail("convert", f"{name}: expected another, got {name}", 1)
    progress = Progress("bench")
    progress.warn(name)
    progress.tell(name)


@given(name=NAMES)
@example(name="".join(NASTY))
@many
def test_a_terminal_shows_the_same_lines_whatever_the_names(name: str) -> None:
    shown = []
    for one in (name, "plain"):
        with terminal() as screen:
            print_all(one)
        shown.append(screen.getvalue().decode())
    assert all(c.isprintable() or c == "\n" for c in shown[0])
    assert shown[0].count("\n") == shown[1].count("\n")


@given(name=NAMES)
@many
def test_what_is_printed_past_all_that_still_obeys_nothing(name: str) -> None:
    with terminal() as screen:
        print(name)
        sys.stdout.write(name)
    assert all(c.isprintable() or c == "\n" for c in screen.getvalue().decode())


@pytest.mark.parametrize("name", ["".join(NASTY), "[/red]", "\x1b]0;title\x07", "[bold]\\"])
def test_bars_draw_themselves_and_the_names_as_text(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "400")
    with terminal() as screen:
        assert [*Progress("bench").track(range(2), name)] == [0, 1]
        with Progress("bench").stage(name) as step:
            step(1, 2)
            Progress("bench").tell(name)
        after = len(screen.getvalue())
        print("\x1b[31m")
    shown = screen.getvalue().decode()
    assert "\x1b[" in shown[:after]  # the bars' own
    assert "\x1b]0" not in shown
    assert "\x1b[31m" not in shown[after:]
    assert display.printable(name)[:20] in shown


@pytest.mark.parametrize("name", ["$x$", "$\\frac{", "\x1b[2J\u202e", "a\nb"])
def test_charts_show_names_as_they_are(name: str) -> None:
    measured = accuracies(name)
    assert confusion.picture(measured, measured.forms[0]).startswith(b"\x89PNG")
    picture = bars.operator_profile(rows(name))
    assert picture is not None
    assert picture.startswith(b"\x89PNG")
