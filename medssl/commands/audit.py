"""``medssl audit``: a pretraining in, and a page that says which cue without anatomy its network used, if any."""

from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import default_collate

from medssl.data.crops import CropDataset
from medssl.data.prepared import PreparedDataset
from medssl.data.splits import load_split
from medssl.errors import InputError
from medssl.evaluation.audit import Judgement, Lens, judge, posed, rescore, seen_through, sentences
from medssl.evaluation.controls import CONTROLS, Control, unchanged
from medssl.evaluation.cue_probes import cue_probes, probe_sentences
from medssl.evaluation.tables import write_table
from medssl.method import Method
from medssl.method_file import TrainedMethod, load_method
from medssl.networks import build_encoder
from medssl.report.audit import controls_chart, controls_table, probes_chart
from medssl.report.page import Section, html_report
from medssl.report.task import task_picture
from medssl.sample import Batch
from medssl.tracking import open_tracker, ui_command

_ROWS = 3  # images that a control is shown on


def audit(
    run: Path,
    *,
    data: Path,
    out: Path,
    sites: Path | None = None,
    crops: int = 256,
    batch_size: int = 8,
    probe_crops: int = 256,
    seed: int = 0,
) -> None:
    """Ask whether a pretext task was solved from a cue that carries no anatomy.

    The trained task is scored anew on held-out crops, once for each cue that is taken out of them, beside a sham of the
    same strength that leaves it in; linear probes tell position, intensity, and scan or site from the frozen features.

    Args:
        run: Folder that ``medssl pretrain`` wrote.
        data: The prepared images that it was trained on, the held-out ones among them.
        out: Folder of controls.csv, probes.csv, pictures, report.html and the MLflow store.
        sites: A CSV file with the columns scan and site; the probe then tells sites, not scans.
        crops: Held-out crops that the task is scored on.
        batch_size: Of them; intervals are over batches, and a task that compares images compares those of one batch.
        probe_crops: Crops that probes are fitted on, and as many that they are judged on.
        seed: Of the crops and all that is drawn.
    """
    trained, prepared = load_method(run / "method"), PreparedDataset(data)
    train, held_out = _parts(run, prepared, trained)
    site_of = None if sites is None else read_sites(sites)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    method = trained.method.to(device)
    samples = CropDataset(held_out, trained.patch_size, method.pretext, seed=seed, with_labels=False)
    rescored = rescore(method, _batches(samples, crops, batch_size, device))
    judgement = judge(rescored)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        arguments = trained.encoder_arguments
        untrained = build_encoder(trained.encoder, prepared.channels, prepared.spatial_dims, **arguments).to(device)
    encoders = {"trained": method.encoder, "untrained": untrained}
    probes = cue_probes(encoders, train, held_out, trained.patch_size, count=probe_crops, sites=site_of, seed=seed)
    first = next(_batches(samples, batch_size, batch_size, device))
    page(trained, judgement, probes, first, out)
    with open_tracker(out, "audit").run(run.resolve().name) as tracked:
        tracked.log_params(
            {"method": trained.name, "method_arguments": trained.arguments, "data": prepared.fingerprint}
            | {"crops": crops, "batch_size": batch_size, "probe_crops": probe_crops, "seed": seed}
            | {"used": ", ".join(judgement.used) or "none", "learnt": judgement.learnt}
        )
        tracked.log_metrics(_metrics(judgement, probes), 0)
        tracked.log_table(judgement.table, "controls")
        tracked.log_table(probes, "probes")
        tracked.log_folder(out / "pictures", "pictures")
        tracked.log_file(out / "report.html")
    print("\n".join(sentences(judgement) + probe_sentences(probes)))
    print(f"Report: {out / 'report.html'}\nMLflow: {ui_command(out)}")


