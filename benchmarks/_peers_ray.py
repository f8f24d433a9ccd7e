"""The peers' model behind Ray Serve: `_peers_ray.py CHECKPOINT PORT`, in its environment.

Raw bodies, one replica that may use both cores, no wait for a batch to fill. The model runs on the
replica's event loop, as in Ray's own examples: in a thread, batches would be formed of single
requests while another one runs, for their size is fixed before they wait for their turn.
"""

import sys
import threading

import ray
from _peers_model import LARGEST, Classifier
from ray import serve
from starlette.requests import Request
from starlette.responses import Response


@serve.deployment(max_ongoing_requests=1024, ray_actor_options={"num_cpus": 2}, num_replicas=1)
class Served:
    """One replica."""

    def __init__(self, place: str) -> None:
        self._classifier = Classifier(place)

    @serve.batch(max_batch_size=LARGEST, batch_wait_timeout_s=0.0, max_concurrent_batches=1)
    async def answers(self, bodies: list[bytes]) -> list[bytes]:
        """Answers of a batch."""
        return self._classifier.answers(bodies)

    async def __call__(self, request: Request) -> Response:
        """One request."""
        return Response(await self.answers(await request.body()))


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Served.bind(sys.argv[1]), route_prefix="/predict")
    threading.Event().wait()
