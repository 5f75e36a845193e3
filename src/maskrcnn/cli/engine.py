"""What the verbs share that run a model: the option `--engine`."""

from typing import Annotated

import typer

# Of `maskrcnn.predict.ENGINES`, whose module would load numpy for --help.
NAMES = (
    "pytorch, pytorch-compiled, native, native-bf16, native-int8, onnxruntime, openvino, tensorrt or pplnn"
)

Engine = Annotated[
    str | None,
    typer.Option(help=f"{NAMES}; when left out what the file's suffix names.", show_default=False),
]
