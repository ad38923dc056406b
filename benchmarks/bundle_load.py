"""Load a bundle and predict once, in clean processes: by us, by transformers' pipeline through `deepmine_auto.hf`, and
beside importing torch.

Run as `python benchmarks/bundle_load.py [FOLDER]`; without a folder, a tiny bundle of the tests is made. Each number is
the median of five processes. Asked: load and first prediction at most 2 s after import.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
PROCESSES = 5

OURS = """
import json, sys, time
t0 = time.perf_counter(); import torch
t1 = time.perf_counter(); import deepmine_auto
t2 = time.perf_counter(); bundle = deepmine_auto.load(sys.argv[1])
t3 = time.perf_counter(); bundle.predict("I like it")
t4 = time.perf_counter()
names = "import torch", "import deepmine_auto", "load", "first prediction"
print(json.dumps(dict(zip(names, (t1 - t0, t2 - t1, t3 - t2, t4 - t3)))))
"""
THEIRS = """
import json, sys, time
import torch
t0 = time.perf_counter(); import deepmine_auto.hf; from transformers import pipeline
t1 = time.perf_counter(); answer = pipeline("text-classification", model=sys.argv[1])
t2 = time.perf_counter(); answer("I like it")
t3 = time.perf_counter()
print(json.dumps({"import transformers": t1 - t0, "pipeline load": t2 - t1, "pipeline first prediction": t3 - t2}))
"""


def measured(code: str, folder: str) -> dict[str, float]:
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    runs = []
    for _ in range(PROCESSES):
        command = [sys.executable, "-c", code, folder]
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout.splitlines()[-1]))
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def tiny_bundle() -> str:
    sys.path.insert(0, str(TESTS))
    import tiny

    return str(tiny.bundle())


def main() -> None:
    folder = sys.argv[1] if len(sys.argv) > 1 else tiny_bundle()
    found = {**measured(OURS, folder), **measured(THEIRS, folder)}
    for name, seconds in found.items():
        print(f"{name:<26} {seconds:7.3f} s")
    ours = found["load"] + found["first prediction"]
    theirs = found["pipeline load"] + found["pipeline first prediction"]
    print(f"load and first prediction  {ours:7.3f} s, {ours / found['import torch']:.2f} of importing torch,", end=" ")
    whole = (ours + found["import deepmine_auto"]) / (theirs + found["import transformers"])
    print(f"{ours / theirs:.2f} of the pipeline's, {whole:.2f} with the imports of both but for torch")


if __name__ == "__main__":
    main()
