"""Every error that roiseg raises on purpose.

    RoisegError
    ├── ParamsError(ValueError)            params.yaml or a preset
    ├── AnnotationError(ValueError)        a COCO file: broken, inconsistent, or without people
    ├── MissingImageError(FileNotFoundError)
    ├── ImageReadError(ValueError)         an image that is there but can't be decoded, or has another size
    ├── PixelsError(ValueError)            an array that is no image as OpenCV reads it
    ├── BoxError(ValueError)               a box that can't be used
    ├── GraphError(ValueError)             an ONNX file: tensor, layout or type
    ├── ProviderError(RuntimeError)        an execution provider or device that isn't there
    ├── StoreError(ValueError)             a feature store
    │   ├── StoreMismatchError             made with other settings than asked for
    │   └── StoreDamagedError              incomplete, truncated or changed bytes
    ├── DiskSpaceError(OSError)            no room for a store
    ├── UnwritableError(OSError)           the file system refuses a file or folder
    ├── WorkBusyError(BlockingIOError)     another process works on the same thing
    ├── CheckpointError(ValueError)
    ├── ResultsError(ValueError)           COCO results or detections: broken, or of other images than asked
    ├── TrainingError(RuntimeError)
    ├── PredictionError(ValueError)        what a head answered, or a file of it
    ├── FilterError(ValueError)            maps that a filter can't take, or a kernel without a middle
    ├── NoImageError(RuntimeError)         boxes were asked about before an image was set
    ├── PackageError(ImportError)          something was asked for whose package isn't installed
    ├── RunError(LookupError)              a run that is to be compared: not there, or without metrics
    ├── RequestError(ValueError)           an HTTP request that `roiseg serve` refuses
    └── ParityError(RuntimeError)          an exported model that disagrees with its source

Each is also the builtin that a caller would expect. A message names the thing, its value, what was expected, and the remedy.
"""


class RoisegError(Exception):
    """Root of all errors raised by roiseg."""


class ParamsError(RoisegError, ValueError):
    """Raised when params.yaml or a preset is invalid; carries every fault found, not only the first."""


class AnnotationError(RoisegError, ValueError):
    """Raised when a COCO annotation file can't be used as it is."""


class MissingImageError(RoisegError, FileNotFoundError):
    """Raised when an annotation names an image that isn't in the image folder."""


class ImageReadError(RoisegError, ValueError):
    """Raised when an image file can't be decoded whole, or isn't of the size its annotation says."""


class PixelsError(RoisegError, ValueError):
    """Raised when an array isn't an image of 8 bits a channel in blue, green and red."""


class BoxError(RoisegError, ValueError):
    """Raised when a box is empty, reversed, or outside its image."""


class GraphError(RoisegError, ValueError):
    """Raised when an ONNX file lacks a tensor or has another interface than asked for."""


class ProviderError(RoisegError, RuntimeError):
    """Raised when the requested execution provider or device isn't the one that would run."""


class StoreError(RoisegError, ValueError):
    """Raised when a feature store can't be used."""


class StoreMismatchError(StoreError):
    """Raised when a store was made with other settings than the ones asked for."""


class StoreDamagedError(StoreError):
    """Raised when a store is incomplete, or its bytes aren't the ones that were written."""


class DiskSpaceError(RoisegError, OSError):
    """Raised before a store is begun that won't fit, or when the disk fills up while one is written."""


class UnwritableError(RoisegError, OSError):
    """Raised when the file system refuses what is written: no room, no right, or something else under the name."""


class WorkBusyError(RoisegError, BlockingIOError):
    """Raised when another process is at work in the same work folder."""


class CheckpointError(RoisegError, ValueError):
    """Raised when a checkpoint can't be read or belongs to another model."""


class ResultsError(RoisegError, ValueError):
    """Raised when COCO results or a detector's boxes can't be read, or don't belong to the images they are scored on."""


class TrainingError(RoisegError, RuntimeError):
    """Raised when training can't go on."""


class PredictionError(RoisegError, ValueError):
    """Raised when a head's answers aren't numbers, or a file of them can't be used."""


class FilterError(RoisegError, ValueError):
    """Raised when a filter is given something else than maps, or a kernel of even size."""


class NoImageError(RoisegError, RuntimeError):
    """Raised when a predictor is asked about boxes and has no image to look at."""


class PackageError(RoisegError, ImportError):
    """Raised when something is asked for that needs a package which isn't installed."""


class RunError(RoisegError, LookupError):
    """Raised when a run that is to be compared isn't there, or can't be compared."""


class RequestError(RoisegError, ValueError):
    """Raised when the HTTP service refuses a request, or can't answer it.

    Attributes:
        status: HTTP status of the answer.
        code: what programs tell the reason by.
        retry_s: seconds after which the same request may be served; None where that would change nothing.
    """

    def __init__(self, message: str, *, status: int = 422, code: str = "invalid", retry_s: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.retry_s = retry_s


class ParityError(RoisegError, RuntimeError):
    """Raised when an exported model disagrees with the model it was exported from."""
