"""How good similar movies are: series of titles, genres and series by hand."""

import numpy as np
import pandas as pd
import pytest
import torch
from known_answers import Fixed

from mflib.metrics import series_of, similarity_quality

TITLES = {
    "Star Wars: Episode IV (1977)": "a",
    "Star Wars: Episode V (1980)": "a",
    "Alien (1979)": "b",
    "Aliens (1986)": "b",
    "Alien 3 (1992)": "b",
    "Godfather, The (1972)": "c",
    "Godfather: Part II, The (1974)": "c",
    "Toy Story (1995)": "d",
    "Toy Story 2 (1999)": "d",
    "Sabrina (1954)": "",  # made twice, no series
    "Sabrina (1995)": "",
    "Ocean's 11 (1960)": "",
    "Heat (1995)": "",
}


def test_series_of_titles():
    found = series_of(pd.Series(list(TITLES)))
    names = np.array(list(TITLES.values()))
    assert (found[names == ""] == -1).all()
    for name in "abcd":
        assert len(set(found[names == name])) == 1
    assert len(set(found[names != ""])) == 4


def test_similarity_quality_by_hand():
    movies = pd.DataFrame(
        {
            "title": ["Jaws (1975)", "Jaws 2 (1978)", "Jaws 3 (1983)", "Heat (1995)", "Big (1988)"],
            "genres": ["Action|Horror", "Action|Horror", "Action", "Action|Crime", "Comedy"],
        }
    )
    model = Fixed(np.zeros((1, 5)))
    model.item_factors = torch.tensor(
        [[1, 0], [1, 0.1], [0, 1], [0.1, 1], [-1, -1]], dtype=torch.float64
    )
    items = np.array([0, 1, 2, 3])  # the nearest: 1, 0, 3, 2
    got = similarity_quality(model, movies, items, N=1)
    assert got["genres, cosine"] == pytest.approx((1 + 1 + 1 / 2 + 1 / 2) / 4)
    assert got["series, cosine"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3), (
        "Jaws and Jaws 2 find each other, Jaws 3 neither"
    )
    everything = similarity_quality(model, movies, items, N=3)
    assert everything["series, cosine"] == 1, "all the others are among the three nearest"
    assert similarity_quality(model, movies, items) == everything, (
        "of four movies no more than three are neighbours"
    )
    with pytest.raises(ValueError, match="at least two movies to be neighbours, got 1"):
        similarity_quality(model, movies, items[:1])
    assert similarity_quality(model, movies, [2, 1, 0, 3, 3, 0]) == everything, "each movie once"
    with pytest.raises(IndexError, match="item ids from 0 to 4"):
        similarity_quality(model, movies, [4, 5])


def test_without_series_or_genres_there_is_nothing_to_agree_on():
    movies = pd.DataFrame({"title": ["Heat (1995)", "Big (1988)"], "genres": ["", ""]})
    got = similarity_quality(Fixed(np.eye(2)), movies, np.arange(2))
    assert got["genres, cosine"] == 0
    assert np.isnan(got["series, cosine"])
