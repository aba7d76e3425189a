"""Stage `snapper_train`: stored features and boxes of any category to a model that snaps rough boxes."""

from roiseg.console import run_stage
from roiseg.params import PARAMS_FILE, load_section, read_yaml
from roiseg.snapper.params import SnapperParams
from roiseg.snapper.train import LIVE, train_snapper
from roiseg.stored import StoredSections
from roiseg.train.log import LiveCurves


def main() -> None:
    """Write `models/snapper` and `metrics/train/snapper`."""
    values = read_yaml(PARAMS_FILE)
    train_snapper(load_section(SnapperParams, "snapper", values), StoredSections.load(values), [LiveCurves(LIVE)])


if __name__ == "__main__":
    run_stage("snapper_train", main, check_all=True)
