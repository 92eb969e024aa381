"""CLIPScore, FID, KID and the decisions of GenEval and DPG-bench, on cases small enough to check by hand."""

import doctest
import io
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jobs.scoring.pass_at_k
import jobs.scoring.pictures
from jobs.scoring.pictures import clipscore, dpg, fid_kid, geneval
from jobs.scoring.pictures.clipscore import clip_pixels
from jobs.scoring.pictures.fid_kid import (
    Gaussian,
    Moments,
    features,
    frechet_distance,
    gaussian,
    inception_pixels,
    kid,
    moments,
    read_gaussian,
    write_gaussian,
)
from jobs.scoring.pictures.geneval import Box, decide


def normal_rows(seed: int, rows: int, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, width))


# CLIPScore


def test_clipscore_is_two_and_a_half_times_the_cosine_but_never_below_zero():
    pictures, captions = [[2, 0], [1, 1], [1, 0]], [[5, 0], [1, 0], [-1, 0]]
    assert clipscore.clipscore(pictures, captions) == pytest.approx([2.5, 2.5 / np.sqrt(2), 0])


def test_pictures_for_prompts_are_scored_times_a_hundred():
    assert clipscore.text_to_image_score([[1, 0], [1, 0]], [[1, 0], [-1, 0]]) == pytest.approx([100, 0])


def test_refclipscore_is_the_harmonic_mean_with_the_best_reference():
    references = [[[0, 1], [1, 0]], [[1, 1]]]
    found = clipscore.reference_clipscore([[1, 0], [0, 1]], [[1, 0], [0, 1]], references)
    near = 1 / np.sqrt(2)
    assert found == pytest.approx([2 * 2.5 / 3.5, 2 * 2.5 * near / (2.5 + near)])


def test_nothing_in_common_with_picture_and_references_gives_no_refclipscore():
    assert clipscore.reference_clipscore([[1, 0]], [[0, 1]], [[[1, 0]]]) == [None]


def test_embeddings_that_cannot_be_compared_are_named():
    with pytest.raises(ValueError, match="embedding 1 without a direction"):
        clipscore.clipscore([[1, 0], [0, 0]], [[1, 0], [0, 1]])
    with pytest.raises(ValueError, match=r"shapes \(1, 2\) and \(1, 3\)"):
        clipscore.clipscore([[1, 0]], [[1, 0, 0]])
    with pytest.raises(ValueError, match="references for 2 pictures, expected them for 1"):
        clipscore.reference_clipscore([[1, 0]], [[1, 0]], [[[1, 0]], [[1, 0]]])


# FID and KID


def test_fid_of_two_normal_distributions_is_the_closed_form():
    one = Gaussian(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    other = Gaussian(np.array([3.0, 1.0]), np.diag([1.0, 25.0]))
    assert frechet_distance(one, other) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 5) ** 2)


@pytest.mark.parametrize("module", [jobs.scoring.pictures, jobs.scoring.pass_at_k])
def test_the_examples_of_the_library_give_what_they_say(module):
    failed, attempted = doctest.testmod(module)
    assert failed == 0 < attempted


def test_the_example_of_the_documentation_runs(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).parent.parent.parent / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    np.save("real.npy", normal_rows(1, 30))
    np.save("drawn.npy", normal_rows(1, 30) + np.array([3, 0, 0, 0]))
    exec(example, {})
    assert float(capsys.readouterr().out) == pytest.approx(9)


def test_one_feature_is_enough():
    assert frechet_distance(gaussian([[0], [2]]), gaussian([[5], [7]])) == pytest.approx(25)


def test_a_set_is_no_way_from_itself_even_with_fewer_pictures_than_features():
    few = normal_rows(1, 5, 20)
    assert frechet_distance(gaussian(few), gaussian(few)) == pytest.approx(0, abs=1e-5)


def test_batches_and_workers_add_up_to_the_whole():
    rows = normal_rows(2, 57) + 1e6
    halves = [Moments(), Moments(), Moments()]
    for place, batch in enumerate(np.array_split(rows, 9)):
        halves[place % 2].add(batch)
    halves[0].join(halves[1])
    halves[0].join(halves[2])
    found = halves[0].gaussian()
    assert found.pictures == 57
    assert found.mean == pytest.approx(rows.mean(axis=0), rel=1e-15)
    assert found.covariance == pytest.approx(np.cov(rows, rowvar=False), rel=1e-6)


def test_an_empty_worker_takes_what_the_other_has():
    full, empty = Moments(), Moments()
    full.add(normal_rows(3, 10))
    empty.join(full)
    assert empty.gaussian().covariance == pytest.approx(np.cov(normal_rows(3, 10), rowvar=False))


