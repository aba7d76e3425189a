"""A U-net's logits in a store of their own, by the extraction that the detector's features go through."""

from pathlib import Path

import numpy as np
import pandas as pd
import zarr
from extraction_place import IMAGES, PATHS, SCALES
from onnx_factory import INPUT_HW, READER, cache_params, extractor_params, read_bgr
from person_unet_factory import bare_net

from roiseg.cache.reader import FeatureStore
from roiseg.cache.scales import save_scales
from roiseg.export.net_onnx import as_backbone
from roiseg.extractor.extract import extract
from roiseg.files import write_bytes
from roiseg.network_input import network_image
from roiseg.onnx_names import PERSON_LOGITS


def test_logits_of_both_views_are_stored(place: Path) -> None:
    # `teacher` is a reserved name among the layers of a detector, so the section isn't parsed with it.
    params = extractor_params(color="bgr").model_copy(update={"layers": {"teacher": PERSON_LOGITS}})
    write_bytes(PATHS.backbone, as_backbone(bare_net(4.0, INPUT_HW), "teacher", params).SerializeToString(deterministic=True))
    save_scales(SCALES, {})
    figures = extract("teacher@train", PATHS, params, cache_params(views=["plain", "mirrored"], image=False), READER)
    assert figures["images"] == IMAGES
    store = FeatureStore(PATHS.store)
    assert [(spec.name, spec.channels, spec.stride_hw) for spec in store.specs.values()] == [("teacher", 1, (1.0, 1.0))]
    group = zarr.open_group(PATHS.store, mode="r")
    for row, name in enumerate(pd.read_parquet(PATHS.index)["file_name"]):
        red = network_image(read_bgr(f"images/{name}"), params.input_rule())[2]
        for array, expected in (("teacher", red), ("mirrored/teacher", red[:, ::-1])):
            found = np.asarray(group[array][row, 0])  # type: ignore[index]
            assert found.dtype == np.float16
            np.testing.assert_allclose(found, expected * np.float32(4 / 255), rtol=2**-11)
