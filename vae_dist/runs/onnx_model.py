"""A network as an ONNX model, by torch's exporter, and as onnxruntime runs it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vae_dist.errors import UsageError

OPSET = 20  # of the operators


def write_onnx(
    network: nn.Module, example: Tensor, input_name: str, output_names: Sequence[str], metadata: Mapping[str, str]
) -> tuple[bytes, Callable[[Tensor], list[Tensor]]]:
    """Translate a network to ONNX.

    Args:
        network: in evaluation mode, on the CPU.
        example: a batch to trace it with; the file takes batches of any size.
        input_name: of the batch.
        output_names: of what the network returns.
        metadata: texts that the file keeps.

    Returns:
        The content of the file, and a function that runs it in onnxruntime.

    Raises:
        UsageError: a package is missing.
    """
    try:
        import onnxruntime
        import onnxscript  # noqa: F401 - torch's exporter is written in it
    except ImportError as error:
        raise UsageError(f"ONNX needs packages ({error}): pip install 'vae-dist[onnx]'.") from error
    program = torch.onnx.export(
        network,
        (example,),
        input_names=[input_name],
        output_names=list(output_names),
        opset_version=OPSET,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # noqa: S101 - of dynamo=True
    program.model.metadata_props.update(metadata)
    content = program.model_proto.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(batch: Tensor) -> list[Tensor]:
        outputs: list[Any] = session.run(None, {input_name: batch.numpy()})
        return [torch.from_numpy(output) for output in outputs]

    return content, run
