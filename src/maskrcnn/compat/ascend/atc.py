"""Graphs for Ascend's compiler: its own operators, which nothing here can run, and its command line."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn.errors import UserError
from maskrcnn.whole_file import shown, whole_file

if TYPE_CHECKING:
    from maskrcnn.export.form import Form


def refuse_elsewhere(contract: str, flavour: str, chip: str | None) -> None:
    """Raise UserError where options of this contract are given for another one."""
    for option, given in ((f"--flavour {flavour}", flavour != "portable"), (f"--chip {chip}", chip)):
        if given and contract != "ascend":
            raise UserError(
                f"{option}: is for --contract ascend", hint="leave it out, or add --contract ascend"
            )


def write_for_atc(model: Path, out: Path, form: "Form") -> None:
    """Write a model with Ascend's operators, if these in torch find what the model finds.

    Ends the program with 1 where they find other things. Raises UserError for another suffix, and for what
    these operators cannot do.
    """
    import typer

    from maskrcnn.cli.main import print_error
    from maskrcnn.export.check import check, limits_of
    from maskrcnn.export.contracts.ascend_custom import SUFFIX, WithOperators, export
    from maskrcnn.export.scenes import drawn_scenes, hard_cases
    from maskrcnn.predict import Predictor, open_model

    if out.suffix.lower() != SUFFIX:
        raise UserError(f"{shown(out)}: ascend graphs are {SUFFIX} files", hint=f"let OUT end in {SUFFIX}")
    operators = WithOperators(model, out, form)
    # Boxes and scores are rounded to float16, as by a model of that precision.
    limits = limits_of(replace(operators.spec, precision="fp16"))
    scenes = [*drawn_scenes(), *hard_cases()]
    outcome = check(open_model(model, "cpu"), Predictor(operators), scenes, limits)
    if not outcome.passed:
        differs = f"the network with Ascend's operators differs from {shown(model)} {outcome.fault}"
        print_error(UserError(f"{shown(out)}: {differs}", hint="leave --flavour out"))
        raise typer.Exit(1)
    export(model, out, form)
    found = outcome.check
    print(
        f"its operators, in torch, on {len(scenes)} drawn images: {found.matched} of "
        f"{found.matched + found.missed} detections from a score of {limits.score:g} on, boxes within "
        f"{found.box_px:.2g} px; no engine here knows them, so that the graph itself was not run",
        file=sys.stderr,
    )


def compiler_line(out: Path, size: tuple[int, int] | None, chip: str) -> str:
    """The line that compiles a graph for inputs of (height, width) for a chip, as `npu-smi info` names it.

    A second one compiles it for bins of bytes, with OUT.aipp.cfg, which is written; not for models whose
    images are resized to fractions of a byte.
    """
    from maskrcnn.compat.ascend.aipp import aipp_config
    from maskrcnn.export.contracts.ascend import atc_command
    from maskrcnn.stored_spec import stored_spec

    assert size is not None  # a graph of this contract has one
    spec = stored_spec(out)
    if spec.preprocess.filter == "torch":
        return atc_command(out, size, chip)
    config = out.with_suffix(".aipp.cfg")
    with whole_file(config) as temporary:
        temporary.write_text(aipp_config(spec), encoding="ascii")
    return f"{atc_command(out, size, chip)}\n{atc_command(out, size, chip, config)}"
