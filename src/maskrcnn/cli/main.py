"""The command `maskrcnn`: its verbs, and how every one of them fails."""

import errno
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import maskrcnn
from maskrcnn.cli.bench import bench
from maskrcnn.cli.bins import app as bins
from maskrcnn.cli.compare import compare
from maskrcnn.cli.convert import convert
from maskrcnn.cli.data import app as data
from maskrcnn.cli.eval import evaluate
from maskrcnn.cli.export import export
from maskrcnn.cli.info import info
from maskrcnn.cli.network import Terminal
from maskrcnn.cli.predict import predict
from maskrcnn.cli.quantize import quantize
from maskrcnn.cli.train import train
from maskrcnn.cli.zoo import zoo
from maskrcnn.download import WATCH
from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown

# As shells count: 128 + the signal's number.
INTERRUPTED, BROKEN_PIPE = 130, 141
# Package that a verb imports: extra of this one that installs it.
EXTRA_OF = {
    "torch": "torch",
    "torchvision": "torch",
    "hotcoco": "eval",
    "av": "video",
    "nncf": "quantize",
    "onnx": "export",
    "onnxscript": "export",
    "openvino": "openvino",
    "onnxruntime": "onnx",
}
# What typer finds wrong with a command line; only this kind of it has a public name.
WrongLine: Any = typer.BadParameter.__mro__[1]
DISK_REFUSES = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)


class Verbs(TyperGroup):
    """Runs a verb and turns what it raises into words on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the verb of a parsed command line."""
        try:
            return super().invoke(ctx)
        except WrongLine as error:
            if type(error).__name__ == "NoArgsIsHelpError":
                raise
            print_error(line_in_words(error))
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # The reader of stdout has left, as in `| head`: not worth a word, and nothing can be flushed to
            # it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(BROKEN_PIPE) from None
        except (UserError, OSError, MemoryError, RuntimeError, ModuleNotFoundError) as error:
            if os.environ.get("MASKRCNN_DEBUG"):
                raise
            told = in_words(error)
            if told is None:
                raise
            print_error(told)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(predict)
app.command()(info)
app.command()(convert)
app.command()(compare)
app.command()(train)
app.command("eval")(evaluate)
app.command()(export)
app.command()(quantize)
app.command()(bench)
app.add_typer(data, name="data")
app.add_typer(bins, name="bins")
app.command()(zoo)


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    """Mask R-CNN: segment images with any public checkpoint, train on your own, measure and compare."""


def main() -> None:
    """Run the command line; exit code 0 done, 1 the answer is no, 2 the user must change something."""
    if sys.argv[1:] == ["--version"]:
        print(f"maskrcnn {maskrcnn.__version__}")
        return
    for stream in (sys.stdout, sys.stderr):
        # A file name need not be text in the terminal's encoding.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # numpy's own threads would fight with those of the network and of the writers for the same cores: drawing
    # took 7 times as long on a busy machine.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if not os.environ.get("MASKRCNN_DEBUG"):
        # Decoders warn of odd metadata and torch of its future; a user can do nothing about either.
        warnings.simplefilter("ignore")
        os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    WATCH.set(Terminal())
    app(prog_name="maskrcnn")


def line_in_words(error: Any) -> UserError:
    """What typer says of a command line, as a sentence and a hint."""
    path = error.ctx.command_path if error.ctx else "maskrcnn"
    return UserError(error.format_message().rstrip("."), hint=f"`{path} --help` lists what it takes")


def in_words(error: Exception) -> UserError | None:
    """What a user can do something about, as a sentence and a hint; None for a mistake of ours."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return UserError("out of memory", hint="use a smaller --batch, or smaller images")
    if isinstance(error, ModuleNotFoundError) and error.name in EXTRA_OF:
        extra = EXTRA_OF[error.name]
        return UserError(
            f"this needs {error.name}, which is not installed",
            hint=f'install it with `pip install "maskrcnn[{extra}]"`',
        )
    if isinstance(error, OSError) and error.errno in DISK_REFUSES:
        return UserError(
            f"{error.filename or 'a file'}: {error.strerror}", hint="check its folder and free space"
        )
    return None


def print_error(error: UserError) -> None:
    """`error:` and `hint:` on stderr, one line each; control characters of hostile names are escaped."""
    print(f"error: {shown(error.message)}", file=sys.stderr)
    if error.hint:
        print(f"hint: {shown(error.hint)}", file=sys.stderr)
