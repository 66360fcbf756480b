"""`./run bench [NAME ...]`: what the product costs and manages, each beside what it is to be measured against."""

import argparse
import importlib
import signal
import sys
import tempfile
from pathlib import Path

from infra.bench.servers import BenchError
from infra.local import install
from infra.local.process import LocalError

NAMES = ("hot_path", "publisher", "stream", "webhooks", "management", "neighbours", "scale", "console")
SERVICES = {
    "hot_path": ["kafka"],
    "publisher": ["kafka"],
    "stream": ["kafka", "postgres"],
    "webhooks": ["postgres"],
    "scale": ["postgres"],
}


def main() -> int:
    """Run what is named, else all; return the exit code."""
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of: {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="hot_path alone: one short round, under a minute")
    parser.add_argument("--json", action="store_true", help="hot_path alone: print its figures as one JSON object")
    given = parser.parse_args()
    names = given.names or NAMES
    options = {"quick": given.quick, "as_json": given.json}
    if any(options.values()) and names != ["hot_path"]:
        parser.error("--quick and --json go with hot_path alone")
    unknown = set(names) - set(NAMES)
    if unknown:
        parser.error(f"no bench is named {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends with us
    failed = []
    for name in names:
        print(f"== {name}", file=sys.stderr if given.json else sys.stdout, flush=True)
        try:
            for service in SERVICES.get(name, ()):
                install.ensure(service, install=True)
            with tempfile.TemporaryDirectory(prefix="tollgate-bench-") as folder:
                bench = importlib.import_module(f"infra.bench.{name}").bench
                code = bench(Path(folder), **options) if name == "hot_path" else bench(Path(folder))
        except (BenchError, LocalError) as error:
            print(f"bench: {error}", file=sys.stderr)
            code = 1
        if code:
            failed.append(name)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
