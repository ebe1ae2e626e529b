"""The image encoder of a model that sees: its weights and the largest image, from vision_config."""

from __future__ import annotations

from stack.sizing.fields import Fields
from stack.sizing.shapes import Vision

# Qwen's encoders take images of any size; their processors bound it by pixels: 16384 patches of 14 or 16 a side after
# merging (preprocessor_config.json: max_pixels 12845056 = 16384 x 28 x 28).
QWEN_MERGED_PATCHES = 16384


def vision_of(section: Fields | None, text_hidden: int) -> Vision | None:
    """The encoder that ``vision_config`` describes; None where the model only reads."""
    if section is None:
        return None
    hidden = section.count("hidden_size")
    layers = section.count("num_hidden_layers", "depth")
    inner = section.count("intermediate_size")
    patch = section.count("patch_size")
    merge = section.count("spatial_merge_size", default=1)
    image = section.count("image_size", default=0, least=0)
    # SigLIP and Qwen's encoders: four projections and two or three matrices of the MLP; three where it is gated
    matrices = 3 if "fullatt_block_indexes" in section.document else 2
    parameters = layers * (4 * hidden * hidden + matrices * hidden * inner)
    parameters += 3 * patch * patch * section.count("temporal_patch_size", default=1) * hidden
    merged = hidden * merge * merge
    parameters += merged * text_hidden + (merged * merged if merge > 1 else 0)
    patches = (image // patch) ** 2 if image else QWEN_MERGED_PATCHES * merge * merge
    return Vision(parameters, hidden, inner, patches)
