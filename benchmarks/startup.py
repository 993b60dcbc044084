"""Start-up times: what a person waits for at the prompt, in wall time of whole processes.

    python benchmarks/startup.py --runs 9

The rows take turns, so that a busy moment of the machine falls on all of them.
"""

import argparse
import pathlib
import platform
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[1]
CASES = {
    "bare interpreter": ("-c", "pass"),
    "import numpy, scipy.special": ("-c", "import numpy, scipy.special"),
    "import dpkit": ("-c", "import dpkit"),
    "import dpkit.accounting": ("-c", "import dpkit.accounting"),
    "dpkit --help": ("-m", "dpkit", "--help"),
    "dpkit epsilon examples/mnist_dpsgd.toml": ("-m", "dpkit", "epsilon", "examples/mnist_dpsgd.toml"),
    "dpkit report examples/mnist_dpsgd.toml": ("-m", "dpkit", "report", "examples/mnist_dpsgd.toml"),
}
BARE, LIBRARIES = list(CASES)[:2]


def seconds(arguments: tuple[str, ...]) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7, help="how often each row is run (default: 7)")
    runs = parser.parse_args().runs
    if runs < 1:
        parser.error("--runs must be at least 1")
    for arguments in CASES.values():
        seconds(arguments)  # byte code and file caches
    times = {name: [] for name in CASES}
    for _ in range(runs):
        for name, arguments in CASES.items():
            times[name].append(seconds(arguments))
    median = {name: statistics.median(values) for name, values in times.items()}

    print(
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}, {runs} runs each, warm caches"
    )
    print(f"{'':42}{'median':>9}{'fastest':>9}{'/ bare':>9}{'/ numpy+scipy':>15}")
    for name, values in times.items():
        ratios = f"{median[name] / median[BARE]:8.1f}x{median[name] / median[LIBRARIES]:14.2f}x"
        print(f"{name:40}{median[name] * 1000:6.0f} ms{min(values) * 1000:6.0f} ms{ratios}")


if __name__ == "__main__":
    main()