def page(trained: TrainedMethod, judgement: Judgement, probes: pd.DataFrame, batch: Batch, out: Path) -> None:
    """Write the tables, the pictures and the page; ``batch`` is what the controls are shown on."""
    for name, table in (("controls", judgement.table), ("probes", probes)):
        write_table(out / f"{name}.csv", table)
    pictures = out / "pictures"
    controls_chart(judgement, pictures / "controls.png")
    probes_chart(probes, pictures / "probes.png")
    shown = [
        control_picture(trained.method, control, batch, pictures / f"{control.name.replace(' ', '_')}.png")
        for control in CONTROLS
        if control.name in set(judgement.table["control"])
    ]
    used, told = "\n\n".join(sentences(judgement)), "\n\n".join(probe_sentences(probes))
    html_report(
        f"Shortcut audit of {trained.name}",
        [
            Section("What the network used", used, controls_table(judgement), [pictures / "controls.png"]),
            Section("What its features tell", told, probes, [pictures / "probes.png"]),
            Section("The controls", "What the network sees: as it is, without the cue, with the sham.", None, shown),
        ],
        out / "report.html",
    )


def _metrics(judgement: Judgement, probes: pd.DataFrame) -> dict[str, float]:
    measure = judgement.measure
    scores = {f"{measure}/as it is": judgement.whole.mean, f"{measure}/exchanged": judgement.floor.mean}
    for row in judgement.table.itertuples():
        scores |= {f"{measure}/{row.control}": row.score, f"{measure}/{row.control} sham": row.sham}
    return scores | {f"probe/{row.cue}": row.accuracy for row in probes[probes["note"] == ""].itertuples()}


def read_sites(path: Path) -> dict[str, str]:
    """Read which site each scan is from.

    Raises:
        InputError: The file is missing, is no CSV, lacks a column, or gives a scan two sites.
    """
    try:
        table = pd.read_csv(path, dtype=str)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as a CSV file ({error}).") from error
    if not {"scan", "site"} <= set(table.columns):
        raise InputError(f"{path}: needs the columns scan and site, it has {', '.join(table.columns)}.")
    told = table.dropna(subset=["scan", "site"]).drop_duplicates(["scan", "site"])
    if twice := sorted(told["scan"][told["scan"].duplicated()]):
        raise InputError(f"{path}: gives more than one site for {', '.join(twice)}; a scan is from one.")
    return dict(zip(told["scan"], told["site"], strict=True))


def control_picture(method: Method, control: Control, batch: Batch, path: Path) -> Path:
    """Draw what a method's encoder sees of the same crops: as they are, under the control, and under its sham."""
    columns = {}
    for name, change in (("as it is", unchanged), ("without the cue", control.remove), ("sham", control.sham)):
        columns[name] = _first_seen(method, *posed(control, change, batch))
    task_picture(columns, path, f"{control.name}: {control.done}", rows=_ROWS)
    return path


def _first_seen(method: Method, batch: Batch, look: Lens) -> Tensor:
    """Give the first images that a method's network sees of a batch, through a lens."""
    seen: list[Tensor] = []

    def note(image: Tensor) -> Tensor:
        seen.append(look(image))
        return seen[-1]

    with torch.no_grad(), seen_through(method, note):
        method.loss(batch)
    return seen[0]


def _parts(run: Path, prepared: PreparedDataset, trained: TrainedMethod) -> tuple[PreparedDataset, PreparedDataset]:
    """Open the scans that the run was trained on, and those that it held out.

    Raises:
        InputError: It held none out, or the data are not those that it was trained on.
    """
    if prepared.preparation != trained.preparation:
        raise InputError(
            f"{prepared.root}: was prepared as {prepared.preparation}, the run's data as {trained.preparation}. Give "
            "the prepared images that the run was trained on."
        )
    split = load_split(run / "split.json")
    if not split.get("held_out"):
        raise InputError(
            f"{run}: held no scan out, and an audit is of crops that were not trained on. Pretrain with "
            "--held_out_count of at least 1."
        )
    return prepared.select(split["train"]), prepared.select(split["held_out"])


def _batches(samples: CropDataset, count: int, size: int, device: str) -> Iterator[Batch]:
    """Read whole batches of crops."""
    for first in range(0, count - size + 1, size):
        batch = default_collate([samples[number] for number in range(first, first + size)])
        yield {name: value.to(device) for name, value in batch.items()}
