"""Serve a GPT: OpenAI's chat and completions with log-probabilities, and a web page to try them on.

python recipes/gpt/serve.py --model_name_or_path runs/sft
python recipes/gpt/serve.py --model_name_or_path runs/lora-medical runs/lora-legal
LM_RECIPES_API_KEY=... python recipes/gpt/serve.py --model_name_or_path demo:smollm2 --host 0.0.0.0
"""

import os
import shutil
from dataclasses import dataclass, field

from lm_recipes.launch import UserError, parse, recipe


@dataclass
class ServeArguments:
    """What to serve, where, and how much of it. A key comes from the environment: LM_RECIPES_API_KEY."""

    model_name_or_path: list[str] = field(
        metadata={"help": "Model or adapter directory, demo:smollm2, or Hub id; or several adapters of one base."}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; others than this need a key."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0: any that is free."})
    max_new_tokens: int = field(default=512, metadata={"help": "Most tokens a request may ask for."})
    max_rows: int = field(default=64, metadata={"help": "Texts continued side by side."})
    max_waiting: int = field(default=128, metadata={"help": "Requests that may wait; the next is answered 429."})
    request_timeout: float = field(default=120.0, metadata={"help": "Seconds for a whole answer."})
    vllm: bool = field(default=False, metadata={"help": "Hand over to an installed vLLM (one GPU or more)."})


def main() -> None:
    (args,) = parse(ServeArguments, description=__doc__)
    from lm_recipes.serving.launching import key_and_hosts, refuse_missing_extra

    for option in ("max_new_tokens", "max_rows", "max_waiting", "request_timeout"):
        if getattr(args, option) <= 0:
            raise UserError(f"--{option} {getattr(args, option)}: must be above 0")
    key, hosts = key_and_hosts(args.host)
    if args.vllm:
        hand_over(args, key)
    refuse_missing_extra()
    from lm_recipes.serving.app import create_app, listen, run
    from lm_recipes.serving.limits import Settings
    from lm_recipes.serving.served import asked_of

    # a model that continues texts, and a free port, before anything is loaded
    asked = asked_of(args.model_name_or_path[0])
    if asked != "generate":
        raise UserError(f"{args.model_name_or_path[0]}: is there to {asked}; use recipes/bert/serve.py")
    bound = listen(args.host, args.port)
    settings = Settings(
        max_new_tokens=args.max_new_tokens,
        max_rows=args.max_rows,
        max_waiting=args.max_waiting,
        request_timeout=args.request_timeout,
        api_key=key,
        hosts=hosts,
    )
    run(create_app(args.model_name_or_path, settings), bound)


def vllm_command(models: list[str], host: str, port: int, max_rows: int) -> list[str]:
    """vLLM's server for the same models under the same names.

    Raises:
        UserError: adapters of different bases.
    """
    from pathlib import Path

    from lm_recipes.sources import resolve_model
    from lm_recipes.training.adapters import read_config
    from lm_recipes.training.saved_adapters import base_name

    paths = [resolve_model(model) for model in models]
    shared = ["--host", host, "--port", str(port), "--max-num-seqs", str(max_rows)]
    if not Path(paths[0], "adapter_config.json").is_file():
        if len(paths) > 1:
            raise UserError(f"{models[0]}: no adapter; several models can only be adapters of one base")
        name = Path(paths[0]).resolve().name if Path(models[0]).is_dir() else models[0]
        return ["vllm", "serve", paths[0], "--served-model-name", name, *shared]
    bases = {base_name(read_config(path)) for path in paths}
    if len(bases) > 1:
        raise UserError(f"{' '.join(models)}: adapters of different bases: {', '.join(sorted(bases))}")
    adapters = [f"{Path(path).resolve().name}={path}" for path in paths]
    return ["vllm", "serve", bases.pop(), "--enable-lora", "--lora-modules", *adapters, *shared]


def hand_over(args: ServeArguments, key: str | None) -> None:
    """Become vLLM's server.

    Raises:
        UserError: vLLM is not installed.
    """
    if shutil.which("vllm") is None:
        raise UserError("--vllm: there is no `vllm` command; install it where the GPU is, or drop --vllm")
    if key is not None:
        os.environ["VLLM_API_KEY"] = key
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    command = vllm_command(args.model_name_or_path, args.host, args.port, args.max_rows)
    os.execvp(command[0], command)


if __name__ == "__main__":
    recipe(main)
