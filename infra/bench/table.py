"""The table of `./run bench hot_path`: medians over the rounds, and their ratios to nginx's."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

Rounds = Sequence[Mapping[str, Mapping[str, float]]]
"""Of each round: by subject, by figure."""

_ROWS = (
    ("requests/s", "per_second", 1, "{:,.0f}"),
    ("CPU us a request", "cpu_us", 1, "{:,.1f}"),
    ("p50 ms", "p50_us", 1000, "{:.2f}"),
    ("p99 ms", "p99_us", 1000, "{:.2f}"),
    ("p99 to its own p50", "p99_to_p50", 1, "{:.1f}"),
    ("p50 ms, one connection", "alone_p50_us", 1000, "{:.3f}"),
    ("p99 ms, one connection", "alone_p99_us", 1000, "{:.3f}"),
    ("streams/s, 100 chunks at once", "streams_s", 1, "{:,.0f}"),
    ("CPU us a chunk, paced", "chunk_cpu_us", 1, "{:.1f}"),
    ("chunks held back, %", "held_back", 0.01, "{:.2f}"),
    ("chunk under way, p50 ms", "chunk_p50_us", 1000, "{:.2f}"),
    ("first chunk added, ms", "first_added_us", 1000, "{:.2f}"),
)
_WITHOUT_RATIO = {"p99_to_p50", "held_back", "first_added_us"}
_NOTE = """\
Upstreams: an nginx of its own that answers each POST with the same completion, and streams of 100 chunks, 4 ms apart.
Load and upstreams share one core, nginx or the gateway has the other, where there are two. {rounds} alternating rounds,
{connections} connections, {streams} streams; medians of each figure, ratios to nginx within each round. CPU time is the
process's own, user and system, all threads. A chunk is held back that comes in one read with the one before it."""


def median(values: Sequence[float]) -> float:
    """Return the median."""
    return statistics.median(values)


def medians(rounds: Rounds) -> dict[str, dict[str, dict[str, float]]]:
    """Return by subject and figure its median, and the median of its ratios to nginx's in the same round."""
    found: dict[str, dict[str, dict[str, float]]] = {}
    with_ratios = [
        {name: {**figures, "p99_to_p50": figures["p99_us"] / figures["p50_us"]} for name, figures in each.items()}
        for each in rounds
    ]
    for name, figures in with_ratios[0].items():
        found[name] = {
            figure: {
                "median": median([each[name][figure] for each in with_ratios]),
                "to_nginx": median([_ratio(each[name][figure], each["nginx"][figure]) for each in with_ratios]),
            }
            for figure in figures
        }
    return found


def shown(found: Mapping[str, Any], connections: int, streams: int) -> str:
    """Return the figures as text."""
    table: Mapping[str, Mapping[str, Mapping[str, float]]] = found["medians"]
    names = list(table)
    lines = ["", f"{'':32}{names[0]:>12}" + "".join(f"{name:>14}{'to nginx':>10}" for name in names[1:])]
    for title, figure, unit, form in _ROWS:
        line = f"{title:32}" + _cell(form, table[names[0]][figure]["median"] / unit, 12)
        for name in names[1:]:
            ratio = "" if figure in _WITHOUT_RATIO else f"{table[name][figure]['to_nginx']:.2f}"
            line += _cell(form, table[name][figure]["median"] / unit, 14) + f"{ratio:>10}"
        lines.append(line)
    lines += _extra("`serve proxy`, by limits that hold for the key", found["limits"])
    lines += _extra("`serve`, with TOLLGATE_ACCESS_LOG off and on", found["access_log"])
    lines += _extra("`serve proxy`, by keys that it knows, each request with one of them", found["keys"])
    for name, marks in found["memory_mib"].items():
        held = ", ".join(f"{mib:.0f} MiB after {asked:,}" for asked, mib in marks.items())
        lines += ["", f"memory of {name}: {held} requests"]
    note = _NOTE.format(rounds=len(found["rounds"]), connections=connections, streams=streams)
    return "\n".join([*lines, "", note])


def _extra(title: str, rows: Mapping[Any, Mapping[str, float]]) -> list[str]:
    lines = ["", f"{title + ':':32}"]
    for count, row in rows.items():
        memory = f", {row['memory_mib']:,.0f} MiB" if "memory_mib" in row else ""
        named = count if isinstance(count, str) else f"{count:,}"
        lines.append(
            f"  {named:>11}: {row['cpu_us']:.1f} us CPU a request, {row['to_nginx']:.1f} times nginx's{memory}"
        )
    return lines


def _cell(form: str, value: float, width: int) -> str:
    return f"{form.format(value):>{width}}"


def _ratio(value: float, base: float) -> float:
    return value / base if base else float("nan")
