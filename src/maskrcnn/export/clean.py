"""Keeps exporters quiet, and removes what they leave in a graph."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import maskrcnn

if TYPE_CHECKING:
    from onnx import ModelProto


@contextmanager
def quiet() -> Iterator[None]:
    """Exporters warn and log of their own workings, other things in each version of torch."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def clean(graph: "ModelProto") -> None:
    """Leave what runs; torch notes the source line, with its folder, at every node."""
    graph.producer_name, graph.producer_version = "maskrcnn", maskrcnn.__version__
    del graph.metadata_props[:]
    del graph.graph.metadata_props[:]
    del graph.graph.value_info[:]
    for part in (*graph.graph.node, *graph.graph.initializer, *graph.graph.input, *graph.graph.output):
        del part.metadata_props[:]
        part.doc_string = ""
