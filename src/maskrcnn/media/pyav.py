"""The library that decodes and encodes videos, and its errors in words."""

from types import ModuleType

from maskrcnn.errors import UserError
from maskrcnn.web import offline


def pyav(place: str) -> ModuleType:
    """The module `av`. Raises UserError where it is not installed; place: what needs it."""
    try:
        import av
    except ModuleNotFoundError as error:
        raise UserError(
            f"{place}: needs {error.name}, which is not installed",
            hint='install it with `pip install "maskrcnn[video]"`',
        ) from error
    return av


def refuse_offline(place: str) -> None:
    """Raise UserError where connections are forbidden."""
    if offline():
        raise UserError(f"{place}: cannot be read, this program is offline", hint="leave out --offline")


def reason(error: Exception) -> str:
    """What went wrong, without the arguments of functions."""
    return str(getattr(error, "strerror", "") or error or type(error).__name__).strip().rstrip(".")
