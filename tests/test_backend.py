"""Keras starts whatever ``KERAS_BACKEND`` and the user's ``keras.json`` say, or one line says why it does not."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from script import PHANTOMS, ROOT

from mask_rcnn.evaluation.overlap import dice
from mask_rcnn.system import backend
from mask_rcnn.system.backend import DeviceError, choose_backend

FILM = PHANTOMS / "images" / "phantom_0001.png"
WEIGHTS = ROOT / "models" / "lungs_small_1.weights.h5"
NEEDS_TENSORFLOW = pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="needs TensorFlow")
COMMANDS = {
    "train.py": ["--config", "lungs_small"],
    "inference.py": ["--weights", str(WEIGHTS), "--src", str(FILM), "--runtime", "keras"],
    "create_dataset.py": ["--src", str(FILM), "--runtime", "keras"],
    "scripts/evaluate.py": ["--weights", str(WEIGHTS), "--data", str(PHANTOMS)],
}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of Keras without settings, for this process and for those that it starts."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    return tmp_path


def write(home: Path, settings: object) -> None:
    (home / "keras.json").write_text(json.dumps(settings))


def installed(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    monkeypatch.setattr(backend, "_is_installed", names.__contains__)


class TestChoice:
    def test_tensorflow_by_default(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed(monkeypatch, "torch", "jax", "tensorflow")
        assert choose_backend() == "tensorflow"

    def test_the_first_that_is_installed_where_tensorflow_is_not(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed(monkeypatch, "torch")
        assert choose_backend() == "torch"

    def test_settings_are_followed(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        installed(monkeypatch, "tensorflow", "jax")
        write(home, {"backend": "jax"})
        assert choose_backend() == "jax"
        assert capsys.readouterr().err == ""

    def test_the_variable_outranks_the_settings(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed(monkeypatch, "tensorflow", "jax", "torch")
        write(home, {"backend": "jax"})
        monkeypatch.setenv("KERAS_BACKEND", "torch")
        assert choose_backend() == "torch"
        monkeypatch.setenv("KERAS_BACKEND", "")  # as good as unset, to Keras
        assert choose_backend() == "jax"

    @pytest.mark.parametrize("name", ["theano", "cntk", "mxnet", "plaidml", "numpy", "openvino", "TensorFlow", " jax", "~"])
    def test_the_variable_is_refused_where_it_names_another(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("KERAS_BACKEND", name)
        with pytest.raises(DeviceError, match=f"KERAS_BACKEND={name}: .* set it to tensorflow, jax or torch"):
            choose_backend()

    def test_the_variable_is_refused_where_that_is_not_installed(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        installed(monkeypatch, "tensorflow")
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        with pytest.raises(DeviceError, match="KERAS_BACKEND=jax: jax is not installed; unset it or install"):
            choose_backend()

    @pytest.mark.parametrize(("name", "reason"), [
        ("theano", "is none that"), ("numpy", "is none that"), (["jax"], "is none that"), ("jax", "is not installed"),
    ])
    def test_settings_that_cannot_be_followed_are_overridden(
        self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: object, reason: str
    ) -> None:
        installed(monkeypatch, "tensorflow")
        write(home, {"backend": name})
        assert choose_backend() == "tensorflow"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{home / 'keras.json'}: its backend {name!r} {reason}")
        assert line.endswith("running on tensorflow")

    def test_nothing_is_installed(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed(monkeypatch)
        with pytest.raises(DeviceError, match="tensorflow, jax or torch is not installed; pip install"):
            choose_backend()

    def test_networks_that_run_on_tensorflow_alone(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        installed(monkeypatch, "tensorflow", "jax")
        write(home, {"backend": "jax"})
        assert choose_backend(("tensorflow",)) == "tensorflow"
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        with pytest.raises(DeviceError, match="KERAS_BACKEND=jax: .* unset it or set it to tensorflow$"):
            choose_backend(("tensorflow",))

    @pytest.mark.parametrize("text", ["", "{", "\x00\xff", '{"backend": '])
    def test_settings_that_are_no_json_are_none(
        self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, text: str
    ) -> None:
        installed(monkeypatch, "tensorflow")
        (home / "keras.json").write_bytes(text.encode("latin-1"))
        assert choose_backend() == "tensorflow"
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("settings", [
        [], "tensorflow", 7, None, {"floatx": "bfloat16"}, {"floatx": []}, {"epsilon": "small"}, {"epsilon": 1},
        {"image_data_format": "tf"}, {"image_data_format": {}},
    ])
    def test_settings_that_keras_would_stumble_over_are_left_out(
        self, home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, settings: object
    ) -> None:
        installed(monkeypatch, "tensorflow")
        write(home, settings)
        assert choose_backend() == "tensorflow"
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"{home / 'keras.json'}: left out (")
        assert not any(Path(os.environ["KERAS_HOME"]).iterdir())


def run(script: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, script, *arguments], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True
    )


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_says_in_one_line_that_its_backend_is_unknown(home: Path, command: str) -> None:
    arguments = [*COMMANDS[command], "--out", str(home / "out")]
    done = run(command, *arguments, KERAS_BACKEND="theano")
    (line,) = done.stderr.splitlines()
    assert "KERAS_BACKEND=theano" in line and "unset it or set it to tensorflow" in line
    assert done.returncode == 1


# In one process, since starting TensorFlow takes most of its time.
BOTH = """
import sys
from create_dataset.command import main as create_dataset
from mask_rcnn.commands.launch import inference
film, weights, out = sys.argv[1:]
failed = create_dataset(["--src", film, "--out", out + "/dataset", "--runtime", "keras"])
sys.argv = ["inference.py", "--weights", weights, "--src", film, "--out", out + "/found", "--runtime", "keras"]
sys.exit(inference() or failed)
"""


@NEEDS_TENSORFLOW
def test_both_kinds_of_network_run_with_an_old_projects_settings(home: Path) -> None:
    write(home, {"backend": "theano", "image_data_format": "channels_first", "floatx": "float16", "epsilon": 0.01})
    done = run("-c", BOTH, str(FILM), str(WEIGHTS), str(home / "out"))
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "keras.json" in line] == [
        f"{home / 'keras.json'}: its backend 'theano' is none that these networks run on; running on tensorflow"
    ]
    assert "1 films, 1 accepted" in done.stdout
    found = np.asarray(Image.open(home / "out" / "found" / "masks" / FILM.name))
    drawn = np.asarray(Image.open(PHANTOMS / "masks" / FILM.name))
    assert min(dice(found == lung, drawn == lung) for lung in (1, 2)) > 0.9


@NEEDS_TENSORFLOW
def test_the_library_starts_where_the_settings_are_a_folder(home: Path) -> None:
    (home / "keras.json").mkdir()
    code = "import mask_rcnn; mask_rcnn.MaskRCNN; import keras; print(keras.config.floatx())"
    done = run("-c", code)
    assert (done.returncode, done.stdout) == (0, "float32\n")
    (line,) = done.stderr.splitlines()
    assert line == f"{home / 'keras.json'}: left out (Is a directory); mend it or delete it"
