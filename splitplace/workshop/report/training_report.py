"""The report beside the weights: how they were trained, and their measurements."""

from collections.abc import Sequence
from importlib.metadata import version

from splitplace.messages.application import Application
from splitplace.workshop.datasets import PUBLISHED
from splitplace.workshop.recipes.build import Built
from splitplace.workshop.recipes.recipes import Recipe
from splitplace.workshop.report.tables import COLUMNS, markdown, stage_rows
from splitplace.workshop.training.loop import Epoch

_BARS = "▁▂▃▄▅▆▇█"


def training_report(built: Built, recipe: Recipe) -> str:
    """Return the report as Markdown, with the command that repeats the build."""
    application, results = built.application, built.results
    facts = PUBLISHED[recipe.dataset]
    trained_on = facts.training_file_images - facts.held_out
    schedule = recipe.schedule
    narrowed = recipe.bottlenecks.items()
    command = f"splitplace models build {application.name} --data DIR --store store"
    lines = [
        f"# How the weights of `{application.name}` were made",
        "",
        f"Written by the build. To repeat it, in one thread, from a folder with {facts.name}:",
        "",
        "```",
        f"{command} --epochs {schedule.epochs} --seed {schedule.seed}",
        "```",
        "",
        f"- Data: {facts.name}. The first {facts.held_out:,} training images are held out for validation;",
        f"  the other {trained_on:,} are trained on. The {results[0].images:,} test images had no part in",
        "  training or in its choices: the files beside this report are measured on them.",
        f"- Whole network: {recipe.design}{_enlarged(recipe)}.",
        f"- Branches: {_beginning(recipe)}, trained together under one softmax{_teacher(recipe)}:",
        f"  {recipe.semantic_schedule}.",
        "- Chain: the whole network's own graph, cut so that its slowest part is as fast as possible,",
        "  by measured times.",
        *_optional(recipe),
        *(f"- Bottleneck after {part}: {to.channels} channels of bytes." for part, to in narrowed),
        f"- Weights are stored as {recipe.storage}, nodes compute with float32.",
        f"- Schedule: {schedule}.",
        *([f"- Then, from there: {recipe.second_schedule}."] if recipe.second_schedule else []),
        f"- {recipe.augmentation}, label smoothing {recipe.label_smoothing}.",
        f"- torch {version('torch')}, onnxruntime {version('onnxruntime')}.",
        "",
        "## Measured",
        "",
        "Times: one thread, ONNX Runtime, the best of several runs, on a machine of benchmark score",
        f"{application.reference_score}. Peak: weights and live tensors of a micro-batch, from the graph.",
        "",
        *markdown(COLUMNS, stage_rows(application, results)),
        "",
        "`diff` is the greatest difference of any logit from the whole network's.",
        "",
        "Each branch owns classes that look similar to the whole network:",
        "",
        *_groups(application),
        "",
        "## Training curves",
    ]
    for heading, curve in built.curves.items():
        accuracies = sparkline([epoch.validation_accuracy for epoch in curve])
        lines += ["", f"### {heading}", "", f"Validation accuracy: `{accuracies}`", "", *_curve(curve)]
    return "\n".join(lines) + "\n"


def sparkline(values: Sequence[float]) -> str:
    """Draw a curve in one line of text, scaled from its least value to its greatest."""
    least, span = min(values), (max(values) - min(values)) or 1.0
    return "".join(_BARS[int((value - least) / span * (len(_BARS) - 1))] for value in values)


def _groups(application: Application) -> list[str]:
    """List the classes of each branch, for every variant with several last stages."""
    return [
        f"- `{variant.name}/{stage.name}`: {', '.join(application.labels[index] for index in stage.classes)} "
        f"(accuracy on these: {stage.accuracy:.4f})"
        for variant in application.variants
        if len(variant.sinks) > 1
        for stage in variant.sinks
    ]


def _curve(curve: Sequence[Epoch]) -> list[str]:
    return markdown(
        ("epoch", "training loss", "validation accuracy", "CPU seconds"),
        (
            (
                str(number),
                f"{epoch.training_loss:.4f}",
                f"{epoch.validation_accuracy:.4f}",
                f"{epoch.seconds:.0f}",
            )
            for number, epoch in enumerate(curve, start=1)
        ),
    )


def _enlarged(recipe: Recipe) -> str:
    return f", which first enlarges the pictures to {recipe.side} pixels a side" if recipe.side else ""


def _teacher(recipe: Recipe) -> str:
    return " and with the whole network's answers" if recipe.distilled else ""


def _optional(recipe: Recipe) -> list[str]:
    """Describe what only some recipes have."""
    lines = []
    if recipe.compressed_schedule is not None:
        lines.append(
            f"- Compressed: the whole network pruned to {recipe.compressed_flops:.0%} of its operations."
        )
    if recipe.early_exits:
        after = " and ".join(map(str, recipe.early_exits))
        lines.append(
            f"- Early exits after blocks {after}, trained with the whole network; their losses have weight "
            f"{recipe.exit_share}."
        )
    if recipe.teacher:
        lines.append(
            f"- The whole network learnt the labels and, with half of the weight, the answers of the whole "
            f"network of `{recipe.teacher}`."
        )
    if recipe.bfloat16:
        parts = ", ".join(sorted(recipe.bfloat16))
        lines.append(f"- Trained with matrix products in bfloat16: {parts}.")
    return lines


def _beginning(recipe: Recipe) -> str:
    if recipe.specialised:
        return "the whole network with the head of each group, pruned"
    return f"{recipe.branch_design}, from random weights"
