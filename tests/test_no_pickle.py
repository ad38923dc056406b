"""Nothing that is read is unpickled or evaluated: files and rows are data."""

import ast
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parent.parent
FILES = sorted([*CHECKOUT.glob("deepmine_auto/**/*.py"), *CHECKOUT.glob("plugins/**/*.py")])
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib", "jsonpickle"}
CALLS = {
    *("eval", "exec", "compile", "yaml.load", "yaml.unsafe_load", "yaml.full_load"),
    *("torch.load", "torch.save", "torch.hub.load", "torch.jit.load"),
    *("numpy.load", "np.load", "pandas.read_pickle", "pd.read_pickle"),
}


def called(node):
    """The dotted name that a call is written with."""
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else ""


def offences(source):
    """What a source imports or calls that could run code from data."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names if each.name.split(".")[0] in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{each.name}" for each in node.names}
            found |= {each for each in whole if each.split(".")[0] in MODULES or each in CALLS}
        elif isinstance(node, ast.Call) and called(node.func) in CALLS:
            found.add(called(node.func))
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(CHECKOUT)))
def test_no_file_unpickles_or_evaluates(file):
    assert not offences(file.read_text())


def test_the_search_for_them_finds_them():
    bad = ["import pickle", "from shelve import open", "import torch\ntorch.load('x')", "eval('1')", "exec('')",
           "from torch import load", "import yaml\nyaml.load('')", "import numpy as np\nnp.load('x')"]  # fmt: skip
    assert all(offences(each) for each in bad)
    assert not offences("model.eval()\nre.compile('x')\njson.load(f)\nself.load()")
    assert len(FILES) > 60
