"""Training in half precision: who chooses it, what has 16 bits and what keeps 32, a short lesson, going on after a stop."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from tiny import Lessons, batch_of, build_sober, draw_instances, drawing_all_config, weights_of

from mask_rcnn.model import MaskRCNN, Network
from mask_rcnn.network import losses
from mask_rcnn.system import precision
from mask_rcnn.system.precision import VARIABLE, prepare_precision
from mask_rcnn.weights import checkpoint

CONFIG = drawing_all_config(train_batch_norm=True, optimiser="adam")
STEPS, EPOCHS = 3, 4


def lesson() -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    return batch_of(CONFIG, [draw_instances(rng, 64, count) for count in (2, 5)], rng)


@pytest.fixture(scope="module", params=[pytest.param("float16", marks=pytest.mark.slow), "bfloat16"])
def taught(request: pytest.FixtureRequest) -> SimpleNamespace:
    policy = keras.config.dtype_policy()
    model = build_sober(CONFIG, precision=request.param)
    assert keras.config.dtype_policy() is policy
    before = weights_of(model)
    history = model.train(Lessons([lesson()] * STEPS), None, 0.005, EPOCHS, verbose=0).history
    return SimpleNamespace(model=model, precision=request.param, before=before, history=history)


def test_a_lesson_lowers_every_loss(taught: SimpleNamespace) -> None:
    assert set(taught.history) == {"loss", *losses.LOSS_NAMES}
    for name, values in taught.history.items():
        assert np.isfinite(values).all() and values[-1] < 0.9 * values[0], (name, values)


def test_the_weights_learn_and_keep_32_bits(taught: SimpleNamespace) -> None:
    for name, weight in weights_of(taught.model).items():
        assert weight.dtype == np.float32 and np.isfinite(weight).all(), name
        assert (weight != taught.before[name]).any(), name


def test_the_parts_compute_in_half_and_the_rest_does_not(taught: SimpleNamespace) -> None:
    network = taught.model.network
    parts = (network.pyramid, network.proposal_head, network.box_head, network.mask_head)
    assert {layer.compute_dtype for part in parts for layer in part.layers if layer.weights} == {taught.precision}
    inputs, _ = lesson()
    answers = network.predict_on_batch({"images": inputs["images"], "windows": np.tile(np.float32([0, 0, 1, 1]), (2, 1))})
    assert {name: values.dtype.name for name, values in answers.items()} == dict.fromkeys(
        ("detections", "mask_boxes", "masks"), "float32"
    )
    (level, *_) = network.pyramid(inputs["images"])
    assert keras.backend.standardize_dtype(level.dtype) == taught.precision
    assert isinstance(network.optimizer, keras.optimizers.LossScaleOptimizer) == (taught.precision == "float16")


def test_what_is_saved_computes_in_32_bits(taught: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "half.weights.h5"
    taught.model.save(path)
    revived = MaskRCNN.load(path)
    assert {layer.compute_dtype for layer in revived.network.named_layers().values()} == {"float32"}


def test_a_stopped_training_goes_on_with_its_optimiser(taught: SimpleNamespace, tmp_path: Path) -> None:
    path = tmp_path / "last.weights.h5"
    checkpoint.save(taught.model.network, CONFIG, path, half=False)
    model = MaskRCNN(CONFIG, precision=taught.precision)
    model.load_weights(path)
    model.compile(0.005)
    checkpoint.resume(model.network, path)
    expected = [keras.ops.convert_to_numpy(variable) for variable in taught.model.network.optimizer.variables]
    resumed = [keras.ops.convert_to_numpy(variable) for variable in model.network.optimizer.variables]
    assert len(resumed) == len(expected) > 1
    for actual, value in zip(resumed, expected, strict=True):
        np.testing.assert_array_equal(actual, value)
    assert int(model.network.optimizer.iterations) > 0


def test_a_policy_does_not_leak_from_a_network_that_cannot_be_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: Any) -> None:
        raise MemoryError

    policy = keras.config.dtype_policy()
    monkeypatch.setattr("mask_rcnn.model.build_mask_head", fail)
    with pytest.raises(MemoryError):
        Network(CONFIG, "float16")
    assert keras.config.dtype_policy() is policy


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Gives the processor these instructions."""
    monkeypatch.setattr(precision, "CPUINFO", tmp_path / "cpuinfo")
    return lambda text: (tmp_path / "cpuinfo").write_text(f"model name\t: amx_bf16\nflags\t\t: fpu {text}\n") and None


