"""Matrix factorization on MovieLens in readable torch: SVD, ALS, BPR and WARP.

The API follows the library implicit (0.7 or newer): ``fit``, ``recommend``, ``similar_items`` and
``similar_users`` are called in the same way, and ``implicit.evaluation`` accepts the models. These
differences are easy to miss:

- The confidence of ALS is c = 1 + alpha |r|; implicit uses alpha r. For interactions of 1, the
  ``alpha`` of implicit corresponds to ours + 1; for ratings in stars, no alpha makes them equal.
- The penalty of ALS is lambda n^nu for a row with n interactions; ``frequency_scaling=0`` is
  implicit's. ALS extrapolates; ``extrapolation=0`` does not.
- BPR has two penalties, and its negative is the highest-scoring of four uniform draws; ``draws=1``
  is the method of the paper.
- Each call of ``fit`` starts from scratch. A dense matrix is refused; a stored 0 is an empty entry.
- ALS treats a negative value as a dislike; BPR and WARP ignore values <= 0.
- After Ctrl-C, or when the callback returns True, the model is that of the last finished iteration.
- ``explain`` returns the score and the shares, without implicit's weights of the user.
- Factors are torch tensors; ``model.item_factors.numpy()`` is an array.
- If fewer than N items remain, the list is shorter (or padded with -1); already-liked items are
  never used as filler.
- Constructors take all parameters except ``factors`` by name, and have no ``num_threads`` or
  ``use_gpu``.
"""

from mflib.als import ALS
from mflib.bpr import BPR
from mflib.popularity import Popularity
from mflib.svd import SVD
from mflib.warp import WARP

__all__ = ["ALS", "BPR", "SVD", "WARP", "Popularity"]
