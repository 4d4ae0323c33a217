"""How does a trained model reach the Hub? Refusals before the first step, one upload after the last."""

from huggingface_hub import constants, get_token, whoami
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers import Trainer, TrainingArguments
from transformers.utils.hub import hf_api

from lm_recipes.launch import UserError, is_main_process

# Checkpoints are for resuming; pickles are not loaded here, so they are not handed out either; a classifier's report
# shows texts of its test split, which may be nobody else's business.
LEFT_OUT = ["_*", "checkpoint-*", "run.json", "training_args.bin", "report.html", ".*"]


def refuse_push_without_login(training_args: TrainingArguments) -> None:
    """With `push_to_hub`: is there a Hub, a login and a repository name? Asked before any training.

    Raises:
        UserError: offline, no token, a token the Hub does not know, a token on the command line, or a name that
            is not `name` or `owner/name`.
    """
    if training_args.hub_token:
        raise UserError("--hub_token would be written into results and logs; set HF_TOKEN or run `hf auth login`")
    if not training_args.push_to_hub:
        return
    if training_args.hub_model_id is not None:
        try:
            validate_repo_id(training_args.hub_model_id)
        except HFValidationError as error:
            raise UserError(f"--hub_model_id: {_one_line(error)}") from error
    if constants.is_offline_mode():
        raise UserError("--push_to_hub needs the Hub, but HF_HUB_OFFLINE is set: unset it, or drop --push_to_hub")
    if get_token() is None:
        raise UserError("--push_to_hub: not logged in; run `hf auth login`, set HF_TOKEN, or drop --push_to_hub")
    try:
        if is_main_process():
            whoami()
    except HfHubHTTPError as error:
        raise UserError(f"--push_to_hub: {constants.ENDPOINT} refused the login ({_one_line(error)})") from error
    except Exception as error:  # whatever the HTTP library of the day raises: no connection, no name, no answer
        raise UserError(f"--push_to_hub: {constants.ENDPOINT} cannot be reached ({_one_line(error)})") from error


def push_to_hub(trainer: Trainer, commit_message: str = "Model, tokenizer, card and results") -> None:
    """Upload the finished `output_dir` as it is, in one commit (main process; the others return at once).

    `Trainer.push_to_hub` would first write its own model card over ours.
    """
    if not trainer.is_world_process_zero():
        return
    trainer._finish_current_push()
    hf_api().upload_folder(
        repo_id=trainer.hub_model_id,
        folder_path=trainer.args.output_dir,
        commit_message=commit_message,
        ignore_patterns=LEFT_OUT,
        delete_patterns="training_args.bin",  # Trainer pushes it along with checkpoints (`hub_strategy`)
        revision=trainer.args.hub_revision,
    )


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
