"""A family of networks that is one file and one name (family.diff adds it), in all that knows of networks by name."""

from dataclasses import replace
from pathlib import Path

import ofa_pose
from ofa_pose.utils.files import dump_yaml, write_text


def profile():
    """Its costs are counted from its modules, and thop counts the same; a smaller one goes into a spec file."""
    result = ofa_pose.profile("simple-baseline", check=True)
    assert result.thop_recount == result.figures["macs"]["thop"] > result.figures["macs"]["exact"] > 0
    write_text("net.yaml", dump_yaml(replace(result.spec, resolution=64, width=8, deconv=16).to_dict()))


def pretrain(annotations, images):
    """A few steps, with an AP at the end."""
    data = [f"data.{split}.{part}" for split in ("train", "val", "test") for part in (annotations, images)]
    settings = ("steps=12", "batch=8", "lr=2e-3", "warmup=0", "workers=0", "evaluate_every=12", "evaluate_images=8")
    overrides = [*data, "decode.calibrate=false", *(f"train.{one}" for one in settings)]
    return ofa_pose.pretrain("run", recipe="nano", net="net.yaml", overrides=overrides, device="cpu").checkpoint


def evaluate_and_export(checkpoint):
    """The checkpoint is evaluated, and its ONNX model compared with torch."""
    assert 0 <= ofa_pose.evaluate("run", device="cpu").metrics["AP"] <= 1
    assert ofa_pose.export(checkpoint, out="models", formats=["onnx"]).reports["onnx"]["max_difference"] < 1e-4
    assert (Path("models") / "model.onnx").exists()


if __name__ == "__main__":
    drawn = ofa_pose.data_synth("scenes", images=16, size=64, seed=3, workers=1)
    profile()
    evaluate_and_export(pretrain(f"annotations={drawn.annotations}", f"images={drawn.images}"))
    timed = ofa_pose.latency_compare(["net.yaml", "litepose-xs"], rounds=1).nets
    assert 0 < timed[0].plain.total_ms < timed[1].plain.total_ms
