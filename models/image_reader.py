"""Read the images of a request: name them, decode them, transform them under the run's or the request's settings.

A family says what its transform is and which settings it has.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Generic, NamedTuple, TypeVar

from PIL import Image

from models.checkpoint import refuse_settings
from models.images import decode_image, image_name
from models.types import BadRequest, ImageSettings, ImageSettingsError, Request, UnseenImage

R = TypeVar("R")
Transform = Callable[[Image.Image], R]

# A run has a few distinct settings, for its benchmarks; their transforms are kept.
KEPT_SETTINGS = 64


class ReadImage(NamedTuple, Generic[R]):
    """An image as a family has transformed it, and its name (models/images.py: image_name)."""

    name: str
    seen: R


class ImageReader(Generic[R]):
    """A family's image transform, made once for each distinct settings."""

    def __init__(
        self,
        family: str,
        known: Collection[str],
        settings: ImageSettings,
        without_vision: str | None,
        make_transform: Callable[[ImageSettings], Transform[R]],
    ) -> None:
        """Make the transform of the run.

        Args:
            family: Its name.
            known: The settings that it has.
            settings: The run's.
            without_vision: What has no vision encoder, for messages; None if there is one.
            make_transform: From settings to the transform; raises ImageSettingsError if the checkpoint forbids them.

        Raises:
            ImageSettingsError: The run's settings do nothing or do not suit the checkpoint.
        """
        refuse_settings(settings, family, known, without_vision)
        self._family, self._known, self._settings = family, known, settings
        self._without_vision, self._make_transform = without_vision, make_transform
        self._run_transform = None if without_vision else make_transform(settings)
        self._request_transform = lru_cache(KEPT_SETTINGS)(self._transform_under)

    def read(self, request: Request) -> list[ReadImage[R]]:
        """Return each image of a request, named and transformed.

        Settings of a request without images do nothing, but they are checked all the same.

        Raises:
            UnseenImage: It has images, but there is no vision encoder.
            BadRequest: Its own settings do not suit the checkpoint.
            BadImage: An image cannot be decoded.
        """
        if request.images and self._without_vision:
            images = f"{len(request.images)} image{'' if len(request.images) == 1 else 's'}"
            raise UnseenImage(f"found {images}, but {self._without_vision} sees none")
        own = request.preprocess
        transform = self._run_transform if own is None else self._request_transform(own)
        if isinstance(transform, ImageSettingsError):
            raise BadRequest(f"preprocess: {transform}")
        if transform is None:
            return []
        settings = self._settings if own is None else self._under(own)
        return [ReadImage(image_name(data, settings), transform(decode_image(data))) for data in request.images]

    def _transform_under(self, settings: ImageSettings) -> Transform[R] | ImageSettingsError | None:
        """Return the transform under a request's settings, which go before the run's; errors are cached too."""
        try:
            refuse_settings(settings, self._family, self._known, None)
            return None if self._without_vision else self._make_transform(self._under(settings))
        except ImageSettingsError as error:
            return error

    def _under(self, own: ImageSettings) -> ImageSettings:
        """Return the run's settings under a request's own."""
        return replace(self._settings, **{name: value for name, value in asdict(own).items() if value is not None})
