"""The public names of tinyvae, all of them."""

from .datafiles import DataError as DataError
from .datasets import DATASETS as DATASETS
from .datasets import Dataset as Dataset
from .datasets import load_dataset as load_dataset
from .exact import TERMS as TERMS
from .exact import Callables as Callables
from .exact import Decomposition as Decomposition
from .exact import Target as Target
from .exact import decompose as decompose
from .exact import terms_under as terms_under
from .model import VAE as VAE
from .records import StepRecord as StepRecord
from .runfile import open_run as open_run
from .runfile import record as record
from .runs import Config as Config
from .runs import Run as Run
from .settings import Update as Update
from .training import Diverged as Diverged
from .training import Trainer as Trainer
