"""The tables of what is compared at a start: each row has the tests that prove it, by name."""

from __future__ import annotations

import ast
import functools

import pytest

from tests import ROOT
from tests.readme.blocks import table_after

_ASKED, _ADAPTERS = "trainer/test_asked.py", "trainer/test_adapters.py"
_EXCHANGED, _FIXED = "trainer/test_exchanged.py", "trainer/test_own_fixed.py"
_ON_OVER = "on a vault whose run is over"
PROVED: dict[str, tuple[str, ...]] = {
    "the model's parameters: names, shapes, dtypes": (
        "trainer/test_refusals.py::test_another_model",
        "trainer/test_other_machine.py::test_another_adapter_or_base_is_refused",
    ),
    "weights or optimizer state that loading has left out or changed": (
        "trainer/test_loaded.py::test_a_weight_that_was_not_loaded_is_loaded",
        "trainer/test_loaded.py::test_what_cannot_be_loaded_whole_is_refused_before_the_first_step",
        "trainer/test_loaded.py::test_every_part_of_the_state_is_compared",
        "loops/test_loaded.py::test_what_was_loaded_in_part_is_refused",
    ),
    "the optimizer's class, as it was at the save": (
        f"{_ASKED}::test_another_optimizer_is_refused",
        f"{_ASKED}::test_another_optimizer_than_a_stock_checkpoints_is_refused",
        f"{_EXCHANGED}::test_an_optimizer_of_another_class_is_named",
        "loops/test_asked.py::test_another_optimizer_is_refused",
    ),
    "the schedule's class, where it can't go on from the checkpoint's": (
        f"{_EXCHANGED}::test_a_schedule_that_cannot_take_the_place_of_another_is_named",
        f"{_EXCHANGED}::test_a_schedule_that_lacks_its_numbers_is_named",
        "loops/test_asked.py::test_a_schedule_that_cannot_take_the_place_is_named",
        "loops/test_asked.py::test_a_schedule_that_lacks_its_numbers_is_named",
    ),
    "the parameters that the optimizer trains": (
        f"{_ASKED}::test_other_trained_parameters_are_refused",
        "loops/test_asked.py::test_other_trained_parameters_are_refused",
    ),
    "an adapter's base model, by its weights (by its name, where these can't be compared)": (
        f"{_ADAPTERS}::test_another_base_model_is_refused",
        f"{_ADAPTERS}::test_the_same_base_model_under_another_name_goes_on",
        f"{_ADAPTERS}::test_where_only_names_are_known",
        f"{_ADAPTERS}::test_a_base_that_each_start_changes_by_drawn_numbers",
    ),
    "an adapter's type, targets, rank": (
        f"{_ADAPTERS}::test_another_part_of_the_model_is_refused",
        f"{_ADAPTERS}::test_another_type_of_adapter_is_refused",
        f"{_ADAPTERS}::test_what_makes_another_adapter_is_refused_by_its_config",
    ),
    "an adapter's alpha, dropout, other settings": (f"{_ADAPTERS}::test_another_scale_is_said",),
    "the training data, on a vault whose run is over": (
        f"{_ASKED}::test_a_fold_is_never_handed_the_weights_of_another",
    ),
    "the training data, on a run that goes on, or is over and has more epochs or steps asked for": (
        f"{_ASKED}::test_other_data_on_a_run_that_goes_on_are_said",
    ),
    "the ids of words: tokenizers, and tables that data set, collator and their functions read": (
        "trainer/test_vocabularies.py::test_tables_are_told_apart",
        "trainer/test_vocabularies.py::test_a_trainer_says_it",
        "trainer/test_vocabularies.py::test_a_loop_says_it",
    ),
    "files beside the checkpoints in `output_dir` that your script wrote, and that aren't there now": (
        "trainer/test_beside.py::test_files_that_an_empty_disk_lacks_are_said",
        "loops/test_output_folder.py::test_files_that_an_empty_disk_lacks_are_said",
    ),
    "learning rate, weight decay, betas, epsilon": (
        f"{_ASKED}::test_other_arguments_are_said_and_hold_as_is_said",
        "trainer/test_fork.py::test_a_fork_trains_with_its_own_learning_rate",
    ),
    "`save_steps`, `eval_steps`, `logging_steps`": (
        f"{_ASKED}::test_other_cadences_are_said_and_the_checkpoints_hold",
    ),
    "what each start makes anew: reference models, teachers, a loss's class weights, other tensors": (
        f"{_FIXED}::test_what_a_start_makes_otherwise_is_said",
        f"{_FIXED}::test_the_reference_of_trl_is_compared",
        f"{_FIXED}::test_what_a_script_makes_on_its_way_is_said",
        f"{_FIXED}::test_what_is_carried_is_no_such_thing",
    ),
    "schedule, steps in all, warm-up, gradient clipping, label smoothing, NEFTune, precision, loss": (
        f"{_ASKED}::test_other_arguments_are_said_and_hold_as_is_said",
        f"{_ASKED}::test_what_else_shapes_a_run_is_said",
        f"{_EXCHANGED}::test_a_schedule_that_takes_the_place_of_another_is_said",
    ),
    "the model's configuration, how attention is computed, the collator, the metric and data that choose the best "
    "checkpoint": (
        f"{_ASKED}::test_what_else_shapes_a_run_is_said",
        f"{_ASKED}::test_another_attention_is_said",
    ),
    "seed, on a vault whose run is over": (
        f"{_ASKED}::test_a_run_of_a_sweep_is_never_handed_the_weights_of_another",
    ),
    "seed, on a run that goes on, or is over and has more epochs or steps asked for": (
        f"{_ASKED}::test_another_seed_changes_nothing",
    ),
    "batch size, accumulation, workers, number of ranks, versions": (
        "exact/test_exact.py::test_another_run_is_said",
        f"{_ASKED}::test_another_machine_is_said_and_the_place_is_kept",
        f"{_ASKED}::test_another_number_of_ranks_is_said",
        "trainer/test_asked_epochs.py::test_each_row_is_trained_on_once_an_epoch",
    ),
}
"""By a row's first cell, as it stands in the guide, the tests that show what its second one says."""


