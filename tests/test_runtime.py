"""ONNX Runtime and OpenVINO give what Keras gives, without it; which of the three runs is chosen by what is installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
import tiny
from PIL import Image
from script import PHANTOMS, ROOT, load_script

from mask_rcnn.bag.members import load_members, paste, predict
from mask_rcnn.bag.vote import bag_film
from mask_rcnn.config import NetworkConfig
from mask_rcnn.films.levels import equalise
from mask_rcnn.films.square import fit_to_square
from mask_rcnn.lungs import CATEGORIES
from mask_rcnn.model import MaskRCNN, Network
from mask_rcnn.network.layers import propose, refine_detections, widen_boxes
from mask_rcnn.runtime import choice
from mask_rcnn.runtime.choice import KERAS, ONNX, OPENVINO, Runtime, choose_runtime
from mask_rcnn.prediction import Prediction
from mask_rcnn.system.backend import DeviceError
from mask_rcnn.system.shipped import shipped_members
from mask_rcnn.utils import MoldedFilm, dice, mold_film
from mask_rcnn.weights.checkpoint import CheckpointError, read_weights
from mask_rcnn.weights.layer_shapes import layer_shapes
from mask_rcnn.weights.weights_file import shapes_of

MODULES = {ONNX: "onnxruntime", OPENVINO: "openvino"}


def needs(*modules: str) -> None:
    for module in modules:
        if importlib.util.find_spec(module) is None:
            pytest.skip(f'{module} is not installed: pip install ".[onnx,openvino]"')


@pytest.fixture(scope="module", params=[ONNX, OPENVINO])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    """Each that is installed, in 32 bits."""
    needs("onnx", MODULES[request.param])
    return Runtime(request.param)


@pytest.fixture(scope="module")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runtime") / "tiny.weights.h5"
    tiny.build_sober(tiny.tiny_config()).save(path)
    return path


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Phantoms, equalised, and as the last one a film of one grey."""
    paths = sorted((PHANTOMS / "images").glob("*.png"))[:3]
    return [*(equalise(np.asarray(Image.open(path).convert("L"))) for path in paths), np.full((200, 300), 128, np.uint8)]


class TestShapes:
    """What a weights file must hold is known without Keras."""

    def test_are_those_of_the_network(self) -> None:
        config = tiny.tiny_config()
        wanted = shapes_of(Network(config).named_layers())
        assert layer_shapes(config.network).keys() == wanted.keys()
        assert layer_shapes(config.network) == wanted

    def test_of_the_reference_are_those_of_its_checkpoint(self, parity: Path) -> None:
        layers = json.loads((parity / "manifest_resnet50.json").read_text())
        held: dict[str, dict[str, tuple[int, ...]]] = {}
        for weight, shape in (pair for _, weights in layers for pair in weights):
            name, variable = weight.removesuffix(":0").split("/")[-2:]
            held.setdefault(name, {})[variable] = tuple(shape)
        assert layer_shapes(NetworkConfig(backbone="resnet50")) == held

    def test_a_file_is_refused_as_keras_would(self, tiny_weights: Path) -> None:
        network = replace(tiny.tiny_config().network, rpn_channels=8)
        with pytest.raises(CheckpointError) as refused:
            read_weights(tiny_weights, network)
        with pytest.raises(CheckpointError) as by_keras:
            MaskRCNN(replace(tiny.tiny_config(), network=network)).load_weights(tiny_weights)
        assert str(refused.value) == str(by_keras.value) and "network.rpn_channels: 16" in str(refused.value)


@pytest.fixture(scope="module")
def model(tiny_weights: Path) -> MaskRCNN:
    return MaskRCNN.load(tiny_weights)


@pytest.fixture(scope="module")
def molded(model: MaskRCNN, films: list[np.ndarray]) -> list[MoldedFilm]:
    return [mold_film(film, model.config.network) for film in films]


@pytest.fixture(scope="module")
def expected(model: MaskRCNN, molded: list[MoldedFilm]) -> list[Prediction]:
    return model.predict(molded, 4)