def test_features_that_do_not_fit_are_refused():
    moments = Moments()
    moments.add([[1.0, 2.0]])
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected finite rows of 2"):
        moments.add([[1.0, 2.0, 3.0]])
    with pytest.raises(ValueError, match="expected finite rows"):
        moments.add([[1.0, np.nan]])
    with pytest.raises(ValueError, match="features of 1 pictures, expected two or more"):
        moments.gaussian()
    with pytest.raises(ValueError, match="features of 2 and of 3 numbers"):
        frechet_distance(gaussian(normal_rows(1, 9, 2)), gaussian(normal_rows(1, 9, 3)))
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(Gaussian(np.zeros(1), np.full((1, 1), np.inf)), gaussian([[0], [2]]))


def test_saved_moments_come_back():
    file = io.BytesIO()
    write_gaussian(file, gaussian(normal_rows(4, 30)))
    file.seek(0)
    assert frechet_distance(read_gaussian(file), gaussian(normal_rows(4, 30))) == pytest.approx(0, abs=1e-9)


def test_saved_moments_are_never_unpickled():
    class Trap:
        def __reduce__(self):
            return pytest.fail, ("unpickled",)

    file = io.BytesIO()
    np.savez(file, mu=np.array([Trap()], dtype=object), sigma=np.eye(1))
    file.seek(0)
    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_gaussian(file)
    with pytest.raises(ValueError):
        read_gaussian(io.BytesIO(pickle.dumps({"mu": [0.0], "sigma": [[1.0]]})))


def test_saved_moments_need_both_arrays_in_their_shapes():
    for arrays, message in [
        ({"mu": np.zeros(2)}, "expected mu and sigma"),
        ({"mu": np.zeros(2), "sigma": np.eye(3)}, "D, D"),
    ]:
        file = io.BytesIO()
        np.savez(file, **arrays)
        file.seek(0)
        with pytest.raises(ValueError, match=message):
            read_gaussian(file)


def test_small_sets_are_remarked_on():
    few, many = gaussian(normal_rows(5, 3)), Gaussian(np.zeros(4), np.eye(4), 20_000)
    assert len(fid_kid.caveats(few, many)) == 2
    assert "3 pictures" in fid_kid.caveats(few, many)[0]
    assert fid_kid.caveats(many, Gaussian(np.zeros(4), np.eye(4))) == []


def test_kid_of_two_pictures_each_is_the_formula():
    # Kernels of single numbers: (x y + 1)^3.
    found = kid([[0.0], [1.0]], [[2.0], [3.0]], seed=0)
    within = (1 + 1) + (7**3 + 7**3)
    across = 1 + 1 + 3**3 + 4**3
    assert found == (pytest.approx(within / 2 - 2 * across / 4), None, 2)


def test_kid_takes_equal_sets_whole_and_draws_from_unequal_ones_by_seed():
    one, other = normal_rows(6, 30), normal_rows(7, 40)
    assert kid(one, other[:30], seed=1) == kid(one, other[:30], seed=2)
    drawn = kid(one, other, seed=1, subsets=20)
    assert drawn == kid(one, other, seed=1, subsets=20)
    assert drawn.value != kid(one, other, seed=2, subsets=20).value
    assert drawn.subset == 30
    assert drawn.deviation > 0


def test_kid_is_near_zero_for_sets_alike_and_grows_with_their_distance():
    one, other = normal_rows(8, 400), normal_rows(9, 400)
    alike, apart = kid(one, other, seed=0).value, kid(one, other + 1, seed=0).value
    assert abs(alike) < 0.05 < apart


def test_kid_refuses_what_it_cannot_compare():
    with pytest.raises(ValueError, match="expected two finite rows or more"):
        kid([[1.0]], [[1.0], [2.0]], seed=0)
    with pytest.raises(ValueError, match="features of 2 and of 3 numbers"):
        kid(normal_rows(1, 4, 2), normal_rows(1, 4, 3), seed=0)


# Feature networks


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def mean_colors(pixels: np.ndarray) -> np.ndarray:
    return pixels.mean(axis=(1, 2))


def test_a_picture_for_inception_is_square_and_keeps_its_fractions_and_overshoots():
    pixels = inception_pixels(picture(40, 60))
    assert pixels.shape == (299, 299, 3)
    assert pixels.min() < 0
    assert pixels.max() > 255
    assert (pixels % 1 != 0).any()
    assert inception_pixels(Image.new("RGB", (31, 17), (10, 20, 30)))[5, 7].tolist() == [10, 20, 30]


def test_a_picture_for_clip_keeps_its_middle():
    stripes = Image.new("RGB", (672, 224), (255, 0, 0))
    stripes.paste((0, 255, 0), (224, 0, 448, 224))
    pixels = clip_pixels(stripes)
    assert pixels.shape == (224, 224, 3)
    assert (pixels == [0, 255, 0]).all()
    assert clip_pixels(picture(50, 331)).shape == clip_pixels(picture(331, 50)).shape == (224, 224, 3)


