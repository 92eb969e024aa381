"""Image bytes of a request to what its family makes of them, under the run's image settings or the request's own.

What a family makes of a picture, and which settings it has, the family says.
"""

from collections.abc import Callable, Collection
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Generic, TypeVar

from PIL import Image

from models.checkpoint import refuse_settings
from models.images import decode_image
from models.text import unseen
from models.types import BadRequest, ImageSettings, ImageSettingsError, Request

R = TypeVar("R")
Look = Callable[[Image.Image], R]

# Distinct settings that requests come with and that are remembered: a run has a few, for its benchmarks.
KEPT_SETTINGS = 64


class Eye(Generic[R]):
    """A family's way of looking at pictures, made once for each distinct settings."""

    def __init__(
        self,
        family: str,
        known: Collection[str],
        settings: ImageSettings,
        blind: str | None,
        make: Callable[[ImageSettings], Look[R]],
    ) -> None:
        """Make the run's own way.

        Args:
            family: Its name.
            known: The settings that it has.
            settings: The run's.
            blind: What it is that sees no images, if so.
            make: From settings to what becomes of a picture; it refuses what does not suit the checkpoint.

        Raises:
            ImageSettingsError: The run's settings do nothing or do not suit the checkpoint.
        """
        refuse_settings(settings, family, known, blind)
        self._family, self._known, self._settings, self._blind, self._make = family, known, settings, blind, make
        self._own = None if blind else make(settings)
        self._look_under = lru_cache(KEPT_SETTINGS)(self._under)

    def look(self, request: Request) -> list[R]:
        """Return what each image of a request becomes.

        Settings of a request without images do nothing, but they are checked all the same.

        Raises:
            UnseenImage: It has images, and there is nothing to look at them with.
            BadRequest: Its own settings do not suit the checkpoint.
            BadImage: An image cannot be decoded.
        """
        if request.images and self._blind:
            raise unseen(len(request.images), self._blind)
        look = self._own if request.preprocess is None else self._look_under(request.preprocess)
        if isinstance(look, ImageSettingsError):
            raise BadRequest(f"preprocess: {look}")
        return [] if look is None else [look(decode_image(data)) for data in request.images]

    def _under(self, settings: ImageSettings) -> Look[R] | ImageSettingsError | None:
        """Return the way under a request's settings, over the run's; what is wrong with them is remembered, too."""
        over = {name: value for name, value in asdict(settings).items() if value is not None}
        try:
            refuse_settings(settings, self._family, self._known, None)
            return None if self._blind else self._make(replace(self._settings, **over))
        except ImageSettingsError as error:
            return error
