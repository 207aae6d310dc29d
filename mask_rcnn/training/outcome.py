"""What a training leaves beside its weights to look at: its curves, some predictions, and a table of the bag's members.

- ``NAME_K.curves.png``: losses, validation Dice and learning rate by epoch
- ``NAME_K.predictions.png``: a few of the films to validate on
- ``NAME.members.md``: the members whose weights are there
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mask_rcnn.lungs import CATEGORIES, SIDES
from mask_rcnn.results.curves import Chart, Line, render_charts
from mask_rcnn.results.drawing import LUNG_COLOURS
from mask_rcnn.results.pictures import picture_png
from mask_rcnn.system.files import write_bytes
from mask_rcnn.training.examples import Examples
from mask_rcnn.training.report import duration
from mask_rcnn.training.run_folder import read_log
from mask_rcnn.training.validation import VALIDATION_DICE, validate
from mask_rcnn.weights import checkpoint

if TYPE_CHECKING:
    from mask_rcnn.config import Config
    from mask_rcnn.dataset.film_cache import CachedFilms
    from mask_rcnn.model import MaskRCNN

# Blue and vermillion of the palette that the lungs' colours are of.
TRAINING, VALIDATION = (0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)
COLUMNS = 4
HEAD = ("member", "seed", "films", "epochs", "best epoch", *(f"Dice {side}" for side in SIDES.values()), "time")


def curves_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.name.removesuffix(checkpoint.ENDING)}.curves.png")


def predictions_path(weights: Path) -> Path:
    return weights.with_name(f"{weights.name.removesuffix(checkpoint.ENDING)}.predictions.png")


def write_curves(log: Sequence[Mapping[str, Any]], best: int | None, weights: Path) -> None:
    """Renders a log, the best epoch marked, beside the weights."""
    from mask_rcnn.network.losses import LOSS_NAMES

    def line(name: str, colour: tuple[int, int, int], key: str) -> Line:
        return Line(name, colour, {entry["epoch"]: entry[key] for entry in log if key in entry})

    def pair(title: str, key: str) -> Chart:
        lines = [line("training", TRAINING, key), line("validation", VALIDATION, f"val_{key}")]
        return Chart(title, [one for one in lines if one.values])

    dices = [line(SIDES[category], LUNG_COLOURS[category], key) for category, key in VALIDATION_DICE.items()]
    charts = [
        pair("loss, weighted sum and weight decay", "loss"),
        *(pair(name, name) for name in LOSS_NAMES),
        Chart("Dice of validation", [one for one in dices if one.values], (0.0, 1.0)),
        Chart("learning rate", [line("at the end of the epoch", TRAINING, "learning_rate")]),
    ]
    write_bytes(curves_path(weights), picture_png(render_charts(charts, COLUMNS, best, "best epoch")))


def write_predictions(model: MaskRCNN, validation: CachedFilms, weights: Path) -> None:
    """Renders some of the films to validate on, beside the weights; nothing where there are none."""
    examples = Examples(validation)
    if not examples.numbers:
        return
    shown = validation.of([validation.records[number] for number in examples.numbers])
    lungs = validate(model, shown, range(len(shown))).lungs
    picture = examples.render(dict(zip(examples.numbers, lungs.values(), strict=True)))
    write_bytes(predictions_path(weights), picture_png(picture))


def write_members(config: Config, out: Path, runs: Path) -> None:
    """Writes the table of the members that are trained; what the weights of older programs do not hold stays empty."""
    lines = [HEAD, tuple("---" for _ in HEAD)]
    for member in range(1, config.bag.members + 1):
        name = f"{config.name}_{member}"
        weights = out / f"{name}{checkpoint.ENDING}"
        if not weights.exists():
            continue
        try:
            notes = checkpoint.read_notes(weights)
        except checkpoint.CheckpointError:
            notes = {}
        seconds = sum(entry.get("seconds", 0) for entry in read_log(runs / name))
        dices = (notes.get("scores", {}).get(VALIDATION_DICE[category]) for category in CATEGORIES)
        lines.append((
            str(member), *(str(notes.get(key, "")) for key in ("seed", "films", "epochs", "best_epoch")),
            *("" if dice is None else f"{dice:.4f}" for dice in dices), duration(seconds) if seconds else "",
        ))  # fmt: skip
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    write_bytes(out / f"{config.name}.members.md", f"# The members of {config.name}\n\n{table}\n".encode())
