"""The papers' claims: their figures are the papers', and ours are the same quotients."""

import math
from pathlib import Path

import pytest

from android_bench import build_cache, paper_claims, sweep, tables
from android_bench.paper_claims import Claim, Operand
from keras_models import registry
from shufflelite.errors import InputError
from tests.android_bench.rows import network, row

ROOT = Path(__file__).parents[2]
PAPERS = sweep.load(ROOT / "configs" / "paper_claims.toml")
LARGE = row("large", ratio=6.0, network=network(multiply_adds=800, params=70))
SMALL = row("small", ratio=1.5, network=network(multiply_adds=50, params=10))


def claim(quantity: str = "cost", **changes: object) -> Claim:
    fields = {
        "text": "large over small",
        "place": "Section 1",
        "quantity": quantity,
        "numerator": Operand("mobilenet_v1", {"width": 1.0}),
        "denominator": Operand("mobilenet_v1", {"width": 0.25}),
    }
    return Claim(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("paper_claim", "expected"),
    [
        (claim("cost"), 4.0),
        (claim("multiply_adds"), 16.0),
        (claim("params"), 7.0),
        (claim("multiply_adds", power_of=4.0), 2.0),
        (claim("cost", power_of=2.0), 2.0),
        (claim("cost", per_fold=4.0), 2.0),  # 16 is 4 ** 2, and 4 is 2 ** 2
        (claim("cost", per_fold=16.0), 4.0),
        (claim("multiply_adds", per_fold=3.0), 3.0),
    ],
)
def test_figures_are_quotients_exponents_or_quotients_per_fold(
    paper_claim: Claim, expected: float
) -> None:
    assert paper_claims.measured_figure(paper_claim, LARGE, SMALL) == pytest.approx(expected)


@pytest.mark.parametrize("base", [0.25, 0.5, 3.0])
def test_an_exponent_gives_back_the_quotient(base: float) -> None:
    exponent = paper_claims.measured_figure(claim("params", power_of=base), LARGE, SMALL)
    assert base**exponent == pytest.approx(
        paper_claims.measured_figure(claim("params"), LARGE, SMALL)
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"figure": (1.0, 2.0, 3.0)}, "'figure' to be a number or a range"),
        ({"power_of": 1.0}, "'power_of' to be above 0 and not 1"),
        ({"per_fold": 0.0}, "'per_fold' to be above 0 and not 1"),
        ({"per_fold": 4.0, "power_of": 2.0}, "'per_fold' or 'power_of', got both"),
    ],
)
def test_a_claim_that_means_nothing_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        claim(**changes)


def published(spec: build_cache.NetworkSpec) -> int:
    """Its multiply-adds in millions, by its paper or its authors' code."""
    options = {"groups": 3, **dict(spec.options)}
    for variant in registry.find(spec.model).published:
        if variant.resolution == spec.resolution and variant.options.items() <= options.items():
            return variant.mmadds
    raise LookupError(spec)


@pytest.mark.parametrize("paper_claim", [c for c in PAPERS.claim if c.quantity == "multiply_adds"])
def test_what_papers_claim_in_theory_follows_from_what_they_publish(paper_claim: Claim) -> None:
    large, small = (
        row(network=network(multiply_adds=published(operand.network)))
        for operand in (paper_claim.numerator, paper_claim.denominator)
    )
    (figure,) = paper_claim.figure
    assert paper_claims.measured_figure(paper_claim, large, small) == pytest.approx(
        figure, rel=0.07
    )


TIMES = {  # Table 8 of arXiv:1707.01083: milliseconds at 224
    "alexnet 224": 184.0,
    "alexnet local_response_norm=False 224": 184.0,
    "shufflenet_v1 groups=3 width=0.5 224": 15.2,
    "shufflenet_v1 groups=3 width=1.0 224": 37.8,
    "shufflenet_v1 groups=3 width=2.0 224": 108.8,
}
PACES = {  # Table 8 of arXiv:1807.11164: of images a second on ARM, so seconds an image
    "mobilenet_v1 width=0.5 224": 1 / 16.5,
    "shufflenet_v2 width=1.0 224": 1 / 24.4,
    "shufflenet_v1 groups=3 width=1.0 224": 1 / 21.8,
}
ABOUT = {(13.0,): 0.1, (2.6,): 0.2}  # "about 13" is 12.1, and "about 2.6" is 2.6 and 3.0


