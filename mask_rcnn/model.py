"""The network, and ``MaskRCNN``, which trains it and detects with it.

Shapes (b films, s the side of the square, a anchors, n RoIs, p of them that may be positive, k detections, m instances,
c classes)
    images         float32 [b, s, s, 3], equalised, mean subtracted
    windows        float32 [b, 4], where each film lies in its square, normalised
    anchor_match   int32 [b, a], 1 positive, -1 negative, 0 neutral
    anchor_deltas  float32 [b, anchors_per_image, 4], of the positive anchors in order
    class_ids      int32 [b, m], 0 is padding
    boxes          float32 [b, m, 4], normalised
    masks          uint8 [b, s, s, m]
"""

from __future__ import annotations

import contextlib
import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from mask_rcnn.config import READING_SECTIONS, Config, apply_settings
from mask_rcnn.network import losses
from mask_rcnn.network.layers import detection_targets, propose, pyramid_roi_align, refine_detections, widen_boxes
from mask_rcnn.network.pooling import fused_roi_align
from mask_rcnn.network.resnet import build_box_head, build_mask_head, build_proposal_head, build_pyramid
from mask_rcnn.network.normalisation import BatchNormalization
from mask_rcnn.prediction import DETECTION_BATCH, Prediction, batches_of, unmold
from mask_rcnn.system.garbage import without_collection
from mask_rcnn.system.workers import ALONE, Workers
from mask_rcnn.utils import MoldedFilm, mold_film, norm_boxes, pyramid_anchors
from mask_rcnn.weights import checkpoint

Tensor = Any
Align = Callable[..., Tensor]  # ``pyramid_roi_align``, or what stands for it

# Patterns of the names of the layers that a stage of a training changes.
LAYER_GROUPS = {"heads": "mrcnn_|rpn_|fpn_", "all": ""}