def test_pictures_reach_the_network_in_batches_as_they_are_read():
    sizes = []

    def network(pixels):
        sizes.append(len(pixels))
        return mean_colors(pixels)

    shown = [inception_pixels(picture(20, 20, seed)) for seed in range(5)]
    added = moments(features(iter(shown), network, batch=2))
    assert sizes == [2, 2, 1]
    whole = gaussian(mean_colors(np.stack(shown)))
    assert frechet_distance(added.gaussian(), whole) == pytest.approx(0, abs=1e-6)


def test_a_network_gives_one_row_a_picture():
    shown = [clip_pixels(picture(20, 20))]
    with pytest.raises(ValueError, match=r"shape \(3,\), expected one row for each of 1 pictures"):
        list(features(shown, lambda pixels: pixels.mean(axis=(0, 1, 2)), batch=8))


# GenEval


def box(left: float, top: float, *, score: float = 0.95, color: str | None = None, size: float = 100) -> Box:
    return Box((left, top, left + size, top + size), score, color)


def asked(tag: str, *include: dict, exclude: tuple = ()) -> dict:
    return {"tag": tag, "include": list(include), "exclude": list(exclude)}


def test_an_object_counts_above_its_threshold_only():
    single, counting = (
        asked("single_object", {"class": "cow", "count": 1}),
        asked("counting", {"class": "cow", "count": 1}),
    )
    assert decide(single, {"cow": [box(0, 0, score=0.31)]}).correct
    assert decide(single, {"cow": [box(0, 0, score=0.3)]}).reasons == ("expected cow>=1, found 0",)
    assert not decide(counting, {"cow": [box(0, 0, score=0.9)]}).correct
    assert decide(counting, {"cow": [box(0, 0, score=0.91)]}).correct


def test_too_many_objects_are_wrong_and_no_more_than_sixteen_are_seen():
    clauses = asked("counting", {"class": "cow", "count": 2}, exclude=({"class": "cow", "count": 3},))
    assert decide(clauses, {"cow": [box(0, 0)] * 2}).correct
    assert decide(clauses, {"cow": [box(0, 0)] * 40}).reasons == ("expected cow<3, found 16",)


def test_of_equally_sure_objects_the_later_comes_first():
    clause = asked("colors", {"class": "cow", "count": 1, "color": "red"})
    assert decide(clause, {"cow": [box(0, 0, color="blue"), box(0, 0, color="red")]}).correct
    assert not decide(clause, {"cow": [box(0, 0, color="red"), box(0, 0, color="blue")]}).correct


def test_only_the_surest_objects_are_looked_at_for_their_colour():
    clause = asked("colors", {"class": "cow", "count": 2, "color": "red"})
    boxes = [box(0, 0, score=0.9, color="red"), box(0, 0, score=0.8, color="blue"), box(0, 0, score=0.5, color="red")]
    assert decide(clause, {"cow": boxes}).reasons == ("expected red cow>=2, found 1 red; and 1 red, 1 blue",)


def test_a_colour_that_is_asked_for_must_be_known():
    with pytest.raises(ValueError, match="found a cow without a colour, expected one of red, orange"):
        decide(asked("colors", {"class": "cow", "count": 1, "color": "red"}), {"cow": [box(0, 0)]})
    assert decide(asked("single_object", {"class": "cow", "count": 1}), {"cow": [box(0, 0)]}).correct


@pytest.mark.parametrize(
    "left, top, relation", [(300, 0, "right of"), (-300, 0, "left of"), (0, 300, "below"), (0, -300, "above")]
)
def test_a_place_is_seen_from_the_other_object(left, top, relation):
    clauses = asked("position", {"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": [relation, 0]})
    opposite = {"right of": "left of", "left of": "right of", "below": "above", "above": "below"}[relation]
    assert decide(clauses, {"cow": [box(0, 0)], "dog": [box(left, top)]}).correct
    wrong = decide(clauses, {"cow": [box(left, top)], "dog": [box(0, 0)]})
    assert wrong.reasons == (f"expected dog {relation} target, found {opposite} target",)