@pytest.mark.parametrize(
    ("paper_claim", "table"),
    [
        (paper_claim, table)
        for paper_claim in PAPERS.claim
        for table in (TIMES, PACES)
        if paper_claim.quantity == "cost"
        and paper_claim.figure
        and {str(paper_claim.numerator.network), str(paper_claim.denominator.network)}
        <= table.keys()
    ],
)
def test_what_papers_claim_in_practice_follows_from_what_they_measured(
    paper_claim: Claim, table: dict[str, float]
) -> None:
    large, small = (
        row(ratio=table[str(spec)], network=network(multiply_adds=published(spec)))
        for spec in (paper_claim.numerator.network, paper_claim.denominator.network)
    )
    (figure,) = paper_claim.figure
    expected = pytest.approx(figure, rel=ABOUT.get(paper_claim.figure, 0.005))
    assert paper_claims.measured_figure(paper_claim, large, small) == expected


def test_all_that_is_claimed_is_there_at_resolution_224() -> None:
    subjects = {
        str(operand.network) for c in PAPERS.claim for operand in (c.numerator, c.denominator)
    }
    groups = {f"shufflenet_v1 groups={g} width=1.0 224" for g in (1, 2, 3, 4, 8)}
    excited = {f"shufflenet_v1 groups=3 squeeze_excite=True width={w} 224" for w in (1.0, 2.0)}
    alphas = {f"mobilenet_v1 width={w} 224" for w in (1.0, 0.75, 0.5, 0.25)}
    rhos = {f"mobilenet_v1 width=1.0 {resolution}" for resolution in (224, 192, 160, 128)}
    assert subjects >= {"alexnet 224", *groups, *excited, *alphas, *rhos}
    assert str(sweep.networks(PAPERS)[0]) == "shufflenet_v1 groups=3 width=0.5 224"


def test_the_table_has_a_column_for_counts_and_one_for_each_target() -> None:
    claims = [
        claim("cost", figure=(13.0,), note="Two operators are float."),
        claim("multiply_adds", figure=(18.0,)),
        claim("cost", figure=(1.25, 1.4), text="a | range"),
        claim("cost", power_of=4.0, figure=(2.0,)),
        claim("cost"),
        claim("cost", numerator=Operand("alexnet")),
        claim("cost", per_fold=4.0, numerator=Operand("mobilenet_v1", {"width": 0.25})),
    ]
    models = {claims[0].numerator.network: "large", claims[0].denominator.network: "small"}
    counted = [
        row("large", ratio=5.0, instructions={"dot": 5}, network=LARGE.network),
        row("small", ratio=1.0, instructions={"dot": 1}, network=SMALL.network),
    ]
    text = tables.claims_table(claims, [LARGE, SMALL, *counted], models, ["Random weights."])
    lines = text.splitlines()
    split = [[cell.strip() for cell in line.split(" | ")] for line in lines]
    assert [cells[2:] for cells in split[2:9]] == [
        ["13x", "", "4.00x", "5.00x |"],
        ["18x", "16.00x", "", "|"],
        ["1.25-1.4x", "", "4.00x", "5.00x |"],
        ["2", "", "1.00", f"{math.log(5, 4):.2f} |"],
        ["no figure", "", "4.00x", "5.00x |"],
        ["no figure", "", "-", "- |"],
        ["no figure", "", "-", "- |"],  # of one network over itself: no fold of multiply-adds
    ]
    assert lines[0].endswith("| counted | host, time | emulated:a53, instructions |")
    assert "large over small [1]" in lines[2]
    assert r"a \| range" in lines[4]
    assert "[1] Two operators are float." in lines
    assert any(
        line.startswith(
            "host: Some CPU, unknown instruction set, litert 2.3.0, delegate xnnpack, 1 thread"
        )
        for line in lines
    )
    assert lines[-1] == "Random weights."
