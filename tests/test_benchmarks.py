"""Each benchmark runs on its smallest input; what it measures is not judged here."""

import sys

import pytest

from tests.simulated import ROOT, refuse, succeed

STEP = "--units 60 --widths 8 --steps 1"
SMALLEST = {
    "create_naq": "--preset tiny",
    "evaluation": "--labels 50 --predictions 50 --repeats 1",
    "gpu": "--device cpu --small --steps 1",
    "groundnlq_step": f"--batch 1 {STEP}",
    "inference": "--clips 1 --units 16 60 60 --widths 8 --times 1",
    "learning": "--help",  # its smallest run is a quickstart
    "loaded": "--work vslnet --busy 0 --seconds 0.1 --rounds 1",
    "reler_step": f"--batch 2 {STEP}",
    "search_index": "--help",  # tests/utils/test_index_videos.py indexes
    "roofline": "--vslnet_batch 2 --reler_batch 1 --groundnlq_batch 1 --steps 1",
    "vslnet_step": f"--batch 2 {STEP}",
}
MINUTES = ("groundnlq_step", "inference", "roofline")  # up to two, at their smallest


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.long] * (n in MINUTES)) for n in SMALLEST]
)
def test_a_benchmark_runs(name):
    if name == "create_naq":
        pytest.importorskip("pandas", reason="the plain version needs it")
    succeed(f"benchmarks/{name}.py", *SMALLEST[name].split())


def test_all_programs_are_listed():
    programs = {
        path.stem for path in (ROOT / "benchmarks").glob("*.py") if "run_program(main)" in
        path.read_text()
    }  # fmt: skip
    assert programs == SMALLEST.keys()


def test_outside_its_environment_a_program_says_how_to_get_in():
    for name in SMALLEST:
        line = refuse(sys.executable, "-I", "-S", ROOT / f"benchmarks/{name}.py")
        assert "lacks torch, numpy, transformers, ...; run: " in line
