"""The playground in Chromium: correct results and accessibility."""

import copy
import itertools
import json

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from playground import LEAST, METRICS, MODELS, page, rounded
from test_pages import CUT

from mflib import SVD
from mflib.bpr import bpr_step, hardest
from mflib.data import data_dir, load_movielens
from mflib.sparse import Entries
from mflib.warp import harmonic_numbers, warp_step

pytestmark = pytest.mark.browser
VIEWS = ("find", "you", "map", "step")
WIDTHS = (390, 600, 768, 1024, 1280, 1920)
USERS = 200
ROUNDING = 1e-9  # of float64, in sums of a few thousand terms
LARGEST_BOUND = 1e-3  # of a score's quantisation error; the page shows two digits


@pytest.fixture(scope="module")
def data():
    if not (data_dir() / "ml-100k").is_dir():
        pytest.skip("no data: python -m mflib.data ml-100k")
    return load_movielens("ml-100k")


@pytest.fixture(scope="module")
def models(data):
    """Train briefly: the page must agree with mflib for any models."""
    known = {"01_svd": data.ratings}
    kept = {"iterations": 4, "dtype": torch.float64}
    return {stem: kind(**kept).fit(known.get(stem, data.likes())) for stem, kind in MODELS.items()}


@pytest.fixture(scope="module")
def file(data, models, tmp_path_factory):
    two = SVD(2, iterations=10, dtype=torch.float64).fit(data.ratings)
    file = tmp_path_factory.mktemp("playground") / "playground.html"
    file.write_text(page(data, models, two.item_factors.numpy()), encoding="utf-8")
    return file


@pytest.fixture
def opened(show, file):
    """Return a function that opens a view and returns the page, errors and requests."""

    def opened(view="find", width=1280, height=900, scheme="light"):
        window, errors, requests = show(f"{file.as_uri()}#{view}", width, height)
        window.emulate_media(color_scheme=scheme)
        window.locator("html[data-ready]").wait_for(state="attached")
        return window, errors, requests

    return opened


def told(window, function, argument):
    """Evaluate a function in the page; a large result is transferred as one string."""
    return json.loads(
        window.evaluate(f"argument => JSON.stringify(({function})(argument))", argument)
    )


def swapped(found, expected, values, bound):
    """Assert that two lists are equal, except for values that differ by less than 2 * ``bound``."""
    assert len(set(found)) == len(found) == len(expected)
    gaps = abs(values[np.asarray(found)] - values[np.asarray(expected)])
    assert gaps.max(initial=0) <= 2 * bound


def test_all_neighbours_agree_with_mflib(opened, data, models):
    window, _, _ = opened()
    often = np.flatnonzero(data.likes().getnnz(0) >= LEAST)
    shown = told(
        window,
        """metrics => metrics.map((_, metric) => data.titles.map((_, id) => {
          Object.assign(state, { film: id, metric });
          showFilm();
          return [...document.querySelectorAll('.column')].map(column =>
            [...column.querySelectorAll('li')].map(li =>
              [Number(li.dataset.id), li.querySelector('.value').textContent.replace('−', '-')]));
        }))""",
        METRICS,
    )  # metrics x movies x models x 10 x (id, text)
    for place, model in enumerate(models.values()):
        zero = (model.item_factors == 0).all(1).numpy()
        for films, metric in zip(shown, METRICS, strict=True):
            every = np.arange(len(zero))
            ids, values = model.similar_items(every, 11, items=often, metric=metric)
            for film, lists in enumerate(films):
                if zero[film]:
                    assert lists[place] == [], "there is nothing to be said of a vector that is 0"
                    continue
                others = ids[film] != film
                expected = ids[film][others][:10]
                near = dict(zip(ids[film], values[film], strict=True))
                assert [i for i, _ in lists[place]] == expected.tolist() or all(
                    abs(near[i] - near[j]) < ROUNDING
                    for (i, _), j in zip(lists[place], expected, strict=True)
                )
                told_values = np.array([float(text) for _, text in lists[place]])
                want = (
                    abs(values[film][others][:10]) if metric == "l2" else values[film][others][:10]
                )
                assert abs(told_values - want).max() <= 0.00501


