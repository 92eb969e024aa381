"""The few types that every room shares: what is asked of a model and what comes back.

Nothing here knows torch, Ray or a family; a CPU process imports this file for the price of numpy.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Message = Mapping[str, Any]
Pixels = NDArray[np.uint8]
FinishReason = Literal["stop", "length"]
# Which rules cut a text into words: the checkpoint's files', or those of the authors of Emu3.
Tokenizer = Literal["checkpoint", "baai"]

# What chat templates take for today unless a run says otherwise; Llama 3.2's own falls back on the same day.
TEMPLATE_DATE = date(2024, 7, 26)

# Sequences answered at once where nobody says how many: on a CPU, where more gain next to nothing; at most on a GPU,
# where they gain as long as there is room for them (models/capacity/room.py).
CPU_SLOTS, MOST_SLOTS = 32, 256


class CheckpointError(ValueError):
    """A checkpoint folder is not what its family needs: a file, a key, a shape or a setting is wrong."""


class ImageSettingsError(CheckpointError):
    """A run's image settings do not suit the checkpoint.

    Attributes:
        faults: One sentence per fault, beginning with the setting's name.
    """

    def __init__(self, *faults: str) -> None:
        super().__init__(*faults)
        self.faults = faults

    def __str__(self) -> str:
        return "; ".join(self.faults)


class BadRequest(ValueError):
    """A request cannot be turned into a prompt: its messages, placeholders or images contradict each other."""


class BadImage(BadRequest):
    """Bytes that should be an image cannot be decoded, or are refused."""


class UnseenImage(BadRequest):
    """A request has images, and there is nothing to look at them with."""


class PromptTooLong(BadRequest):
    """A prompt and the tokens it may answer with do not fit the longest sequence the engine holds."""


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen and when an answer ends.

    Attributes:
        max_new_tokens: The most tokens an answer may have, stop token included.
        temperature: 0 takes the likeliest token; above 0 draws from the softened distribution.
        top_k: Draw among the k likeliest tokens only; 0 means all.
        top_p: Draw among the fewest tokens that hold this much probability; 1 means all.
        seed: The row's own seed; two requests with equal seeds draw alike in any company.
        stop: An answer ends when its text contains one of these; the text before it is kept.
        guidance_scale: How far the scores are moved away from those under the negative prompt; 1 leaves it out.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    guidance_scale: float = 1.0


@dataclass(frozen=True)
class ImageSettings:
    """What a run, or a single request, may override of a checkpoint's own image settings; None overrides nothing.

    Attributes:
        split_image: Aria: cut large images into crops beside the overview.
        max_image_size: Aria: side of the canvas, 490 or 980 for the released checkpoints.
        max_image_tiles: Mllama: the most tiles a picture is cut into, 1 to 4 for the released checkpoints.
        min_pixels: Emu3: smaller pictures are enlarged to about this area.
        max_pixels: Emu3: larger pictures are shrunk to about this area.
        pad_to_ratio: Emu3: pictures with one side more than so many times the other get black edges; 1 to 200.
    """

    split_image: bool | None = None
    max_image_size: int | None = None
    max_image_tiles: int | None = None
    min_pixels: int | None = None
    max_pixels: int | None = None
    pad_to_ratio: int | None = None


@dataclass(frozen=True)
class Request:
    """A question to a model, as a job states it: either `messages` for the chat template or a `prompt` as it is.

    Attributes:
        key: The row's name; it comes back in nothing but error messages.
        messages: Chat messages; `content` is a string or a list of `{"type": "image"}` and
            `{"type": "text", "text": ...}`. Control tokens inside texts are read as plain characters.
        prompt: The final text, image placeholders included, taken as it is.
        images: Compressed image bytes (JPEG, PNG, ...) in the order of their placeholders.
        sampling: How to answer.
        grid: Rows and columns of codes of a picture that `prompt` describes; the answer is then that picture. The
            prompt is read as plain text, and what asks for a picture of this size is put behind it.
        negative_prompt: What a guided picture is moved away from; None is the empty text.
        choices: Given continuations of the prompt to score in place of an answer; how to answer (`sampling`) then says
            nothing. They are plain text, control tokens included. See models/choices.py.
        preprocess: Image settings of this request alone, which go before the run's.
        shared: Says that other requests' prompts begin as this one does: up to its last image, and up to the end of
            this text where it has that. All of them together go through the decoder once (models/engine/prefixes.py).
            None says nothing: where nobody else begins so, the prompt is read faster in one piece.
    """

    key: str = ""
    messages: Sequence[Message] | None = None
    prompt: str | None = None
    images: Sequence[bytes] = ()
    sampling: Sampling = Sampling()
    grid: tuple[int, int] | None = None
    negative_prompt: str | None = None
    choices: tuple[str, ...] = ()
    preprocess: ImageSettings | None = None
    shared: str | None = None


@dataclass(frozen=True)
class PictureFormat:
    """How a drawn picture is encoded.

    Attributes:
        name: The file format; it is the file's extension too.
        quality: 1 to 100, for JPEG and WebP; PNG keeps every pixel and takes none.
    """

    name: Literal["png", "jpeg", "webp"] = "png"
    quality: int = 95


@dataclass(frozen=True)
class ModelInput:
    """A request made ready on the CPU; everything in it can travel as Arrow columns.

    Attributes:
        prompt: The rendered text, image placeholders not yet expanded.
        token_ids: int32 (T,), image placeholders expanded.
        tiles: uint8 pictures (height, width, 3), not normalised, in reading order.
        layout: A few integers per tile or image whose meaning belongs to the family.
        image_tokens: How many of `token_ids` stand for image features.
        image_names: A hash for each image (Aria: each tile) of its file and its settings: equal names, equal
            features. Questions about one image find its features by it.
        negative: int32 (T,), the negative prompt that guidance moves away from; None for no guidance.
        num_new_tokens: How many tokens the answer has, where a grammar fixes it (a picture of a given size).
        choices: int32 (T',) each, the continuations to score in place of an answer, none of them empty.
        shared_length: With how many of `token_ids` other inputs begin, too, as far as the request says so.
    """

    prompt: str
    token_ids: NDArray[np.int32]
    tiles: tuple[Pixels, ...] = ()
    layout: tuple[int, ...] = ()
    image_tokens: int = 0
    image_names: tuple[str, ...] = ()
    negative: NDArray[np.int32] | None = None
    num_new_tokens: int | None = None
    choices: tuple[NDArray[np.int32], ...] = ()
    shared_length: int = 0

    @property
    def is_drawn(self) -> bool:
        """Whether the answer is a picture; `layout` then holds its rows and columns of codes."""
        return self.num_new_tokens is not None


@dataclass(frozen=True)
class Completion:
    """What the engine produced for one prompt, still in tokens.

    Attributes:
        token_ids: Emitted ids, the stop token included.
        logprobs: Log-probability of each emitted id under the model's own distribution, before temperature and filters.
        finish_reason: `stop` for a stop id or stop string, `length` for the limit.
        image: The picture that the ids stand for, encoded, once it is decoded.
        choice_logprobs: One for each of the input's choices; the ids are then those of the likeliest.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    image: bytes | None = None
    choice_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What comes back for one request.

    Where it was to score choices, the answer is the likeliest of them, the first of equally likely ones: `text` is that
    choice as its tokens read, without blanks around it, and `finish_reason` is `stop`.

    Attributes:
        text: The answer without stop token, stop string and special tokens.
        image: The encoded picture, for requests that draw one.
        token_ids: Emitted ids, the stop token included.
        logprobs: One log-probability per emitted id.
        finish_reason: `stop` or `length`.
        prompt_tokens: Length of the prompt in tokens, image tokens included.
        image_tokens: How many of those stand for image features.
        choice_logprobs: The log-probability of each choice, in their order: the sum over its tokens.
        choice_tokens: How many tokens each choice has.
    """

    text: str
    image: bytes | None
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason
    prompt_tokens: int
    image_tokens: int
    choice_logprobs: tuple[float, ...] = ()
    choice_tokens: tuple[int, ...] = ()


class Processor(Protocol):
    """The CPU half of a family: it owns the tokenizer, the chat template and the tiling. Imports no torch.

    Attributes:
        stop_ids: Ids that end an answer: the checkpoint's eos list and the family's end-of-turn id.
        sees_images: Whether a request may have images.
        pixels_per_code: Side of what a code of a drawn picture stands for; None for families that draw nothing.
        max_position_embeddings: The longest sequence that the model was made for, prompt and answer together.
    """

    stop_ids: frozenset[int]
    sees_images: bool
    pixels_per_code: int | None
    max_position_embeddings: int

    @property
    def chat_fault(self) -> str | None:
        """Why requests with `messages` cannot be asked, whatever they say; None if they can."""

    def prepare(self, request: Request) -> ModelInput:
        """Render, tokenise and tile one request.

        Raises:
            BadRequest: The messages, placeholders or images contradict each other.
            BadImage: An image cannot be decoded.
        """

    def stop_condition(self, sampling: Sampling) -> Callable[[Sequence[int]], bool] | None:
        """Return a test that says whether the emitted ids hold a stop string; None when there are none to look for."""

    def to_answer(self, model_input: ModelInput, completion: Completion, sampling: Sampling) -> Answer:
        """Turn emitted ids back into an answer."""
