"""The settings of a training run, as ``train`` takes them on the command line and in Python."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from ssgd_analysis.settings.setting import Settings, setting

LR_SCHEDULES = ("constant", "step", "cosine")
LR_SCALINGS = ("none", "linear", "sqrt")
PRECISIONS = ("fp32", "bf16", "fp16")
CHANNELS_LAST = ("auto", "on", "off")


@dataclass(frozen=True, kw_only=True)
class TrainSettings(Settings):
    """The settings of one run; see each field's declaration.

    ``settings`` and ``optimizer_settings`` are the method's and the base optimizer's own, by name.

    Raises:
        InputError: a value of the wrong type, out of range or not among the choices.
    """

    method: str = setting(
        dataclasses.MISSING, "How to train, or several joined by +: `ssgd-analyze list methods`."
    )
    data: str = setting(
        dataclasses.MISSING, "Data: a name of `ssgd-analyze list data`, or a reference."
    )
    model: str = setting(
        dataclasses.MISSING, "Model: a name of `ssgd-analyze list models`, or a reference."
    )
    loss: str = setting("cross_entropy", "Loss: cross_entropy, mse or a reference.")
    count: str | None = setting(None, "Reference of a function that counts a batch's examples.")
    stream: bool = setting(
        False, "Read data given by reference at every pass, instead of holding it in memory."
    )
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    optimizer: str | None = setting(
        None,
        "Base optimizer: `ssgd-analyze list optimizers` (default: the method's, else sgd).",
    )
    optimizer_settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    lr: float | None = setting(
        None, "Peak learning rate (default: 0.1; other optimizers than sgd: theirs).", above=0
    )
    lr_scaling: str = setting(
        "none",
        "The learning rate is for --base-batch and grows with the batch size or its square root.",
        choices=LR_SCALINGS,
    )
    base_batch: int = setting(128, "The batch size that --lr-scaling starts from.", minimum=1)
    momentum: float | None = setting(
        None,
        "Momentum (default: sgd 0.9, rmsprop 0, lars 0.9, muon 0.95).",
        minimum=0,
        below=1,
    )
    nesterov: bool = setting(False, "Nesterov momentum.")
    weight_decay: float = setting(0.0, "Weight decay, applied at the clean weights.", minimum=0)
    schedule: str = setting(
        "constant",
        "Learning-rate schedule; step multiplies by 0.1 after 1/2 and 3/4 of the training.",
        choices=LR_SCHEDULES,
    )
    warmup: float = setting(0.0, "Epochs of linear warm-up from zero.", minimum=0, metavar="EPOCHS")
    batch_size: int = setting(128, "Examples of a minibatch.", minimum=1)
    epochs: int = setting(30, "Passes over the training examples.", minimum=1)
    accumulate: int = setting(1, "Micro-batches of each pass.", minimum=1, metavar="N")
    clip: float | None = setting(
        None,
        "Shorten a longer gradient to this norm before the base optimizer steps (default: off).",
        above=0,
        metavar="NORM",
    )
    early_stop: int = setting(
        0,
        "Stop after this many epochs without a lower val_loss and give out the best epoch's"
        " weights; needs --val (default: 0, never).",
        minimum=0,
        metavar="EPOCHS",
    )
    label_smoothing: float = setting(
        0.0, "Label smoothing of the training loss; cross_entropy only.", minimum=0, maximum=1
    )
    train_samples: int = setting(
        0,
        "Use N training examples, a stratified draw by the seed (default: 0, all).",
        minimum=0,
        metavar="N",
    )
    label_noise: float = setting(
        0.0, "Share of training labels that are made wrong.", minimum=0, maximum=1
    )
    val: float = setting(
        0.0, "Share of the training examples held out for choices.", minimum=0, below=1
    )
    augment: bool = setting(True, "Use the data's usual augmentation (default: on).")
    precision: str = setting(
        "fp32",
        "Precision of the forward pass; weights stay float32, fp16 comes with a loss scale.",
        choices=PRECISIONS,
    )
    compile: bool = setting(False, "Run the forward pass through torch.compile.")
    channels_last: str = setting(
        "auto",
        "Memory format of images; auto: channels last for convolutional models.",
        choices=CHANNELS_LAST,
    )
    save_every: int = setting(
        0, "Save the weights every so many epochs (default: 0, never).", minimum=0, metavar="EPOCHS"
    )
    track: list[str] = setting(
        list,
        "Measure through training: sharpness[:K], trace[:PROBES], third-order[:DRAWS].",
        metavar="KIND[:N]",
    )
    track_every: int = setting(1, "Epochs between two measurements.", minimum=1, metavar="EPOCHS")
    track_samples: int = setting(
        2048, "Training examples, the first ones, that measurements use at most.", minimum=1
    )
    seed: int = setting(
        0, "Seed of initial weights, order of examples, label noise and weight noise.", minimum=0
    )
    device: str = setting("cpu", "cpu, cuda or cuda:N.")
    data_dir: str | None = setting(None, "Folder for data files (default: the user's cache).")
    label: str = setting("", "Name in comparisons (default: the method's).")