SUMMED_UP: dict[str, tuple[str, ...]] = {
    "the model; an adapter's base model, type or targets; the optimizer; a schedule that can't go on from the "
    "checkpoint's": (
        "the model's parameters",
        "an adapter's base model",
        "an adapter's type",
        "the optimizer's class",
        "the parameters that the optimizer trains",
        "the schedule's class",
    ),
    "weights or optimizer state that loading has left out or changed": ("weights or optimizer state",),
    "training data or seed, on a vault whose run is over, with no more epochs or steps asked for": (
        f"the training data, {_ON_OVER}",
        f"seed, {_ON_OVER}",
    ),
    "learning rate, weight decay, betas": ("learning rate, weight decay",),
    "`save_steps`, `eval_steps`, `logging_steps`": ("`save_steps`",),
    "training data, ids of words, schedule, loss, precision, configuration, an adapter's scale": (
        "the training data, on a run that goes on",
        "the ids of words",
        "schedule, steps in all",
        "the model's configuration",
        "an adapter's alpha",
    ),
    "what each start makes anew: reference models, teachers, a loss's class weights": (
        "what each start makes anew",
    ),
    "files that the script wrote beside its checkpoints, on a disk that lacks them": (
        "files beside the checkpoints",
    ),
    "batch size, accumulation, workers, number of ranks, versions, seed": (
        "batch size, accumulation",
        "seed, on a run that goes on",
    ),
}
"""By a row's first cell, as it stands in the README, how the rows of the guide begin that it sums up."""


def test_every_row_has_its_tests() -> None:
    """A row that is added, or is put in other words, needs tests; the rows stand in their order."""
    assert [row[0] for row in table_after("## Changing arguments")] == list(PROVED)


def test_the_short_table_sums_up_the_long_one() -> None:
    """Each row of the README stands for rows of the guide, each of these for one, and says the same of them."""
    short = dict(row for row in table_after("## What is compared at a start"))
    assert list(short) == list(SUMMED_UP)
    begins = [begin for all_of in SUMMED_UP.values() for begin in all_of]
    long = dict(row for row in table_after("## Changing arguments"))
    assert sorted(next(one for one in begins if row.startswith(one)) for row in long) == sorted(begins)
    for row, all_of in SUMMED_UP.items():
        for begin in all_of:
            says = next(text for name, text in long.items() if name.startswith(begin))
            assert ("Error`" in says) == ("an error" in short[row]), (row, begin)
            assert says.startswith("said") == short[row].startswith("said"), (row, begin)


@pytest.mark.parametrize("test", sorted({test for tests in PROVED.values() for test in tests}))
def test_every_named_test_is_there(test: str) -> None:
    """Each name leads to a test."""
    file, _, name = test.partition("::")
    assert name in _tests_of(file)


@functools.cache
def _tests_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / "tests" / file).read_text())
    return {one.name for one in tree.body if isinstance(one, ast.FunctionDef)}
