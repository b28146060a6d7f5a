"""What the terminal shows, and how numbers read."""

import io
import re

import pyarrow as pa
import pytest
from example_run import write_example_run
from rich.console import Console

from repast_dist.ground.files import RESULT, read_json
from repast_dist.report.console import RunProgress, findings_table, print_summary, print_table, say
from repast_dist.report.units import counted, duration, large, lifetime, number, percent, si
from repast_dist.trace import Finding


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234e-6, "s", "1.23 µs"),
        (7140.0, "1/s", "7.14 k/s"),
        (71.4, "1/s", "71.4 /s"),
        (0.99996e-3, "s", "1.00 ms"),
        (0.0, "J", "0 J"),
        (5e3, "W", "5.00 kW"),
        (2e-18, "J", "0.00200 fJ"),
        (3.3e-6, "m2", "3.30 mm2"),
        (0.0148, "m2", "14,800 mm2"),
        (1.5, "m2", "1.50 m2"),
        (2.54e-11, "m2", "25.4 µm2"),
        (float("nan"), "s", "–"),
        (float("inf"), "s", "∞"),
        (-4.5e-9, "J", "-4.50 nJ"),
    ],
)
def test_quantities_read_in_si_prefixes(value: float, unit: str, text: str) -> None:
    assert si(value, unit) == text


def test_plain_numbers_group_thousands_and_keep_three_digits() -> None:
    assert [number(v) for v in (1234567, 0.012345, 7e-9, None, 12.0)] == [
        "1,234,567", "0.0123", "7.00e-09", "–", "12"]  # fmt: skip
    assert percent(0.9541) == "95.4 %"
    assert [duration(s) for s in (4.26, 48.2, 185, 7800)] == [
        "4.3 s", "48 s", "3 min 05 s", "2 h 10 min"]  # fmt: skip


