"""How large the GPU suite is: models, batches and rounds for a GPU, a CPU, and its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Live:
    """The live run: a GPT-2 that is trained on made texts, and how long it is measured.

    Attributes:
        model: Changes of the zoo's ``gpt2``.
        steps: Training steps of 64 texts.
        texts: That ramps are trained on, and as many again that are served.
        loads: Shares of the original's throughput.
        rounds: Of both systems, at each load.
        round_s: Length of one.
        saturation_s: Length of one measurement of throughput.
        settle: Answers before the first round.
        batches: Batch shapes.
    """

    model: Mapping[str, Any]
    steps: int
    texts: int
    loads: tuple[float, ...]
    rounds: int
    round_s: float
    saturation_s: float
    settle: int
    batches: tuple[int, ...] = (1, 2, 4, 8)


@dataclass(frozen=True, slots=True)
class Size:
    """What the parts run.

    Attributes:
        models: Of the zoo, for throughput; with random weights.
        few: Of the zoo, for every other part.
        batches: For throughput.
        few_batches: For every other part.
        dtype: Of weights and computation.
        rounds: Timed rounds, in turns.
        stream_s: Length of one measurement of throughput.
        windows: Samples and sites of the windows that are tuned.
        live: The live run.
        changes: Of the models' configurations.
    """

    models: tuple[str, ...]
    few: tuple[str, ...]
    batches: tuple[int, ...]
    few_batches: tuple[int, ...]
    dtype: str
    rounds: int
    stream_s: float
    windows: tuple[tuple[int, int], ...]
    live: Live
    changes: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


GPU = Size(
    models=("resnet-50", "resnet-101", "vgg-16", "bert-base", "bert-large", "gpt2-medium"),
    few=("bert-base", "resnet-50"),
    batches=(1, 4, 16, 64),
    few_batches=(1, 16),
    dtype="bfloat16",
    rounds=60,
    stream_s=0.3,
    windows=((512, 3), (1024, 12), (4096, 3)),
    live=Live({"seq_len": 128, "vocab_size": 512}, 300, 4096, (0.4, 0.7), 3, 2.0, 1.0, 1024),
)
_LIVE_CPU = {
    "hidden_size": 192,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "intermediate_size": 768,
    "vocab_size": 512,
    "seq_len": 64,
}
CPU = Size(
    models=("minilm-l6",),
    few=("minilm-l6", "resnet-18-cifar"),
    batches=(1, 4),
    few_batches=(1, 4),
    dtype="float32",
    rounds=20,
    stream_s=0.5,
    windows=((512, 3), (1024, 12)),
    live=Live(_LIVE_CPU, 80, 1024, (0.4,), 3, 4.0, 1.5, 512),
    changes={"minilm-l6": {"seq_len": 64}},
)
_SMALLEST = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "vocab_size": 64,
    "seq_len": 16,
}
TINY = Size(
    models=("minilm-l6",),
    few=("minilm-l6",),
    batches=(2,),
    few_batches=(2,),
    dtype="float32",
    rounds=2,
    stream_s=0.01,
    windows=((64, 2),),
    live=Live(_SMALLEST, 100, 512, (0.3,), 1, 0.5, 0.2, 32, (1, 2)),
    changes={"minilm-l6": _SMALLEST},
)
SIZES = {"gpu": GPU, "cpu": CPU, "tiny": TINY}
