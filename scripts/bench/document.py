"""``BENCHMARKS.md``: what was measured as tables, and whether the targets are met."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mask_rcnn.runtime.choice import KERAS, Runtime

MEMBERS = 5


class Target(NamedTuple):
    """A figure and what it should be at most, or at least."""

    what: str
    wanted: float
    found: float
    is_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.found >= self.wanted if self.is_least else self.found <= self.wanted


def targets(measured: Mapping[str, Any]) -> list[Target]:
    """Those of the fastest runtime; nothing of what was not measured."""
    forward, ends = measured["yardsticks"]["resnet_seconds"], measured["ends"]
    fastest = min({key[0] for key in ends}, key=lambda runtime: ends[runtime, 512, MEMBERS, 8, True].film)
    film = {(side, pictures): ends[fastest, side, MEMBERS, 8, pictures].film / forward
            for side in (512, 2000) for pictures in (True, False)}  # fmt: skip
    found = [
        Target("five networks, films of 512 pixels, pictures and page written, ResNet-101 forwards", 1.0, film[512, True]),
        Target("the same, films of 2,000 pixels", 1.3, film[2000, True]),
        Target("five networks, films of 512 pixels, without pictures", 0.75, film[512, False]),
    ]
    if fastest.name != KERAS:
        found.append(Target("start with five networks, seconds", 4.0, ends[fastest, 512, MEMBERS, 8, True].start))
    if fastest in measured["published"]:
        forwards = measured["published"][fastest]["seconds"] / forward
        found.append(Target("published ResNet-101 configuration, film and network, forwards", 1.3, forwards))
    dataset = measured["dataset"]
    keras = next((speed for runtime, speed in dataset.items() if runtime.name == KERAS), None)
    if fastest.name != KERAS and keras:
        times = dataset[fastest].whole / keras.whole
        found.append(Target("create_dataset.py, films a second, times Keras's", 2.0, times, is_least=True))
    share = dataset[fastest].whole / dataset[fastest].bare
    found.append(Target("create_dataset.py, share of its bare U-Net", 0.9, share, is_least=True))
    training = measured["training"]
    share = training["lungs"]["bare"] / training["lungs"]["step"]
    return [
        *found,
        Target("train.py, ResNet-101, share of its bare forward and backward passes", 0.8, share, is_least=True),
        Target("train.py, share of its steps in which they wait for data",
               0.01, max(took["share of waiting"] for took in training.values())),
    ]  # fmt: skip


def document(measured: Mapping[str, Any]) -> str:
    """The whole text."""
    facts, yardsticks, operations = measured["facts"], measured["yardsticks"], measured["operations"]
    rate, forward = yardsticks["matrix_rate"], yardsticks["resnet_seconds"]
    of_bag = MEMBERS * sum(operations.values())
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    parts = [
        "# Benchmarks",
        f"Written by `{facts['command']}` on {facts['date']} in {facts['seconds'] / 60:.0f} minutes: {facts['machine']}"
        f"{'; ' + versions if versions else ''}. {facts['films']} films at each size. Times are of one run and compare "
        "within it alone.",
        "## Yardsticks",
        f"A product of matrices reaches {rate / 1e9:.0f} GFLOP/s. A forward pass of `keras.applications`' ResNet-101 on one "
        f"image of 256 x 256 pixels takes {1000 * forward:.0f} ms, {yardsticks['resnet_operations'] / 1e9:.1f} GFLOPs, "
        f"{_share(yardsticks['resnet_operations'] / forward, rate)} of that rate. The five networks that ship take "
        f"{of_bag / 1e9:.1f} GFLOPs a film with two lungs: {1000 * of_bag / rate:.0f} ms at that rate. "
        f"Of one: {', '.join(f'{part} {count / 1e9:.2f}' for part, count in operations.items())}.",
        "## Targets",
        _table(("target", "wanted", "found", ""), (
            (target.what, f"{'at least' if target.is_least else 'at most'} {target.wanted:g}", f"{target.found:.2f}",
             "met" if target.is_met else f"missed by {abs(target.found / target.wanted - 1):.0%}")
            for target in targets(measured)
        )),
        "## inference.py from end to end",
        "Reading, networks, pasting, voting, measuring, and writing; forwards are those of the ResNet-101 above.",
        _table(("runtime", "pixels", "networks", "batch", "pictures", "ms a film", "forwards", "start, s", "memory, GiB"), (
            (str(runtime), side, members, batch, "yes" if pictures else "no", f"{1000 * end.film:.0f}",
             f"{end.film / forward:.2f}", f"{end.start:.1f}", f"{end.memory:.2f}")
            for (runtime, side, members, batch, pictures), end in measured["ends"].items()
        )),
        "## inference.py by part",
        "Milliseconds a film, five networks, batch 8, each part for itself: in a run threads read and write films beside "
        "the networks.",
        _by_part(measured["parts"], of_bag, rate),
        "## create_dataset.py",
        "Films of 512 pixels, one U-Net, which also predicts each film mirrored.",
        _table(("runtime", "U-Net alone, films/s", "whole, films/s", "share", "putting together, s", "memory, GiB"), (
            (str(runtime), f"{speed.bare:.2f}", f"{speed.whole:.2f}", f"{speed.whole / speed.bare:.0%}",
             f"{speed.together:.1f}", f"{speed.memory:.2f}")
            for runtime, speed in measured["dataset"].items()
        )),
    ]  # fmt: skip
    if measured["published"]:
        parts += [
            "## The published configuration",
            "ResNet-101 with the channels of the earlier pipeline, random weights, two lungs a film, batch 8.",
            _table(("runtime", "ms a film", "forwards"), (
                (str(runtime), f"{1000 * found['seconds']:.0f}", f"{found['seconds'] / forward:.2f}")
                for runtime, found in measured["published"].items()
            )),
        ]  # fmt: skip
    parts += [
        "## Training",
        "As `train.py` trains, on films in memory. Bare are forward and backward passes of trunk and heads alone; the first "
        "step of a stage is traced by TensorFlow.",
        _training(measured["training"]),
    ]
    return "\n\n".join(parts) + "\n"


def _by_part(parts: Mapping[tuple[Runtime, int], Mapping[str, float]], operations: float, rate: float) -> str:
    names = list(dict.fromkeys(name for took in parts.values() for name in took))
    heads = [f"{runtime}, {side} pixels" for runtime, side in parts]
    rows: list[tuple[Any, ...]] = [
        (name, *(f"{1000 * took[name]:.1f}" if name in took else "" for took in parts.values())) for name in names
    ]
    shares = (_share(operations / took["networks"], rate) for took in parts.values())
    rows.append(("networks, share of the rate above", *shares))
    return _table(("part", *heads), rows)


def _training(trainings: Mapping[str, Mapping[str, Any]]) -> str:
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("films a step", lambda took: str(took["batch"])),
        ("precision", lambda took: str(took["precision"])),
        ("first step, s", lambda took: f"{took['first step']:.1f}"),
        ("step, ms", lambda took: f"{1000 * took['step']:.0f}"),
        ("bare, ms", lambda took: f"{1000 * took['bare']:.0f}"),
        ("bare, share of a step", lambda took: f"{took['bare'] / took['step']:.0%}"),
        ("forward pass with losses, ms", lambda took: f"{1000 * took['forward']:.0f}"),
        ("data of a batch, one thread, ms", lambda took: f"{1000 * took['data of a batch, one thread']:.0f}"),
        ("waiting for data, share of the steps", lambda took: f"{took['share of waiting']:.1%}"),
        ("films a second", lambda took: f"{took['films a second']:.1f}"),
        ("memory, GiB", lambda took: f"{took['memory']:.2f}"),
    ]
    heads = ("", *(f"configs/{name}.yaml" for name in trainings))
    return _table(heads, ((name, *(show(took) for took in trainings.values())) for name, show in rows))


def _share(found: float, rate: float) -> str:
    return f"{found / rate:.0%}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
