"""Serve a BERT: classes, tags, answers, choices, missing words or embeddings, by what its head was trained for.

python recipes/bert/serve.py --model_name_or_path runs/sentiment
curl 127.0.0.1:8000/classify -H 'content-type: application/json' -d '{"texts": ["All lost."], "evidence": true}'
"""

from dataclasses import dataclass, field

from lm_recipes.launch import UserError, parse, recipe


@dataclass
class ServeArguments:
    """What to serve, where, and how much of it. A key comes from the environment: LM_RECIPES_API_KEY."""

    model_name_or_path: list[str] = field(
        metadata={"help": "Model or adapter directory, or a Hub id; or several adapters of one base."}
    )
    host: str = field(default="127.0.0.1", metadata={"help": "Address to listen on; others than this need a key."})
    port: int = field(default=8000, metadata={"help": "Port to listen on; 0: any that is free."})
    max_waiting: int = field(default=128, metadata={"help": "Requests that may wait; the next is answered 429."})
    request_timeout: float = field(default=120.0, metadata={"help": "Seconds for a whole answer."})


def main() -> None:
    (args,) = parse(ServeArguments, description=__doc__)
    from lm_recipes.serving.launching import key_and_hosts, refuse_missing_extra

    for option in ("max_waiting", "request_timeout"):
        if getattr(args, option) <= 0:
            raise UserError(f"--{option} {getattr(args, option)}: must be above 0")
    key, hosts = key_and_hosts(args.host)
    refuse_missing_extra()
    from lm_recipes.serving.app import create_app, listen, run
    from lm_recipes.serving.limits import Settings
    from lm_recipes.serving.served import asked_of

    # a model that reads texts, and a free port, before anything is loaded
    if asked_of(args.model_name_or_path[0]) == "generate":
        raise UserError(f"{args.model_name_or_path[0]}: continues texts; use recipes/gpt/serve.py")
    bound = listen(args.host, args.port)
    settings = Settings(max_waiting=args.max_waiting, request_timeout=args.request_timeout, api_key=key, hosts=hosts)
    run(create_app(args.model_name_or_path, settings), bound)


if __name__ == "__main__":
    recipe(main)
