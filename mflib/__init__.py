"""Matrix factorization on MovieLens in readable torch: SVD, ALS, BPR and WARP."""

from mflib.als import ALS
from mflib.bpr import BPR
from mflib.popularity import Popularity
from mflib.svd import SVD
from mflib.warp import WARP

__all__ = ["ALS", "BPR", "SVD", "WARP", "Popularity"]