def some_votes(ratings):
    """Return likes (1) and dislikes (-1) from 1/7 of the ratings of 200 users with a like each."""
    cells = ratings.tocoo()
    kept = np.random.default_rng(0).random(cells.nnz) < 0.15
    values = np.where(cells.data >= 4, 1.0, -1.0)
    votes = sp.csr_matrix((values[kept], (cells.row[kept], cells.col[kept])), ratings.shape)
    chosen = votes[np.flatnonzero((votes > 0).getnnz(1))[:USERS]]
    assert (chosen < 0).getnnz() > USERS
    return chosen


def test_users_with_only_dislikes_get_no_recommendations(opened):
    window, _, _ = opened("you")
    window.evaluate("vote(3, -1)")
    assert window.locator("#recs li").count() == 0
    assert "The best vector for that is 0" in window.locator("#vector").inner_text()


@pytest.mark.parametrize(("alpha", "lam"), [(None, None), (20.0, 0.1), (0.0, 300.0)])
def test_recommendations_and_reasons_agree_with_mflib(opened, data, models, alpha, lam):
    """This includes dislikes; the scores may differ by the quantisation error."""
    window, _, _ = opened("you")
    als = copy.copy(models["02_als"])
    if alpha is not None:
        als.alpha, als.regularization = alpha, lam
        window.evaluate(
            "([alpha, lambda]) => Object.assign(state, { alpha, lambda })", [alpha, lam]
        )
    coarse = copy.copy(als)
    whole, scale = rounded(als.item_factors.numpy())
    coarse.item_factors = torch.from_numpy(whole * scale)
    votes = some_votes(data.ratings)
    asked = [list(zip(row.indices.tolist(), row.data.tolist(), strict=True)) for row in votes]
    shown = told(
        window,
        """users => users.map(votes => {
          state.votes = new Map(votes);
          showUser();
          const user = foldIn(data, votes, state.alpha, state.lambda);
          return recommended.map(({ id, score }) => ({ id, score, why: reasons(data, user, id),
            text: document.querySelector(`#recs [data-id="${id}"] .value`).textContent }));
        })""",
        asked,
    )
    items = np.arange(len(data.movies))
    scores = []
    for model in (als, coarse):
        P = model._fold_in(votes, "user")
        scores.append((P @ model.item_factors.T).numpy())
    bounds = abs(scores[0] - scores[1]).max(1)
    assert bounds.max() < LARGEST_BOUND
    expected, _ = als.recommend(np.arange(USERS), votes, recalculate_user=True)
    same = 0
    for user, films in enumerate(shown):
        found = [film["id"] for film in films]
        swapped(found, expected[user], scores[0][user], bounds[user] + ROUNDING)
        same += found == expected[user].tolist()
        for film in films:
            assert film["score"] == pytest.approx(scores[1][user, film["id"]], abs=ROUNDING)
            assert float(film["text"].replace("−", "-")) == pytest.approx(
                film["score"], abs=0.00501
            )
        best = films[0]
        _, shares = coarse.explain(0, votes[user], best["id"], N=len(items))
        why = [(part["id"], part["share"]) for part in best["why"]]
        assert [share for _, share in why] == pytest.approx([s for _, s in shares], abs=ROUNDING)
        assert dict(why) == pytest.approx(dict(shares), abs=ROUNDING)
    assert same > 0.95 * USERS, "few lists, if any, hold films so near to each other"


def test_a_badly_quantised_vector_is_detected(data, models):
    als = copy.copy(models["02_als"])
    row = data.likes()[:1]
    whole, scale = rounded(als.item_factors.numpy())
    exact = als.recommend(0, row, N=1, recalculate_user=True)[1]
    als.item_factors = torch.from_numpy((whole / 2**10).round() * scale * 2**10)
    assert abs(als.recommend(0, row, N=1, recalculate_user=True)[1] - exact) > LARGEST_BOUND


def random_toy(rng):
    likes = [sorted(rng.choice(4, 2, replace=False).tolist()) for _ in range(3)]
    start = {name: rng.normal(size=size).tolist() for name, size in (("P", 3), ("Q", 4), ("b", 4))}
    u = int(rng.integers(3))
    return {"likes": likes, **start}, u, int(rng.choice(likes[u]))


def tensors(toy):
    P, Q, b = (torch.tensor(toy[name], dtype=torch.float64) for name in "PQb")
    return P[:, None], Q[:, None], b


