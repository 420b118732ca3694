"""What may be tracked of recordings: anything but their names."""

from pathlib import Path

import pandas as pd


def require_untold(out: Path, *names: str) -> None:
    """Fail where MLflow's store under ``out`` holds a name: in a run, a file's name, a page or a table."""
    files = [path for path in (out / "mlartifacts").rglob("*") if path.is_file()]
    assert files
    for name in names:
        assert name.encode() not in (out / "mlflow.db").read_bytes(), f"the database tells {name}"
        for path in files:
            assert name not in str(path.relative_to(out)), f"the name of {path} tells {name}"
            table = path.suffix == ".parquet"
            text = pd.read_parquet(path).to_csv() if table else path.read_bytes().decode("latin-1")
            assert name not in text, f"{path} tells {name}"
