"""One fine-tuned decoder in every form that the recipes make of it: does each write the same greedy tokens?

A hundred prompts of random tokens are continued by the base model under its adapter, as transformers loads them, and by
each other form: merged, with packed weights, in compiled steps, exported, and served over HTTP.
"""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lm_recipes.launch import done, parse, recipe


@dataclass
class ParityBench:
    """Which adapter, how many tokens of each prompt, and where the record goes."""

    adapter: str = field(
        default="runs/sft-smollm2-lora", metadata={"help": "Adapter directory of a decoder (recipes/gpt/sft.py)."}
    )
    new_tokens: int = field(default=32, metadata={"help": "After each prompt; a text may end before."})
    output_dir: str = field(default="runs/bench-parity", metadata={"help": "Directory for results.json."})


def main() -> None:
    (args,) = parse(ParityBench, description=__doc__)

    from importlib.util import find_spec
    from tempfile import TemporaryDirectory

    from tqdm import tqdm
    from transformers import AutoModelForCausalLM

    from lm_recipes.artifacts import atomic_directory, write_results
    from lm_recipes.compression.agreement import load_whole
    from lm_recipes.compression.gguf_export import export_gguf
    from lm_recipes.compression.gguf_models import LlamaCpp, load_gguf
    from lm_recipes.compression.measuring import of_transformers
    from lm_recipes.compression.onnx_export import export_onnx
    from lm_recipes.compression.onnx_models import OnnxDecoder
    from lm_recipes.compression.parity import greedy_tokens, same_greedy_tokens
    from lm_recipes.decoding.compiled import with_compiled_steps
    from lm_recipes.decoding.generation import continue_prompts
    from lm_recipes.decoding.loading import load_for_inference
    from lm_recipes.decoding.strategies import strategy
    from lm_recipes.training.saved_adapters import merge_adapter

    start = time.perf_counter()
    greedy = strategy("greedy", max_new_tokens=args.new_tokens)
    model, tokenizer = load_for_inference(AutoModelForCausalLM, args.adapter, packed=False)
    with TemporaryDirectory() as name, atomic_directory(args.output_dir) as directory:
        scratch = Path(name)
        merge_adapter(args.adapter, scratch / "merged")
        merged, _ = load_whole(str(scratch / "merged"))
        packed, _ = load_for_inference(AutoModelForCausalLM, str(scratch / "merged"))
        (scratch / "onnx").mkdir()
        export_onnx(merged, tokenizer, scratch / "onnx", False)
        export_gguf(merged, tokenizer, scratch / "model.gguf", "f32")

        def compiled(prompts, new_tokens, ends):
            return continue_prompts(packed, tokenizer, prompts, with_compiled_steps(greedy), batch_size=1)

        of_gguf, _ = load_gguf(scratch / "model.gguf")
        of_gguf.generation_config = model.generation_config
        forms = {
            "merged": of_transformers(merged, tokenizer, 0).continues,
            "merged, packed weights": of_transformers(packed, tokenizer, 0).continues,
            "merged, --compile": compiled,
            "ONNX": OnnxDecoder(scratch / "onnx").continue_prompts,
            "GGUF F32, transformers": of_transformers(of_gguf, tokenizer, 0).continues,
        }
        if find_spec("llama_cpp"):
            forms["GGUF F32, llama.cpp"] = LlamaCpp(scratch / "model.gguf").continue_prompts
        said = greedy_tokens(model, tokenizer, args.new_tokens)
        metrics = {}
        for form, continues in tqdm(forms.items(), desc="forms"):
            metrics[form] = same_greedy_tokens(model, tokenizer, continues, args.new_tokens, said=said)

        # what a server answers is text, so texts are compared
        prompts = [prompt for prompt, _ in said]
        texts = tokenizer.batch_decode([tokens for _, tokens in said], skip_special_tokens=True)
        for form, served in {"merged, served": scratch / "merged", "base and adapter, served": args.adapter}.items():
            answers = asked_of_server(served, prompts, args.new_tokens, directory / "server.log")
            same = [answer == text for answer, text in zip(answers, texts, strict=True)]
            metrics[form] = {"same_continuations": sum(same) / len(same)}
        write_results(
            directory,
            config=asdict(args) | {"prompts": len(prompts)},
            inputs={"adapter": args.adapter},
            metrics={"side_by_side": {"against base and adapter in transformers": metrics}},
            seconds={"total": time.perf_counter() - start},
            more_versions=("onnx", "onnxruntime", "gguf"),
        )
    fewest = min(metrics, key=lambda form: metrics[form]["same_continuations"])
    done(
        f"{len(metrics)} forms compared; the fewest equal texts: {metrics[fewest]['same_continuations']:.0%}, {fewest}",
        args.output_dir,
        f"python recipes/report.py --keep {args.output_dir}",
    )


def asked_of_server(model, prompts: list[list[int]], new_tokens: int, log: Path) -> list[str]:
    """What recipes/gpt/serve.py answers to all prompts at once."""
    import httpx

    from lm_recipes.serving.load import server_process

    script = Path(__file__).parents[1] / "gpt" / "serve.py"
    with server_process([script, "--model_name_or_path", model, "--request_timeout", 600], log) as address:

        def ask(prompt: list[int]) -> str:
            asked = {"prompt": prompt, "max_tokens": new_tokens, "temperature": 0}
            response = httpx.post(f"{address}/v1/completions", json=asked, timeout=600).raise_for_status()
            return response.json()["choices"][0]["text"]

        with ThreadPoolExecutor(len(prompts)) as clients:
            return list(clients.map(ask, prompts))


if __name__ == "__main__":
    recipe(main)