def test_steps_of_bpr_on_the_toy_agree_with_the_kernel(opened):
    window, _, _ = opened("step")
    rng = np.random.default_rng(0)
    for draws in (1, 4) * 10:
        toy, u, i = random_toy(rng)
        others = [j for j in range(4) if j not in toy["likes"][u]]
        candidates = rng.choice(others, draws).tolist()
        options = {"rate": 0.3, "lambdaUser": 0.1, "lambdaItem": 0.05}
        after = window.evaluate(
            """([toy, u, i, candidates, options]) => {
              const j = hardest(toy, u, candidates);
              return [j, bprStep(toy, u, i, j, options).loss, toy]; }""",
            [toy, u, i, candidates, options],
        )
        P, Q, b = tensors(toy)
        like = Entries.at(torch.tensor([u]), torch.tensor([i]), (len(P), len(Q)))
        j = hardest(P=P, Q=Q, b=b, likes=like, candidates=torch.tensor([candidates]))
        assert after[0] == j.item()
        rates = dict(
            zip(
                ("learning_rate", "user_regularization", "item_regularization"),
                options.values(),
                strict=True,
            )
        )
        loss = bpr_step(P=P, Q=Q, b=b, likes=like, negatives=j, **rates)
        assert after[1] == pytest.approx(loss.item(), abs=1e-12)
        for name, kernel in (("P", P), ("Q", Q), ("b", b)):
            assert after[2][name] == pytest.approx(kernel.flatten().tolist(), abs=1e-12)


def test_steps_of_warp_on_the_toy_agree_with_the_kernel(opened):
    window, _, _ = opened("step")
    rng = np.random.default_rng(0)
    searches = []
    for _ in range(40):
        toy, u, i = random_toy(rng)
        toy["b"] = [0, 0, 0, 0]
        drawn = rng.integers(4, size=5).tolist()
        options = {"rate": 0.1, "margin": float(rng.random()), "lambda": 0.2}
        after = window.evaluate(
            "([toy, u, i, drawn, o]) => [warpStep(toy, u, i, drawn, o), toy]",
            [toy, u, i, drawn, options],
        )
        searches.append(after[0]["needed"])
        kernel = warp_kernel(
            toy, u, i, drawn, options["margin"], options["rate"], options["lambda"]
        )
        assert after[0]["needed"] == kernel["needed"]
        assert after[0]["loss"] == pytest.approx(kernel["loss"], abs=1e-12)
        for name in "PQ":
            assert after[1][name] == pytest.approx(kernel[name], abs=1e-12)
    assert {0, 1} < set(searches), "some searches must find nothing, others need several draws"


def warp_kernel(toy, u, i, drawn, margin, rate, penalty=0.0):
    P, Q, _ = tensors(toy)
    losses, needed = warp_step(
        P=P,
        Q=Q,
        users=torch.tensor([u]),
        known=torch.tensor(toy["likes"][u]),
        rows=torch.tensor([0]),
        positives=torch.tensor([i]),
        draws=torch.tensor(drawn)[:, None],
        rank_weights=harmonic_numbers(4),
        margin=margin,
        learning_rate=rate,
        regularization=penalty,
    )
    return {
        "needed": needed.item(),
        "loss": losses.item(),
        "P": P.flatten().tolist(),
        "Q": Q.flatten().tolist(),
    }


@pytest.mark.parametrize("method", ["warp", "bpr"])
def test_the_first_step_agrees_with_the_lesson(opened, method):
    window, _, _ = opened("step")
    window.locator(f"[name=method][value={method}]").check(force=True)
    window.get_by_role("button", name="Take the step").click()
    toy = window.evaluate("toy")
    after = [toy["P"][0], *toy["Q"], *toy["b"]]
    if method == "warp":
        assert after == pytest.approx([1.03, 0.6, 0.8, 0.1, -1, 0, 0, 0, 0])
        assert "Draw 1: film B is liked itself" in window.locator("#log").inner_text()
        assert "Draw 3: film C scores 0.20, more than −0.50" in window.locator("#log").inner_text()
        assert "⌊3 / 3⌋ = 1" in window.locator("#log").inner_text()
    else:
        want = [0.969, 0.562, 0, 0.938, 0, 0.062, 0, -0.062, 0]
        assert after == pytest.approx(want, abs=0.0005)


