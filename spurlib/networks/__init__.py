"""Networks: four architectures, their training, and retraining without single samples."""

from .models import fully_connected, resnet18, small_cnn, vision_transformer
from .training import DivergedError, leave_one_out, mean_of, predict, settled, train, train_many

__all__ = [
    "DivergedError",
    "fully_connected",
    "leave_one_out",
    "mean_of",
    "predict",
    "resnet18",
    "settled",
    "small_cnn",
    "train",
    "train_many",
    "vision_transformer",
]