def test_the_variable_is_set_for_amx_before_tensorflow_is_loaded(
    flags: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "restored afterwards")
    monkeypatch.delenv(VARIABLE)
    assert precision.processor_flags() == set(), "of another system nothing is known"
    monkeypatch.setitem(sys.modules, "tensorflow", sys.modules[__name__])
    flags("amx_bf16")
    prepare_precision("auto")
    assert VARIABLE not in os.environ, "it would come too late"
    monkeypatch.delitem(sys.modules, "tensorflow")
    for wanted, text in (("float32", "amx_bf16"), ("bfloat16", "amx_bf16"), ("auto", "avx512_bf16"), ("auto", "")):
        flags(text)
        prepare_precision(wanted)
        assert VARIABLE not in os.environ, (wanted, text)
    flags("avx512_bf16 amx_bf16")
    monkeypatch.setenv(VARIABLE, "STRICT")
    prepare_precision("auto")
    assert os.environ[VARIABLE] == "STRICT"
    monkeypatch.delenv(VARIABLE)
    prepare_precision("auto")
    assert os.environ[VARIABLE] == "BF16"


SWITCH = "--set training.precision=float32 switches it off"


@pytest.mark.parametrize(("wanted", "capability", "text", "variable", "expected", "said"), [
    ("auto", 9, "", "", "bfloat16", f"convolutions in bfloat16; {SWITCH}"),
    ("auto", 7, "", "", "float16", f"convolutions in float16; {SWITCH}"),
    ("auto", 6, "", "", "float32", "convolutions in float32"),
    ("float32", 9, "avx512_bf16", "", "float32", "convolutions in float32"),
    ("float16", 0, "avx512_bf16", "", "float16", "convolutions in float16"),
    ("auto", 0, "", "", "float32", "convolutions in float32"),
    ("auto", 0, "avx512_bf16", "", "bfloat16", f"convolutions in bfloat16; {SWITCH}"),
    ("auto", 0, "amx_bf16", "BF16", "float32", f"convolutions in bfloat16 by TF_SET_ONEDNN_FPMATH_MODE=BF16; {SWITCH}"),
    ("auto", 0, "amx_bf16", "STRICT", "float32", "convolutions in float32"),
])  # fmt: skip
def test_what_is_chosen_and_said(
    wanted: str, capability: int, text: str, variable: str, expected: str, said: str, flags: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    flags(text)
    monkeypatch.setattr(precision, "_capability", lambda: capability)
    monkeypatch.setattr(precision, "_has_gpu", lambda: capability > 0)
    monkeypatch.setattr(precision, "_backend", lambda: "tensorflow")
    monkeypatch.setenv(VARIABLE, variable)
    assert precision.choose_precision(wanted) == (expected, said)


def test_there_is_no_gpu_here() -> None:
    assert precision._capability() == 0


CONVOLVE = """
import sys
from mask_rcnn.system.precision import prepare_precision
prepare_precision(sys.argv[1])
import numpy as np, tensorflow as tf
rng = np.random.default_rng(0)
image, kernel = (rng.standard_normal(shape).astype(np.float32) for shape in ((1, 32, 32, 64), (3, 3, 64, 64)))
print(float(np.abs(tf.nn.conv2d(image, kernel, 1, "SAME").numpy() - tf.nn.conv2d(
    tf.cast(image, "float64"), tf.cast(kernel, "float64"), 1, "SAME").numpy()).max()))
"""


@pytest.mark.slow
@pytest.mark.skipif("amx_bf16" not in precision.processor_flags(), reason="this processor has no AMX")
def test_convolutions_are_in_the_bits_that_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    root = Path(__file__).resolve().parents[1]
    errors = {}
    for wanted in ("auto", "float32"):
        command = [sys.executable, "-c", CONVOLVE, wanted]
        errors[wanted] = float(subprocess.run(command, cwd=root, capture_output=True, check=True).stdout)
    assert errors["float32"] < 1e-3 < errors["auto"] < 1