class Network(keras.Model):  # type: ignore[misc]
    """Mask R-CNN (He et al., ICCV 2017) on a ResNet-FPN.

    Given ``images`` and ``windows`` it detects; given ``images`` and the ground truth it returns what the five losses
    compare. Inputs are dicts of the shapes above.

    Args:
        precision: float32, float16 or bfloat16, in which the four parts compute. Their weights, and all that lies between
            and behind them, boxes, scores and losses, have 32 bits in any case.
        workers: the processes that train it together, each with its share of every batch.
    """

    def __init__(self, config: Config, precision: str = "float32", workers: Workers = ALONE) -> None:
        super().__init__(name="mask_rcnn", dtype="float32")
        self.workers = workers
        network = config.network
        self.settings = config
        with _dtype_policy(precision if precision == "float32" else f"mixed_{precision}"):
            self.pyramid = build_pyramid(network)
            self.proposal_head = build_proposal_head(network)
            self.box_head = build_box_head(network)
            self.mask_head = build_mask_head(network)
        for layer in self.named_layers().values():
            if isinstance(layer, BatchNormalization):
                layer.workers = workers
        anchors = pyramid_anchors(network.image_size, network.anchor_scales, network.anchor_ratios)
        self.anchors = norm_boxes(anchors, (network.image_size, network.image_size))
        self.lots = keras.random.SeedGenerator(config.seed)
        self.loss_means = [keras.metrics.Mean(name=name) for name in ("loss", *losses.LOSS_NAMES)]
        self.built = True  # the four parts are, and there are no weights besides theirs

    def call(self, inputs: Mapping[str, Tensor], training: bool | None = False) -> dict[str, Tensor]:
        learns = bool(training) and self.settings.network.train_batch_norm
        pyramid = self.pyramid(inputs["images"], training=learns)
        logits, deltas = self.score_anchors(pyramid)
        if "class_ids" not in inputs:
            return self._detect(pyramid, logits, deltas, inputs["windows"])
        proposals = self.proposals(logits, deltas, self.settings.proposals.training_count)
        sampled = detection_targets(
            proposals, inputs["class_ids"], inputs["boxes"], inputs["masks"], self.settings, self.lots, self.workers
        )
        positives = int(sampled["masks"].shape[1])
        fused = keras.backend.backend() == "tensorflow" and not self.jit_compile
        align = fused_roi_align if fused else pyramid_roi_align  # detection has one way on all backends
        class_logits, box_deltas = self.classify(sampled["rois"], pyramid, learns, align)
        return {
            "anchor_logits": logits,
            "anchor_deltas": deltas,
            "class_logits": class_logits,
            "box_deltas": box_deltas,
            "mask_logits": self.segment(sampled["rois"][:, :positives], pyramid, learns, align),
            **{f"target_{name}": value for name, value in sampled.items()},
        }

    def score_anchors(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """P2 to P6 to logits [b, a, 2], background first, and deltas [b, a, 4]."""
        predictions = [self.proposal_head(level) for level in pyramid]
        logits, deltas = (ops.concatenate(parts, axis=1) for parts in zip(*predictions, strict=True))
        return ops.cast(logits, "float32"), ops.cast(deltas, "float32")

    def proposals(self, logits: Tensor, deltas: Tensor, count: int) -> Tensor:
        """Scored anchors to proposals [b, count, 4], through which no gradient flows."""
        scores = ops.softmax(logits, axis=-1)[..., 1]
        anchors = ops.convert_to_tensor(self.anchors)
        return ops.stop_gradient(
            propose(ops.stop_gradient(scores), ops.stop_gradient(deltas), anchors, count, self.settings)
        )

    def classify(
        self, rois: Tensor, pyramid: Sequence[Tensor], learns: bool = False, align: Align = pyramid_roi_align
    ) -> tuple[Tensor, Tensor]:
        """RoIs [b, n, 4] to class logits [b, n, c] and deltas [b, n, c, 4]."""
        pooled = self._pool(rois, pyramid, self.settings.network.box_pool_size, align)
        logits, deltas = self.box_head(pooled, training=learns)
        count, classes = int(rois.shape[1]), self.settings.network.class_count
        logits, deltas = ops.reshape(logits, (-1, count, classes)), ops.reshape(deltas, (-1, count, classes, 4))
        return ops.cast(logits, "float32"), ops.cast(deltas, "float32")

    def segment(
        self, rois: Tensor, pyramid: Sequence[Tensor], learns: bool = False, align: Align = pyramid_roi_align
    ) -> Tensor:
        """RoIs [b, n, 4] to mask logits [b, n, 28, 28, c]."""
        network = self.settings.network
        pooled = self._pool(rois, pyramid, network.mask_pool_size, align, network.mask_canonical_side)
        logits = self.mask_head(pooled, training=learns)
        side, classes = network.mask_size, network.class_count
        return ops.cast(ops.reshape(logits, (-1, int(rois.shape[1]), side, side, classes)), "float32")

    def _pool(
        self, rois: Tensor, pyramid: Sequence[Tensor], side: int, align: Align, canonical_side: int = 224
    ) -> Tensor:
        """The RoIs of all films one behind the other: [b n, side, side, channels]."""
        network = self.settings.network
        pooled = align(rois, pyramid[:4], side, network.image_size, canonical_side)
        return ops.reshape(pooled, (-1, side, side, network.pyramid_output_channels))

    def _detect(self, pyramid: Sequence[Tensor], logits: Tensor, deltas: Tensor, windows: Tensor) -> dict[str, Tensor]:
        rois = self.proposals(logits, deltas, self.settings.proposals.inference_count)
        class_logits, box_deltas = self.classify(rois, pyramid)
        probabilities = ops.softmax(class_logits, axis=-1)
        detections = refine_detections(rois, probabilities, box_deltas, windows, self.settings)
        mask_boxes = widen_boxes(detections[..., :4], self.settings.detection.mask_margin)
        masks = ops.sigmoid(self.segment(mask_boxes, pyramid))
        return {"detections": detections, "mask_boxes": mask_boxes, "masks": masks}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return self.loss_means

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Tensor:
        """The weighted sum of the five losses and the weight decay; each goes into its running mean as well."""
        terms = self.loss_terms(x, y_pred)
        total = sum(weight * term for weight, term in zip(self.settings.training.loss_weights, terms, strict=True))
        total = total + self.weight_penalty()
        for mean, value in zip(self.loss_means, self.workers.means((total, *terms)), strict=True):
            mean.update_state(value)
        return total

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        return dict(self.get_metrics_result())

    def loss_terms(self, inputs: Mapping[str, Tensor], predictions: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The five losses, in the order of ``losses.LOSS_NAMES``, from the ground truth and the network's predictions."""
        workers = self.workers
        match, class_ids = inputs["anchor_match"], predictions["target_class_ids"]
        positives = int(predictions["target_masks"].shape[1])
        return (
            losses.rpn_class_loss(match, predictions["anchor_logits"], workers),
            losses.rpn_bbox_loss(inputs["anchor_deltas"], match, predictions["anchor_deltas"], workers),
            losses.mrcnn_class_loss(class_ids, predictions["class_logits"], workers),
            losses.mrcnn_bbox_loss(predictions["target_deltas"], class_ids, predictions["box_deltas"], workers),
            losses.mrcnn_mask_loss(
                predictions["target_masks"], class_ids[:, :positives], predictions["mask_logits"], workers
            ),
        )

    def weight_penalty(self) -> Tensor:
        """L2 on the kernels and biases, not on batch normalisation, each divided by its size as the reference does."""
        decay = self.settings.training.weight_decay
        weights = [w for w in self.trainable_variables if w.path.split("/")[-1] not in ("gamma", "beta")]
        if not weights or decay == 0:
            return 0.0
        return decay * sum(ops.mean(ops.square(ops.cast(weight, "float32"))) for weight in weights)

    def named_layers(self) -> dict[str, keras.layers.Layer]:
        """Every layer that has weights, by the name it has in the reference's checkpoints."""
        parts = (self.pyramid, self.proposal_head, self.box_head, self.mask_head)
        return {layer.name: layer for part in parts for layer in part.layers if layer.weights}


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    """Layers built within have this policy; Keras' own stays what it was."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class MaskRCNN:
    """A Mask R-CNN with its configuration: ``MaskRCNN(config)`` for random weights, ``MaskRCNN.load(path)`` for trained.

    Args:
        precision: in which it computes, as in ``Network``; to train, what ``choose_precision`` makes of
            ``config.training.precision``.
        jit_compile: whether XLA compiles the training step and the detection. ``"auto"`` leaves it to Keras: on a GPU, and
            with JAX anywhere. Several processes train without it.
        workers: as in ``Network``.
    """

    def __init__(
        self, config: Config, precision: str = "float32", jit_compile: bool | str = "auto", workers: Workers = ALONE
    ) -> None:
        self.config = config
        self.network = Network(config, precision, workers)
        self._jit_compile = jit_compile if workers.count == 1 else False
        if isinstance(jit_compile, bool):  # for detection; ``compile`` gives it to Keras for the training step
            self.network.jit_compile = jit_compile

    @classmethod
    def load(cls, path: str | Path, jit_compile: bool | str = "auto", settings: Sequence[str] = ()) -> MaskRCNN:
        """Builds and fills the model that a weights file describes; files of the reference implementation load too.

        Args:
            settings: KEY=VALUE each, such as ``detection.min_score=0.5``, in place of what the file says; sections
                ``detection`` and ``bag``, on which no weight depends.

        Raises:
            checkpoint.CheckpointError: the file is absent, torn, no weights file, or does not fit.
            config.ConfigError: a setting is wrong.
        """
        config = apply_settings(checkpoint.read_config(path), settings, READING_SECTIONS)
        model = cls(config, jit_compile=jit_compile)
        model.load_weights(path)
        return model

    def sharing(self, config: Config) -> MaskRCNN:
        """This network under another config that predicts alike (``config.predicting_part``): both have the same weights."""
        other = copy.copy(self)
        other.config = config
        return other

    def load_weights(self, path: str | Path) -> None:
        """Fills this model from a file of the same architecture; raises ``checkpoint.CheckpointError``."""
        checkpoint.load_weights(self.network, path)

    def save(self, path: str | Path) -> None:
        """Writes the weights as float16, with the configuration, to ``path``, which must end in ``.weights.h5``."""
        checkpoint.save(self.network, self.config, path)

    def train(
        self,
        dataset_train: keras.utils.PyDataset,
        dataset_val: keras.utils.PyDataset | None,
        learning_rate: float | keras.optimizers.schedules.LearningRateSchedule,
        epochs: int,
        layers: str = "all",
        callbacks: Sequence[keras.callbacks.Callback] = (),
        initial_epoch: int = 0,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains up to epoch ``epochs``.

        Args:
            dataset_train, dataset_val: batches as ``dataset.batches.TrainingBatches`` gives them.
            learning_rate: of the optimiser that the configuration names.
            epochs: number of the last epoch, counted from 0 over both stages.
            layers: ``heads``, which are all layers but the ResNet's, or ``all``.
            callbacks, initial_epoch, verbose: as in ``keras.Model.fit``.

        Raises:
            ValueError: ``layers`` names no group.
        """
        self.compile(learning_rate, layers)
        return self.fit_stage(dataset_train, dataset_val, initial_epoch, epochs, callbacks, verbose)

    def fit_stage(
        self,
        dataset_train: keras.utils.PyDataset,
        dataset_val: keras.utils.PyDataset | None,
        initial_epoch: int,
        epochs: int,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Trains a model that is compiled already, from epoch ``initial_epoch`` up to ``epochs``."""
        with contextlib.ExitStack() as first_step:
            first_step.enter_context(without_collection())  # of the graph that it traces all stays
            end = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: first_step.close())
            return self.network.fit(
                dataset_train,
                validation_data=dataset_val,
                epochs=epochs,
                initial_epoch=initial_epoch,
                callbacks=[end, *callbacks],
                verbose=verbose,
                shuffle=False,  # an epoch's seed orders its batches: shuffled again, no run could be repeated
            )

    def compile(
        self, learning_rate: float | keras.optimizers.schedules.LearningRateSchedule, layers: str = "all"
    ) -> None:
        """Sets the optimiser and which layers learn (``train`` does it too); raises ValueError for an unknown group."""
        if layers not in LAYER_GROUPS:
            raise ValueError(f"layers must be one of {', '.join(LAYER_GROUPS)}, not {layers!r}")
        for name, layer in self.network.named_layers().items():
            layer.trainable = re.match(LAYER_GROUPS[layers], name) is not None
        training = self.config.training
        optimiser: keras.optimizers.Optimizer
        # Named, as Keras else numbers them within a process, and equal states shall be equal files.
        if training.optimiser == "sgd":
            optimiser = keras.optimizers.SGD(
                learning_rate, momentum=training.momentum, global_clipnorm=training.gradient_clip_norm, name="sgd"
            )
        else:
            optimiser = keras.optimizers.Adam(learning_rate, global_clipnorm=training.gradient_clip_norm, name="adam")
        if self.network.pyramid.compute_dtype == "float16":  # whose least number most gradients fall below
            optimiser = keras.optimizers.LossScaleOptimizer(optimiser, name="loss_scale")
        apply, workers = optimiser.apply, self.network.workers
        if workers.count > 1:  # averaged before they are clipped
            optimiser.apply = lambda gradients, variables=None: apply(workers.means(list(gradients)), variables)
        # Built inside the training step, its variables would have the step traced twice.
        optimiser.build(self.network.trainable_variables)
        self.network.compile(optimizer=optimiser, jit_compile=self._jit_compile)

    def detect(
        self, films: Sequence[np.ndarray], soft: bool = False, batch: int | None = None
    ) -> list[dict[str, np.ndarray]]:
        """Finds the lungs on equalised films.

        Args:
            films: uint8 [height, width] or [height, width, 3] each, of any sizes, already equalised.
            soft: True gives the masks' probabilities, False where they are 0.5 or more.
            batch: films at a time, as ``predict`` takes it.

        Returns:
            For each film ``rois`` int32 [n, 4] pixels of the film, ``class_ids`` int32 [n], ``scores`` float32 [n] in
            [0, 1], falling, ``masks`` [height, width, n], bool or float32, and ``windows`` int32 [n, 4] pixels of the film,
            outside which each mask is empty.

        Raises:
            TypeError: a film is not uint8.
        """
        molded = [mold_film(film, self.config.network) for film in films]
        predictions = self.predict(molded, batch)
        return [self.unmold(prediction, film.shape[:2], soft) for prediction, film in zip(predictions, films, strict=True)]

    def predict(self, films: Sequence[MoldedFilm], batch: int | None = None) -> list[Prediction]:
        """The network's predictions, ``batch`` films at a time; fewer are filled up to it, so that nothing compiles twice.

        By default one film is predicted alone, and more ``DETECTION_BATCH`` at a time.
        """
        batch = batch or (1 if len(films) == 1 else DETECTION_BATCH)
        side = self.config.network.image_size
        predictions = []
        for some, inputs in batches_of(films, batch, side):
            outputs = self.network.predict_on_batch(inputs)
            predictions += [
                Prediction(outputs["detections"][index], outputs["mask_boxes"][index], outputs["masks"][index], film.window)
                for index, film in enumerate(some)
            ]
        return predictions

    def unmold(self, prediction: Prediction, shape: tuple[int, int], soft: bool = False) -> dict[str, np.ndarray]:
        """A prediction as ``detect`` gives it, in the pixels of the film, which has ``shape`` (height, width)."""
        return unmold(*prediction, self.config.network.image_size, shape, self.config.detection, soft)

    def get_weights(self) -> list[Tensor]:
        """A copy of all weights, where the backend keeps its tensors."""
        return [ops.copy(variable) for variable in self.network.weights]

    def set_weights(self, weights: Sequence[Tensor]) -> None:
        """Takes weights that ``get_weights`` gave, of this model or of one of the same architecture."""
        for variable, value in zip(self.network.weights, weights, strict=True):
            variable.assign(ops.copy(value))  # a step of JAX gives away the arrays that it was given
