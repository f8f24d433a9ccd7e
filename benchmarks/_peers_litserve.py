"""The peers' model behind LitServe: `_peers_litserve.py CHECKPOINT PORT`, in its environment.

Raw bodies. Batches form of what waits (`batch_timeout` is 0 as by default), and the queue between
its processes is ZeroMQ's, the quicker one that it offers (`fast_queue`).
"""

import sys
from typing import Annotated

import litserve
from _peers_model import LARGEST, Classifier
from fastapi import Body, Response


class Api(litserve.LitAPI):
    """Bytes in, bytes out."""

    def setup(self, device: str) -> None:
        """Load and compile, in the worker's process."""
        self._classifier = Classifier(sys.argv[1])

    def decode_request(self, request: Annotated[bytes, Body()]) -> bytes:
        """The body as it is: the batch is decoded as a whole."""
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        """The bodies of a batch."""
        return inputs

    def predict(self, bodies: list[bytes]) -> list[bytes]:
        """One answer for each body."""
        return self._classifier.answers(bodies)

    def unbatch(self, output: list[bytes]) -> list[bytes]:
        """One answer for each request."""
        return output

    def encode_response(self, output: bytes) -> Response:
        """The logits' bytes."""
        return Response(output, media_type="application/octet-stream")


if __name__ == "__main__":
    served = Api(max_batch_size=LARGEST, batch_timeout=0.0)
    server = litserve.LitServer(served, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(sys.argv[2]), log_level="warning", generate_client_file=False
    )
