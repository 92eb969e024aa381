"""Train a toy Emu3, seeded: its VQ-VAE to copy pictures through codes, its language model to write codes for a text.

The codebook is fixed first, so no part waits for another, and each has random numbers of its own.
"""

import logging
import random
from itertools import islice
from pathlib import Path

import torch

from jobs.demo.prompts import held_out_captions
from models import load_model, load_processor
from models.emu3.model import Emu3Model
from training.emu3.codebook import build_codebook
from training.emu3.evaluation import draw, score_copies, score_pictures
from training.emu3.files import write_files
from training.emu3.language_model import DrawingBatcher, init_language_model, train_language_model
from training.emu3.vqvae import init_vqvae, train_decoder, train_encoder
from training.evaluation import summarize
from training.questions import vocabulary
from training.weights import save_weights

log = logging.getLogger(__name__)

MINUTES = 21.0  # of one 2.5 GHz core, for this many steps
DECODER_STEPS, ENCODER_STEPS, LANGUAGE_STEPS = 1_200, 600, 4_500
NEW_CAPTIONS = 400  # drawn to measure


def train(folder: Path, minutes: float, seed: int, *, num_captions: int = NEW_CAPTIONS) -> None:
    """Train a checkpoint and write it, then measure it as it was written, on pairs of shapes it was not shown.

    Steps, not seconds, end the training, so that a seed gives the same weights on any machine.
    """
    torch.set_num_threads(1)  # the matrices are so small that a second thread only spins
    share = minutes / MINUTES
    codebook = build_codebook(random.Random(seed))
    write_files(folder, vocabulary(), codebook.num_codes)
    model = Emu3Model(folder)
    init_vqvae(model.vqmodel, codebook, torch.Generator().manual_seed(seed))
    init_language_model(model, codebook, torch.Generator().manual_seed(seed + 1))
    train_decoder(model.vqmodel, codebook, random.Random(seed + 10), round(share * DECODER_STEPS))
    train_encoder(model.vqmodel, codebook, random.Random(seed + 20), round(share * ENCODER_STEPS))
    batcher = DrawingBatcher(load_processor(str(folder)), model, codebook)
    train_language_model(model, batcher, random.Random(seed + 30), round(share * LANGUAGE_STEPS))
    save_weights(model, folder, {})
    written = load_model(str(folder), device="cpu")
    assert isinstance(written, Emu3Model)
    found, ratio = score_copies(written.vqmodel, codebook, random.Random(seed + 40))
    log.info("new pictures: %.1f %% of the codes on shapes found, copies at %.1f dB", 100 * found, ratio)
    captions = list(islice(held_out_captions(random.Random(seed + 50)), num_captions))
    log.info("unseen pairs: %s", summarize(score_pictures(draw(folder, captions), captions)))
