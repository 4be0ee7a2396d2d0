"""TensorBoard logs: what is shown, and what happens where they can't be written."""

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.utils.training.lives import file_size_limit
from utils.training.board import Board


def test_what_was_logged_after_the_saved_state_is_not_shown(tmp_path):
    for purge_step in (None, 5):
        board = Board(tmp_path, purge_step)
        for step in range(purge_step or 1, 9, 2):
            board.add_scalars({"loss": step + (purge_step or 0)}, step)
    shown = EventAccumulator(str(tmp_path)).Reload().Scalars("loss")
    assert [(event.step, event.value) for event in shown] == [(1, 1), (3, 3), (5, 10), (7, 12)]


def test_a_full_disk_ends_the_log_with_a_warning(tmp_path, capsys):
    board = Board(tmp_path)
    with file_size_limit(2000):
        for step in range(100):
            board.add_scalars({"loss": 1.0}, step)
    said = capsys.readouterr().err
    assert said.count("warning: ") == 1
    assert "File too large; nothing more is logged for TensorBoard" in said
    (file,) = tmp_path.iterdir()
    assert str(file) in said


def test_a_folder_that_can_t_be_made_is_no_reason_to_stop(tmp_path, capsys):
    (tmp_path / "file").touch()
    Board(tmp_path / "file" / "log").add_scalars({"loss": 1.0}, 0)
    assert capsys.readouterr().err.count("warning: ") == 1
