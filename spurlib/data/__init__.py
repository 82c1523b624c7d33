"""Data with a core and a spurious part: Gaussian vectors, images in a frame of noise, images with a mark on them."""

from .images import DataNotAvailableError, available, data_folder, embedded, first_available, image_counts
from .marks import framed_images, marked_images
from .moments import Concentration, concentration
from .samples import SpuriousData, synthetic

__all__ = [
    "Concentration",
    "DataNotAvailableError",
    "SpuriousData",
    "available",
    "concentration",
    "data_folder",
    "embedded",
    "first_available",
    "framed_images",
    "image_counts",
    "marked_images",
    "synthetic",
]