@pytest.mark.parametrize("method", ["warp", "bpr"])
def test_clicked_steps_agree_with_the_kernel(opened, method):
    """Repeat the page's steps with its displayed draws."""
    window, _, _ = opened("step")
    window.locator(f"[name=method][value={method}]").check(force=True)
    if method == "bpr":
        window.get_by_label("highest of four").check(force=True)
    likes = window.locator("#toy td button")
    for n in range(8):
        likes.nth(n % likes.count()).click()
        while not window.locator("#take.main").count():
            window.locator("#draw").click()
        before = window.evaluate("toy")
        assert before["drawn"]
        window.locator("#take").click()
        after = window.evaluate("toy")
        u, i = before["u"], before["i"]
        if method == "warp":
            kernel = warp_kernel(before, u, i, before["drawn"], margin=1.0, rate=0.1)
            assert after["P"] == pytest.approx(kernel["P"], abs=1e-12)
            assert after["Q"] == pytest.approx(kernel["Q"], abs=1e-12)
        else:
            P, Q, b = tensors(before)
            like = Entries.at(torch.tensor([u]), torch.tensor([i]), (len(P), len(Q)))
            drawn = torch.tensor([before["drawn"]])
            assert drawn.shape == (1, 4)
            j = hardest(P=P, Q=Q, b=b, likes=like, candidates=drawn)
            penalties = {"user_regularization": 0.0, "item_regularization": 0.0}
            bpr_step(P=P, Q=Q, b=b, likes=like, negatives=j, learning_rate=0.1, **penalties)
            for name, factors in (("P", P), ("Q", Q), ("b", b)):
                assert after[name] == pytest.approx(factors.flatten().tolist(), abs=1e-12)


def test_shorter_searches_indicate_higher_ranks(opened):
    """Among 100 searches from the start, those for likes of rank 2 are shorter."""
    window, _, _ = opened("step")
    window.evaluate("TOY.searches = 2000")
    window.get_by_role("button", name="Search 100 times").click()
    rows = window.locator("#found tbody tr").all_inner_texts()
    assert len(rows) == 6
    for row in rows:
        rank, mean, expected = (float(part) for part in row.split("\t")[1:] if part.strip())
        assert expected == pytest.approx({1: 3.6, 2: 2.0}[rank], abs=0.05)
        assert mean == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_fits_all_widths_and_requests_nothing(opened, screenshots, view):
    window, errors, requests = opened(view)
    like(window, "Star Wars", "Alien")
    window.evaluate("route(false)")
    for scheme, width in itertools.product(("light", "dark"), WIDTHS):
        window.emulate_media(color_scheme=scheme)
        window.set_viewport_size({"width": width, "height": 844 if width < 800 else 1080})
        assert window.evaluate("document.documentElement.scrollWidth") <= width, (
            "it scrolls sideways"
        )
        assert window.evaluate(CUT) == [], "cut off at the right"
        window.screenshot(path=screenshots / f"playground-{view}-{width}-{scheme}.png")
    assert errors == []
    assert [url for url in requests if not url.startswith("file:")] == []
    refused = window.evaluate("fetch('data:,x').then(() => false, () => true)")
    assert refused, "the page may ask for nothing, not even for what it has"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_no_violations(opened, width, scheme):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="no axe-playwright-python"
    ).Axe()
    window, _, _ = opened("find", width, scheme=scheme)
    for view in VIEWS:
        window.evaluate(f"location.hash = '#{view}'")
        window.locator(f"#{view}-view").wait_for()
        like(window, "Star Wars", "Alien")
        window.evaluate("(drawOne(), showToy(), showSearches())")
        window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true })")
        if view != "step":
            window.locator(f"#{view}-box").fill("star")
        found = axe.run(window).response["violations"]
        assert [f"{view}: {f['id']}: {f['nodes'][0]['html'][:200]}" for f in found] == []


def like(window, *titles):
    for title in titles:
        window.evaluate(
            "title => vote(data.films.findIndex(film => film.name === title), 1)", title
        )


def test_labels_of_the_map_do_not_overlap_and_include_chosen_films(opened):
    window, _, _ = opened("map")
    like(window, "Star Wars", "Return of the Jedi", "The Empire Strikes Back", "Toy Story", "Fargo")
    boxes = """() => [...document.querySelectorAll('#map text.label')]
      .filter(text => text.textContent).map(text => {
        const box = text.getBoundingClientRect();
        return [text.textContent, box.left, box.top, box.right, box.bottom];
      })"""
    counts = set()
    for width, zoom in itertools.product((390, 1280), (1, 3, 12)):
        window.set_viewport_size({"width": width, "height": 900})
        window.evaluate("zoom => { lookAt([]); zoomBy(zoom); }", zoom)
        labels = window.evaluate(boxes)
        counts.add(len(labels))
        assert len(labels) >= 5
        for (a, *one), (b, *other) in itertools.combinations(labels, 2):
            apart = (
                one[0] >= other[2] or other[0] >= one[2] or one[1] >= other[3] or other[1] >= one[3]
            )
            assert apart, f"{a} and {b} overlap"
        if zoom == 1:
            names = [label for label, *_ in labels]
            assert "Star Wars" in names
            assert "Fargo" in names
    assert len(counts) > 1, "zooming must change what is labelled"