def test_a_place_diagonally_beyond_is_two_places():
    clauses = asked("position", {"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["above", 0]})
    found = decide(clauses, {"cow": [box(0, 0)], "dog": [box(500, 500)]})
    assert found.reasons == ("expected dog above target, found right of and below target",)


def test_a_small_offset_is_no_place_at_all():
    clauses = asked("position", {"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]})
    assert decide(clauses, {"cow": [box(0, 0)], "dog": [box(20, 0)]}).reasons == (
        "expected dog right of target, found  target",
    )
    # Divided by the whole offset of 39, what is beyond 20 stays below a half.
    assert not decide(clauses, {"cow": [box(0, 0)], "dog": [box(39, 0)]}).correct
    assert decide(clauses, {"cow": [box(0, 0)], "dog": [box(41, 0)]}).correct


def test_without_its_target_an_object_has_no_place():
    clauses = asked("position", {"class": "cow", "count": 1}, {"class": "dog", "count": 1, "position": ["above", 0]})
    assert decide(clauses, {"dog": [box(0, 0)]}).reasons == (
        "expected cow>=1, found 0",
        "no target for dog to be above",
    )


def test_genevals_headline_counts_each_task_the_same():
    rows = [("colors", "a", True), ("colors", "a", False), ("counting", "b", False), ("colors", "c", True)]
    found = geneval.summarize(rows)
    assert found.overall == pytest.approx((2 / 3 + 0) / 2)
    assert (found.pictures, found.prompts) == (4, 3)
    assert (found.correct_pictures, found.correct_prompts) == pytest.approx((1 / 2, 2 / 3))
    with pytest.raises(ValueError, match="found no pictures"):
        geneval.summarize([])


# DPG-bench


def questions(parents: dict[int, tuple[int, ...]], asked: str = "entity - whole (a)") -> dict[int, dpg.Question]:
    return {number: dpg.Question(asked, on) for number, on in parents.items()}


def test_only_the_very_word_yes_counts():
    answers = {1: "yes", 2: "Yes", 3: "yes.", 4: "no"}
    assert dpg.score_picture(questions({1: (0,), 2: (0,), 3: (0,), 4: (0,)}), [answers]).score == 0.25


def test_a_no_reaches_down_a_chain_but_not_up():
    chain = questions({1: (0,), 2: (1,), 3: (2,), 4: (0,)})
    assert dpg.score_picture(chain, [{1: "no", 2: "yes", 3: "yes", 4: "yes"}]).score == 0.25
    assert dpg.score_picture(chain, [{1: "yes", 2: "yes", 3: "no", 4: "yes"}]).score == 0.75
    # Questions are gone through in order: the first is settled before its parent falls.
    turned = questions({1: (2,), 2: (3,), 3: (0,)})
    assert dpg.score_picture(turned, [{1: "yes", 2: "yes", 3: "no"}]).score == pytest.approx(1 / 3)


def test_crops_are_averaged_and_categories_take_the_last_before_zeroing():
    found = dpg.score_picture(questions({1: (0,), 2: (1,)}), [{1: "yes", 2: "yes"}, {1: "no", 2: "yes"}])
    assert found.crops == (1.0, 0.0)
    assert found.score == 0.5
    assert found.categories == {"entity - whole": [0.0, 1.0]}


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="no answer to question 2, expected one for each of 2"):
        dpg.score_picture(questions({1: (0,), 2: (1,)}), [{1: "yes"}])
    with pytest.raises(ValueError, match="question 1 that depends on 7"):
        dpg.score_picture(questions({1: (7,)}), [{1: "yes"}])
    with pytest.raises(ValueError, match="0 crops"):
        dpg.score_picture(questions({1: (0,)}), [])


def test_categories_are_means_over_answers_and_the_score_one_over_pictures():
    one = dpg.score_picture(questions({1: (0,), 2: (0,)}), [{1: "yes", 2: "no"}])
    other = dpg.score_picture(questions({1: (0,)}, "entity - part (b)"), [{1: "yes"}])
    found = dpg.summarize([one, other])
    assert (found.score, found.pictures) == (0.75, 2)
    assert found.fine == {"entity - part": 1.0, "entity - whole": 0.5}
    assert found.broad == {"entity": pytest.approx(2 / 3)}
    with pytest.raises(ValueError, match="found no pictures"):
        dpg.summarize([])


HEADER = "item_id,text,keywords,proposition_id,dependency,category_broad,category_detailed,tuple,"
TABLE = f"""{HEADER}question_natural_language
p1,"A cow, red",,1,0,entity,whole,entity - whole (cow),Is there a cow?
p1,"A cow, red",,2,1,attribute,color,"attribute - color (cow, red)",Is it red?
p2,A dog,,1,0,entity,whole,entity - whole (dog),Is there a dog?
p2,A dog,,2,"0, 1",other,count,other - count (dog),Is it one?
"""


def test_the_table_of_questions_is_read_as_the_official_loader_does():
    found = dpg.read_questions(io.StringIO(TABLE))
    assert found["p1"] == {2: dpg.Question("attribute - color (cow, red)", (1,), "Is it red?")}
    assert found["p2"][2].parents == (0, 1)
    assert list(dpg.read_questions(io.StringIO(TABLE), skip_first=False)["p1"]) == [1, 2]
