"""Data with a core and a spurious part: Gaussian vectors, images in a frame of noise, images with a mark on them."""

from ._images import framed_images, marked_images
from ._samples import SpuriousData, synthetic
from ._sets import DataNotAvailableError, available, data_folder, first_available, image_counts

__all__ = [
    "DataNotAvailableError",
    "SpuriousData",
    "available",
    "data_folder",
    "first_available",
    "framed_images",
    "image_counts",
    "marked_images",
    "synthetic",
]
