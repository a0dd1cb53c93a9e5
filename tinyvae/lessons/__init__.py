"""The essay's claims as lessons: to watch, to predict, and to check.

`LESSONS` in order; each one's claims are held against numbers that are measured anew from a seed.
"""

from . import arrival, essay, leftovers, motion
from .lesson import Check as Check
from .lesson import Claim as Claim
from .lesson import Lesson as Lesson
from .lesson import Phase as Phase
from .lesson import play as play
from .truth import TrueMeter as TrueMeter

LESSONS = (*essay.LESSONS, *motion.LESSONS, *arrival.LESSONS, *leftovers.LESSONS)