class TestNetwork:
    """The same detections and masks as Keras's."""

    def test_an_untrained_one_with_many_detections(
        self, runtime: Runtime, tiny_weights: Path, films: list[np.ndarray], model: MaskRCNN, molded: list[MoldedFilm],
        expected: list[Prediction],
    ) -> None:  # fmt: skip
        from mask_rcnn.runtime.network import ExportedNetwork

        exported = ExportedNetwork(read_weights(tiny_weights, model.config.network), model.config, runtime)
        counts = [int((one.detections[:, 4] > 0).sum()) for one in expected]
        assert max(counts) == model.config.detection.max_instances, "suppression has something to do"
        for batch in (4, 3, 1):  # a batch that the films fill, one that they do not, and one that TensorFlow never saw
            for one, other, count in zip(expected, exported.predict(molded, batch), counts, strict=True):
                np.testing.assert_allclose(other.detections, one.detections, atol=1e-4)
                np.testing.assert_allclose(other.mask_boxes, one.mask_boxes, atol=1e-4)
                assert len(other.masks) == count and other.window == one.window
                np.testing.assert_allclose(other.masks, one.masks[:count], atol=1e-4)
        pasted = exported.unmold(exported.predict(molded[:1])[0], films[0].shape)
        assert pasted["masks"].shape == (*films[0].shape, len(pasted["scores"]))

    def test_no_detection(self, runtime: Runtime, tiny_weights: Path, films: list[np.ndarray]) -> None:
        (member,) = load_members([tiny_weights], ["detection.min_score=1"], runtime)
        ((prediction,),) = predict([member], films[:1])
        assert not prediction.detections.any() and len(prediction.masks) == 0
        assert member.network.unmold(prediction, films[0].shape)["masks"].shape == (*films[0].shape, 0)

    @pytest.mark.parametrize("threshold", [0.01, 0.7])
    def test_proposals_with_equal_scores(self, runtime: Runtime, threshold: float) -> None:
        """Half of the scores are exactly 1, as of trained networks many are: the order of the anchors decides."""
        from mask_rcnn.runtime.network import best_anchors
        from mask_rcnn.runtime.parts import build_weightless, ranked_count
        from mask_rcnn.runtime.sessions import as_array, open_session

        config = tiny.tiny_config(proposals={"nms_threshold": threshold, "inference_count": 60})
        network = Network(config)
        rng = np.random.default_rng(1)
        logits = rng.normal(0, 3, (2, len(network.anchors), 2)).astype(np.float32)
        logits[:, ::2, 1] = 40
        deltas = rng.normal(0, 1, (2, len(network.anchors), 4)).astype(np.float32)
        scores = keras.ops.softmax(logits, axis=-1)[..., 1]
        count = config.proposals.inference_count
        expected = keras.ops.convert_to_numpy(propose(scores, deltas, network.anchors, count, config))
        run = open_session(build_weightless(config).proposals.SerializeToString(), runtime)
        cells = sum((config.network.image_size // stride) ** 2 for stride in (4, 8, 16, 32))
        features = np.zeros((2, cells, config.network.pyramid_output_channels), np.float32)
        order = best_anchors(logits, ranked_count(config))
        found = as_array(run({"order": order, "deltas": deltas, "features": features})["proposals"])
        assert expected[:, -1].any() == (threshold > 0.01), "so low a threshold leaves fewer than are wanted"
        np.testing.assert_allclose(found, expected, atol=1e-6)

    def test_detections_with_equal_scores(self, runtime: Runtime) -> None:
        """Scores are 1, 0.9 or below the threshold: of equal ones that overlap the first proposal stays."""
        from mask_rcnn.runtime.network import best_detections, widened
        from mask_rcnn.runtime.parts import build_weightless
        from mask_rcnn.runtime.sessions import as_array, open_session

        config = tiny.tiny_config(detection={"mask_margin": 0.1})
        count, rng = config.proposals.inference_count, np.random.default_rng(2)
        corners = rng.uniform(0, 0.6, (2, count, 2))
        rois = np.concatenate([corners, corners + rng.uniform(0.2, 0.6, (2, count, 2))], axis=2).astype(np.float32)
        logits = np.zeros((2, count, 3), np.float32)
        films, places = np.indices((2, count))
        logits[films, places, rng.integers(0, 3, (2, count))] = rng.choice([40.0, 3.0, 0.1], (2, count))
        deltas = rng.normal(0, 0.3, (2, count, 3, 4)).astype(np.float32)
        windows = np.array([[0, 0, 1, 1], [0.1, 0, 0.9, 1]], np.float32)
        probabilities = keras.ops.softmax(logits, axis=-1)
        expected = keras.ops.convert_to_numpy(refine_detections(rois, probabilities, deltas, windows, config))
        run = open_session(build_weightless(config).detections.SerializeToString(), runtime)
        found = run({
            "proposals": rois, "class_logits": logits.reshape(-1, 3), "box_deltas": deltas.reshape(-1, 12),
            "windows": windows,
        })  # fmt: skip
        most = config.detection.max_instances
        detections = best_detections(as_array(found["candidates"]), as_array(found["kept"]), most)
        assert (expected[:, :, 5] == 1).sum() > 4 and expected[0, -1].any()
        np.testing.assert_allclose(detections, expected, atol=1e-6)
        wide = keras.ops.convert_to_numpy(widen_boxes(keras.ops.convert_to_tensor(expected[..., :4]), 0.1))
        np.testing.assert_allclose(widened(detections[..., :4], 0.1), wide, atol=1e-6)
        assert not best_detections(np.ones((1, 2, 6), np.float32), np.array([[-1, 0.5]], np.float32), 3)[0, 1:].any()


@pytest.fixture(scope="module")
def by_keras(films: list[np.ndarray]) -> dict[str, list]:
    """What the first network that ships predicts, and its bag of one."""
    return found_by(Runtime(KERAS), films)


def found_by(runtime: Runtime, films: list[np.ndarray]) -> dict[str, list]:
    members = load_members(shipped_members()[:1], (), runtime)
    predictions = predict(members, films)
    config = members[0].network.config
    lungs = [bag_film(paste(members, of_film, film.shape), config.bag)
             for of_film, film in zip(predictions, films, strict=True)]  # fmt: skip
    return {"predictions": [of_film[0] for of_film in predictions], "lungs": lungs}


def dices(found: dict[str, list]) -> list[float]:
    """Of each lung of the phantoms with the truth."""
    truths = [np.asarray(Image.open(path)) for path in sorted((PHANTOMS / "masks").glob("*.png"))[:3]]
    return [dice(lungs[category].mask, truth == category)
            for lungs, truth in zip(found["lungs"][:3], truths, strict=True) for category in CATEGORIES]  # fmt: skip


class TestShippedNetwork:
    """Detections to 1e-3 and Dice to 1e-4 of Keras's."""

    def test_in_32_bits(self, runtime: Runtime, films: list[np.ndarray], by_keras: dict[str, list]) -> None:
        found = found_by(runtime, films)
        for one, other in zip(by_keras["predictions"], found["predictions"], strict=True):
            np.testing.assert_allclose(other.detections, one.detections, atol=1e-3)
            np.testing.assert_allclose(other.mask_boxes, one.mask_boxes, atol=1e-3)
            np.testing.assert_allclose(other.masks, one.masks[: len(other.masks)], atol=1e-3)
        assert [len(one.masks) for one in found["predictions"][:3]] == [2, 2, 2]
        np.testing.assert_allclose(dices(found), dices(by_keras), atol=1e-4)
        assert min(dices(found)) > 0.9

    def test_in_16_bits(self, films: list[np.ndarray], by_keras: dict[str, list]) -> None:
        needs("onnx", "openvino")
        runtime = choose_runtime(OPENVINO)
        if runtime.precision == "float32":
            pytest.skip("this processor has no instructions for 16 bits")
        found = found_by(runtime, films)
        np.testing.assert_allclose(dices(found), dices(by_keras), atol=2e-3)
        assert abs(np.mean(dices(found)) - np.mean(dices(by_keras))) < 5e-4


class TestUnet:
    """The U-Net that ships; ``test_unet.py`` holds ONNX Runtime to Keras, in every layout of weights."""

    def test_openvino_gives_what_onnx_runtime_gives(self, films: list[np.ndarray]) -> None:
        needs("onnx", *MODULES.values())
        from create_dataset.unet import prepare, probabilities
        from create_dataset.unet_graph import ExportedUnet
        from mask_rcnn.system.shipped import shipped_unet

        inputs = np.stack([prepare(film) for film in films[:2]])
        expected = probabilities([ExportedUnet(shipped_unet(), Runtime(ONNX))], inputs)
        assert expected.max() > 0.9
        found = probabilities([ExportedUnet(shipped_unet(), Runtime(OPENVINO))], inputs)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        if (in_16_bits := choose_runtime(OPENVINO)).precision != "float32":
            found = probabilities([ExportedUnet(shipped_unet(), in_16_bits)], inputs)
            assert ((found >= 0.5) == (expected >= 0.5)).mean() > 0.999


@pytest.fixture(scope="module")
def export() -> ModuleType:
    needs("onnx", "onnxruntime")
    return load_script("export")


class TestExport:
    """One file for other programs."""

    @pytest.fixture
    def run_file(self) -> Iterator[Callable[..., list[np.ndarray]]]:
        import onnxruntime

        def run(path: Path, **inputs: np.ndarray) -> list[np.ndarray]:
            return list(onnxruntime.InferenceSession(path).run(None, inputs))

        yield run

    @pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-4), (True, 5e-3)])
    def test_of_a_mask_rcnn(
        self, export: ModuleType, run_file: Callable[..., list[np.ndarray]], tmp_path: Path, by_keras: dict[str, list],
        films: list[np.ndarray], half: bool, tolerance: float,
    ) -> None:  # fmt: skip
        import onnx

        out, weights = tmp_path / "network.onnx", shipped_members()[0]
        assert export.main([str(weights), "--out", str(out), *["--half"] * half]) == 0
        model = onnx.load(out)
        onnx.checker.check_model(model, full_check=True)
        assert out.stat().st_size < (11 if half else 20) * 2**20
        facts = {entry.key: entry.value for entry in model.metadata_props}
        assert json.loads(facts["classes"]) == {"0": "background", **{str(k): name for k, name in CATEGORIES.items()}}
        mean, network = json.loads(facts["mean_pixel"]), json.loads(facts["config"])["network"]
        for name in ("images", "windows", "detections", "mask_boxes", "masks"):
            assert f"\n{name}: float32" in model.doc_string

        # As the file describes it, by another program.
        side = network["image_size"]
        square, (y1, x1, y2, x2), _ = fit_to_square(films[0], side)
        images = (square[None, ..., None] - np.asarray(mean)).astype(np.float32)
        windows = np.array([[y1, x1, y2 - 1, x2 - 1]], np.float32) / (side - 1)
        detections, mask_boxes, masks = run_file(out, images=images, windows=windows)
        expected = by_keras["predictions"][0]
        np.testing.assert_allclose(detections[0], expected.detections, atol=tolerance)
        np.testing.assert_allclose(mask_boxes[0], expected.mask_boxes, atol=tolerance)
        count = int((expected.detections[:, 4] > 0).sum())
        assert masks.shape == (1, *expected.masks.shape)
        assert np.abs(masks[0, :count] - expected.masks[:count]).mean() < tolerance / 10

    def test_of_a_unet(self, export: ModuleType, run_file: Callable[..., list[np.ndarray]], tmp_path: Path) -> None:
        from create_dataset.unet import prepare
        from create_dataset.unet_graph import ExportedUnet
        from mask_rcnn.system.shipped import shipped_unet

        out = tmp_path / "unet.onnx"
        assert export.main([str(shipped_unet()), "--out", str(out), "--half"]) == 0
        inputs = prepare(np.asarray(Image.open(PHANTOMS / "images" / "phantom_0001.png").convert("L")))[None]
        (found,) = run_file(out, inputs=inputs)
        expected = ExportedUnet(shipped_unet(), Runtime(ONNX)).predict_on_batch(inputs)
        assert ((found > 0.5) == (expected > 0.5)).mean() > 0.999

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            (["absent.h5"], "absent.h5: there is no such file; check the path"),
            ([str(ROOT / "setup.cfg")], "not an HDF5 file, or torn"),
            ([str(shipped_members()[0]), "--set", "network.image_size=64"], "cannot be changed here"),
            ([str(shipped_members()[0]), "--out", "setup.cfg/x.onnx"], "check its permissions"),
        ],
    )
    def test_what_cannot_be_written(
        self, export: ModuleType, capsys: pytest.CaptureFixture[str], given: list[str], said: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(ROOT)
        assert export.main(given) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("export: ") and said in line


class TestCommands:
    """The commands run without TensorFlow, and say what they run on."""

    CODE = """
import sys
from {module} import main
status = main({arguments!r})
print(*sorted({{"keras", "tensorflow"}} & sys.modules.keys()), "loaded")
sys.exit(status)
"""

    def run(self, module: str, runtime: Runtime, out: Path) -> str:
        film = PHANTOMS / "images" / "phantom_0001.png"
        arguments = ["--src", str(film), "--out", str(out), "--runtime", runtime.name]
        if module.startswith("mask_rcnn"):
            arguments += ["--weights", str(shipped_members()[0])]
        code = self.CODE.format(module=module, arguments=arguments)
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[-1] == "loaded", "neither Keras nor TensorFlow was imported"
        chosen = choose_runtime(runtime.name)
        assert f"running {chosen} on the CPU" in done.stdout
        assert str(chosen) in (f"ONNX Runtime in {chosen.precision}", f"OpenVINO in {chosen.precision}")
        return done.stdout

    def test_inference(self, runtime: Runtime, tmp_path: Path) -> None:
        self.run("mask_rcnn.commands.inference", runtime, tmp_path)
        truth = np.asarray(Image.open(PHANTOMS / "masks" / "phantom_0001.png"))
        found = np.asarray(Image.open(tmp_path / "masks" / "phantom_0001.png"))
        assert all(dice(found == category, truth == category) > 0.94 for category in CATEGORIES)
        run = json.loads((tmp_path / "run.json").read_text())
        assert run["runtime"]["name"] == runtime.name and MODULES[runtime.name] in run["versions"]
        assert "tensorflow" not in run["versions"]
        before = (tmp_path / "films.jsonl").read_bytes()
        assert "going on with a run" in self.run("mask_rcnn.commands.inference", runtime, tmp_path)
        assert (tmp_path / "films.jsonl").read_bytes() == before

    def test_create_dataset(self, tmp_path: Path) -> None:
        needs("onnx", MODULES[ONNX])
        self.run("create_dataset.command", Runtime(ONNX), tmp_path)
        dataset = json.loads((tmp_path / "dataset.json").read_text())
        assert dataset["info"]["runtime"] == {"name": ONNX, "precision": "float32"}
        assert sorted(lung["category_id"] for lung in dataset["annotations"]) == sorted(CATEGORIES)


class TestChoice:
    """The fastest that is installed, and never another one than was asked for."""

    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        """Says which packages are installed, of which precision OpenVINO computes in and whether there is a GPU."""

        def pretend(*packages: str, precision: str = "float32", gpu: bool = False) -> None:
            monkeypatch.delenv("KERAS_BACKEND", raising=False)
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: name if name in packages else None)
            monkeypatch.setattr(choice, "_precision", lambda name: precision if name == OPENVINO else "float32")
            monkeypatch.setattr(choice, "_may_have_gpu", lambda: gpu)

        return pretend

    def test_of_what_is_installed(self, installed: Callable[..., None]) -> None:
        installed()
        assert choose_runtime() == Runtime(KERAS)
        installed("onnxruntime", "openvino")
        assert choose_runtime() == Runtime(KERAS), "nothing writes the graphs"
        installed("onnx", "openvino")
        assert choose_runtime() == Runtime(OPENVINO)
        installed("onnx", "openvino", "onnxruntime")
        assert choose_runtime() == Runtime(ONNX)
        installed("onnx", "openvino", "onnxruntime", precision="bfloat16")
        assert choose_runtime() == Runtime(OPENVINO, "bfloat16")
        assert choose_runtime(ONNX) == Runtime(ONNX)

    def test_a_gpu_is_for_keras(self, installed: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
        installed("onnx", "onnxruntime", gpu=True)
        assert choose_runtime() == choose_runtime(device="gpu:1") == Runtime(KERAS)
        assert choose_runtime(device="cpu") == choose_runtime(ONNX) == Runtime(ONNX)
        installed("onnx", "onnxruntime")
        assert choose_runtime() == Runtime(ONNX)
        monkeypatch.setenv("KERAS_BACKEND", "jax")
        assert choose_runtime() == Runtime(KERAS)

    @pytest.mark.parametrize(
        ("packages", "name", "device", "said"),
        [
            ((), ONNX, "auto", "--runtime onnx: onnxruntime is not installed; pip install onnxruntime"),
            (("openvino",), OPENVINO, "auto", "--runtime openvino: onnx is not installed; pip install onnx"),
            (("onnx", "onnxruntime"), ONNX, "gpu", "--device gpu: ONNX Runtime runs on the CPU here; give --runtime keras"),
        ],
    )
    def test_what_cannot_be_had_is_refused(
        self, installed: Callable[..., None], packages: tuple[str, ...], name: str, device: str, said: str
    ) -> None:
        installed(*packages)
        with pytest.raises(DeviceError) as refused:
            choose_runtime(name, device)
        assert str(refused.value).startswith(said)
