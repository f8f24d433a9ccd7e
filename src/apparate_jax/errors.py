"""One root for every error that a user can cause or must act on.

Each leaf also inherits the built-in that it refines, so that code which knows nothing of this
package still catches it. Messages say what was got, what was expected and what to do.
"""


class ApparateError(Exception):
    """Root of all errors that this package raises on purpose."""


class GraphError(ApparateError, ValueError):
    """A computation that cannot be traced or cut; shows the equation and the user's source line."""


class NoCutVertexError(GraphError):
    """The computation has no place where a ramp could be attached."""


class ModelError(ApparateError, ValueError):
    """A model that is unknown, or whose description or weights do not fit together."""


class WeightsError(ModelError):
    """Published weights that are missing, truncated, or of other names or shapes than expected."""


class DataError(ApparateError, ValueError):
    """Data whose columns, shapes or values do not fit the model."""


class CheckpointError(ApparateError, ValueError):
    """A checkpoint that is absent, incomplete, damaged, or made from another model or version."""


class RampError(ApparateError, ValueError):
    """A ramp that cannot be built or trained at a site."""


class ConfigError(ApparateError, ValueError):
    """A setting that is unknown, of the wrong type, or out of range."""


class RequestError(ApparateError, ValueError):
    """A request that does not fit the model; the server answers it with a 4xx status."""


class QueueFullError(ApparateError, RuntimeError):
    """The bounded queue is full; the server answers 503 and the client may try again later."""


class DeadlineUnreachableError(ApparateError, RuntimeError):
    """By the measured profile this deadline can no more be met; 503, the client may try again."""


class DeadlinePassedError(ApparateError, TimeoutError):
    """The deadline of a request passed while it waited for a batch; the server answers 504."""


class EngineClosedError(ApparateError, RuntimeError):
    """The engine no longer takes requests, or stopped before it could answer this one."""


class NumericsError(ApparateError, ArithmeticError):
    """The original model gave NaN or infinite logits for this input."""


class StateError(ApparateError, ValueError):
    """A controller's saved state that is damaged, or belongs to something else."""
