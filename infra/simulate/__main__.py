"""`./run simulate`: the walls of an installation, from costs measured in this run, and simulations of the real cores.

No server runs: what PostgreSQL and Kafka do beside their bytes is not in it (docs/scale.md).
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from infra.simulate import cutting, measure, walls
from infra.simulate.overshoot import Race
from infra.simulate.telling import Lane

REQUEST_US = 290.0
"""A proxy's CPU for a request of its own, as docs/performance.md has it."""


def main() -> int:
    """Print everything; return the exit code."""
    parser = argparse.ArgumentParser(prog="./run simulate", description=__doc__)
    parser.add_argument(
        "--request-us", type=float, default=REQUEST_US, help="a proxy's CPU for a request (./run bench hot_path)"
    )
    given = parser.parse_args()
    if not given.request_us > 0:
        parser.error("--request-us must be above 0")
    with tempfile.TemporaryDirectory(prefix="tollgate-simulate-") as folder:
        costs = measure.constants(Path(folder), given.request_us)
    print("measured in this run:")
    for name in walls.Constants.__dataclass_fields__:
        print(f"  {name:16} {getattr(costs, name):10,.1f}")
    for point in walls.POINTS:
        print(f"\n{point.name}: {point.requests:,.0f} requests/s, {point.groups:,} groups")
        for what, value in walls.at(point, costs).items():
            print(f"  {value:14,.2f}  {what}")
        print("  walls, in requests/s:")
        for what, value in walls.walls(point, costs).items():
            print(f"  {value:14,.0f}  {what}")
    told = Lane(1000, 10**6).run(2000, 90)
    print(f"\nsimulated, decisions told for 1,000 events (1,000 groups, 2,000/s, limits far away): {told:.1f}")
    print("\nsimulated, a day's limit of 10,000 requests at 100 requests/s, admitted beyond it:")
    for proxies, length_s in ((1, 2.0), (4, 2.0), (10, 2.0), (10, 0.2)):
        apart, told = (Race(proxies, tells=tells).run(100, length_s) for tells in (False, True))
        print(f"  {proxies:3} proxies, {length_s:g} s a request: {told:4} (without telling what is in flight {apart})")
    print("\nsimulated, events a delivery:")
    for labs, partitions, rate in ((5, 12, 1000), (20, 12, 1000)):
        together = asyncio.run(cutting.events_a_delivery(labs, partitions, rate))
        apart_each = asyncio.run(cutting.events_a_delivery(labs, partitions, rate, apart=True))
        text = f"{together:.1f} (each partition alone {apart_each:.1f})"
        print(f"  {labs} labs, {partitions} partitions, {rate:,}/s: {text}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