def test_the_map_is_moved_by_the_mouse_and_does_not_capture_scrolling(opened):
    window, _, _ = opened("map", 1280, 500)
    window.locator("#map").scroll_into_view_if_needed()
    box = window.locator("#map").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    where = "[map.zoom, map.x, map.y, state.picked]"
    before = window.evaluate(where)
    wheel = """() => document.getElementById('map').dispatchEvent(
        new WheelEvent('wheel', { deltaY: -200, cancelable: true }))"""
    assert window.evaluate(wheel), "the page must keep scrolling"
    assert window.evaluate(where) == before
    window.mouse.move(x, y)
    window.mouse.down()
    window.mouse.move(x + 100, y + 50, steps=4)
    window.mouse.up()
    zoom, left, up, picked = window.evaluate(where)
    assert (zoom, picked) == (before[0], before[3]), "to drag is not to click"
    assert left < before[1]
    assert up > before[2]
    assert not window.evaluate(wheel), "the map has been clicked, and the page stays"
    assert window.evaluate(where)[0] > zoom
    dot = "onScreen(map.labels.at(-1).id, view()).concat(map.labels.at(-1).id)"
    right, down, film = window.evaluate(dot)
    box = window.locator("#map").bounding_box()
    window.mouse.click(box["x"] + right, box["y"] + down)
    assert window.evaluate("state.picked") == film
    assert window.evaluate("nameOf(state.picked)") in window.locator("#picked").inner_text()


def test_the_playground_is_usable_by_keyboard(opened, screenshots):
    """Find a film, like it, open the recommendations, change a slider, move the map, step."""
    window, errors, _ = opened("find")
    press, focused = window.keyboard.press, "document.activeElement"

    def tab_to(selector):
        for _ in range(80):
            press("Tab")
            if window.evaluate(f"s => {focused}.matches(s)", selector):
                outline = window.evaluate(f"getComputedStyle({focused}).outlineStyle")
                assert outline != "none" or "radio" in selector, "the focus must be seen"
                return
        raise AssertionError(f"no way to {selector}")

    press("Tab")
    press("Enter")  # past the header
    assert window.evaluate(f"{focused}.id") == "content"
    tab_to("#find-box")
    window.keyboard.type("empire str")
    window.screenshot(path=screenshots / "playground-walk-keyboard-1.png")
    press("Enter")
    window.locator("#film h2:focus", has_text="The Empire Strikes Back").wait_for()
    tab_to("#film .like")
    press("Enter")
    assert window.evaluate(f"{focused}.getAttribute('aria-pressed')") == "true"
    press("Shift+Tab")
    for _ in range(20):
        if window.evaluate(f"{focused}.hash") == "#you":
            break
        press("Shift+Tab")
    press("Enter")
    window.locator("#you-title:focus").wait_for()
    assert window.locator("#recs li").count() == 10
    first = window.locator("#recs li").first.inner_text()
    tab_to("#alpha")
    for _ in range(20):
        press("ArrowRight")
    assert window.locator("#recs li").first.inner_text() != first
    tab_to("#recs .like")
    press("Enter")
    assert window.locator("#votes li").count() == 2
    assert window.evaluate(f"{focused}.closest('#recs') !== null"), "the focus stays in the list"
    assert "Recommended first:" in window.locator("#said").inner_text()
    window.screenshot(path=screenshots / "playground-walk-keyboard-2.png")
    window.locator("nav a[href='#map']").focus()
    press("Enter")
    window.locator("#map-title:focus").wait_for()
    tab_to("#map")
    before = window.evaluate("({ ...map, labels: 0, pen: 0, order: 0 })")
    for key in ("+", "+", "ArrowLeft", "ArrowUp"):
        press(key)
    after = window.evaluate("({ ...map, labels: 0, pen: 0, order: 0 })")
    assert after["zoom"] > before["zoom"]
    assert after["x"] < before["x"]
    assert after["y"] > before["y"]
    window.screenshot(path=screenshots / "playground-walk-keyboard-3.png")
    window.locator("nav a[href='#step']").focus()
    press("Enter")
    window.locator("#step-title:focus").wait_for()
    tab_to("#draw")
    for _ in range(3):
        press("Enter")
    press("Tab")
    press("Enter")
    assert window.evaluate("toy.steps") == 1
    window.screenshot(path=screenshots / "playground-walk-keyboard-4.png")
    window.go_back()
    window.locator("#map-view").wait_for()
    assert errors == []


