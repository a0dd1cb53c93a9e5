"""tinyvae: watch, exactly, what a variational autoencoder does at every training step."""

import os
import sys

if sys.argv[:1] == [
    "-m"
]:  # `python -m tinyvae`: now, before NumPy is loaded, is the time for what tui/cli.py sets
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from .datasets import DATASETS as DATASETS
from .datasets import DataError as DataError
from .datasets import Dataset as Dataset
from .datasets import load_dataset as load_dataset
from .decomposition import TERMS as TERMS
from .decomposition import Decomposition as Decomposition
from .decomposition import decompose as decompose
from .joint import Callables as Callables
from .model import VAE as VAE
from .target import Target as Target
from .training import Diverged as Diverged
from .training import StepRecord as StepRecord
from .training import Trainer as Trainer
from .training import Update as Update
