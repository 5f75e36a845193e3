"""What is asked of TensorRT's builder, by a stand-in that has the documented calls and nothing else."""

import sys
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from maskrcnn.errors import UserError
from maskrcnn.export.form import Form, described
from maskrcnn.spec import Preprocess, Spec
from maskrcnn.stored_spec import plan_offset, stored_spec

pytest.importorskip("onnxscript")
SPEC = Spec(preprocess=Preprocess(short=96, long=150))


@dataclass
class Machine:
    """shapes: of the profile. reads: whether the parser takes the graph. plan: what the builder makes."""

    reads: bool = True
    plan: bytes | None = b"plan"
    shapes: dict[str, tuple] = field(default_factory=dict)
    flags: int = 0
    parsed: bytes = b""
    profiles: int = 0


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Let `import tensorrt` find it, and no model be traced."""
    found = Machine()

    class Builder:
        def __init__(self, logger: object) -> None: ...

        def create_network(self, flags: int) -> str:
            found.flags = flags
            return "network"

        def create_builder_config(self) -> SimpleNamespace:
            return SimpleNamespace(add_optimization_profile=lambda _: setattr(found, "profiles", 1))

        def create_optimization_profile(self) -> SimpleNamespace:
            return SimpleNamespace(set_shape=lambda name, *shapes: found.shapes.update({name: shapes}))

        def build_serialized_network(self, network: str, config: object) -> bytes | None:
            return found.plan

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: str, logger: object) -> None: ...

        def parse(self, graph: bytes) -> bool:
            found.parsed = graph
            return found.reads

        def get_error(self, number: int) -> SimpleNamespace:
            return SimpleNamespace(desc=lambda: "no Loop here")

    class Logger:
        ERROR = 1

        def __init__(self, level: int) -> None: ...

    module = SimpleNamespace(
        Builder=Builder,
        OnnxParser=OnnxParser,
        Logger=Logger,
        NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=1),
        init_libnvinfer_plugins=lambda logger, namespace: True,
        __version__="10.9",
        __spec__=ModuleSpec("tensorrt", None),
    )

    def graph(source: Path, form: Form) -> tuple[Spec, Any]:
        return described(SPEC, form, source), SimpleNamespace(SerializeToString=lambda: b"graph")

    monkeypatch.setitem(sys.modules, "tensorrt", module)  # type: ignore[arg-type]
    monkeypatch.setattr("maskrcnn.export.tensorrt.onnx_graph", graph)
    return found


def export(out: Path, form: Form | None = None) -> Spec:
    from maskrcnn.export.tensorrt import export_tensorrt

    return export_tensorrt("m.safetensors", out, form)


def test_the_file_is_the_description_and_then_the_plan(machine: Machine, tmp_path: Path) -> None:
    spec = export(tmp_path / "m.engine", Form(precision="bf16"))
    assert machine.parsed == b"graph"
    assert stored_spec(tmp_path / "m.engine") == spec
    assert spec.precision == "bf16"
    assert (tmp_path / "m.engine").read_bytes()[plan_offset(tmp_path / "m.engine") :] == b"plan"


def test_types_are_those_of_the_graph(machine: Machine, tmp_path: Path) -> None:
    """Bit 1, STRONGLY_TYPED: TensorRT otherwise computes boxes in as few bits as convolutions."""
    export(tmp_path / "m.engine")
    assert machine.flags == 2


def test_free_sides_reach_the_longest_that_the_preprocessing_gives(machine: Machine, tmp_path: Path) -> None:
    export(tmp_path / "m.engine")
    assert machine.shapes["image"] == ((1, 3, 64, 64), (1, 3, 96, 160), (8, 3, 160, 160))
    assert machine.shapes["size"] == ((1, 2), (1, 2), (8, 2))
    assert machine.profiles == 1


def test_a_fixed_form_is_the_only_shape(machine: Machine, tmp_path: Path) -> None:
    export(tmp_path / "m.engine", Form((96, 128), 4))
    assert machine.shapes["image"] == ((4, 3, 96, 128),) * 3


@pytest.mark.parametrize(
    ("reads", "plan", "reason"), [(False, b"plan", "no Loop here"), (True, None, "the builder gave up")]
)
def test_what_tensorrt_cannot_build_is_told_and_leaves_no_file(
    machine: Machine, tmp_path: Path, reads: bool, plan: bytes | None, reason: str
) -> None:
    machine.reads, machine.plan = reads, plan
    with pytest.raises(UserError, match=rf"TensorRT 10.9 cannot build it \({reason}\)"):
        export(tmp_path / "m.engine")
    assert not list(tmp_path.iterdir())