def test_titles_are_found_in_any_spelling(opened, data):
    window, _, _ = opened()
    found = "text => matching(text).map(id => data.titles[id])"
    assert window.evaluate(found, "the empire")[0].startswith("Empire Strikes Back")
    assert window.evaluate(found, "Empire Strikes Back, The")[0].startswith("Empire Strikes Back")
    assert window.evaluate(found, "Thé Émpire strik")[0].startswith("Empire Strikes Back")
    assert window.evaluate(found, "no such film") == []
    window.locator("#find-box").fill("no such film")
    assert window.get_by_text("No film has this title.").first.is_visible()


def test_the_page_states_that_titles_must_not_be_published(opened):
    window, _, _ = opened()
    assert "titles must not be published" in window.locator("footer").inner_text()


def test_the_playground_is_usable_on_a_phone(opened, screenshots):
    """Every target is at least 32 pixels high, so a finger can hit it."""
    window, errors, _ = opened("you", 390, 844)
    shot = iter(range(1, 9))

    def picture():
        window.screenshot(path=screenshots / f"playground-walk-phone-{next(shot)}.png")

    picture()
    window.locator("#starters button").nth(1).click()
    window.locator("#you-box").fill("alien")
    picture()
    window.locator("#you-list").get_by_text("Aliens").click()
    assert window.locator("#votes li").count() == 2
    window.locator("#recs-title").scroll_into_view_if_needed()
    picture()
    window.locator("#recs .dislike").first.click()
    assert window.locator("#votes li").count() == 3
    window.locator("#recs a").nth(1).click()
    window.locator("#film-title:focus").wait_for()
    window.locator("#columns").scroll_into_view_if_needed()
    window.evaluate("document.getElementById('columns').scrollBy(300, 0)")
    picture()
    window.get_by_text("Show on the map").click()
    window.locator("#map text.label.picked").wait_for()
    window.locator("#map").scroll_into_view_if_needed()
    picture()
    window.locator("nav a[href='#step']").click()
    for _ in range(2):
        window.locator("#draw").click()
    window.locator("#line").scroll_into_view_if_needed()
    picture()
    low = """() => [...document.querySelectorAll('button, input, nav a, a.button')]
      .filter(e => e.checkVisibility() && e.type !== 'radio')
      .filter(e => e.getBoundingClientRect().height < 32)
      .map(e => e.outerHTML.slice(0, 90))"""
    for view in VIEWS:
        window.evaluate(f"location.hash = '#{view}'")
        window.locator(f"#{view}-view").wait_for()
        assert window.evaluate(low) == []
    assert errors == []


def test_the_playground_is_readable_on_a_projector(opened, screenshots):
    """Text has at least 18 pixels, and each view fits almost completely on one screen."""
    window, errors, _ = opened("find", 1920, 1080)
    size = "e => parseFloat(getComputedStyle(e).fontSize)"
    like(window, "Star Wars", "Alien", "Blade Runner")
    window.evaluate("drawOne(), drawOne(), drawOne(), showToy()")
    read = {
        "find": ("#columns a.film", 40),
        "you": ("#recs a.film", 8),
        "map": ("#map text.label", 15),
        "step": ("#toy td, #log li", 15),
    }
    for view, (selector, number) in read.items():
        window.evaluate(f"location.hash = '#{view}'")
        window.locator(f"#{view}-view").wait_for()
        window.locator(selector).first.wait_for()
        window.screenshot(path=screenshots / f"playground-walk-projector-{view}.png")
        texts = window.locator(selector)
        inside = texts.evaluate_all(
            "texts => texts.filter(t => t.getBoundingClientRect().bottom <= innerHeight).length"
        )
        assert inside >= number * 0.9, f"{view}: {inside} of {number} on the screen"
        assert texts.first.evaluate(size) >= (15 if view == "map" else 18)
    assert errors == []
