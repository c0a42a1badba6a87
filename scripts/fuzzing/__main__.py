"""Give the program files that were damaged or forged, each in a process of its own with limits, and count the verdicts.

A case is drawn from the seed and its number, so that a case that failed comes again with the same arguments. Those are
kept, each in a folder with the files, the command and what it printed. Works on Linux only.
"""

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from arguments import count

from fuzzing.cases import KINDS, Case
from fuzzing.children import LIMITS, Verdict, run_all
from fuzzing.samples import make_samples

GOOD = (Verdict.LOADED, Verdict.CLEAR_ERROR)


def main() -> None:
    """Parse the command line, run the cases, and print a table of the verdicts."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--cases", type=count, default=200, metavar="N", help="how many, shared among the kinds")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6), help="seed of the cases")
    parser.add_argument("--kind", choices=list(KINDS), action="append", help="only cases of this kind; repeatable")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first case")
    options = parser.parse_args()
    kinds = options.kind or list(KINDS)
    import_everything()
    folder = Path(tempfile.mkdtemp(prefix="vae-dist-fuzz-"))
    began = time.monotonic()
    make_samples(folder / "samples")
    print(f"seed {options.seed}: {options.cases} cases of {', '.join(kinds)}; {LIMITS}", flush=True)
    numbers = range(options.first, options.first + options.cases)
    cases = (Case.draw(kinds[number % len(kinds)], options.seed, number, folder) for number in numbers)
    tally: Counter[tuple[str, Verdict]] = Counter()
    for case, verdict in run_all(cases):
        tally[case.kind, verdict] += 1
        if verdict in GOOD:
            shutil.rmtree(case.folder)
        else:
            print(f"{verdict.value}: {case.folder} ({case.description})", flush=True)
    print(f"{table(tally, kinds)}\n{time.monotonic() - began:.0f} s")
    shutil.rmtree(folder / "samples")
    if any(verdict not in GOOD for _, verdict in tally):
        sys.exit(f"FAILED: the cases are in {folder}")
    folder.rmdir()
    print("PASSED")


def import_everything() -> None:
    """Import what the program imports when it needs it, so that a process that is forked has it."""
    import torch
    from PIL import Image
    from torchvision import datasets  # noqa: F401

    from vae_dist.cli import main  # noqa: F401
    from vae_dist.inference import drawing, evaluation, figures  # noqa: F401

    torch.set_num_threads(1)
    Image.init()


def table(tally: Counter[tuple[str, Verdict]], kinds: list[str]) -> str:
    """Return the counts of every verdict, a line for each kind of file."""
    lines = ["kind".ljust(12) + "".join(verdict.value.rjust(13) for verdict in Verdict)]
    lines += [kind.ljust(12) + "".join(str(tally[kind, each]).rjust(13) for each in Verdict) for kind in kinds]
    return "\n".join(lines)


main()
