"""The first search from Python, as `deepmine-auto search --space tiny`, and what to do with what it found.

python examples/001_first_search.py --time-budget 2m
"""

import argparse
import json

import deepmine_auto


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--space", default="tiny", help="A bundled search space or a TOML file.")
    options.add_argument("--time-budget", help="Such as 2m; the space's own if left out.")
    options.add_argument("--trials", type=int, help="How many trials instead.")
    options.add_argument("--executor", default="ray", help="ray, or inline for one worker in this process.")
    asked = vars(options.parse_args())

    result = deepmine_auto.search(task="sentiment", **asked)
    print(f"{result.study}: trial {result.trial}, {result.sentence}")

    bundle = deepmine_auto.load(result.bundle)
    for answer in bundle.predict(["what a lovely day :)", "worst service ever, never again"]):
        print(json.dumps(answer))


if __name__ == "__main__":
    main()
