"""A training step again, without the processor's unit for tiles.

Some processors have, beside their vectors, a unit that multiplies whole tiles
of a matrix (AMX). With it products take so little time that everything else
counts more; so the step of `train_step` is measured once more as on the many
processors that have none. Most of these have no products in bfloat16 either,
and the book trains there in float32: that is measured as well.
"""

import os

os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE_BF16"  # read when first used

from benches import train_step
from llm_utils import has_tiles
from run import Stop

PACKAGES = train_step.PACKAGES


def measure() -> dict:
    if not has_tiles():
        raise Stop("no unit for tiles here: the step has been measured as is")
    return {
        "tiles": "left alone",
        **train_step.measure(),
        "float32": train_step.measure("float32"),
    }
