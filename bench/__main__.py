"""`python -m bench NAME [--json FILE] [...]`: run one measurement, print its table, keep its rows."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
from pathlib import Path

from bench.table import machine, print_table

HERE = Path(__file__).parent
BENCHES = sorted(
    {module.name for module in pkgutil.iter_modules([str(HERE)])}
    - {"__main__", "engines", "held", "step_peers", "table"}
)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    benches = parser.add_subparsers(dest="name", required=True)
    for name in BENCHES:
        module = importlib.import_module(f"bench.{name}")
        one = benches.add_parser(name, help=module.__doc__, description=module.__doc__)
        one.add_argument("--json", type=Path, help="also write the rows, and the machine, to this file")
        module.add_arguments(one)
    options = parser.parse_args()
    rows = importlib.import_module(f"bench.{options.name}").measure(options)
    print_table(rows)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
