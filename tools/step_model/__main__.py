"""Model the kernels of a decode step from their machine code; see the package's docstring."""

import argparse
import json
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# So that a checkout works without installation.
sys.path[:0] = [str(ROOT), str(ROOT / "kernels")]
CHECKED = ("T6 all", "C9 C8, weights to L2")


def main() -> None:
    """Compile, model, print."""
    parser = argparse.ArgumentParser(prog="python -m tools.step_model", description=__doc__)
    parser.add_argument(
        "--variant", nargs="+", default=list(CHECKED), help="names of barkfast_kernels.variant.VARIANTS"
    )
    parser.add_argument("--all", action="store_true", help="every variant")
    parser.add_argument("--check", action="store_true", help="fail where a rule is broken or a kernel got slower")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--write", action="store_true", help="write the cycles to tests/golden/step_cycles.json")
    parser.add_argument("--calibrate", action="store_true", help="the model beside a measured run, and nothing else")
    parser.add_argument("--triton", type=Path, help="folder of another Triton: pip install --target")
    args = parser.parse_args()
    if args.triton:
        _restart_with(args.triton)
    if args.calibrate:
        from tools.step_model.calibration import table

        print(table())
        return
    _model(args)


def _restart_with(folder: Path) -> None:
    """Run the same command with the packages of a folder first on the path."""
    if not (folder / "triton").is_dir():
        sys.exit(f"there is no triton in {folder}: pip install --no-deps --target {folder} triton==VERSION")
    at = next(i for i, arg in enumerate(sys.argv) if arg.startswith("--triton"))
    rest = sys.argv[1:at] + sys.argv[at + (1 if "=" in sys.argv[at] else 2) :]
    path = os.pathsep.join(filter(None, (str(folder.resolve()), os.environ.get("PYTHONPATH", ""))))
    os.chdir(ROOT)
    os.execve(sys.executable, [sys.executable, "-m", "tools.step_model", *rest], os.environ | {"PYTHONPATH": path})


def _model(args: argparse.Namespace) -> None:
    from barkfast_kernels.variant import VARIANTS
    from tools.step_model import compare, report
    from tools.step_model.kernels import DTYPES, compile_step_of, compilers

    names = list(VARIANTS) if args.all else args.variant
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        sys.exit(f"there is no variant {unknown[0]!r}; there are {', '.join(VARIANTS)}")
    kernels: list[report.KernelRow] = []
    steps: list[report.StepRow] = []
    print("compiled by", ", ".join(compilers().values()))
    for name in names:
        for dtype in DTYPES:
            step = compile_step_of(name, VARIANTS[name], dtype)
            rows = report.kernel_rows(step)
            kernels += rows
            steps += report.step_rows(step, VARIANTS[name])
            print(f"\n{name}, {dtype}\n{report.kernel_table(rows)}")
    print(f"\n{report.step_table(steps)}")
    data = report.as_data(compilers(), kernels, steps)
    if args.json:
        args.json.write_text(json.dumps(data, indent=1), encoding="utf-8")
    if args.write:
        compare.write(compilers(), data["kernels"])
    if args.check:
        broken = [f"{row.variant}, {row.dtype}: {found}" for row in kernels for found in row.violations]
        broken += compare.slower(compilers(), data["kernels"], compare.read())
        sys.exit("\n".join(["", *broken]) if broken else 0)


if __name__ == "__main__":
    main()
