"""`splitplace models evaluate | profile`: the commands that measure; they need no torch."""

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from splitplace.commands.models.store import ApplicationArgument
from splitplace.commands.shared.output import JsonOption, print_json
from splitplace.commands.shared.places import StoreOption, model_store
from splitplace.errors import ExitCode
from splitplace.workshop.cutting.profile import reference_score
from splitplace.workshop.packing.description import timed
from splitplace.workshop.packing.evaluation import discrepancies, evaluate
from splitplace.workshop.packing.memory import with_memory
from splitplace.workshop.packing.pictures import labelled_pictures
from splitplace.workshop.packing.ratios import with_output_ratios
from splitplace.workshop.pieces.loaded import stage_runtime
from splitplace.workshop.report.tables import profile_table, variants_table


def evaluate_command(
    application: ApplicationArgument,
    *,
    data: Annotated[Path, typer.Option(help="The data set's files, or a folder of pictures for each class.")],
    dataset: Annotated[
        str,
        typer.Option(
            help="The published set that DATA holds. [default: that of its name, or of its classes]"
        ),
    ] = "",
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an application again on labelled pictures.

    Fails if a fragment is not the one its hash names, if a chain's logits differ from the whole network's, or
    if a stored accuracy is not reproduced.
    """
    models = model_store(store)
    images = labelled_pictures(models.application(application), data, dataset)
    found, results = evaluate(models, application, images)
    problems = list(discrepancies(found, results))
    if as_json:
        print_json({"application": application, "variants": results, "problems": problems})
    else:
        console = Console()
        console.print(variants_table(found, results))
        for problem in problems:
            console.print(problem, style="red")
    if problems:
        raise typer.Exit(ExitCode.PROBLEM)


def profile_command(
    application: ApplicationArgument,
    *,
    write: Annotated[bool, typer.Option("--write", help="Store what was measured.")] = False,
    keep_times: Annotated[
        bool, typer.Option("--keep-times", help="Keep the stored times, and measure the rest.")
    ] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure an application's fragments: time in one thread, memory, what compression leaves of outputs.

    Nodes and placement count with these until a node has measured a fragment itself.
    """
    models = model_store(store)
    stored = models.application(application)
    pieces = models.pieces_folder(stored.name)
    now = with_memory(with_output_ratios(stored, pieces), pieces)
    if not keep_times:
        now = timed(now, partial(stage_runtime, models, stored), reference_score())
    if write:
        models.save(now, (models.file_path(file.sha256).read_bytes() for file in now.files))
    if as_json:
        print_json({"application": application, "before": stored.fragments, "now": now.fragments})
        return
    console = Console()
    console.print(profile_table(stored, now))
    if write:
        console.print(f"written: {models.folder(now.name)}", markup=False)
