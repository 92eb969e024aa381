"""Train a toy Emu3, seeded: its VQ-VAE to copy pictures through codes, its decoder to write codes as it is told.

The book of codes is laid down first, so no part waits for another, and each has random numbers of its own.
"""

import logging
import random
from pathlib import Path

import torch

from models import load_model, load_processor
from models.emu3.config import read_config, read_images
from models.emu3.model import Emu3Model
from models.types import ImageSettings
from training.emu3.book import lay_book
from training.emu3.codec import new_codec, teach_to_name, teach_to_paint
from training.emu3.folder import write_files
from training.emu3.score import SAMPLING, copies, draw, new_captions, tally
from training.emu3.writer import Copybook, new_writer, teach_to_write
from training.questions import vocabulary
from training.weights import save_weights

log = logging.getLogger(__name__)

MINUTES = 21.0  # of one 2.5 GHz core, for this many steps
PAINT_STEPS, NAME_STEPS, WRITE_STEPS = 1_200, 600, 4_500
NEW_CAPTIONS = 400  # drawn to measure


def train(folder: Path, minutes: float, seed: int, *, num_captions: int = NEW_CAPTIONS) -> None:
    """Train a checkpoint and write it, then measure it as it was written, on pairs of shapes it was not shown.

    Steps, not seconds, end the training, so that a seed gives the same weights on any machine.
    """
    torch.set_num_threads(1)  # the matrices are so small that a second thread only spins
    share = minutes / MINUTES
    book = lay_book(random.Random(seed))
    write_files(folder, vocabulary(), book.num_codes)
    model = Emu3Model(read_config(folder), read_images(folder, ImageSettings()))
    new_codec(model.vqmodel, book, torch.Generator().manual_seed(seed))
    new_writer(model, book, torch.Generator().manual_seed(seed + 1))
    teach_to_paint(model.vqmodel, book, random.Random(seed + 10), round(share * PAINT_STEPS))
    teach_to_name(model.vqmodel, book, random.Random(seed + 20), round(share * NAME_STEPS))
    copybook = Copybook(load_processor(str(folder)), model, book)
    teach_to_write(model, copybook, random.Random(seed + 30), round(share * WRITE_STEPS))
    save_weights(model, folder, {})
    written = load_model(str(folder), device="cpu")
    assert isinstance(written, Emu3Model)
    named, ratio = copies(written.vqmodel, book, random.Random(seed + 40))
    log.info("new pictures: %.1f %% of the codes on shapes named, copies at %.1f dB", 100 * named, ratio)
    captions = new_captions(random.Random(seed + 50), num_captions)
    log.info("unseen pairs: %s", tally(draw(folder, captions, SAMPLING), captions))
