"""A compiled bundle answers as it does without, by one program for all lengths; where that cannot be, it says so."""

import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny
import torch
from click.testing import CliRunner
from torch import nn

import deepmine_auto
from deepmine_auto.bundle.compiled import Compiled
from deepmine_auto.commands.predict import predict
from deepmine_auto.contracts import Mixed
from deepmine_auto.errors import BadInput

needs_compiler = pytest.mark.skipif(
    not shutil.which(os.environ.get("CXX", "g++")), reason="torch compiles for a CPU with a C++ compiler"
)


class Same(nn.Module):
    """What stands for a compiled model where none is needed."""

    def __init__(self, model):
        super().__init__()
        self.model, self.shapes = model, []

    def forward(self, tokens_BL, keep_BL):
        self.shapes.append(tuple(tokens_BL.shape))
        return self.model(tokens_BL, keep_BL)


@pytest.fixture
def asked(monkeypatch):
    """What torch was asked to compile; nothing is."""
    calls = []

    def stand_in(model, **options):
        calls.append(options)
        return Same(model)

    monkeypatch.setattr(torch, "compile", stand_in)
    return calls


@pytest.mark.slow
@needs_compiler
def test_one_program_gives_the_outputs_for_every_length_and_number_of_rows(tmp_path, monkeypatch):
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch._dynamo.reset()
    counters.clear()
    plain, bundle = deepmine_auto.load(tiny.bundle()), deepmine_auto.load(tiny.bundle(), compile=True)
    for words in (1, 2, 3, 8, 21, 50):
        for rows in (1, 2, 5, 64):
            texts = [" ".join(["good"] * (words if row % 2 == 0 else 1)) for row in range(rows)]
            np.testing.assert_allclose(bundle.outputs(texts), plain.outputs(texts), atol=1e-5)
    assert counters["stats"]["unique_graphs"] == 1
    assert not counters["graph_break"]


@pytest.mark.slow
def test_without_a_compiler_the_command_says_so_and_ends_with_2(tmp_path):
    nowhere = {"CXX": str(tmp_path / "g++"), "TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    begin = "from deepmine_auto.cli import main; main()"
    command = [sys.executable, "-c", begin, "predict", str(tiny.bundle()), "--compile", "so good"]
    done = subprocess.run(command, env={**os.environ, **nowhere}, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"The model in {tiny.bundle()} cannot be compiled here (")
    assert line.endswith("Install a C++ compiler such as g++, or leave compile out.")


def test_what_torch_cannot_compile_is_a_sentence(monkeypatch):
    def failing(model, **options):
        def forward(*args):
            raise RuntimeError("no such operation\nand a long story")

        program = Same(model)
        program.forward = forward
        return program

    monkeypatch.setattr(torch, "compile", failing)
    with pytest.raises(BadInput, match=r"cannot be compiled here \(no such operation\)\. Leave compile out\.$"):
        deepmine_auto.load(tiny.bundle(), compile=True)


def test_a_program_that_computes_something_else_is_refused(monkeypatch):
    class Other(Same):
        def forward(self, tokens_BL, keep_BL):
            return Mixed(1.1 * self.model(tokens_BL, keep_BL).out)

    monkeypatch.setattr(torch, "compile", lambda model, **options: Other(model))
    with pytest.raises(BadInput, match=r"computes something else when it is compiled\. Leave compile out\."):
        deepmine_auto.load(tiny.bundle(), compile=True)


def test_a_size_of_1_never_reaches_the_program(asked):
    bundle = deepmine_auto.load(tiny.bundle(), compile=True)
    for texts in (["good"], ["so good"], ["good", "bad"]):
        np.testing.assert_allclose(bundle.outputs(texts), deepmine_auto.load(tiny.bundle()).outputs(texts), atol=1e-6)
    shapes = bundle.compiled.program.shapes
    assert len(shapes) == 4
    assert min(size for shape in shapes for size in shape) == 2


def test_outputs_of_each_token_are_those_of_the_tokens_that_came_in(asked):
    made = Compiled(lambda tokens_BL, keep_BL: SimpleNamespace(out=torch.stack([tokens_BL, keep_BL.long()], -1)))
    for shape in ((1, 1), (1, 3), (3, 1), (2, 2)):
        tokens_BL, keep_BL = torch.full(shape, 7), torch.ones(shape, dtype=torch.bool)
        out_BLC = made(tokens_BL, keep_BL).out
        assert torch.equal(out_BLC, torch.stack([tokens_BL, keep_BL.long()], -1))


def test_it_is_compiled_for_sizes_that_change_and_only_if_asked(asked):
    deepmine_auto.load(tiny.bundle()).predict("so good")
    assert asked == []
    deepmine_auto.load(tiny.bundle(), compile=True)
    assert asked == [{"dynamic": True}]


def test_the_command_compiles_if_asked_and_prints_the_same(asked):
    def run(*args):
        return CliRunner().invoke(predict, [str(tiny.bundle()), "so good", *args], catch_exceptions=False).stdout

    assert run("--compile") == run()
    assert len(asked) == 1