def test_the_summary_names_every_phase_with_its_total(tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = read_json(write_example_run(tmp_path / "run", steps=10) / RESULT)
    text = io.StringIO()
    print_summary(result, Console(file=text, width=100))
    for name, phase in result["totals"]["phases"].items():
        row = next(line for line in text.getvalue().splitlines() if f" {name} " in line)
        assert si(phase["time_s"], "s") in row
        assert si(phase["energy_j"], "J") in row
    assert si(result["totals"]["energy_j"], "J") in text.getvalue()


def test_the_summary_says_which_cells_wear_out_first_and_when(tmp_path) -> None:  # type: ignore[no-untyped-def]
    result = read_json(write_example_run(tmp_path / "run", steps=10) / RESULT)
    text = io.StringIO()
    print_summary(result, Console(file=text, width=100))
    last = text.getvalue().splitlines()[-1]
    assert "cells of activations and errors wear out first" in last
    assert "22.7 million epochs, or 6.75 days" in last


def test_lives_of_cells_read_in_hours_days_and_years() -> None:
    assert [lifetime(s) for s in (48.2, 7200.0, 583_200.0, 6.0e7)] == [
        "48 s", "2.00 h", "6.75 days", "1.90 years"]  # fmt: skip
    assert [large(v) for v in (318.0, 22.7e6, 1.25e9)] == ["318", "22.7 million", "1.25 billion"]
    assert [large(v) for v in (9.994e8, 9.9996e8)] == ["999 million", "1.00 billion"]


def test_progress_prints_plain_lines_when_output_is_not_a_terminal() -> None:
    text = io.StringIO()
    with RunProgress(3, chips=4, console=Console(file=text, width=100)) as progress:
        progress.update(1, loss=2.0)
        progress.message("chip 2 restarted")
        progress.update(3, loss=0.5, accuracy=0.954, chips=3)
    assert text.getvalue().splitlines()[0] == "chip 2 restarted"
    last = text.getvalue().splitlines()[-1]
    assert last.startswith("step 3/3  loss 0.500  accuracy 95.4 %  3 chips  took")
    assert "\x1b" not in text.getvalue()


def test_the_time_left_counts_the_tests_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of 1 s and two tests of 20 s: first by a guess, then as the first one took."""
    now = 0.0
    monkeypatch.setattr("repast_dist.report.console.time.monotonic", lambda: now)
    text = io.StringIO()
    console = Console(file=text, width=100)
    with RunProgress(10, chips=1, tests=2, test_steps=8.0, console=console) as progress:
        for step in range(1, 11):
            now += 6.0
            progress.update(step, loss=1.0)
            if step == 5:
                now += 120.0
                progress.tested()
    left = [line.partition("about ")[2].removesuffix(" left") for line in
            text.getvalue().splitlines() if "left" in line]  # fmt: skip
    assert left[0] == duration(8 * 6.0 + 2 * 48.0)
    assert left[-1] == duration(1 * 6.0 + 120.0)


def test_progress_is_one_live_line_on_a_terminal() -> None:
    text = io.StringIO()
    console = Console(file=text, width=100, force_terminal=True)
    with RunProgress(3, chips=1, first_step=1, console=console) as progress:
        progress.update(2, loss=0.5)
    assert "2/3" in text.getvalue()
    assert "loss 0.500" in text.getvalue()
    assert "1 chip" in text.getvalue()


def test_a_data_table_reads_like_the_page_s_and_takes_text_as_it_is() -> None:
    schema = pa.schema(
        [
            pa.field("run", pa.string()),
            pa.field("time_s", pa.float64(), metadata={"unit": "s"}),
            pa.field("accuracy", pa.float64(), metadata={"unit": "fraction"}),
        ]
    )
    table = pa.table({"run": ["[bold]a"], "time_s": [2.5e-3], "accuracy": [None]}, schema=schema)
    text = io.StringIO()
    print_table("Runs", table, Console(file=text, width=80))
    assert "[bold]a" in text.getvalue()
    assert "2.50 ms" in text.getvalue()
    assert "–" in text.getvalue()


def wide_table(rows: int) -> pa.Table:
    names = ["device.inv_cell.programming_sigma", "chip.adc.bits", "network"]
    columns = {name: [0.5 + 0.25 * n for n in range(rows)] for name in names[:2]}
    columns |= {"network": [f"a_rather_long_name_of_a_network_{n:03d}" for n in range(rows)]}
    return pa.table(columns | {f"figure_{n}": [1.0] * rows for n in range(12)})


def test_a_table_on_a_terminal_fits_and_says_what_is_on_the_page() -> None:
    text = io.StringIO()
    print_table("T", wide_table(40), Console(file=text, width=80, force_terminal=True))
    lines = text.getvalue().splitlines()
    plain = [re.sub(r"\x1b\[[\d;]*m", "", line) for line in lines]
    assert max(map(len, plain)) <= 80
    # Names are told apart by their ends; numbers are whole.
    assert any("…twork_003" in line and "1.25" in line for line in plain)
    assert not any("network_035" in line for line in plain)
    assert "10 more rows" in plain[-2] + plain[-1]
    assert "figure 11" in plain[-2] + plain[-1]


def test_nothing_of_a_table_in_a_pipe_is_cut() -> None:
    text = io.StringIO()
    print_table("T", wide_table(40), Console(file=text, width=80))
    assert text.getvalue().count("a_rather_long_name_of_a_network_") == 40
    assert "device.inv_cell.programming_sigma" in text.getvalue()
    assert "…" not in text.getvalue()
    assert max(map(len, text.getvalue().splitlines())) < 400


def test_sentences_wrap_at_words_on_a_terminal_and_not_at_all_in_a_pipe() -> None:
    sentence = "the network classifies most of the test set correctly " * 4
    for terminal, most in ((True, 80), (False, len(sentence))):
        text = io.StringIO()
        say(sentence, Console(file=text, width=80, force_terminal=terminal))
        longest = max(map(len, text.getvalue().splitlines()))
        assert most - 12 < longest <= most
        assert text.getvalue().split() == sentence.split()


def test_one_thing_is_not_several() -> None:
    assert [counted(n, "chip") for n in (1, 2, 1024)] == ["1 chip", "2 chips", "1,024 chips"]
    assert counted(2, "batch", "batches") == "2 batches"


def test_faults_of_a_trace_are_listed_with_their_place() -> None:
    text = io.StringIO()
    found = [Finding("missing", "chip 2, step 7", "no rows of this chip")]
    Console(file=text, width=100).print(findings_table(found))
    assert "1 faults" not in text.getvalue()
    assert "1 fault in the trace" in text.getvalue()
    assert "chip 2, step 7" in text.getvalue()
