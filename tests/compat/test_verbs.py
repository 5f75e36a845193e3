"""How the command lines of others end."""

import pytest
import typer

from maskrcnn.compat.verbs import ends_in_words
from maskrcnn.errors import UserError


@pytest.mark.parametrize(
    ("raised", "code", "told"),
    [
        (
            UserError("a.jpg: is cut short", hint="fetch it"),
            2,
            "error: a.jpg: is cut short\nhint: fetch it\n",
        ),
        (MemoryError(), 2, "error: out of memory\nhint: use a smaller --batch, or smaller images\n"),
        (KeyboardInterrupt(), 130, ""),
        (typer.Exit(1), 1, ""),
    ],
)
def test_what_a_user_can_mend_is_told_and_ends_the_program(
    raised: BaseException, code: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, ends_in_words():
        raise raised
    assert ended.value.code == code
    assert capsys.readouterr().err == told


def test_a_mistake_of_ours_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError), ends_in_words():
        _ = 1 / 0
    monkeypatch.setenv("MASKRCNN_DEBUG", "1")
    with pytest.raises(UserError), ends_in_words():
        raise UserError("x", hint="y")
