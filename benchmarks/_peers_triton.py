"""The peers' model behind Triton, through PyTriton: `_peers_triton.py CHECKPOINT PORT`.

Binary tensors over HTTP. The dynamic batcher has its defaults, which are what its documentation
starts with: batches as large as what waits, no delay.
"""

import os
import sys
import sysconfig

import numpy as np
from _peers_model import LARGEST, Classifier
from numpy.typing import NDArray
from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig

LENGTH = 128


def main() -> None:
    """Serve until the process is ended."""
    # Triton's own process for Python loads libpython of this interpreter, wherever that is.
    os.environ["LD_LIBRARY_PATH"] = sysconfig.get_config_var("LIBDIR")
    classifier, port = Classifier(sys.argv[1]), int(sys.argv[2])

    @batch
    def infer(
        input_ids: NDArray[np.int32], attention_mask: NDArray[np.int32]
    ) -> dict[str, NDArray[np.float32]]:
        return {"logits": classifier.logits(input_ids, attention_mask)}

    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=port,
        allow_grpc=False,
        allow_metrics=False,
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="model",
            infer_func=infer,
            inputs=[
                Tensor(name=name, shape=(LENGTH,), dtype=np.int32)
                for name in ("input_ids", "attention_mask")
            ],
            outputs=[Tensor(name="logits", shape=(2,), dtype=np.float32)],
            config=ModelConfig(max_batch_size=LARGEST, batcher=DynamicBatcher()),
            strict=False,
        )
        triton.serve()


if __name__ == "__main__":
    main()
